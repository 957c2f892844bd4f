"""Notice, before a bank is trained, that a user's network returns probabilities instead of logits."""

import torch

from memscore.data.splits import Splits
from memscore.models.architectures import build_network
from memscore.models.output_kinds import DESCRIPTIONS, PROBABILITIES, SIGMOIDS, find_output_kind
from memscore.models.random_state import seed_generators
from memscore.store.manifest import Manifest, split_architecture

IMAGES = 64


def find_network_output_kind(manifest: Manifest, splits: Splits) -> str:
    """Find the kind of a user's network whose outputs are no logits, by a few training images; empty if they can be.

    In evaluation mode, as its models are evaluated; networks of memscore end in a linear layer and are not built.
    """
    if ":" not in manifest.architecture or not len(splits.train):
        return ""
    network = build_network(
        split_architecture(manifest.architecture)[0], manifest.input_shape, manifest.n_classes, manifest.seed
    ).eval()
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (manifest.mean, manifest.std))
    images = (torch.from_numpy(splits.train.images[:IMAGES]).float() / 255 - mean) / std
    try:
        with torch.no_grad(), seed_generators(manifest.seed, torch.device("cpu")):
            # also a thousand times as bright: logits of an untrained network may all happen to lie between 0 and 1
            kind = find_output_kind(network(torch.cat([images, 1000 * images])).float())
    except KeyboardInterrupt:
        raise
    except BaseException:  # sys.exit too
        # its jobs will raise it too, and each such failure is recorded and printed
        return ""
    # before its training a network may well give every image the same outputs
    return kind if kind in {PROBABILITIES, SIGMOIDS} else ""


def format_output_warning(architecture: str, kind: str) -> str:
    """Format the warning of such a network, in one line."""
    return (
        f"the network {architecture}: {DESCRIPTIONS[kind]}; cross-entropy takes a softmax of its own, so the models "
        "train badly, and confidences and attacks mean something else; let it return the logits before that"
    )

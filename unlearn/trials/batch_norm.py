"""SCRUB on networks without a batch norm: its first climb moves nothing, which tables must say."""

from collections.abc import Mapping
from typing import Any

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from memscore.pipeline.jobs import build_model
from memscore.store.store import Store

CLIMBING = ("scrub", "scrub-rewind")


def describe_first_climb(
    store: Store, params: Mapping[str, Mapping[str, Any]], setting: str = "start=descent"
) -> list[str]:
    """Describe in a line, if it is so, that the first climb of SCRUB is lost on the networks of a bank.

    `params` are those of each algorithm that takes part; `setting` is how --set is written.
    """
    lost = [name for name in CLIMBING if name in params and params[name].get("start", "climb") == "climb"]
    if not lost:
        return []
    # Untrained: the layers alone matter.
    network = build_model(store, "untrained", 0, torch.device("cpu"))
    if any(isinstance(layer, _BatchNorm) for layer in network.modules()):
        return []
    return [
        f"{' and '.join(lost)}: this network has no batch norm, so the first of the ascent passes changes nothing "
        f"beyond weight decay; --set {setting} begins with a descent"
    ]

"""Gradient inversion of an original, and of two models that are each trained on one half of the training set.

The original holds every example, so nothing tells what its weights add to an attack that any network allows. Of the two
models of a pair, with equal initial weights, one holds an example and the other does not: the difference of what is
rebuilt from them is the gain. Both see as many examples, and each plays both parts, so that neither the size of the
training set nor a difference between the two favours a sign.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from memscore.models.architectures import count_parameters
from memscore.models.compiled_convolutions import compile_convolutions
from memscore.pipeline.jobs import (
    ORIGINAL,
    SharedData,
    build_model,
    load_on_device,
    make_training_run,
    read_recipe,
)
from memscore.pipeline.proxy_job import ProxyJob
from memscore.pipeline.start_weights import load_weights
from memscore.proxies.gradient_inversion import gradient_inversion
from memscore.proxies.image_similarity import find_among_images
from memscore.proxies.storage import CANDIDATES_PER_FILE, HALF_ENDINGS, draw_compared_rows
from memscore.seeds import generator
from memscore.store.example_ids import read_example_ids
from memscore.store.manifest import compute_original_key
from memscore.store.store import Store
from memscore.training.engines import select_engine
from memscore.training.loop import train
from memscore.training.numerics import is_finite
from memscore.training.recipes import count_steps

# memory for the gradients of one step of an inversion
GRADIENT_BYTES = 256 * 2**20

Columns = dict[str, np.ndarray]


def load_model(store: Store, index: int, key: str, device: torch.device) -> nn.Module:
    """Build the network of an original, or of a model of a half, with the stored weights, on the device."""
    model = build_model(store, ORIGINAL, index, device)
    load_weights(model, store.read_weights(key), f"the stored original {index}")
    return model


def draw_halves(store: Store, index: int) -> np.ndarray:
    """Draw the halves of the training set that belong to an original, bool [2, n_train]; complements of each other."""
    n_train = store.manifest.split_sizes[0]
    in_first = np.zeros(n_train, dtype=bool)
    in_first[generator(store.manifest.seed, "proxies", "inversion-halves", index).permutation(n_train)[::2]] = True
    return np.stack([in_first, ~in_first])


def compute_half_keys(store: Store, index: int) -> tuple[str, ...]:
    """Compute the keys of the two models of halves: those of oracles without the other half."""
    ids = np.array(read_example_ids(store).to_pylist()[: store.manifest.split_sizes[0]], dtype=object)
    halves = draw_halves(store, index)
    return tuple(compute_original_key(store.manifest, removed=ids[~half].tolist(), index=index) for half in halves)


def prepare_half(job: ProxyJob, shared: SharedData, store: Store, device: torch.device) -> Callable[[], Columns]:
    """Prepare the training of a model on one half; return the function that trains it and stores its weights.

    It has the initial weights and the random streams of its original, as an oracle has.
    """
    recipe, n_train, half = read_recipe(store), store.manifest.split_sizes[0], HALF_ENDINGS.index(job.ending)
    member = draw_halves(store, job.index)[half]
    model = build_model(store, ORIGINAL, job.index, device)
    data, labels = load_on_device(store, shared.images, shared.labels, model, recipe, device)
    runs = [make_training_run(store, ORIGINAL, job.index, model, member)]
    compile_convolutions(model, store.manifest.input_shape)

    def train_half() -> Columns:
        engine = select_engine(runs, data, labels, recipe).engine(runs)
        train(runs, data, labels, recipe, count_steps(recipe, float(member.mean()), n_train), engine=engine)
        if not is_finite(model):
            raise ArithmeticError("training on a half of the training set diverged; a smaller --lr gives another bank")
        # the weights first: the file of memberships says that they are there
        store.write_weights(job.trains, model.state_dict())
        return {"row": np.arange(n_train, dtype=np.int32), "member": member}

    return train_half


def prepare_inversion(job: ProxyJob, shared: SharedData, store: Store, device: torch.device) -> Callable[[], Columns]:
    """Prepare the attack on the job's rows of the original; return the function that runs it."""
    attack = prepare_attack(job, shared, store, device)
    theta_o, rows = load_model(store, job.index, job.key, device), np.array(job.rows)
    others = draw_compared_rows(store.manifest.seed, store.manifest.split_sizes[0])

    def run_attack() -> Columns:
        scores = attack(theta_o)
        nearest, percentile = find_among_images(scores["rebuilt"], rows, shared.images, others)
        names = ("psnr", "ssim", "success", "psnr_fitted", "ssim_fitted")
        return {
            "row": rows.astype(np.int32),
            **{f"inversion_{name}": scores[name].astype(np.float64) for name in names},
            "objective": scores["objective"],
            "inversion_retrieval": nearest,
            "inversion_percentile": percentile,
            **({"rebuilt": convert_to_bytes(scores["rebuilt"])} if job.index == 0 else {}),
        }

    return run_attack


def prepare_gain(job: ProxyJob, shared: SharedData, store: Store, device: torch.device) -> Callable[[], Columns]:
    """Prepare the attacks on the job's rows of both models of halves; return the function that runs them."""
    attack = prepare_attack(job, shared, store, device)
    models = [load_model(store, job.index, key, device) for key in job.halves]
    rows = np.array(job.rows)
    holder = draw_halves(store, job.index)[1, rows].astype(int)  # which of the two models holds the example

    def run_attacks() -> Columns:
        scores = [attack(model) for model in models]
        both = {name: np.stack([each[name] for each in scores]) for name in ("psnr_fitted", "rebuilt")}
        each = np.arange(len(rows))
        fitted_held, fitted_left_out = both["psnr_fitted"][holder, each], both["psnr_fitted"][1 - holder, each]
        held, left_out = (convert_to_bytes(both["rebuilt"][which, each]) for which in (holder, 1 - holder))
        return {
            "row": rows.astype(np.int32),
            "inversion_gain": fitted_held - fitted_left_out,
            "psnr_fitted_held": fitted_held,
            "psnr_fitted_left_out": fitted_left_out,
            **({"rebuilt_held": held, "rebuilt_left_out": left_out} if job.index == 0 else {}),
        }

    return run_attacks


def prepare_attack(
    job: ProxyJob, shared: SharedData, store: Store, device: torch.device
) -> Callable[[nn.Module], dict[str, np.ndarray]]:
    """Prepare the attack on the job's rows; return the function of a model that runs it."""
    manifest = store.manifest
    model = build_model(store, ORIGINAL, job.index, device)
    images, labels = load_on_device(store, shared.images, shared.labels, model, read_recipe(store), device)
    rows = torch.tensor(job.rows, device=device)
    part = int(job.ending.rpartition("-")[2])
    normalisation = (manifest.mean, manifest.std)

    def attack(model: nn.Module) -> dict[str, np.ndarray]:
        # the starting images come from a random stream of this original and part, the same one for each of its models
        rng = generator(manifest.seed, "proxies", f"inversion-{job.index:05d}", part)
        chunk = compute_inversion_chunk(model)
        return gradient_inversion(model, images.take(rows), labels[rows], normalisation, job.attack, rng, chunk=chunk)

    return attack


def convert_to_bytes(images: np.ndarray) -> np.ndarray:
    """Convert images from [0, 1] to uint8 [n, C H W]."""
    return np.asarray((images * 255).round().astype(np.uint8).reshape(len(images), -1))


def compute_inversion_chunk(model: nn.Module) -> int:
    """Compute how many examples an inversion attacks at once, by the memory of their float32 gradients."""
    return int(np.clip(GRADIENT_BYTES // (4 * count_parameters(model)), 1, CANDIDATES_PER_FILE))

"""Seed the global generators of torch, NumPy and Python while one network is built, trained or evaluated.

A network may draw: dropout, drop path and noise take their numbers from torch's generator of their device, and a user's
forward pass may use NumPy's or Python's. All of these are global to the process. Seeded by the network's own seed, what
it draws does not depend on what ran before it, in which process, or beside which other models.
"""

import random
from collections.abc import Generator
from contextlib import contextmanager

import numpy as np
import torch


def read_generators(device: torch.device) -> dict[str, object]:
    """Return the states of all global generators by a name for messages, to compare them with later ones."""
    states: dict[str, object] = {
        "torch's generator on the CPU": bytes(torch.default_generator.get_state().numpy()),
        # ruff: ignore[numpy-legacy-random] - nothing is drawn
        "numpy's generator": repr(np.random.get_state(legacy=False)),
        "Python's generator": random.getstate(),
    }
    if device.type == "cuda":
        states["torch's generator on the GPU"] = bytes(torch.cuda.get_rng_state(device).numpy())
    return states


@contextmanager
def restore_generators(device: torch.device) -> Generator[None, None, None]:
    """Restore all global generators afterwards: torch's on the CPU and on a GPU, NumPy's, Python's."""
    # A GPU's state is its seed and its position, both on the host: neither call waits for the device. A CUDA graph that
    # draws reads them at each replay.
    on_gpu = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    on_cpu, python = torch.default_generator.get_state(), random.getstate()
    numpy = np.random.get_state(legacy=False)  # ruff: ignore[numpy-legacy-random] - a user's network may draw from it
    try:
        yield
    finally:
        torch.default_generator.set_state(on_cpu)
        random.setstate(python)
        np.random.set_state(numpy)  # ruff: ignore[numpy-legacy-random]
        if on_gpu is not None:
            torch.cuda.set_rng_state(on_gpu, device)


@contextmanager
def seed_generators(seed: int | None, device: torch.device) -> Generator[None, None, None]:
    """Seed all global generators inside the context and restore them afterwards; None changes nothing."""
    if seed is None:
        yield
        return
    with restore_generators(device):
        # not torch.manual_seed, which reaches all GPUs' generators too
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        random.seed(seed)
        np.random.seed([seed & 0xFFFFFFFF, seed >> 32])  # ruff: ignore[numpy-legacy-random]
        yield

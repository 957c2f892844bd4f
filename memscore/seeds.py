"""Derive seeds: one root seed gives a random stream for every purpose, arm and index.

Four numbers decide a stream, as entropy and spawn key of NumPy's SeedSequence:

    root        the user's seed
    purpose     its position in PURPOSES
    arm         the first 8 bytes of the SHA-256 of its name, little-endian
    index       of the model, or of whatever is drawn, within the arm
"""

import hashlib

import numpy as np

PURPOSES = (
    "validation",
    "label-noise",
    "clusters",
    "subsets",
    "init",
    "batches",
    "augment",
    "layers",
    "halves",
    "bootstrap",
    "inversion-candidates",
    "proxies",
    "forget-set",
    "unlearn",
    "measures",
    "network",
    "evaluation",
    "tuning-set",
    "search-design",
    "search-refinement",
    "single-unlearning",
    "difficulty-sample",
)
"""Append only: the position of a purpose is part of every seed."""


def seed_for(root: int, purpose: str, arm: str = "", index: int = 0) -> np.random.SeedSequence:
    """Derive the seed of one purpose, arm and index, independent of all others.

    Args:
        root: the user's seed, >= 0; 0 is a seed like any other.
        purpose: one of PURPOSES.
        arm: name of the arm, or of what takes its place: "original", an algorithm, a proxy, a score, a forget set; ""
            for the whole bank.
        index: position within the arm, >= 0.

    Returns:
        A seed sequence; the same arguments give the same stream on every machine.

    Raises:
        ValueError: an unknown purpose, or a negative root seed.

    >>> seed_for(0, "init", "iid-k0.700", 3).generate_state(1) == seed_for(0, "init", "iid-k0.700", 3).generate_state(1)
    array([ True])
    """
    if purpose not in PURPOSES:
        raise ValueError(f"unknown purpose {purpose!r}; known: {', '.join(PURPOSES)}")
    if root < 0:
        raise ValueError(f"the root seed must be 0 or more, got {root}")
    # a hash and not a position: arms are added to a bank later, and Python's hash() differs between processes
    arm_hash = int.from_bytes(hashlib.sha256(arm.encode()).digest()[:8], "little")
    return np.random.SeedSequence(root, spawn_key=(PURPOSES.index(purpose), arm_hash, index))


def generator(root: int, purpose: str, arm: str = "", index: int = 0) -> np.random.Generator:
    """Return a NumPy generator for this stream."""
    return np.random.default_rng(seed_for(root, purpose, arm, index))


def torch_seed(root: int, purpose: str, arm: str = "", index: int = 0) -> int:
    """Return a 63-bit integer from this stream, for torch.Generator.manual_seed."""
    return int(seed_for(root, purpose, arm, index).generate_state(1, np.uint64)[0] >> 1)

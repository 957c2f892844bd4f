"""What a trial is, and what its row is called."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from memscore.names import pick
from memscore.records import sha256_of
from memscore.store import Store
from unlearn.algorithms import Algorithm, algorithm

ORACLE = "oracle"
"""Stands where an algorithm's name does, for the row of theta_r itself."""
VERSION = 1
"""Of rows; another number makes all trials run again."""

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class TrialConfig:
    """One trial.

    Attributes:
        store: path or URL.
        algorithm: a name of ALGORITHMS, or "oracle".
        params: (name, value) of the config's fields that differ from the defaults.
        forget_set: what the user calls it.
        forget: rows of the training set, rising.
        by_class: whether it is whole classes.
        index: of the original, and of its oracle.
        seed: of the algorithm's own chance; the same for trials that are compared.
        measures: names of MEASURES, beyond the core ones.
        core: whether the core measures are taken; a search that reads one column has no use for them.
        device: "cpu" or "cuda".
    """

    store: str
    algorithm: str
    params: tuple[tuple[str, Any], ...] = ()
    forget_set: str
    forget: tuple[int, ...]
    by_class: bool = False
    index: int = 0
    seed: int = 0
    measures: tuple[str, ...] = ()
    core: bool = True
    device: str = "cpu"


def config_of(entry: Algorithm, params: Mapping[str, Any], architecture: str) -> Any:
    """An algorithm's config with these fields set.

    Args:
        entry: of the table.
        params: name -> value.
        architecture: of theta_o, for algorithms that build a network of their own.

    Returns:
        The config.

    Raises:
        ValueError: an unknown name, which offers the nearest one, or a value that breaks a rule.
    """
    kinds = {field.name: field.type for field in fields(entry.config)}  # type: ignore[arg-type]
    given = {pick(f"parameter of {entry.fn.__name__}", name, kinds): value for name, value in params.items()}
    if "architecture" in kinds:
        given.setdefault("architecture", architecture)
    return entry.config(**given)


def trial_name(store: Store, trial: TrialConfig) -> str:
    """64 hex digits over all that decides a row: data, recipe, original, forget set, algorithm and its config."""
    known: dict[str, Any] = {
        "version": VERSION,
        "manifest": store.manifest.digest,
        **{name: getattr(trial, name) for name in ("algorithm", "forget", "index", "seed", "core")},
        "measures": sorted(trial.measures),
    }
    if trial.algorithm != ORACLE:
        entry = algorithm(trial.algorithm)
        known["config"] = asdict(config_of(entry, dict(trial.params), store.manifest.architecture))
    return sha256_of(known)


def about(store: Store, trial: TrialConfig) -> Row:
    """What a row says of its trial."""
    config, stray = {}, False
    if trial.algorithm != ORACLE:
        entry = algorithm(trial.algorithm)
        config = asdict(config_of(entry, dict(trial.params), store.manifest.architecture))
        stray = entry.granularity == "class" and not trial.by_class
    return {
        "algorithm": trial.algorithm,
        "config": json.dumps(config, sort_keys=True),
        "forget_set": trial.forget_set,
        "n_forget": len(trial.forget),
        "forget_sha256": sha256_of({"rows": trial.forget}),
        "index": trial.index,
        "seed": trial.seed,
        "beyond_its_purpose": stray,
    }

"""Configuration of an experiment as a user writes it. Imports no torch, so that --help answers at once."""

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from memscore.cli.options import Maybe, Several

PROXIES = ("events_confidence", "events_accuracy", "holdout")
"""SCALE's best three, which it refines by: confidence, binary accuracy, holdout retraining."""
MEMORIZATION = "memorization_k"
DEFAULT_SCORES = (f"{MEMORIZATION}0.700", f"{MEMORIZATION}0.500")
"""RUM's own score, of models with keep fraction .7, and the score of estimate's default."""


@dataclass(frozen=True, kw_only=True)
class ExperimentConfig:
    """Configure an experiment.

    Attributes:
        name: memorization, rum, ...; an unknown name lists them all.
        store: path or URL of a bank of `python -m memscore.estimate`.
        preset: small, for two CPU cores, or paper, for a GPU; sets the options left out below.
        score: score by which sets are selected and refined (default: memorization_k0.700, as in RUM; if it is missing
            memorization_k0.500, else the only memorization_k*).
        proxies: scores used in place of it, where an experiment compares them.
        size: number of examples to forget.
        algorithms: the algorithms that take part.
        budget: configurations evaluated at each step of a plan.
        tune_seeds: number of originals for tuning.
        seeds: number of originals that methods are judged on; twice as many for algorithms that draw labels.
        sampler: random, grid or tpe.
        select: which selection: oracle, blind (oracle-free), or both.
        tune_forget: forget set for tuning (default: another of the same kind; same: the judged one).
        seed: of all random draws.
        data: the bank's data set by name or path, if its manifest is not enough to find it.
        folder: folder of the data set.
        other: a second bank with augmentation, for proxies.
    """

    name: tyro.conf.Positional[str]
    store: tyro.conf.Positional[str]
    preset: Literal["small", "paper"] = "small"
    score: Annotated[str, tyro.conf.arg(help_behavior_hint="")] = ""
    proxies: Several = PROXIES
    size: Maybe[int] = None
    algorithms: Several = ()
    budget: Maybe[int] = None
    tune_seeds: Maybe[int] = None
    seeds: Maybe[int] = None
    sampler: Literal["random", "grid", "tpe"] = "random"
    select: Literal["both", "oracle", "blind"] = "both"
    tune_forget: Annotated[str, tyro.conf.arg(help_behavior_hint="")] = ""
    seed: int = 0
    data: Maybe[str] = None
    folder: Maybe[str] = None
    other: Annotated[str, tyro.conf.arg(help_behavior_hint="")] = ""

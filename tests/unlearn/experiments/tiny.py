"""A bank small enough for a test, an experiment on it end to end, and rows that are made up."""

from dataclasses import replace

import numpy as np

from cluster.pool import SerialPool
from cluster.search import SerialSearch
from memscore.pipeline.config import Plan
from memscore.pipeline.runner import estimate, open_bank
from unlearn.experiments.base import Asked, Scale
from unlearn.experiments.config import ExperimentPlan, prepared
from unlearn.experiments.tables import keep
from unlearn.trials.setup import unheard

PLAN = Plan(data="digits", train_limit=200, validation=0.2, epochs=6, batch=20, design="exact", block=8, models=16)
SCORE = "memorization_k0.500"


def bank(folder, **changes):
    """The path of a bank of small models, 16 unless said otherwise."""
    made = open_bank(replace(PLAN, store=str(folder / "store"), **changes))
    estimate(made, SerialPool())
    return str(folder / "store")


def carried(name, store, **words):
    """An experiment of one attempt a place, on one original to tune on and two to report; and its folder on file."""
    usual = {"budget": 1, "tune_seeds": 1, "seeds": 2}
    ready = prepared(ExperimentPlan(name=name, store=store, **usual | words))
    found = ready.run(SerialPool(), SerialSearch(), "cpu", unheard)
    return ready, found, keep(ready.store, name, ready.entry, ready.asked, found)


def asked(*algorithms, **more):
    """What was asked for, where no store is read."""
    scale = Scale(size=12, algorithms=algorithms, budget=1, tune_seeds=1, seeds=4)
    return Asked(store="", score=SCORE, proxies=("holdout", "el2n"), scale=scale, **more)


def rows(contender, variant="vanilla", select="oracle", **columns):
    """Rows of four originals whose columns have these means exactly, and a spread of about .01 that is their own."""
    rng = np.random.default_rng(list(f"{contender} {variant} {sorted(columns.items())}".encode()))
    whose = {"contender": contender, "variant": variant, "select": select, "level": 1, "levels": 1}
    noise = {name: 0.01 * rng.normal(size=4) for name in columns}
    return [
        whose
        | {"index": i + 1}
        | {name: value + noise[name][i] - noise[name].mean() for name, value in columns.items()}
        for i in range(4)
    ]


def verdicts(findings, part):
    """The verdicts of the claims that hold these words."""
    return [one.verdict for one in findings if part in one.claim]

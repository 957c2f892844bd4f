"""Sweeps small enough for a test, and a search that notes what it is asked for."""

from dataclasses import replace

from cluster.search import SerialSearch
from memscore.pipeline.config import Plan
from tests.memscore.pipeline.test_jobs import InOrder
from unlearn.tuning.config import SweepPlan, sweep_request

BANK = Plan(data="digits", train_limit=200, validation=0.2, epochs=6, batch=20, design="exact", block=8, models=16)
SCORE = "memorization_k0.500"
ONCE = ("finetune.epochs=1", "neggrad-plus.epochs=1")


class Noted(SerialSearch):
    """Notes each call: the errands, and each attempt's values beside its errand."""

    def __init__(self):
        self.errands, self.attempts = [], []

    def search(self, fn, arms, shared, told, **more):
        self.errands.append(list(arms))

        def also(arm, values, result):
            self.attempts.append((arm.name, values))
            told(arm, values, result)

        super().search(fn, arms, shared, also, **more)


def plan_of(store, **more):
    """Two quick algorithms, two attempts each, on 12 examples."""
    usual = {"size": 12, "algorithms": ("finetune", "neggrad-plus"), "budget": 2, "tune_seeds": 1, "seeds": 2}
    given = {"set": tuple(one for one in ONCE if one.split(".")[0] in more.get("algorithms", usual["algorithms"]))}
    return SweepPlan(store=store, **usual | given | more)


def swept(plan, search=None, **more):
    """The request, and what came of it."""
    asked = sweep_request(replace(plan, **more))
    return asked, asked.run(InOrder(), search or Noted(), "cpu")


def files(store, asked):
    """What a sweep leaves, in bytes."""
    return {
        name: bytes(asked.asked.store.folder.read(f"{asked.path}/{name}")) for name in ("trials.parquet", "chosen.json")
    }

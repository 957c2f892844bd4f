"""From many trials of one algorithm on one forget set to the measures that need many models."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from memscore.store.store import Store
from unlearn.measures.inputs import Population
from unlearn.measuring import of_many
from unlearn.oracles import Bench
from unlearn.trials import TrialConfig, trial_name

FEWEST = 8
"""Models on each side below which no measure of many models is taken."""


def population_of(
    store: Store, unlearned: Sequence[TrialConfig], oracles: Sequence[TrialConfig], bench: Bench
) -> Population:
    """What all models of two groups of trials say of every example.

    Args:
        store: open.
        unlearned: trials of one algorithm on one forget set, one an original; of one that diverged the oracle is left
            out too, so that those of one original stay pairs.
        oracles: trials of its oracles.
        bench: says which rows are held out.

    Returns:
        The population.

    Raises:
        ValueError: fewer than FEWEST models on a side.
    """
    sides = [{t.index: store.read_said(trial_name(store, t)) for t in trials} for trials in (unlearned, oracles)]
    both = [i for i, said in sides[0].items() if said is not None and sides[1].get(i) is not None]
    if len(both) < FEWEST:
        raise ValueError(
            f"{len(both)} pairs of an unlearned model and its oracle say too little of each example; measures of many "
            f"models need {FEWEST} or more: --seeds 64"
        )
    found = [[said for i in both if (said := side[i]) is not None] for side in sides]
    confidence, margin = (
        [np.stack([said[column] for said in side]) for side in found] for column in ("logit_confidence", "gap")
    )
    forget = np.array(unlearned[0].forget, dtype=np.int64)
    n_train = store.manifest.split_sizes[0]
    return Population(
        unlearned=confidence[0],
        retrained=confidence[1],
        margin_unlearned=margin[0],
        margin_retrained=margin[1],
        forget=forget,
        held_out=bench.test,
        retain=np.setdiff1d(np.arange(n_train), forget),
    )


def values_of_many(
    store: Store, unlearned: Sequence[TrialConfig], oracles: Sequence[TrialConfig], bench: Bench, more: Sequence[str]
) -> dict[str, float]:
    """Every measure of many models that was asked for; nothing if none was.

    Args:
        store: open.
        unlearned: as population_of.
        oracles: as population_of.
        bench: as population_of.
        more: names of measures.

    Returns:
        Column -> value; a column taken by a split ends in its name.
    """
    wanted = of_many(more)
    if not wanted:
        return {}
    population = population_of(store, unlearned, oracles, bench)
    found: dict[str, float] = {}
    for measure in wanted.values():
        for split in measure.splits or ("",):
            seen = replace(population, held_out=bench.selection) if split == "validation" else population
            found |= {column + (f"_{split}" if split else ""): value for column, value in measure.fn(seen).items()}
    return found

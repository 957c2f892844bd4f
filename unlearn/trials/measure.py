"""From a network to the values of its row: every measure that was asked for, and how far it is from the oracle.

From many trials of one algorithm on one forget set to the measures that need many models.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from memscore.choices import pick
from memscore.models.architectures import Classifier, embed
from memscore.store.store import Store
from memscore.training.device_data import Images
from memscore.training.evaluation import PART, everything, parts
from memscore.training.recipes import Recipe
from unlearn.measures import MEASURES
from unlearn.measures.inputs import Case, Measure, Population, Views, Weights
from unlearn.oracles import Bench
from unlearn.trials.config import TrialConfig, trial_name


@torch.no_grad()
def views_of(model: nn.Module, recipe: Recipe, images: Images, n: int) -> Views:
    """What a network says of the first n images, in the batches and the precision of originals and oracles."""
    if isinstance(model, Classifier) and recipe.precision == "float32":  # one pass, for the head reads the embedding
        model.eval()
        embeddings = torch.cat([model.body(part) for part in parts(images, n)])
        logits = torch.cat([model.head(part) for part in torch.split(embeddings, PART)])
    else:
        logits = everything(model, recipe, images, n)
        embeddings = torch.cat([embed(model, part).float() for part in parts(images, n)])
    return Views(logits=logits.cpu().numpy(), embeddings=embeddings.cpu().numpy())


def asked(more: Sequence[str], *, core: bool = True) -> dict[str, Measure]:
    """The core measures of one model, and those asked for beyond them.

    Args:
        more: names of MEASURES.
        core: whether the core measures are wanted.

    Returns:
        Name -> measure, in the order of the table; measures of many models are no part of a trial's row.

    Raises:
        ValueError: an unknown name, which offers the nearest one.
    """
    wanted = {pick("measure", name, MEASURES) for name in more}
    single = {name: measure for name, measure in MEASURES.items() if measure.needs != "population"}
    return {name: measure for name, measure in single.items() if (core and measure.core) or name in wanted}


def of_many(more: Sequence[str]) -> dict[str, Measure]:
    """Those of the measures asked for that need many models."""
    return {name: MEASURES[name] for name in MEASURES if name in more and MEASURES[name].needs == "population"}


def values_of(
    case: Case, weights: Weights, bench: Bench, measures: Mapping[str, Measure], pair: str
) -> dict[str, float]:
    """All values of one row.

    Args:
        case: the outputs of the judged model, the oracle and the original; its held-out rows are those of selection.
        weights: the same three as networks.
        bench: says which rows are test.
        measures: of `asked`.
        pair: keys of the original and the oracle, whose own values are kept between the trials of a worker.

    Returns:
        Column -> value; a column taken by a split ends in its name. A column whose ideal is the oracle's value is
        followed by `_gap`, its distance to that, and `_gap_original`, its distance to theta_o's.
    """
    row: dict[str, float] = {}
    for name, measure in measures.items():
        for suffix, judged, oracle, original in sides(measure, case, weights, bench):
            values = measure.fn(judged)
            compared = [column for column in values if measure.columns[column].best == "oracle"]
            theirs = known(f"{pair} oracle {name}{suffix}", measure, oracle) if compared else {}
            before = known(f"{pair} original {name}{suffix}", measure, original) if compared else {}
            for column, value in values.items():
                row[column + suffix] = value
                if column in compared:
                    row[f"{column}{suffix}_gap"] = abs(value - theirs[column])
                    row[f"{column}{suffix}_gap_original"] = abs(value - before[column])
    return row


_known: dict[str, dict[str, float]] = {}
MOST_KNOWN = 10_000


def known(tag: str, measure: Measure, side: Case | Weights) -> dict[str, float]:
    """A measure of an oracle or an original, taken once in a process."""
    if tag not in _known:
        if len(_known) >= MOST_KNOWN:
            _known.clear()
        _known[tag] = measure.fn(side)
    return _known[tag]


def sides(
    measure: Measure, case: Case, weights: Weights, bench: Bench
) -> Iterator[tuple[str, Case | Weights, Case | Weights, Case | Weights]]:
    """For each split of a measure: the ending of its columns; the judged model, the oracle and the original."""
    if measure.needs == "weights":
        yield "", weights, replace(weights, judged=weights.theta_r), replace(weights, judged=weights.problem.theta_o)
        return
    for split in measure.splits or ("",):
        seen = replace(case, held_out=bench.test) if split == "test" else case
        yield f"_{split}" if split else "", seen, seen.of(case.theta_r), seen.of(case.theta_o)


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

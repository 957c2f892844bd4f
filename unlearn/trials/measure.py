"""From a network to the values of its row: every measure that was asked for, and how far it is from the oracle.

From many trials of one algorithm on one forget set to the measures that need many models.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from memscore.choices import validate_choice
from memscore.models.architectures import Classifier, embed
from memscore.store.store import Store
from memscore.training.device_data import DeviceImages
from memscore.training.evaluation import EVALUATION_BATCH, iterate_batches, predict_logits
from memscore.training.recipes import Recipe
from unlearn.measures import MEASURES
from unlearn.measures.inputs import EvaluationInputs, Measure, ModelInputs, Outputs, PopulationInputs
from unlearn.oracles import TrialData
from unlearn.trials.config import TrialConfig, trial_key


@torch.no_grad()
def compute_outputs(model: nn.Module, recipe: Recipe, images: DeviceImages, n: int) -> Outputs:
    """What a network says of the first n images, in the batches and the precision of originals and oracles."""
    if isinstance(model, Classifier) and recipe.precision == "float32":  # one pass, for the head reads the embedding
        model.eval()
        embeddings = torch.cat([model.body(part) for part in iterate_batches(images, n)])
        logits = torch.cat([model.head(part) for part in torch.split(embeddings, EVALUATION_BATCH)])
    else:
        logits = predict_logits(model, recipe, images, n)
        embeddings = torch.cat([embed(model, part).float() for part in iterate_batches(images, n)])
    return Outputs(logits=logits.cpu().numpy(), embeddings=embeddings.cpu().numpy())


def select_measures(more: Sequence[str], *, core: bool = True) -> dict[str, Measure]:
    """The core measures of one model, and those asked for beyond them.

    Args:
        more: names of MEASURES.
        core: whether the core measures are wanted.

    Returns:
        Name -> measure, in the order of the table; measures of many models are no part of a trial's row.

    Raises:
        ValueError: an unknown name, which offers the nearest one.
    """
    wanted = {validate_choice("measure", name, MEASURES) for name in more}
    single = {name: measure for name, measure in MEASURES.items() if measure.needs != "population"}
    return {name: measure for name, measure in single.items() if (core and measure.core) or name in wanted}


def select_population_measures(more: Sequence[str]) -> dict[str, Measure]:
    """Those of the measures asked for that need many models."""
    return {name: MEASURES[name] for name in MEASURES if name in more and MEASURES[name].needs == "population"}


def compute_measures(
    case: EvaluationInputs, weights: ModelInputs, bench: TrialData, measures: Mapping[str, Measure], pair: str
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
        for suffix, judged, oracle, original in iterate_splits(measure, case, weights, bench):
            values = measure.fn(judged)
            compared = [column for column in values if measure.columns[column].best == "oracle"]
            theirs = measure_once(f"{pair} oracle {name}{suffix}", measure, oracle) if compared else {}
            before = measure_once(f"{pair} original {name}{suffix}", measure, original) if compared else {}
            for column, value in values.items():
                row[column + suffix] = value
                if column in compared:
                    row[f"{column}{suffix}_gap"] = abs(value - theirs[column])
                    row[f"{column}{suffix}_gap_original"] = abs(value - before[column])
    return row


_measure_cache: dict[str, dict[str, float]] = {}
MEASURE_CACHE_SIZE = 10_000


def measure_once(tag: str, measure: Measure, side: EvaluationInputs | ModelInputs) -> dict[str, float]:
    """A measure of an oracle or an original, taken once in a process."""
    if tag not in _measure_cache:
        if len(_measure_cache) >= MEASURE_CACHE_SIZE:
            _measure_cache.clear()
        _measure_cache[tag] = measure.fn(side)
    return _measure_cache[tag]


def iterate_splits(
    measure: Measure, case: EvaluationInputs, weights: ModelInputs, bench: TrialData
) -> Iterator[
    tuple[str, EvaluationInputs | ModelInputs, EvaluationInputs | ModelInputs, EvaluationInputs | ModelInputs]
]:
    """For each split of a measure: the ending of its columns; the judged model, the oracle and the original."""
    if measure.needs == "weights":
        yield "", weights, replace(weights, judged=weights.theta_r), replace(weights, judged=weights.problem.theta_o)
        return
    for split in measure.splits or ("",):
        seen = replace(case, held_out=bench.test) if split == "test" else case
        yield f"_{split}" if split else "", seen, seen.with_model(case.theta_r), seen.with_model(case.theta_o)


MIN_POPULATION = 8
"""Models on each side below which no measure of many models is taken."""


def load_population_inputs(
    store: Store, unlearned: Sequence[TrialConfig], oracles: Sequence[TrialConfig], bench: TrialData
) -> PopulationInputs:
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
    sides = [{t.index: store.read_predictions(trial_key(store, t)) for t in trials} for trials in (unlearned, oracles)]
    both = [i for i, said in sides[0].items() if said is not None and sides[1].get(i) is not None]
    if len(both) < MIN_POPULATION:
        raise ValueError(
            f"{len(both)} pairs of an unlearned model and its oracle say too little of each example; measures of many "
            f"models need {MIN_POPULATION} or more: --seeds 64"
        )
    found = [[said for i in both if (said := side[i]) is not None] for side in sides]
    confidence, margin = (
        [np.stack([said[column] for said in side]) for side in found] for column in ("logit_confidence", "gap")
    )
    forget = np.array(unlearned[0].forget, dtype=np.int64)
    n_train = store.manifest.split_sizes[0]
    return PopulationInputs(
        unlearned=confidence[0],
        retrained=confidence[1],
        margin_unlearned=margin[0],
        margin_retrained=margin[1],
        forget=forget,
        held_out=bench.test,
        retain=np.setdiff1d(np.arange(n_train), forget),
    )


def compute_population_measures(
    store: Store,
    unlearned: Sequence[TrialConfig],
    oracles: Sequence[TrialConfig],
    bench: TrialData,
    more: Sequence[str],
) -> dict[str, float]:
    """Every measure of many models that was asked for; nothing if none was.

    Args:
        store: open.
        unlearned: as load_population_inputs.
        oracles: as load_population_inputs.
        bench: as load_population_inputs.
        more: names of measures.

    Returns:
        Column -> value; a column taken by a split ends in its name.
    """
    wanted = select_population_measures(more)
    if not wanted:
        return {}
    population = load_population_inputs(store, unlearned, oracles, bench)
    found: dict[str, float] = {}
    for measure in wanted.values():
        for split in measure.splits or ("",):
            seen = replace(population, held_out=bench.selection) if split == "validation" else population
            found |= {column + (f"_{split}" if split else ""): value for column, value in measure.fn(seen).items()}
    return found

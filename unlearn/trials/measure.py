"""Measures of a trial, from the outputs of its model, and of populations of models, from many trials."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from memscore.models.architectures import Classifier
from memscore.models.random_state import seed_generators
from memscore.seeds import torch_seed
from memscore.store.store import Store
from memscore.store.trial_files import read_predictions
from memscore.training.device_data import DeviceImages
from memscore.training.evaluation import choose_evaluation_batch, predict_embeddings, predict_logits
from memscore.training.recipes import Recipe
from memscore.units import format_count
from unlearn.measures import MEASURES, get_measures
from unlearn.measures.inputs import EvaluationInputs, Measure, ModelInputs, Outputs, PopulationInputs
from unlearn.oracles import TrialData
from unlearn.trials.config import TrialConfig, trial_key


@torch.no_grad()
def compute_outputs(model: nn.Module, recipe: Recipe, images: DeviceImages, n: int) -> Outputs:
    """Compute logits and embeddings of the first n images, as originals and oracles are evaluated."""
    # seeded for networks that draw random numbers in evaluation mode too
    with seed_generators(torch_seed(0, "evaluation", "trial"), images.pixels.device):
        if isinstance(model, Classifier) and recipe.precision != "bfloat16":
            # One pass suffices: the head reads the embedding.
            embeddings = predict_embeddings(model.eval(), images, n)
            batch = choose_evaluation_batch(model, embeddings.device)
            logits = torch.cat([model.head(part) for part in torch.split(embeddings, batch)])
        else:
            logits = predict_logits(model, recipe, images, n)
            embeddings = predict_embeddings(model, images, n)
    return Outputs(logits=logits.cpu().numpy(), embeddings=embeddings.cpu().numpy())


def select_measures(names: Sequence[str], *, core: bool = True) -> dict[str, Measure]:
    """Select the core measures of a single model and those requested beyond them, in the order of the table.

    Measures of many models are no part of a trial's row. Raises ValueError for an unknown name.
    """
    requested = get_measures(names)
    selected = {name: measure for name, measure in MEASURES.items() if (core and measure.core) or name in requested}
    return {name: measure for name, measure in (selected | requested).items() if measure.needs != "population"}


def select_population_measures(names: Sequence[str]) -> dict[str, Measure]:
    """Select those of the requested measures that compare many models."""
    return {name: MEASURES[name] for name in MEASURES if name in names and MEASURES[name].needs == "population"}


def compute_measures(
    inputs: EvaluationInputs,
    model_inputs: ModelInputs,
    trial_data: TrialData,
    measures: Mapping[str, Measure],
    cache_key: str,
) -> dict[str, float]:
    """Compute all measures of one row: column -> value.

    A column of one split ends in its name. A column whose ideal is the oracle's value is followed by `_gap`, its
    distance to that, and `_gap_original`, its distance to theta_o's. The held-out rows of `inputs` are those for
    selection. `cache_key` names the original and the oracle, whose own values are cached between the trials of a
    worker.
    """
    row: dict[str, float] = {}
    for name, measure in measures.items():
        for suffix, judged, oracle, original in iterate_splits(measure, inputs, model_inputs, trial_data):
            values = measure.fn(judged)
            # Only columns whose ideal is the oracle's value have gaps; others need no second and third evaluation.
            compared = [column for column in values if measure.describe_column(column).best == "oracle"]
            oracle_values = measure_once(f"{cache_key} oracle {name}{suffix}", measure, oracle) if compared else {}
            original_values = (
                measure_once(f"{cache_key} original {name}{suffix}", measure, original) if compared else {}
            )
            for column, value in values.items():
                row[column + suffix] = value
                if column in compared:
                    row[f"{column}{suffix}_gap"] = abs(value - oracle_values[column])
                    row[f"{column}{suffix}_gap_original"] = abs(value - original_values[column])
    return row


_measure_cache: dict[str, dict[str, float]] = {}
MEASURE_CACHE_SIZE = 10_000


def measure_once(cache_key: str, measure: Measure, inputs: EvaluationInputs | ModelInputs) -> dict[str, float]:
    """Compute a measure of an oracle or an original, once in a process."""
    if cache_key not in _measure_cache:
        if len(_measure_cache) >= MEASURE_CACHE_SIZE:
            _measure_cache.clear()
        _measure_cache[cache_key] = measure.fn(inputs)
    return _measure_cache[cache_key]


def iterate_splits(
    measure: Measure, inputs: EvaluationInputs, model_inputs: ModelInputs, trial_data: TrialData
) -> Iterator[
    tuple[str, EvaluationInputs | ModelInputs, EvaluationInputs | ModelInputs, EvaluationInputs | ModelInputs]
]:
    """Yield for each split of a measure its column suffix, and the judged model, the oracle and the original."""
    if measure.needs == "weights":
        yield (
            "",
            model_inputs,
            replace(model_inputs, judged=model_inputs.theta_r),
            replace(model_inputs, judged=model_inputs.problem.theta_o),
        )
        return
    for split in measure.splits or ("",):
        # The held-out rows of `inputs` are those for selection, which is the validation split.
        split_inputs = replace(inputs, held_out=trial_data.test) if split == "test" else inputs
        yield (
            f"_{split}" if split else "",
            split_inputs,
            split_inputs.with_model(inputs.theta_r),
            split_inputs.with_model(inputs.theta_o),
        )


MIN_POPULATION = 8
"""Fewest models on each side for a measure of many models."""


def load_population_inputs(
    store: Store, unlearned: Sequence[TrialConfig], oracles: Sequence[TrialConfig], trial_data: TrialData
) -> PopulationInputs:
    """Load the predictions of all models of two groups of trials, one trial per original in each.

    Where a run diverged, its oracle is left out too, so that the groups stay paired by original. Raises ValueError for
    fewer than MIN_POPULATION pairs.
    """
    sides = [{t.index: read_predictions(store, trial_key(store, t)) for t in trials} for trials in (unlearned, oracles)]
    # None is a diverged run, which has no predictions.
    paired_indices = [
        i for i, predictions in sides[0].items() if predictions is not None and sides[1].get(i) is not None
    ]
    if len(paired_indices) < MIN_POPULATION:
        raise ValueError(
            f"{format_count(len(paired_indices), 'pair')} of an unlearned model and its oracle: too few; measures of "
            "many models "
            f"need {MIN_POPULATION} or more: --seeds 64"
        )
    paired = [[predictions for i in paired_indices if (predictions := side[i]) is not None] for side in sides]
    confidence, margin = (
        [np.stack([predictions[column] for predictions in side]) for side in paired]
        for column in ("logit_confidence", "gap")
    )
    forget = np.array(unlearned[0].forget, dtype=np.int64)
    n_train = store.manifest.split_sizes[0]
    return PopulationInputs(
        unlearned=confidence[0],
        retrained=confidence[1],
        margin_unlearned=margin[0],
        margin_retrained=margin[1],
        forget=forget,
        held_out=trial_data.test,
        retain=np.setdiff1d(np.arange(n_train), forget),
    )


def compute_population_measures(
    store: Store,
    unlearned: Sequence[TrialConfig],
    oracles: Sequence[TrialConfig],
    trial_data: TrialData,
    names: Sequence[str],
) -> dict[str, dict[str, float]]:
    """Compute every requested measure of many models: name -> column -> value; nothing if none was requested.

    A column of one split ends in its name.
    """
    measures = select_population_measures(names)
    if not measures:
        return {}
    population = load_population_inputs(store, unlearned, oracles, trial_data)
    values: dict[str, dict[str, float]] = {name: {} for name in measures}
    for name, measure in measures.items():
        for split in measure.splits or ("",):
            # Here the held-out rows are those of test, unlike in compute_measures.
            split_inputs = replace(population, held_out=trial_data.selection) if split == "validation" else population
            values[name] |= {
                column + (f"_{split}" if split else ""): value for column, value in measure.fn(split_inputs).items()
            }
    return values

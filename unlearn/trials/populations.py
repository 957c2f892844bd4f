"""Measures of many models: computed once for a population, stored beside the trials, and read by later commands.

A population is the unlearned models of one method and their oracles, one of each for every original. Its record is
trials/KEY-population.json, KEY being the hash of all its models; a command that asks for more measures adds them.
"""

import math
from collections.abc import Sequence
from typing import Any

from memscore.store.json_records import encode_record, hash_record, read_record
from memscore.store.store import Store
from unlearn.oracles import TrialData
from unlearn.trials.config import TrialConfig, describe_trial, model_key
from unlearn.trials.measure import compute_population_measures, select_population_measures

DESCRIBED = ("algorithm", "variant", "before", "rounds", "plan", "forget_set", "n_forget", "forget_sha256", "seed")
"""What a record says of its population, of the columns of a trial."""


def hash_population(store: Store, unlearned: Sequence[TrialConfig], oracles: Sequence[TrialConfig]) -> str:
    """Hash all models of a population; 64 hex digits."""
    return hash_record({
        side: [model_key(store, trial) for trial in trials]
        for side, trials in (("unlearned", unlearned), ("retrained", oracles))
    })


def describe_population(store: Store, unlearned: Sequence[TrialConfig]) -> dict[str, Any]:
    """Describe a population: its method, its forget set and its originals."""
    rows = [describe_trial(store, trial) for trial in unlearned]
    # Originals may have parameters of their own, where a sweep was tuned several times.
    return {column: rows[0][column] for column in DESCRIBED} | {
        "configs": list(dict.fromkeys(row["config"] for row in rows)),
        "originals": [trial.index for trial in unlearned],
    }


def measure_population(
    store: Store,
    unlearned: Sequence[TrialConfig],
    oracles: Sequence[TrialConfig],
    trial_data: TrialData,
    names: Sequence[str],
) -> dict[str, float]:
    """Compute the requested measures of many models that are not stored yet, store them, and return all requested.

    `unlearned` and `oracles` have a trial for each original, stored with its predictions. Returns column -> value, NaN
    where undefined; nothing if no such measure was requested. Raises ValueError for fewer than MIN_POPULATION models
    that did not diverge.
    """
    measures = select_population_measures(names)
    if not measures:
        return {}
    # by the models, not by the trials, whose keys change with the measures that a command asks for
    path = f"trials/{hash_population(store, unlearned, oracles)}-population.json"
    stored: dict[str, dict[str, float | None]] = (
        read_record(store.folder, path)["measures"] if store.folder.exists(path) else {}
    )
    if missing := [name for name in measures if name not in stored]:
        computed = compute_population_measures(store, unlearned, oracles, trial_data, missing)
        # None is NaN in a file.
        stored |= {
            name: {column: None if math.isnan(value) else value for column, value in values.items()}
            for name, values in computed.items()
        }
        record = {"population": describe_population(store, unlearned), "measures": stored}
        store.folder.replace(path, encode_record(record))
    # in the order of the declarations, which a file does not keep
    return {
        column: float("nan") if (value := stored[name][column]) is None else value
        for name, measure in measures.items()
        for split in measure.splits or ("",)
        for column in (f"{stem}_{split}" if split else stem for stem in measure.columns)
    }

"""Files of unlearning trials: rows, predictions and costs, under trials/ of a store."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from memscore.store.parquet import Columns, encode, to_columns, to_table
from memscore.store.store import Store

DESCRIPTIONS_PATH = "trials/measures.json"
"""What the columns of trials mean."""


def write_trial(store: Store, name: str, columns: Columns, metadata: Mapping[str, str]) -> bool:
    """Store the row of one unlearning trial, columns of one value each; False if it exists."""
    return store.folder.publish(f"trials/{name}.parquet", encode(to_table(columns, metadata)))


def read_trial(store: Store, name: str) -> dict[str, Any] | None:
    """Read the row of one trial, NaN where undefined; None if it is missing."""
    return _read_values(store, f"trials/{name}.parquet")


def list_trials(store: Store) -> list[str]:
    """List the names of all stored trials."""
    names = [name.removesuffix(".parquet") for name in store.folder.names("trials") if name.endswith(".parquet")]
    return [name for name in names if not name.endswith(("-said", "-cost"))]


def write_predictions(store: Store, trial: str, columns: Columns) -> bool:
    """Store the unlearned model's logit_confidence and gap, float32 [N]; False if they exist."""
    return store.folder.publish(f"trials/{trial}-said.parquet", encode(to_table(columns, {"trial": trial})))


def read_predictions(store: Store, trial: str) -> dict[str, np.ndarray] | None:
    """Read the predictions of a trial's model for every example; None if they are missing."""
    path = f"trials/{trial}-said.parquet"
    return to_columns(store.read_table(path)) if store.folder.exists(path) else None


def has_predictions(store: Store, trial: str) -> bool:
    """Return whether the predictions of a trial's model are stored."""
    return store.folder.exists(f"trials/{trial}-said.parquet")


def write_cost(store: Store, theta: str, status: str, wall_s: float, examples: int, steps: int) -> bool:
    """Store the cost of a stored unlearned model; written last, it marks the files as complete."""
    values = {"status": status, "wall_s": wall_s, "examples": examples, "steps": steps}
    columns = {column: np.array([value]) for column, value in values.items()}
    return store.folder.publish(f"trials/{theta}-cost.parquet", encode(to_table(columns, {"theta": theta})))


def read_cost(store: Store, theta: str) -> dict[str, Any] | None:
    """Read status, seconds, examples read and steps of a stored unlearned model; None if missing."""
    return _read_values(store, f"trials/{theta}-cost.parquet")


def _read_values(store: Store, path: str) -> dict[str, Any] | None:
    if not store.folder.exists(path):
        return None
    return {column: values[0].item() for column, values in to_columns(store.read_table(path)).items()}

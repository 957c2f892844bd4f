"""What a run leaves: its numbers as a whole, and the figures and summary.json made of them."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa

from memscore.data.splits import Splits
from memscore.filling import Filled
from memscore.outlook import Kept
from memscore.plots.bank import most_memorized, roc_bands, spread
from memscore.scoring import ArmScores
from memscore.statistics.intervals import Interval
from memscore.store.json_records import sealed
from memscore.store.store import Store


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """What a run leaves.

    Attributes:
        filled: models trained, failed, diverged, of the arm and the originals.
        arms: what each arm of the bank says.
        table: scores.parquet.
        noise: AUROC of each score for changed labels; empty without any.
        store: path or URL.
        accuracy: median over the arm's models on their members, on what they left out, and on the test set.
        wall_s: seconds that filling the arm took.
        originals: how many are there.
        training_s: median seconds of one worker for training one of them; NaN without any.
        proxy_s: name -> median seconds that each proxy on file adds to one of them.
        kept: for each arm that was planned, the plan beside what came of it.
        wish: the error of memorization that was wanted, if any.
        imported: somebody else trained the models.
    """

    filled: Filled
    arms: list[ArmScores]
    table: pa.Table
    noise: dict[str, Interval]
    store: str
    accuracy: dict[str, float]
    wall_s: float
    originals: int
    training_s: float
    proxy_s: dict[str, float]
    kept: list[Kept]
    wish: float | None = None
    imported: bool = False


def predictions_of(store: Store, keys: Sequence[str]) -> np.ndarray | None:
    """What the originals together take each example for, [N]; None without originals."""
    if not keys:
        return None
    logits = np.sum([store.read_outputs(key)[0] for key in keys], axis=0)
    return np.asarray(logits.argmax(1))


def write_reports(store: Store, splits: Splits | None, outcome: Outcome, keys: Sequence[str]) -> None:
    """Figures and numbers of the bank as a whole, under reports/."""
    predicted = predictions_of(store, keys)
    for arm in outcome.arms:
        name = f"memorization_{arm.suffix}"
        values, errors = (outcome.table[c].to_numpy().astype(np.float64) for c in (name, f"{name}_se"))
        title = f"{store.manifest.data}, {arm.models} models, {arm.suffix}"
        store.folder.replace(f"reports/{name}.png", spread(values, errors, title))
        if splits:
            train = splits.train
            gallery = most_memorized(train.images, train.labels, train.labels_true, predicted, values)
            store.folder.replace(f"reports/most_memorized_{arm.suffix}.png", gallery)
        if arm.attacks:
            bands = {name: curve.band for name, curve in arm.attacks.items()}
            store.folder.replace(f"reports/roc_{arm.suffix}.png", roc_bands(bands, title))
    store.folder.replace("reports/summary.json", sealed(summary(outcome)))


def summary(outcome: Outcome) -> dict[str, object]:
    """The numbers of the bank as a whole; undefined is NaN."""
    return {
        "arms": [arm_summary(arm) for arm in outcome.arms],
        "accuracy": outcome.accuracy,
        "diverged": outcome.filled.diverged,
        "planned": [asdict(kept) for kept in outcome.kept],
        "originals": outcome.originals,
        "seconds_an_original": outcome.training_s,
        "proxy_seconds_an_original": outcome.proxy_s,
        "auroc_for_changed_labels": {k: [v.value, v.lo, v.hi] for k, v in outcome.noise.items()},
    }


def arm_summary(arm: ArmScores) -> dict[str, object]:
    """The numbers of one arm as a whole; undefined is NaN."""
    return {
        "suffix": arm.suffix,
        "models": arm.models,
        "memorization_rmse": arm.rmse,
        "memorization_rmse_between_blocks": arm.rmse_block,
        "models_in_unfinished_blocks": arm.unfinished,
        "undefined": arm.undefined,
        "reliability": {stem: asdict(found) for stem, found in arm.reliability.items()},
        "attacks": {
            name: {
                "targets": curve.targets,
                **{key: [m.value, m.lo, m.hi] for key, m in curve.measures.items()},
            }
            for name, curve in arm.attacks.items()
        },
    }

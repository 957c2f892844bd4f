"""The result of a run of `estimate`, and its reports: figures and summary.json."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa

from memscore.data.duplicates import CopyCounts
from memscore.data.splits import Splits
from memscore.pipeline.attack_decisions import build_group_table, summarize
from memscore.pipeline.precision import ForecastCheck
from memscore.pipeline.scoring import ArmScores
from memscore.pipeline.train_bank import (
    TrainingSummary,
)
from memscore.plots.bank import plot_memorization, plot_most_memorized, plot_roc_bands
from memscore.plots.inversion import plot_rebuilt_images
from memscore.proxies.inversion_summary import InversionSummary
from memscore.proxies.storage import (
    InversionOptions,
    read_proxy,
    read_rebuilt_images,
)
from memscore.statistics.intervals import Interval
from memscore.statistics.roc import RateAtFpr, RocBand
from memscore.store.class_names import format_class, has_names
from memscore.store.json_records import encode_record
from memscore.store.parquet import to_table
from memscore.store.store import Store
from memscore.units import format_count

INVERSION_ORDER = {"inversion_gain": "gain", "inversion_psnr_fitted": "fitted"}
"""Scores in dB by which rebuilt images are sorted, the first one that is stored, and what the figure calls them."""


@dataclass(frozen=True, kw_only=True, eq=False)
class EstimateResult:
    """Result of a run of `estimate`.

    Attributes:
        training: models trained, failed, diverged, of the arms and the originals.
        arms: scores of each arm of the bank.
        table: scores.parquet, with the names of the labels' classes.
        noise: AUROC of each score for changed labels; empty without any.
        store: path or URL.
        accuracy: median over the arm's models on their members, on the left-out examples, and on the test set.
        lowest_accuracy: for each of these the lowest one, and its model.
        wall_s: seconds that training the arms and originals took.
        originals: number of stored originals.
        training_s: median seconds of one worker for training one of them; NaN without any.
        proxy_s: name -> median seconds that each stored proxy adds to one of them.
        event_s: kind of learning events -> median seconds of their recording, which are part of training_s.
        inversion: what gradient inversion reached, over the attacked examples; None without one.
        forecast_checks: for each arm with a forecast, the forecast beside the result.
        target_rmse: the requested error of memorization, if any.
        imported: the models were trained outside memscore.
        copies: counts of exact copies among the images; None where the images are unknown.
        output_kind: what the network returns instead of logits; empty for logits.
    """

    training: TrainingSummary
    arms: list[ArmScores]
    table: pa.Table
    noise: dict[str, Interval]
    store: str
    accuracy: dict[str, float]
    lowest_accuracy: dict[str, tuple[float, str]]
    wall_s: float
    originals: int
    training_s: float
    proxy_s: dict[str, float]
    event_s: dict[str, float]
    inversion: InversionSummary | None
    forecast_checks: list[ForecastCheck]
    target_rmse: float | None = None
    imported: bool = False
    copies: CopyCounts | None = None
    output_kind: str = ""

    @property
    def missed_arm(self) -> ArmScores | None:
        """The arm whose error is larger than requested, or undefined; None if it is reached, or none was requested."""
        if self.target_rmse is None:
            return None
        # a run until an error trains one arm; the bank may have others
        [arm] = [arm for arm in self.arms if arm.arm.name in self.training.shards]
        return None if arm.precision.rmse <= self.target_rmse else arm


def write_reports(store: Store, splits: Splits | None, result: EstimateResult) -> None:
    """Write the figures and numbers of the whole bank under reports/."""
    for arm in result.arms:
        name = f"memorization_{arm.suffix}"
        values, errors = (result.table[c].to_numpy().astype(np.float64) for c in (name, f"{name}_se"))
        title = f"{store.manifest.data}, {format_count(arm.models, 'model')}, {arm.suffix}"
        store.folder.replace(f"reports/{name}.png", plot_memorization(values, errors, title))
        if splits:
            train = splits.train
            left_out = result.table[f"cscore_{arm.suffix}"].to_numpy().astype(np.float64)
            labels = train.labels, train.labels_true
            gallery = plot_most_memorized(train.images, *labels, left_out, values, store.class_names)
            store.folder.replace(f"reports/most_memorized_{arm.suffix}.png", gallery)
        if arm.attacks:
            bands = {name: curve.band for name, curve in arm.attacks.items()}
            store.folder.replace(f"reports/roc_{arm.suffix}.png", plot_roc_bands(bands, title))
            store.write_table(f"reports/roc_{arm.suffix}.parquet", build_roc_table(bands))
        if (groups := build_group_table(arm.list_decisions())) is not None:
            store.write_table(f"reports/groups_{arm.suffix}.parquet", groups)
    store.folder.replace("reports/summary.json", encode_record(build_summary(result, store.class_names)))


def build_roc_table(bands: Mapping[str, RocBand]) -> pa.Table:
    """Build a table of the curves: a row for each attack and false positive rate, with the ends of the band."""
    columns: dict[str, np.ndarray] = {
        "attack": np.repeat(np.array(list(bands), dtype=np.str_), [len(band.fpr) for band in bands.values()])
    }
    # NaN of an attack without an area becomes null
    for column, name in {"fpr": "fpr", "tpr": "mean", "lo": "lo", "hi": "hi"}.items():
        columns[column] = np.concatenate([getattr(band, name) for band in bands.values()])
    return to_table(columns, {})


def draw_rebuilt_images(
    store: Store, splits: Splits, keys: Sequence[str], inversions: Mapping[str, InversionOptions]
) -> None:
    """Draw reports/inversion.png from the stored images, sorted by the gain if there is one; or nothing without any."""
    columns = read_rebuilt_images(store, keys[:1], inversions)
    if not columns:
        return
    # the values of this original alone: a mean over originals would not be of the images below it
    scores: dict[str, np.ndarray] = {}
    for name, options in inversions.items():
        scores |= read_proxy(store, keys[0], name, options) or {}
    score, text = next(item for item in INVERSION_ORDER.items() if item[0] in scores)
    rows, shape = columns["row"], splits.input_shape
    pictures = {name: values.reshape(-1, *shape) for name, values in columns.items() if name != "row"}
    values = scores[score][rows]
    title = f"{store.manifest.data}, gradient inversion of {store.manifest.architecture}, original 0"
    labels = [format_class(label, store.class_names) for label in splits.train.labels[rows].tolist()]
    picture = plot_rebuilt_images(splits.train.images[rows], pictures, labels, values, text, title)
    store.folder.replace("reports/inversion.png", picture)


def build_summary(result: EstimateResult, class_names: Sequence[str] = ()) -> dict[str, object]:
    """Build the contents of summary.json, the numbers of the whole bank; undefined is NaN."""
    return {
        **({"class_names": list(class_names)} if has_names(class_names) else {}),
        "arms": [build_arm_summary(arm) for arm in result.arms],
        "accuracy": result.accuracy,
        "lowest_accuracy": {
            group: {"value": value, "model": model} for group, (value, model) in result.lowest_accuracy.items()
        },
        "diverged": result.training.diverged,
        "planned": [asdict(check) for check in result.forecast_checks],
        "originals": result.originals,
        "seconds_an_original": result.training_s,
        "proxy_seconds_an_original": result.proxy_s,
        "event_seconds_an_original": result.event_s,
        **({"inversion": asdict(result.inversion)} if result.inversion else {}),
        "auroc_for_changed_labels": {k: [v.value, v.lo, v.hi] for k, v in result.noise.items()},
        "exact_copies": result.copies,
        # only where there are any
        **({"originals_trained_again": differing} if (differing := result.training.differing_originals) else {}),
        **({"outputs_are": result.output_kind} if result.output_kind else {}),
    }


def build_arm_summary(arm: ArmScores) -> dict[str, object]:
    """Build the numbers of one whole arm; undefined is NaN."""
    return {
        "suffix": arm.suffix,
        "models": arm.models,
        "queries": arm.queries,
        "memorization_rmse": arm.rmse,
        "memorization_rmse_between_blocks": arm.rmse_block,
        "blend": None if arm.blend is None else asdict(arm.blend),
        # only where it was requested
        **({} if arm.stacked is None else {"stacked": asdict(arm.stacked)}),
        "models_in_unfinished_blocks": arm.unfinished,
        "undefined": arm.undefined,
        "curves": len(arm.attacks),
        "groups": sum(len(leaks) for _, decisions in arm.list_decisions() for leaks in decisions.groups.values()),
        "outlying_models": [
            {"model": model, "deviations": [asdict(deviation) for deviation in deviations]}
            for model, deviations in arm.outlying.items()
        ],
        "reliability": {stem: asdict(reliability) for stem, reliability in arm.reliability.items()},
        "attacks": {
            name: {
                "targets": curve.targets,
                **{key: [m.value, m.lo, m.hi] for key, m in curve.measures.items()},
                **{f"{key}_counts": build_rate_counts(m.rate) for key, m in curve.measures.items() if m.rate},
                **({} if curve.decisions is None else summarize(curve.decisions)),
            }
            for name, curve in arm.attacks.items()
        },
        # the second number is that of the attack without information, for this design and number of models
        "attack_success": {
            name: {"mean": success.mean, "no_information": success.no_information}
            for name, success in arm.success.items()
        },
    }


def build_rate_counts(rate: RateAtFpr) -> dict[str, object]:
    """Build the counts of a TPR over all targets, the realised FPR, and why there is no value; null where there is."""
    counts = {key: value for key, value in asdict(rate).items() if key not in {"value", "lo", "hi"}}
    return counts | {"reason": rate.reason or None}

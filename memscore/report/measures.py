"""Measures of unlearning in words: what a column of trials means, which way is good, and where the oracle lies."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from memscore.analysis.trial_rows import Row, estimate_column
from memscore.report.omissions import Omission, read_or_omit
from memscore.report.page_tables import Cell, make_interval
from memscore.statistics.means import MeanEstimate
from memscore.store.json_records import read_record
from memscore.store.store import Store
from memscore.store.trial_files import DESCRIPTIONS_PATH

TITLES = {
    "tow": "ToW",
    "tow_mia": "ToW-MIA",
    "forget_accuracy": "Right on forget set",
    "retain_accuracy": "Right on retain set",
    "accuracy": "Right on unseen",
    "class_accuracy": "Right on unseen of its classes",
    "kept_class_accuracy": "Right on unseen of other classes",
    "mia": "MIA",
    "mia_losses": "MIA, losses",
    "mia_confidence": "MIA, confidence",
    "entanglement": "Entanglement",
    "gini_forget": "Gini of loss, forget set",
    "gini_retain": "Gini of loss, retain set",
    "wall_s": "Seconds",
    "rrt_wall": "Time over retraining",
    "rrt_examples": "Examples over retraining",
    "steps": "Steps",
}
COSTS = {
    "wall_s": "seconds of the algorithm; less is cheaper",
    "rrt_wall": "seconds over those of retraining; below 1 is cheaper than retraining",
    "rrt_examples": "examples read over those of retraining; below 1 is cheaper than retraining",
    "steps": "steps of the optimizer; less is cheaper",
}
SPLITS = {"_test": "test", "_validation": "validation"}
GOOD = {"max": "higher is better", "min": "lower is better", "oracle": "best at the oracle's value", "none": ""}
SHARES = ("share", "probability")
FIRST = (
    *("tow_test", "forget_accuracy", "retain_accuracy", "accuracy_test", "tow_mia_test", "mia_test"),
    *("rrt_examples", "wall_s"),
)
"""Columns that every table of trials has; others that were requested follow."""


@dataclass(frozen=True, kw_only=True)
class MeasureWords:
    """A column of trials in words.

    Attributes:
        column: its name in the rows.
        title: what the page calls it.
        about: what it is, and which way is good.
        best: "max", "min", "oracle" or "none".
        is_share: whether it lies between 0 and 1.
    """

    column: str
    title: str
    about: str
    best: str
    is_share: bool


def read_descriptions(store: Store, omissions: list[Omission]) -> Mapping[str, Any]:
    """Read what the columns of trials mean; nothing where no command of this version has stored it."""
    if not store.folder.exists(DESCRIPTIONS_PATH):
        command = f"`python -m unlearn.trial {store.folder.display_name}`"
        reason = f"no command of this version has run a trial; the next {command} stores them"
        omissions.append(Omission(what="meanings of measures", reason=reason, is_fault=False))
        return {}
    record = read_or_omit("meanings of measures", omissions, read_record, store.folder, DESCRIPTIONS_PATH)
    return record["columns"] if record else {}


def describe_measure(column: str, descriptions: Mapping[str, Any]) -> MeasureWords:
    """Describe a column of trials: of a measure with the ending of its split, of a cost, or a user's own."""
    if column in COSTS:
        return MeasureWords(column=column, title=TITLES[column], about=COSTS[column], best="min", is_share=False)
    # the whole name first: a stem may end in _test itself
    for ending, split in (("", ""), *SPLITS.items()):
        stem = column.removesuffix(ending)
        if column.endswith(ending) and stem in descriptions:
            found = descriptions[stem]
            place = f", {split}" if split else ""
            best = str(found["best"])
            # that the oracle's value is best says that it is the ideal one too
            named = str(found["ideal"]).replace("theta_r's", "the oracle's").replace("theta_r", "the oracle")
            ideal = f"; ideal: {named}" if named and named != "the oracle's" else ""
            good = f"; {GOOD[best]}" if GOOD[best] else ""
            title = TITLES.get(stem, stem.replace("_", " ").capitalize())
            return MeasureWords(
                column=column,
                title=f"{title}{place}",
                about=f"{found['description']}{good}{ideal}",
                best=best,
                is_share=found["unit"] in SHARES,
            )
    # without a description, from an earlier version, the name must do
    stem = next((column.removesuffix(ending) for ending in SPLITS if column.endswith(ending)), column)
    place = next((f", {split}" for ending, split in SPLITS.items() if column.endswith(ending)), "")
    title = TITLES.get(stem, stem.replace("_", " ").capitalize())
    best = "max" if stem.startswith("tow") else "none"
    return MeasureWords(column=column, title=f"{title}{place}", about="", best=best, is_share=False)


def make_measure_cell(estimate: MeanEstimate, words: MeasureWords, oracle: MeanEstimate | None, n: int) -> Cell:
    """Make a cell of a mean over originals; where the oracle's value is best, say how far it is from its band."""
    # an interval of a share goes no farther than a share can; what is stored is what is counted
    lo, hi = (clip(end, words) for end in (estimate.lo, estimate.hi))
    cell = make_interval((estimate.value, lo, hi))
    text = cell.text + (f" (n={estimate.n})" if 0 < estimate.n < n else "")
    # where higher or lower is better, the reader needs no band
    if words.best != "oracle" or oracle is None or cell.value is None:
        return cell._replace(text=text)
    distance = measure_distance(estimate, oracle)
    if distance is None:
        return cell._replace(text=text)
    about = (
        "within the oracle's band" if distance == 0 else f"{distance:+.3f} from the oracle's band"
    ) + f" {make_interval((oracle.value, clip(oracle.lo, words), clip(oracle.hi, words))).text}"
    return cell._replace(text=text, level="good" if distance == 0 else "", about=about)


def clip(end: float, words: MeasureWords) -> float:
    """Clip the end of an interval to what a share can be."""
    return min(max(end, 0.0), 1.0) if words.is_share and end == end else end


def measure_distance(estimate: MeanEstimate, oracle: MeanEstimate) -> float | None:
    """Measure how far a mean is outside the oracle's 95 % interval, 0 within; None where the oracle has no interval."""
    if oracle.lo != oracle.lo or estimate.value != estimate.value:
        return None
    # one of the two is 0, and both are within the band
    return min(estimate.value - oracle.lo, 0.0) + max(estimate.value - oracle.hi, 0.0)


def choose_columns(rows: Sequence[Row], requested: Sequence[str] = ()) -> list[str]:
    """Choose the columns of a table: the usual ones that the rows have, then those that are asked for."""
    present = {name for row in rows for name in row}
    return [column for column in dict.fromkeys((*FIRST, *requested)) if column in present]


def estimate_present(rows: Sequence[Row], column: str) -> MeanEstimate:
    """Estimate the mean of a column over the rows that have it."""
    # a row of an earlier command may lack what a later one measured
    return estimate_column([row for row in rows if row.get(column) is not None], column)

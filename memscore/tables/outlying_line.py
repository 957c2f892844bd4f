"""The line that names models far from the others, beside every table of a bank's scores."""

from collections.abc import Mapping, Sequence

from rich.console import Console

from memscore.pipeline.outlying_models import read_outlying_models
from memscore.statistics.outlying_models import Deviation
from memscore.store.store import Store
from memscore.tables.console import print_line

MODELS_NAMED = 4
MEASURES = {
    "confidence": "typical logit confidence",
    "size": "typical size of the logit confidence",
    "spread": "spread of the logit confidence",
    "agreement": "correlation with the other models",
    "accuracy_members": "accuracy on its members",
    "accuracy_left_out": "accuracy on left-out examples",
}


def print_outlying_models(console: Console, store: Store) -> None:
    """Print the line on models far from the others that were found when the bank was scored; nothing without any."""
    if outlying := read_outlying_models(store.folder):
        print_line(console, format_outlying_models(outlying), markup=True)


def format_outlying_models(outlying: Mapping[str, Sequence[Deviation]]) -> str:
    """Format the names of models far from the others, each with its farthest measure, and what to do."""
    named = [
        f"{name} ({MEASURES[farthest.measure]} {farthest.value:.3g}, median {farthest.median:.3g})"
        for name, (farthest, *_) in list(outlying.items())[:MODELS_NAMED]
    ]
    more = f" and {len(outlying) - MODELS_NAMED} more in reports/summary.json" if len(outlying) > MODELS_NAMED else ""
    return (
        f"[yellow]far from the others[/] {len(outlying)} of the bank's models: {', '.join(named)}{more}. They are "
        "in every score, and as shadow models they can hide what the others leak: compare with a bank without them (a "
        "smaller --lr or another --seed; an import that leaves them out)"
    )

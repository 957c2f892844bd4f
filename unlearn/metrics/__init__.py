"""Every measure by name: what it needs, its columns with unit, direction and ideal.

To add one, write its file here and one line below; tests/unlearn/metrics/test_table.py holds it to its word.
"""

from unlearn.metrics import accuracy, tow
from unlearn.metrics.case import Measure

MEASURES: dict[str, Measure] = {
    "accuracy": Measure(fn=accuracy.accuracy, columns=accuracy.COLUMNS, needs="outputs", paper="RUM, SURE", core=True),
    "held-out-accuracy": Measure(
        fn=accuracy.held_out_accuracy,
        columns=accuracy.COLUMNS_HELD_OUT,
        needs="outputs",
        paper="RUM, SURE",
        core=True,
        splits=("validation", "test"),
    ),
    "tow": Measure(
        fn=tow.tow, columns=tow.COLUMNS, needs="outputs", paper="RUM", core=True, splits=("validation", "test")
    ),
}

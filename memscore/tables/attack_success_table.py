"""Table of attack success beside what an attack without information has, in a terminal."""

from collections.abc import Sequence

import numpy as np
from rich.console import Console

from memscore.pipeline.scoring import ArmScores
from memscore.tables.console import make_table


def print_attack_success(console: Console, arms: Sequence[ArmScores]) -> None:
    """Print the mean of each attack success over the examples, and its value without information; nothing if none."""
    table = make_table("attack success: mean over examples", ("score", "mean", "without information", "models", "keep"))
    for arm in arms:
        for name, success in arm.success.items():
            numbers = ("-" if np.isnan(value) else f"{value:.3f}" for value in (success.mean, success.no_information))
            table.add_row(f"{name}_{arm.suffix}", *numbers, str(arm.models), f"{arm.arm.keep:g}")
    if table.row_count:
        console.print(table)
        console.print(
            "without information: the same attack on confidences permuted over the models; it depends on the keep "
            "fraction and the number of models, so attack success must not be compared between fractions",
            soft_wrap=True,
        )

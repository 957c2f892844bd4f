"""The comparison of scores in a terminal."""

import numpy as np
from rich.console import Console

from memscore.analysis.fidelity import Comparison, ProxyComparison
from memscore.analysis.risk_signals import RiskSignals
from memscore.statistics.claims import Trend
from memscore.statistics.correlation import TOP_FRACTION
from memscore.statistics.intervals import Interval
from memscore.tables.bank_tables import SECONDS_NOTE, format_interval, format_number
from memscore.tables.console import make_table

TOP_COLUMN = f"top {100 * TOP_FRACTION:.1f} %"


def print_fidelity(console: Console, found: Comparison) -> None:
    """Every table of a comparison."""
    stand_ins(console, found.standings)
    skew(console, found.gini)
    for signals in found.signals:
        loss_groups(console, signals)
    trends = [*found.standings.trends, *(trend for signals in found.signals for trend in signals.trends)]
    papers(console, trends)


def stand_ins(console: Console, found: ProxyComparison) -> None:
    """SCALE's Table 1, and what the correlations would be without the noise of the estimate."""
    reliability = found.reliability
    drawn = "blocks of models" if found.by_blocks else "models"
    columns = ("proxy", "Spearman", "95 %", "noiseless", "Pearson", TOP_COLUMN, "seconds", "% bank", "% training")
    table = make_table(f"stand-ins for {found.reference}", columns)
    for row in found.rows:
        if not row.shares_models:
            costs = (row.seconds, 100 * row.of_bank, 100 * row.of_training)
            middle = (
                format_interval(row.spearman.lo, row.spearman.hi),
                *map(format_number, (row.corrected, row.pearson, row.top)),
            )
            table.add_row(row.score, format_number(row.spearman.value), *middle, *map(format_number, costs))
    if table.row_count:
        console.print(table)
    else:
        console.print("no proxies: `python -m memscore.estimate --proxies all` with --originals 1 or more makes them")
    title = "scores of the same models: they share its noise, which flatters them"
    own = make_table(title, ("score", "Spearman", "Pearson", TOP_COLUMN))
    for row in found.rows:
        if row.shares_models:
            own.add_row(row.score, *map(format_number, (row.spearman.value, row.pearson, row.top)))
    console.print(own)
    lines = [
        f"{found.reference} from {found.models} models: reliability Spearman "
        f"{format_number(reliability.spearman_full)}, "
        f"Pearson {format_number(reliability.pearson_full)}; tops of its halves share {format_number(reliability.top)}",
        f"intervals over {drawn}; noiseless: what Spearman would be without the noise of {found.reference}",
        f"seconds beyond the training: {SECONDS_NOTE}; - is inline or not timed apart; "
        + (
            f"training takes {found.bank_s:.1f} s for the bank, {format_number(found.training_s)} s for one model on "
            "everything"
            if found.bank_s
            else "what training took is not on file"
        ),
    ]
    for line in lines:
        console.print(line, soft_wrap=True, highlight=False)


def skew(console: Console, gini: dict[str, Interval]) -> None:
    """SCALE's Table 3, step 0."""
    table = make_table("skew over the examples", ("score", "Gini", "95 %"))
    for name, value in gini.items():
        table.add_row(name, format_number(value.value), format_interval(value.lo, value.hi))
    console.print(table)


def loss_groups(console: Console, signals: RiskSignals) -> None:
    """RSU's Fig. 5 and Table 3 as numbers."""
    if signals.risk.startswith("attack_success"):
        table = make_table("attack success by tenths of the loss", ("loss", "attack success", "95 %"))
        for group in signals.groups:
            table.add_row(
                f"{group.least:.2g} to {group.most:.2g}",
                format_number(group.success.value),
                format_interval(group.success.lo, group.success.hi),
            )
        console.print(table)
    columns = ("class", "lowest fifth", "riskiest", "random", "riskiest in the fifth")
    tails = make_table(f"probability of the label, by {signals.risk}", columns)
    for tail in signals.tails:
        lowest = f"{tail.least:.4f} to {tail.tail:.4f}"
        probabilities = ("-" if np.isnan(p) else f"{p:.4f}" for p in (tail.risky, tail.twin))
        tails.add_row(str(tail.label), lowest, *probabilities, format_number(tail.risky_in_tail))
    console.print(tails)


def papers(console: Console, trends: list[Trend]) -> None:
    """What the papers report, and whether it is so in this bank."""
    if not trends:
        return
    table = make_table("what SCALE and RSU report, in this bank", ("claim", "value", "95 %", "verdict"))
    for trend in trends:
        table.add_row(
            trend.claim,
            format_number(trend.value.value),
            format_interval(trend.value.lo, trend.value.hi),
            trend.verdict,
        )
    console.print(table)

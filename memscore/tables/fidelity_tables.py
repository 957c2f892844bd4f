"""Tables of the comparison of scores with memorization, in a terminal."""

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


def print_fidelity(console: Console, comparison: Comparison) -> None:
    """Print every table of a comparison."""
    print_proxies(console, comparison.standings)
    print_skew(console, comparison.gini)
    for signals in comparison.signals:
        print_loss_groups(console, signals)
    trends = [*comparison.standings.trends, *(trend for signals in comparison.signals for trend in signals.trends)]
    print_claims(console, trends)


def print_proxies(console: Console, fidelity: ProxyComparison) -> None:
    """Print SCALE's Table 1: correlation with memorization, also without the estimate's noise, and cost per score."""
    # proxies are of other models than the estimate: their correlations have intervals and can be corrected
    reliability = fidelity.reliability
    resampled = "blocks of models" if fidelity.by_blocks else "models"
    columns = ("proxy", "Spearman", "95 %", "noiseless", "Pearson", TOP_COLUMN, "seconds", "% bank", "% training")
    table = make_table(f"stand-ins for {fidelity.reference}", columns)
    for row in fidelity.rows:
        if not row.shares_models:
            costs = (row.seconds, 100 * row.of_bank, 100 * row.of_training)
            correlations = (
                format_interval(row.spearman.lo, row.spearman.hi),
                *map(format_number, (row.corrected, row.pearson, row.top)),
            )
            table.add_row(row.score, format_number(row.spearman.value), *correlations, *map(format_number, costs))
    if table.row_count:
        console.print(table)
    else:
        console.print("no proxies: `python -m memscore.estimate --proxies all` with --originals 1 or more makes them")
    # scores of the same models have a table of their own, so that nobody compares them with the proxies
    title = "scores of the same models share its noise, which raises their correlations"
    same_models = make_table(title, ("score", "Spearman", "Pearson", TOP_COLUMN))
    for row in fidelity.rows:
        if row.shares_models:
            same_models.add_row(row.score, *map(format_number, (row.spearman.value, row.pearson, row.top)))
    console.print(same_models)
    lines = [
        f"{fidelity.reference} from {fidelity.models} models: reliability Spearman "
        f"{format_number(reliability.spearman_full)}, "
        f"Pearson {format_number(reliability.pearson_full)}; tops of its halves share {format_number(reliability.top)}",
        f"95 %: over other draws of {resampled}, these examples; noiseless: Spearman extrapolated to ever more models, "
        + ("up to 2.5 times as uncertain" if reliability.halves else "undefined with one block of models"),
        f"seconds beyond the training: {SECONDS_NOTE}; - means not timed; "
        + (
            f"training takes {fidelity.bank_s:.1f} s for the bank, "
            f"{format_number(fidelity.training_s)} s for one model "
            "on everything"
            if fidelity.bank_s
            else "the cost of training is not stored"
        ),
    ]
    for line in lines:
        console.print(line, soft_wrap=True, highlight=False)


def print_skew(console: Console, gini: dict[str, Interval]) -> None:
    """Print the Gini coefficient of each score: SCALE's Table 3 before any unlearning step."""
    table = make_table("skew over the examples", ("score", "Gini", "95 %"))
    for name, value in gini.items():
        table.add_row(name, format_number(value.value), format_interval(value.lo, value.hi))
    console.print(table)


def print_loss_groups(console: Console, signals: RiskSignals) -> None:
    """Print RSU's Fig. 5 and Table 3 as numbers."""
    # with another risk, the tenths are of the examples that have it, such as the candidates of an inversion
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


def print_claims(console: Console, trends: list[Trend]) -> None:
    """Print the claims of the papers, and whether they hold in this bank."""
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

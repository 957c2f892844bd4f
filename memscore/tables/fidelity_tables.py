"""Tables of the comparison of scores with memorization, in a terminal."""

from collections.abc import Sequence

import numpy as np
from rich.console import Console

from memscore.analysis.fidelity import Comparison, ProxyComparison
from memscore.analysis.risk_signals import RiskSignals
from memscore.statistics.claims import Trend
from memscore.statistics.correlation import TOP_FRACTION
from memscore.statistics.intervals import Interval, clip_interval
from memscore.store.class_names import format_class
from memscore.tables.bank_tables import SECONDS_NOTE
from memscore.tables.console import make_table, print_line
from memscore.tables.numbers import SHARE, format_interval, format_number
from memscore.units import format_count, format_duration

TOP_COLUMN = f"top {100 * TOP_FRACTION:.1f} %"


def print_fidelity(console: Console, comparison: Comparison, names: Sequence[str] = ()) -> None:
    """Print every table of a comparison; the names are those of the classes."""
    print_proxies(console, comparison.standings)
    print_skew(console, comparison.gini)
    for signals in comparison.signals:
        print_loss_groups(console, signals, names)
    trends = [*comparison.standings.trends, *(trend for signals in comparison.signals for trend in signals.trends)]
    print_claims(console, trends)


def print_proxies(console: Console, fidelity: ProxyComparison) -> None:
    """Print SCALE's Table 1: correlation with memorization, also without the estimate's noise, and cost per score."""
    # proxies are of other models than the estimate: their correlations have intervals and can be corrected
    reliability = fidelity.reliability
    resampled = "blocks of models" if fidelity.by_blocks else "models"
    columns = ("proxy", "Spearman", "95 %", "noiseless", "Pearson", TOP_COLUMN, "time", "% bank", "% training")
    table = make_table(f"proxies of {fidelity.reference}, the strongest rank correlation first", columns)
    for row in fidelity.rows:
        if not row.shares_models:
            costs = (format_duration(row.seconds), *map(format_cost, (row.of_bank, row.of_training)))
            correlations = (
                format_interval(row.spearman.lo, row.spearman.hi),
                *map(format_number, (row.corrected, row.pearson, row.top)),
            )
            table.add_row(row.score, format_number(row.spearman.value), *correlations, *costs)
    if table.row_count:
        console.print(table)
    else:
        print_line(
            console, "no proxies: `python -m memscore.estimate --proxies all` with --originals 1 or more makes them"
        )
    # scores of the same models have a table of their own, so that nobody compares them with the proxies
    title = "scores of the same models share its noise, which raises their correlations"
    same_models = make_table(title, ("score", "Spearman", "Pearson", TOP_COLUMN))
    for row in fidelity.rows:
        if row.shares_models:
            same_models.add_row(row.score, *map(format_number, (row.spearman.value, row.pearson, row.top)))
    console.print(same_models)
    lines = [
        f"{fidelity.reference} from {format_count(fidelity.models, 'model')}: reliability Spearman "
        f"{format_number(reliability.spearman_full)}, "
        f"Pearson {format_number(reliability.pearson_full)}; tops of its halves share {format_number(reliability.top)}",
        f"95 %: over other draws of {resampled}, these examples; noiseless: Spearman extrapolated to ever more models, "
        + ("up to 2.5 times as uncertain" if reliability.halves else "undefined with one block of models"),
        f"time beyond the training: {SECONDS_NOTE}; - means not timed; "
        + (
            f"training takes {format_duration(fidelity.bank_s)} for the bank, "
            f"{format_duration(fidelity.training_s)} for one model on everything"
            if fidelity.bank_s
            else "the cost of training is not stored"
        ),
    ]
    for line in lines:
        print_line(console, line)


def print_skew(console: Console, gini: dict[str, Interval]) -> None:
    """Print the Gini coefficient of each score: SCALE's Table 3 before any unlearning step."""
    table = make_table("skew over the examples", ("score", "Gini", "95 %"))
    for name, value in gini.items():
        table.add_row(name, format_number(value.value), format_interval(value.lo, value.hi))
    console.print(table)


def print_loss_groups(console: Console, signals: RiskSignals, names: Sequence[str] = ()) -> None:
    """Print RSU's Fig. 5 and Table 3 as numbers."""
    # with another risk, the tenths are of the examples that have it, such as the candidates of an inversion
    if signals.risk.startswith("attack_success"):
        table = make_table(
            "attack success by tenths of the examples, the lowest loss of the originals first",
            ("tenth", "loss", "attack success", "95 %"),
        )
        for number, group in enumerate(signals.groups, start=1):
            success = clip_interval(group.success, *SHARE)
            table.add_row(
                str(number),
                "0" if group.most == 0 else f"{group.least:.2g} to {group.most:.2g}",
                format_number(success.value),
                format_interval(success.lo, success.hi),
            )
        console.print(table)
        if sum(group.most == 0 for group in signals.groups) > 1:
            print_line(console, "loss 0: too small for a number; tenths of it divide such examples by their order")
    columns = ("class", "its lowest fifth", "mean of riskiest", "mean of random", "riskiest in lowest fifth")
    tails = make_table(f"probability that the originals give the label, of the riskiest by {signals.risk}", columns)
    for tail in signals.tails:
        # a class without riskiest and random examples has nothing to compare
        if not (np.isnan(tail.risky) and np.isnan(tail.twin)):
            probabilities = ("-" if np.isnan(p) else f"{p:.4f}" for p in (tail.risky, tail.twin))
            share = "-" if np.isnan(tail.risky_in_tail) else f"{100 * tail.risky_in_tail:.0f} %"
            label = format_class(tail.label, names)
            tails.add_row(label, f"{tail.least:.4f} to {tail.tail:.4f}", *probabilities, share)
    if tails.row_count:
        console.print(tails)
        print_line(
            console,
            "lowest fifth: from the lowest probability of the class to that below which a fifth of it lies; random: as "
            "many other examples as riskiest ones, drawn at random",
        )


def format_cost(share: float) -> str:
    """Format a cost as a share, in percent; a dash where it is not known."""
    return "-" if np.isnan(share) else f"{100 * share:.2g}" if share < 0.1 else f"{100 * share:.0f}"


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

"""Tables of membership decisions: thresholds set on a bank's models, whether they hold, and leakage by group."""

from collections.abc import Mapping, Sequence

import numpy as np
from rich.console import Console

from memscore.analysis.calibration import AuditDecisions
from memscore.pipeline.attack_decisions import AttackDecisions
from memscore.statistics.calibrated_threshold import PRIORS, DecisionRates, RepeatedDecisions
from memscore.statistics.group_leak import GroupLeak
from memscore.statistics.intervals import Interval, clip_interval
from memscore.store.class_names import format_class
from memscore.tables.console import make_table, print_line
from memscore.tables.numbers import SHARE, format_with_interval
from memscore.tables.outlying_line import format_outlying_models

GROUPS_SHOWN = 3
PRECISION_ROWS = tuple(f"PPV {100 * prior:g} %" for prior in PRIORS)
PRECISION_NOTE = f"PPV: of the flagged, members, where {', '.join(f'{100 * p:g}' for p in PRIORS)} % of all are"


def print_decisions(
    console: Console, attacks: Sequence[tuple[str, AttackDecisions]], suffix: str, names: Sequence[str] = ()
) -> None:
    """Print the thresholds of an arm's attacks and what they do; of the first attack also repeats and groups."""
    columns = {
        f"{name} > {each.threshold:.4g}": format_rates(each.rates)
        for name, decisions in attacks
        for each in decisions.thresholds
        if not np.isnan(each.threshold)
    }
    if columns:
        print_columns(
            console,
            f"flagged as members by thresholds set on other models, {suffix}: percent and 95 % interval over targets",
            ("FPR", "TPR", *PRECISION_ROWS),
            columns,
        )
        print_line(console, PRECISION_NOTE)
    for name, decisions in attacks[:1]:
        if line := format_repeats(decisions.repeats):
            print_line(console, f"{name}_{suffix} > {decisions.decided_at:.4g}: {line}")
        for line in format_groups(decisions.groups, names):
            print_line(console, f"{line}; all: reports/groups_{suffix}.parquet")


def print_audit_decisions(console: Console, decisions: AuditDecisions, names: Sequence[str] = ()) -> None:
    """Print what an audit's threshold and calibrated ones flag, and the groups that leak most."""
    given, *_ = decisions.thresholds
    here = given.realised_fpr is not None
    columns = {}
    for each in decisions.thresholds:
        if not np.isnan(each.threshold):
            fpr, _, *precision = format_rates(each.expected)
            realised = [format_percent(each.realised_fpr, 1)] if each.realised_fpr else ["-"] * here
            columns[f"LiRA > {each.threshold:.4g}"] = [f"{each.flagged} of {each.of}", fpr, *realised, *precision]
    print_columns(
        console,
        f"flagged, in percent with 95 % interval; expected from {given.expected.targets} models of the bank as targets",
        ("flagged", "expected FPR", *(["FPR here"] if here else []), *PRECISION_ROWS),
        columns,
    )
    spread = ", ".join(f"{100 * each.expected.fpr_sd:.2f}" for each in decisions.thresholds)
    print_line(console, f"sd of one model's FPR around the expected: {spread}; {PRECISION_NOTE}")
    for line in format_groups(decisions.groups, names):
        print_line(console, line)
    if decisions.outlying:
        print_line(console, format_outlying_models(decisions.outlying), markup=True)


def print_columns(console: Console, title: str, rows: Sequence[str], columns: Mapping[str, Sequence[str]]) -> None:
    """Print a table of a column for each threshold: with its numbers in a row it is wider than most terminals."""
    table = make_table(title, ("measure", *columns))
    for row, cells in zip(rows, zip(*columns.values(), strict=True), strict=True):
        table.add_row(row, *cells)
    console.print(table)


def format_rates(rates: DecisionRates) -> list[str]:
    """Format FPR, TPR and precision in percent."""
    return [
        *(format_percent(each, 2 if each.value < 0.1 else 1) for each in (rates.fpr, rates.tpr)),
        *(format_percent(each, 1 if each.value < 0.1 else 0) for each in rates.precision.values()),
    ]


def format_percent(interval: Interval, digits: int) -> str:
    """Format a share and its interval in percent; a dash where it is undefined."""
    if np.isnan(interval.value):
        return "-"
    ends = "" if np.isnan(interval.lo) else f" [{100 * interval.lo:.{digits}f}, {100 * interval.hi:.{digits}f}]"
    return f"{100 * interval.value:.{digits}f}{ends}"


def format_repeats(repeats: RepeatedDecisions) -> str:
    """Format whether a decision on an example holds in another model; empty where nobody is flagged."""
    if np.isnan(repeats.flagged_again):
        return ""
    wrongly = "" if np.isnan(repeats.wrongly_again) else f" (a non-member: {repeats.wrongly_again:.2f})"
    coin_flips = (
        ""
        if np.isnan(repeats.coin_flips)
        else f"; {100 * repeats.coin_flips:.1f} % of examples are flagged in 25 to 75 % of the models trained on them"
    )
    again = f"a member flagged in one model is flagged in another with probability {repeats.flagged_again:.2f}"
    return f"{again}{wrongly}{coin_flips}"


def format_groups(groups: Mapping[str, Sequence[GroupLeak]], names: Sequence[str] = ()) -> list[str]:
    """Format the groups with the largest areas under the curve, a line for each kind that has any."""
    lines = []
    for kind, leaks in groups.items():
        defined = [leak for leak in leaks if not np.isnan(leak.auc.value)]
        largest = ", ".join(
            f"{kind} {format_class(leak.group, names if kind == 'class' else ())} {format_auc(leak.auc)}"
            for leak in defined[:GROUPS_SHOWN]
        )
        if defined:
            least = defined[-1].auc.value
            lines.append(f"AUC within each {kind}, the largest of {len(defined)}: {largest}; the least {least:.3f}")
    return lines


def format_auc(interval: Interval) -> str:
    """Format an area under the curve and its interval, if that is known."""
    if np.isnan(interval.lo):
        return f"{interval.value:.3f} (one target)"
    return format_with_interval(clip_interval(interval, *SHARE))

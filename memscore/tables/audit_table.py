"""Tables of an audit in a terminal: detection of members, the strongest evidence, and what can be concluded."""

from collections.abc import Sequence

import numpy as np
from rich.console import Console

from memscore.analysis.audit import AuditResult
from memscore.analysis.audit_report import count_members
from memscore.store.class_names import format_class
from memscore.tables.console import make_table, print_command, print_line
from memscore.tables.decision_table import print_audit_decisions
from memscore.tables.epsilon_lines import print_epsilon_bounds
from memscore.tables.numbers import (
    explain_unrealisable_rates,
    format_number,
    format_rate,
    format_with_interval,
)
from memscore.tables.score_tables import format_unfinished
from memscore.units import format_count

EVIDENCE_NAMES = {"lira": "LiRA online", "lira_offline": "LiRA offline", "rmia": "RMIA"}
ROWS_SHOWN = 5
LABEL_WIDTH = 10


def print_audit(
    console: Console,
    audit: AuditResult,
    path: str,
    *,
    notes: Sequence[str] = (),
    command: tuple[str, str] = ("", ""),
    names: Sequence[str] = (),
) -> None:
    """Print the results of an audit, the path of its table, and what can be concluded, which is the last line.

    Notes are lines on the file of weights and on copies; the command trains a bank that fits the model, with what it
    still needs; the names are those of the classes.
    """
    lines = [
        f"shadows   {format_count(audit.models, 'model')} of {audit.arm}{format_unfinished(audit.unfinished)}; "
        "all of them are used for every example, and the audited model is not one of them",
        *notes,
        *format_model_checks(audit),
        format_flagged(audit),
    ]
    if "rmia" not in audit.table.column_names:
        lines.append("RMIA      none: the bank has no validation examples to compare with")
    print_lines(console, lines)
    print_audit_decisions(console, audit.decisions, names)
    n_members = count_members(audit)
    if n_members is not None and 0 < n_members < audit.table.num_rows:
        print_curves(console, audit)
    print_strongest(console, audit, names)
    print_line(console, f"every example: {path}")
    print_conclusion(console, audit, command)


def print_lines(console: Console, lines: Sequence[str]) -> None:
    """Print lines that begin with a label."""
    for line in lines:
        print_line(console, line, indent=LABEL_WIDTH)


def format_model_checks(audit: AuditResult) -> list[str]:
    """Format the model's accuracy beside the bank's, and how its confidences lie among the shadow models'."""
    own = ", ".join(f"{name} {format_number(group.value)}" for name, group in audit.accuracies.items())
    bank = ", ".join(f"{name} {format_number(group.bank)}" for name, group in audit.accuracies.items())
    lines = [f"accuracy  {own}; the bank's models: {bank} (median)"]
    for split, fit in audit.fits.items():
        if fit is None:
            continue
        limits = f"{fit.median_limits.lo:.2f} to {fit.median_limits.hi:.2f}"
        spread_limits = f"{fit.spread_limits.lo:.2f} to {fit.spread_limits.hi:.2f}"
        lines.append(
            f"fit       {split}: z of its confidence among {fit.models} shadow models' has median {fit.median:.2f} "
            f"({limits} fits) and sd {fit.spread:.2f} ({spread_limits} fits), {format_count(fit.examples, 'example')}"
            + (f"; {len(fit.outlying)} shadow models far from the others are left out" if fit.outlying else "")
        )
    return lines


def format_flagged(audit: AuditResult) -> str:
    """Format how many examples are flagged as members, and how often non-members are expected to be."""
    verdict = audit.table["verdict"]
    undefined = f"; undefined for {verdict.null_count}" if verdict.null_count else ""
    if np.isnan(audit.expected_fpr):
        rate = "at an unknown FPR"
    else:
        sd = "" if np.isnan(audit.expected_fpr_sd) else f" (sd {100 * audit.expected_fpr_sd:.1f})"
        rate = f"at an expected FPR of {100 * audit.expected_fpr:.1f} %{sd}, that of the bank's own models"
        rate += "" if audit.trusted else ", which does not hold for a model that is not trusted"
    flagged = f"{verdict.to_pylist().count(True)} of {len(verdict)} training examples of the bank"
    return f"flagged   {flagged}, LiRA online > {audit.threshold:g}, {rate}{undefined}"


def print_conclusion(console: Console, audit: AuditResult, command: tuple[str, str]) -> None:
    """Print all reasons and what to do where the audit is not trusted, and last the conclusion."""
    reasons = [f"reason    {reason}" for reason in audit.reasons] if len(audit.reasons) > 1 else []
    print_lines(console, [*reasons, *(f"cause     perhaps {cause}" for cause in audit.causes)])
    if audit.causes and command[0]:
        print_command(console, "to do     train a bank that fits:", command[0])
        print_line(console, f"          {command[1]}", indent=LABEL_WIDTH)
    print_line(console, audit.conclusion)


def print_curves(console: Console, audit: AuditResult) -> None:
    """Print AUC and true-positive rates of each attack, and the bound on epsilon."""
    n_members = count_members(audit) or 0
    counts = format_count(n_members, "member"), format_count(audit.table.num_rows - n_members, "other")
    title = f"{' and '.join(counts)}: value and 95 % interval"
    table = make_table(title, ("attack", "AUC", "TPR at FPR 1 %", "TPR at FPR .1 %"))
    for kind, curve in audit.curves.items():
        table.add_row(
            EVIDENCE_NAMES[kind],
            *(format_with_interval(curve.auc), format_rate(curve.tpr_at_01), format_rate(curve.tpr_at_001)),
        )
    console.print(table)
    rates = (rate for curve in audit.curves.values() for rate in (curve.tpr_at_01, curve.tpr_at_001))
    for line in explain_unrealisable_rates(rates):
        print_line(console, line)
    if audit.epsilon is not None:
        print_epsilon_bounds(console, audit.epsilon_bounds, audit.table.num_rows)


def print_strongest(console: Console, audit: AuditResult, names: Sequence[str] = ()) -> None:
    """Print the examples with the strongest evidence of membership."""
    evidence = np.asarray(audit.table["lira"].to_numpy(), float)
    kinds = [kind for kind in EVIDENCE_NAMES if kind in audit.table.column_names]
    has_membership = "member" in audit.table.column_names
    table = make_table(
        "strongest evidence",
        ("id", "label", *(EVIDENCE_NAMES[kind] for kind in kinds), *(["member"] if has_membership else [])),
        whole=("id",),
    )
    for row in np.argsort(-np.nan_to_num(evidence, nan=-np.inf), kind="stable")[:ROWS_SHOWN].tolist():
        values = {name: audit.table[name][row].as_py() for name in audit.table.column_names}
        membership = ["yes" if values["member"] else "no"] if has_membership else []
        table.add_row(
            values["id"],
            format_class(values["label"], names),
            *(format_number(values[kind]) for kind in kinds),
            *membership,
        )
    console.print(table)

"""Tables of an audit in a terminal: detection of members, and the strongest evidence."""

import numpy as np
from rich.console import Console

from memscore.analysis.audit import AuditResult
from memscore.statistics.epsilon_bound import EpsilonBound
from memscore.tables.bank_tables import (
    explain_unrealisable_rates,
    format_number,
    format_rate,
    format_unfinished,
    format_with_interval,
)
from memscore.tables.console import make_table

EVIDENCE_NAMES = {"lira": "LiRA online", "lira_offline": "LiRA offline", "rmia": "RMIA"}
ROWS_SHOWN = 5


def print_audit(console: Console, audit: AuditResult, path: str) -> None:
    """Print the results of an audit, and the path of its table."""
    # soft_wrap leaves long lines to the terminal, so that a pipe gets each of them whole
    verdict = audit.table["verdict"]
    n_members, n_undefined = verdict.to_pylist().count(True), verdict.null_count
    accuracy = ", ".join(f"{split} {format_number(value)}" for split, value in audit.accuracy.items())
    lines = [
        f"shadows   {audit.models} models of {audit.arm}{format_unfinished(audit.unfinished)}; "
        "all of them are used for every example, and the audited model is not one of them",
        f"accuracy  {accuracy}",
        f"verdict   {n_members} of {len(verdict)} training examples of the bank were members: LiRA online > "
        f"{audit.threshold:g}" + (f"; undefined for {n_undefined}" if n_undefined else ""),
    ]
    if "rmia" not in audit.table.column_names:
        lines.append("RMIA      none: the bank has no validation examples to compare with")
    for line in lines:
        console.print(line, soft_wrap=True, highlight=False)
    if audit.curves:
        print_curves(console, audit)
    print_strongest(console, audit)
    console.print(f"every example: {path}", soft_wrap=True)


def print_curves(console: Console, audit: AuditResult) -> None:
    """Print AUC and true-positive rates of each evidence, and the bound on epsilon."""
    n_members = int(np.sum(audit.table["member"].to_numpy(zero_copy_only=False)))
    title = f"{n_members} members and {audit.table.num_rows - n_members} others: value and 95 % interval"
    table = make_table(title, ("evidence", "AUC", "TPR at FPR 1 %", "TPR at FPR .1 %"))
    for kind, curve in audit.curves.items():
        table.add_row(
            EVIDENCE_NAMES[kind],
            *(format_with_interval(curve.auc), format_rate(curve.tpr_at_01), format_rate(curve.tpr_at_001)),
        )
    console.print(table)
    rates = (rate for curve in audit.curves.values() for rate in (curve.tpr_at_01, curve.tpr_at_001))
    for line in explain_unrealisable_rates(rates):
        console.print(line, soft_wrap=True, highlight=False)
    if audit.epsilon is not None:
        console.print(format_epsilon(audit.epsilon), soft_wrap=True, highlight=False)


def format_epsilon(bound: EpsilonBound) -> str:
    """Format the lower bound on epsilon, with the counts that it rests on."""
    if np.isnan(bound.value):
        return "epsilon   no bound: each half of the examples needs members and others"
    sign = ">" if bound.says == "member" else "<="
    return (
        f"epsilon   at least {bound.value:.3f} (delta 0, {100 * bound.level:g} % confidence, Clopper-Pearson): "
        f'"{bound.says}" where LiRA online {sign} {bound.threshold:.3f}, chosen on the other half, is right for '
        f"{bound.hits} of {bound.of_hits} and wrong for {bound.false} of {bound.of_false}; valid if the members were "
        "drawn at random"
    )


def print_strongest(console: Console, audit: AuditResult) -> None:
    """Print the examples with the strongest evidence of membership."""
    evidence = np.asarray(audit.table["lira"].to_numpy(), float)
    kinds = [kind for kind in EVIDENCE_NAMES if kind in audit.table.column_names]
    has_membership = "member" in audit.table.column_names
    table = make_table(
        "strongest evidence",
        ("id", "label", *(EVIDENCE_NAMES[kind] for kind in kinds), *(["member"] if has_membership else [])),
    )
    for row in np.argsort(-np.nan_to_num(evidence, nan=-np.inf), kind="stable")[:ROWS_SHOWN].tolist():
        values = {name: audit.table[name][row].as_py() for name in audit.table.column_names}
        membership = ["yes" if values["member"] else "no"] if has_membership else []
        table.add_row(values["id"], str(values["label"]), *(format_number(values[kind]) for kind in kinds), *membership)
    console.print(table)

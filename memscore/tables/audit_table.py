"""An audit in a terminal: what was asked, how well members are told, and who stands out."""

import numpy as np
from rich.console import Console

from memscore.analysis.audit import AuditResult
from memscore.statistics.epsilon_bound import EpsilonBound
from memscore.tables.bank_tables import format_number, format_unfinished, format_with_interval
from memscore.tables.console import make_table

NAMES = {"lira": "LiRA online", "lira_offline": "LiRA offline", "rmia": "RMIA"}
SHOWN = 5


def print_audit(console: Console, audit: AuditResult, where: str) -> None:
    """Everything that an audit has found, and where it lies."""
    verdict = audit.table["verdict"]
    named, undefined = verdict.to_pylist().count(True), verdict.null_count
    accuracy = ", ".join(f"{split} {format_number(value)}" for split, value in audit.accuracy.items())
    lines = [
        f"shadows   {audit.models} models of {audit.arm}{format_unfinished(audit.unfinished)}; "
        "all of them judge every example, the model is none of them",
        f"accuracy  {accuracy}",
        f"verdict   {named} of {len(verdict)} training examples of the bank were members: LiRA online > "
        f"{audit.threshold:g}" + (f"; undefined for {undefined}" if undefined else ""),
    ]
    if "rmia" not in audit.table.column_names:
        lines.append("RMIA      none: the bank has no validation examples to compare with")
    for line in lines:
        console.print(line, soft_wrap=True, highlight=False)
    if audit.curves:
        curves(console, audit)
    strongest(console, audit)
    console.print(f"every example: {where}", soft_wrap=True)


def curves(console: Console, audit: AuditResult) -> None:
    """How well each kind of evidence tells members from others, and what that says of epsilon."""
    held = int(np.sum(audit.table["member"].to_numpy(zero_copy_only=False)))
    title = f"{held} members and {audit.table.num_rows - held} others: value and 95 % interval"
    table = make_table(title, ("evidence", "AUC", "TPR at FPR 1 %", "TPR at FPR .1 %"))
    for kind, curve in audit.curves.items():
        table.add_row(
            NAMES[kind], *(format_with_interval(each) for each in (curve.auc, curve.tpr_at_01, curve.tpr_at_001))
        )
    console.print(table)
    others = audit.table.num_rows - held
    if others < 1000:
        console.print(f"with {others} others a false positive rate of .1 % allows no false positive", highlight=False)
    if audit.epsilon is not None:
        console.print(epsilon_line(audit.epsilon), soft_wrap=True, highlight=False)


def epsilon_line(bound: EpsilonBound) -> str:
    """The bound and what it rests on."""
    if np.isnan(bound.value):
        return "epsilon   no bound: each half of the examples needs members and others"
    sign = ">" if bound.says == "member" else "<="
    return (
        f"epsilon   at least {bound.value:.3f} (delta 0, {100 * bound.level:g} % confidence, Clopper-Pearson): "
        f'"{bound.says}" where LiRA online {sign} {bound.threshold:.3f}, chosen on the other half, is right for '
        f"{bound.hits} of {bound.of_hits} and wrong for {bound.false} of {bound.of_false}; holds if who was a member "
        "was drawn at random"
    )


def strongest(console: Console, audit: AuditResult) -> None:
    """The examples with the most evidence of membership."""
    evidence = np.asarray(audit.table["lira"].to_numpy(), float)
    kinds = [kind for kind in NAMES if kind in audit.table.column_names]
    truth = "member" in audit.table.column_names
    table = make_table(
        "strongest evidence", ("id", "label", *(NAMES[kind] for kind in kinds), *(["member"] if truth else []))
    )
    for row in np.argsort(-np.nan_to_num(evidence, nan=-np.inf), kind="stable")[:SHOWN].tolist():
        at = {name: audit.table[name][row].as_py() for name in audit.table.column_names}
        known = ["yes" if at["member"] else "no"] if truth else []
        table.add_row(at["id"], str(at["label"]), *(format_number(at[kind]) for kind in kinds), *known)
    console.print(table)

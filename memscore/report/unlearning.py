"""The unlearning section of a page: experiments, sweeps and trials, each with the oracle beside every method."""

from collections.abc import Mapping
from typing import Any

from memscore.report.columns import NO_CLASS, Columns
from memscore.report.experiments import build_experiments
from memscore.report.forget_sets import ForgetSet, count_left_out_answers, find_forget_sets
from memscore.report.measures import read_descriptions
from memscore.report.omissions import Omission, read_or_omit
from memscore.report.parts import Part
from memscore.report.sweeps import build_sweeps
from memscore.report.trials import add_models, build_trial_groups, collect_trials
from memscore.store.store import Store
from memscore.units import format_count

LEAD = (
    "Models that were made to forget, beside an oracle that was retrained without the forget set and the original that "
    "forgot nothing. A method is good where it is as the oracle, and cheaper than retraining."
)


def build_unlearning(store: Store, columns: Columns, n: int, omissions: list[Omission]) -> Part | None:
    """Build the section of unlearning, and add what models answer on each example; None without any trial."""
    if not store.folder.names("trials"):
        return None
    descriptions = read_descriptions(store, omissions)
    # first what answers a question of a paper, last single trials
    experiments, drawn, in_experiments = build_experiments(store, descriptions, omissions)
    sweeps, drawn_sweeps, in_sweeps = build_sweeps(store, descriptions, omissions)
    rows = collect_trials(store, in_experiments | in_sweeps, omissions)
    built = read_or_omit("trials", omissions, build_trial_groups, rows, descriptions)
    trials, drawn_trials = built or ([], [])
    # one reading of the oracles' events tells all forget sets
    sets = read_or_omit("the forget sets of trials", omissions, find_forget_sets, store, n) or {}
    models = read_or_omit("answers of models", omissions, add_models, columns, store, rows, sets, n, omissions)
    read_or_omit("left-out answers", omissions, add_left_out_answers, columns, store, sets, n)
    # its rows are of other training data, so they do not go with these examples
    for place in store.scenarios():
        reason = f"it is in the store {place}, whose training data were changed; report on {place} itself"
        omissions.append(Omission(what="unlearning of changed data", reason=reason, is_fault=False))
    groups = [*experiments, *sweeps, *trials]
    meta: dict[str, Any] = {
        "experiments": [*drawn, *drawn_sweeps["experiments"], *drawn_trials],
        "sweeps": drawn_sweeps["sweeps"],
        "trials": models or [],
    }
    return Part(id="unlearning", title="Unlearning", lead=LEAD, groups=groups, meta=meta) if groups else None


def add_left_out_answers(columns: Columns, store: Store, sets: Mapping[str, ForgetSet], n: int) -> None:
    """Add what oracles answer most on the examples that they were not trained on, and how many of them."""
    counted = count_left_out_answers(store, sets, n, store.manifest.n_classes)
    if counted is None:
        return
    about = f"of {format_count(counted['oracles'], 'oracle')}, of those that were not trained on it"
    columns.add(
        "left_out_answer",
        counted["answers"],
        role="left_out_answer",
        title="Left-out answer",
        about=f"Most frequent answer {about}.",
        null=NO_CLASS,
    )
    columns.add(
        "left_out_share",
        counted["share"],
        role="left_out_share",
        title="Share of it",
        about=f"Share of that answer {about}.",
        unit="probability",
    )

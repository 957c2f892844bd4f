"""Tables in a terminal: what a bank says, with its intervals."""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.markup import escape

from memscore.pipeline.config import MAX_MODELS
from memscore.pipeline.dry_run import CostEstimate
from memscore.pipeline.precision import DEFAULT_RMSES, ForecastCheck, PrecisionForecast
from memscore.pipeline.runner import Bank, EstimateResult
from memscore.pipeline.scoring import ArmScores
from memscore.pipeline.train_bank import TrainingSummary
from memscore.plots.bank import format_label
from memscore.statistics.correlation import TOP_FRACTION
from memscore.statistics.intervals import Interval
from memscore.statistics.roc import TargetMean
from memscore.tables.console import make_table

SHOWN = 5  # most memorized examples in the terminal
SECONDS_NOTE = "one worker's wall clock as measured, whatever the machine and its load; median over originals"
FITTED = 0.95  # members' accuracy below which a bank is not worth its scores


def print_heading(console: Console, bank: Bank) -> None:
    """What is about to be done, before anything is."""
    manifest, recipe = bank.store.manifest, bank.store.manifest.recipe
    train, validation, test = manifest.split_sizes
    shape = "x".join(str(size) for size in manifest.input_shape)
    changes = "".join(f", {name} {value}" for name, value in manifest.label_changes.items())
    augmented = "".join(f", {name}" for name in recipe["augment"])
    lines = (
        f"data   {manifest.data}: {train} train, {validation} validation, {test} test; {shape}{changes}",
        f"model  {manifest.architecture}, {recipe['epochs']} epochs of batch {recipe['batch']}, "
        f"{recipe['optimizer']} lr {recipe['lr']}, {manifest.precision}{augmented}",
        *(f"arm    {arm.name}: {wanted(bank)}" for arm in bank.arms),
        f"store  {bank.store.folder.display_name}" + (f" on host {bank.host}" if bank.host else ""),
    )
    for line in lines:
        console.print(line, soft_wrap=True, highlight=False, markup=False)


def wanted(bank: Bank) -> str:
    """How many models, or how precise."""
    if bank.config.until_rmse is None:
        return f"{bank.count} models"
    most = "" if bank.config.models is None else f", at most {bank.count} models"
    return f"until RMSE {bank.config.until_rmse:g}{most}"


def print_cost(console: Console, found: CostEstimate) -> None:
    """What a run would take."""
    missing = found.planned - found.stored
    console.print(
        f"to do  {missing} of {found.planned} models, about {found.seconds:.2f} s each on one core of this machine\n"
        f"time   about {found.wall_s / 60:.1f} minutes with {found.workers} workers, originals included\n"
        + "".join(f"proxy  {name}: about {s:.2f} s an original\n" for name, s in found.proxies.items())
        + f"disk   about {found.bytes / 1e6:.1f} MB in all\n"
        + ("more   what the wanted RMSE takes is known after these first models\n" if found.only_first_models else "")
        + "nothing was written",
        highlight=False,
        soft_wrap=True,
    )


def print_forecast(console: Console, found: PrecisionForecast, wish: float | None) -> None:
    """Models, hours and disk for a wanted error, or for a few where none is."""
    many = "1 worker" if found.workers == 1 else f"{found.workers} workers"
    title = f"{found.arm.name}: RMSE {found.rmse:.4f} with {found.models} models; with {many}"
    console.print(title, highlight=False, soft_wrap=True)
    table = make_table("", ("RMSE", "models in all", "hours to go", "MB in all"))
    for need in map(found.compute_requirement, DEFAULT_RMSES if wish is None else (wish,)):
        table.add_row(f"{need.rmse:g}", str(need.models), f"{need.hours:.3g}", f"{need.bytes / 1e6:.1f}")
    console.print(table)


def planned(console: Console, found: Sequence[ForecastCheck]) -> None:
    """One line for each arm that was planned; one more where a wish was not met."""
    for one in found:
        if one.wish is None and one.models == one.planned_from:
            continue  # nothing was planned that did not stand there already
        wish = "" if one.wish is None else f" {one.models_predicted} models for RMSE {one.wish:g}, and"
        console.print(
            f"{one.suffix}: the plan from {one.planned_from} models said{wish} RMSE {one.rmse_predicted:.4f} at "
            f"{one.models}; it is {one.rmse:.4f}",
            highlight=False,
            soft_wrap=True,
        )
        if one.more is not None:
            console.print(
                f"[yellow]not reached[/] RMSE {one.wish:g} with {one.models} models: about {one.more} would do"
                + (
                    "; give --models as many or leave it out"
                    if one.more <= MAX_MODELS
                    else f", and a bank holds {MAX_MODELS}"
                ),
                highlight=False,
                soft_wrap=True,
            )


def print_result(console: Console, found: EstimateResult, store: str) -> None:
    """Everything that a run has found, and where it lies."""
    print_problems(console, found.training)
    scores(console, found.table, found.arms)
    planned(console, found.kept)
    if found.wish is not None and not found.kept:
        console.print(
            f"[yellow]not reached[/] RMSE {found.wish:g}: it is undefined, no example has two models on each side; "
            "use more --models",
            soft_wrap=True,
        )
    for arm in found.arms:
        most_memorized(console, found.table, arm.suffix)
    proxies(console, found)
    noise(console, found.noise)
    fit(console, found)
    console.print(
        f"every score, one row an example: {store}/scores.parquet; figures: {store}/reports/",
        soft_wrap=True,
        markup=False,
    )


def fit(console: Console, found: EstimateResult) -> None:
    """How well the models fit their data, a warning where they do not, and how fast they were trained."""
    shown = ", ".join(f"{group.replace('_', ' ')} {value:.3f}" for group, value in found.accuracy.items())
    console.print(f"accuracy (median model): {shown}", highlight=False)
    members = found.accuracy.get("members", 1.0)
    if members < FITTED:
        console.print(
            f"[yellow]warning[/] models are right on {members:.3f} of their own members; memorization means little "
            f"below {FITTED}" + ("" if found.imported else ": train longer (--epochs) or use a larger --arch"),
            soft_wrap=True,
        )
    if found.training.trained:
        rate = 3600 * found.training.trained / found.wall_s
        console.print(f"{found.training.trained} models in {found.wall_s:.1f} s, {rate:.0f} an hour", highlight=False)


def proxies(console: Console, found: EstimateResult) -> None:
    """What each proxy cost beside one training, and a word where one original leaves no error to state."""
    if found.proxy_s:
        many = "1 original" if found.originals == 1 else f"{found.originals} originals"
        title = f"proxies, median of {many}; training one takes {found.training_s:.2f} s of one worker"
        table = make_table(title, ("proxy", "seconds", "of one training"))
        for name, seconds in found.proxy_s.items():
            table.add_row(name, f"{seconds:.3f}", f"{100 * seconds / found.training_s:.1f} %")
        console.print(table)
        console.print(f"seconds: {SECONDS_NOTE}", soft_wrap=True, highlight=False)
    if found.originals == 1:
        console.print(
            "one original: learning events, final loss and proxies have no standard error; --originals 3 gives one",
            soft_wrap=True,
        )


def print_problems(console: Console, filled: TrainingSummary) -> None:
    """One line for each kind of trouble, with what happens next."""
    for path, why in filled.damaged.items():
        console.print(f"[yellow]damaged[/] {path}: {escape(why)}; set aside and trained again", soft_wrap=True)
    if filled.diverged:
        names = ", ".join(filled.diverged[:4]) + (" ..." if len(filled.diverged) > 4 else "")
        console.print(
            f"[red]diverged[/] {len(filled.diverged)} models ({names}): their numbers are not finite; they are left "
            "out of every score and not trained again; a smaller --lr makes another bank",
            soft_wrap=True,
        )
    if filled.differing:
        console.print(
            f"[yellow]not the same bits[/] {', '.join(filled.differing)}: trained again for a proxy, on another kind "
            "of CPU or on a GPU; the proxies are of this training, weights and outputs of the one on file",
            soft_wrap=True,
        )
    if filled.restored:
        console.print(
            f"[yellow]receipts lost[/] of {len(filled.restored)} models, first {filled.restored[0]}: written again "
            "from their shards, without seconds, worker and device, which nobody knows any more",
            soft_wrap=True,
        )
    if filled.failed:
        name, why = next(iter(filled.failed.items()))
        console.print(
            f"[red]failed[/] {len(filled.failed)} models or proxies, first {name}: {escape(why)}; "
            "the same command tries them again",
            soft_wrap=True,
        )


def scores(console: Console, table: pa.Table, found: Sequence[ArmScores]) -> None:
    """How each score is spread, how precise the bank is, and what an attacker gets."""
    columns = ("score", "mean", "median", "95 %", "max", "> .25", "> .5", "null")
    spread = make_table(f"{table.num_rows} training examples: mean, quantiles, share above .25 and .5", columns)
    for arm in found:
        for stem in ("memorization", "cscore", "attack_success"):
            if f"{stem}_{arm.suffix}" in table.column_names:
                spread.add_row(*spread_row(f"{stem}_{arm.suffix}", table))
    console.print(spread)
    print_reliabilities(console, found)
    title = "membership inference: mean and 95 % interval over targets"
    attacks = make_table(title, ("attack", "n", "AUC", "TPR at FPR 1 %", "TPR at FPR .1 %"))
    for arm in found:
        for name, curve in arm.attacks.items():
            attacks.add_row(f"{name}_{arm.suffix}", str(curve.targets), *curve_row(curve.measures))
    if attacks.row_count:
        console.print(attacks)
    for arm in found:
        console.print(
            f"{arm.suffix}: {arm.models} models, memorization RMSE {arm.rmse:.4f}"
            + ("" if np.isnan(arm.rmse_block) else f" (between blocks {arm.rmse_block:.4f})")
            + format_unfinished(arm.unfinished)
            + (f", undefined for {arm.undefined} examples" if arm.undefined else "")
        )


def format_unfinished(count: int) -> str:
    """What is said of models in blocks that are not whole."""
    return f", {count} of them in unfinished blocks, which help less" if count else ""


def print_reliabilities(console: Console, found: Sequence[ArmScores]) -> None:
    """How far halves of the models agree on each score, stepped up to all models."""
    columns = ("score", "Spearman", "Pearson", f"top {100 * TOP_FRACTION:.1f} %, halves", "RMSE")
    table = make_table("reliability: halves of the models, stepped up to all", columns)
    for arm in found:
        for stem, of in arm.reliability.items():
            numbers = (of.spearman_full, of.pearson_full, of.top, of.rmse)
            if of.halves:
                table.add_row(f"{stem}_{arm.suffix}", *map(format_number, numbers))
        if not any(of.halves for of in arm.reliability.values()):
            twice = 2 * arm.arm.models_per_block
            console.print(f"{arm.suffix}: one block of models has no halves to compare; --models {twice} has")
    if table.row_count:
        console.print(table)
        if any("-" in column.cells for column in table.columns[1:]):
            console.print("-: the halves agree in nothing (their correlation is below 0), or the score is one number")


def spread_row(name: str, table: pa.Table) -> list[str]:
    """One score's distribution over the examples that define it."""
    values = np.asarray(table[name].to_numpy(), float)
    defined = values[~np.isnan(values)]
    if not len(defined):
        return [name, *["-"] * 6, str(len(values))]
    numbers = (defined.mean(), np.median(defined), np.quantile(defined, 0.95), defined.max())
    shares = ((defined > 0.25).mean(), (defined > 0.5).mean())
    return [
        name,
        *(f"{number:.3f}" for number in numbers),
        *(f"{100 * share:.1f} %" for share in shares),
        str(len(values) - len(defined)),
    ]


def curve_row(curve: Mapping[str, TargetMean]) -> list[str]:
    """AUC and two true-positive rates with their intervals."""
    measures = (curve[key] for key in ("auc", "tpr_at_0.01", "tpr_at_0.001"))
    return [f"{format_number(measure.value)} ± {format_number(measure.hi - measure.value)}" for measure in measures]


def most_memorized(console: Console, table: pa.Table, suffix: str) -> None:
    """The examples that stand and fall with their own presence."""
    name = f"memorization_{suffix}"
    values = np.asarray(table[name].to_numpy(), float)
    top = np.argsort(-np.nan_to_num(values, nan=-np.inf), kind="stable")[:SHOWN]
    columns = ("id", "label", "memorization", "95 % interval", "C-score", "attack")
    shown, attack = make_table(f"most memorized, {suffix}", columns), f"attack_success_{suffix}"
    for row in top.tolist():
        at = {key: table[key][row].as_py() for key in (name, f"{name}_lo", f"{name}_hi")}
        shown.add_row(
            escape(table["id"][row].as_py()),
            format_label(table, row),
            format_number(at[name]),
            format_interval(at[f"{name}_lo"], at[f"{name}_hi"]),
            format_number(table[f"cscore_{suffix}"][row].as_py()),
            format_number(table[attack][row].as_py() if attack in table.column_names else None),
        )
    console.print(shown)


def noise(console: Console, found: Mapping[str, Interval]) -> None:
    """How well each score finds the changed labels."""
    if not found:
        return
    table = make_table("AUROC for the changed labels", ("score", "AUROC and 95 % interval"))
    for name, area in sorted(found.items(), key=lambda item: -item[1].value):
        table.add_row(name, format_with_interval(area))
    console.print(table)


def format_number(value: float | None) -> str:
    """Three digits, or a dash where undefined: null on file, NaN in memory."""
    return "-" if value is None or np.isnan(value) else f"{value:.3f}"


def format_interval(lo: float | None, hi: float | None) -> str:
    """The ends of an interval, or a dash where there is none."""
    ends = (format_number(lo), format_number(hi))
    return "-" if ends == ("-", "-") else f"[{', '.join(ends)}]"


def format_with_interval(found: Interval) -> str:
    """A number and its interval, or one dash where there is neither."""
    value, ends = format_number(found.value), format_interval(found.lo, found.hi)
    return value if value == ends else f"{value} {ends}"

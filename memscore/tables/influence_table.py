"""Tables of influence in a terminal: strong pairs, how many are expected by chance, and the strongest."""

import numpy as np
from rich.console import Console

from memscore.analysis.influence_pairs import MAX_FALSE_SHARE, InfluenceResult
from memscore.plots.bank import format_label
from memscore.store.class_names import name_labels
from memscore.store.store import Store
from memscore.tables.console import make_table, print_line
from memscore.tables.numbers import format_number
from memscore.tables.score_tables import format_unfinished
from memscore.units import format_count

ROWS_SHOWN = 8
TARGET_NAMES = {
    "test": "test examples",
    "train": "training examples",
    "train-held-out": "training examples, over models without them",
}


def print_influence(console: Console, result: InfluenceResult, store: Store, figure: str | None) -> None:
    """Print the pairs of a run, and where they and the figure are stored."""
    for path, reason in result.damaged.items():
        print_line(console, f"[yellow]damaged[/] {path}: {reason}; left out", markup=True)
    for line in format_summary(result):
        print_line(console, line)
    if result.table.num_rows:
        print_strongest(console, result, store)
    path = store.folder.display_path(f"influence/{result.name}.parquet")
    print_line(console, f"every pair: {path}" + (f"; {store.folder.display_path(figure)}" if figure else ""))


def format_summary(result: InfluenceResult) -> list[str]:
    """Format the numbers of the whole run, one line each."""
    heading = (
        f"influence  of training examples on {TARGET_NAMES[result.targets]}: {format_count(result.models, 'model')} "
        f"of {result.arm}"
        f"{format_unfinished(result.unfinished)}"
    )
    if np.isinf(result.least):
        return [heading, "strong     0 pairs", *format_least(result), *format_undefined(result)]
    # of the targets: how many have a strong pair, and how many have exactly one
    strong = result.strong
    n_strong = int(strong.sum())
    per_target = result.table["test_row"].filter(strong).value_counts()
    n_hit, n_once = len(per_target), per_target.field("counts").to_pylist().count(1)
    share = 100 * n_hit / result.n_targets
    false = result.false_expected / max(n_strong, 1)
    by_chance = f"; about {result.false_expected:.1f} are expected by chance ({100 * false:.0f} %)"
    lines = [
        heading,
        f"strong     {format_count(n_strong, 'pair')} with influence >= {result.least:g} and memorization >= "
        f"{result.least_memorization:g} of the training example" + (by_chance if n_strong else ""),
        *format_least(result),
        f"targets    {n_hit} of {result.n_targets} ({share:.1f} %) have a strong pair, {n_once} exactly one",
        f"opposite   {result.opposite} such pairs have influence <= {-result.least:g}; about "
        f"{result.opposite_expected:.1f} are expected by chance",
        *format_undefined(result),
    ]
    if not result.least_chosen and n_strong and false > 0.5:
        lines.append("           most strong pairs may be noise: train more models, or raise --least")
    return lines


def format_least(result: InfluenceResult) -> list[str]:
    """Format how the least influence of a strong pair was chosen, if it was."""
    share = f"{100 * MAX_FALSE_SHARE:g} %"
    how = f"by {result.permutations} permutations of the models' memberships"
    if not result.least_chosen:
        return []
    if np.isinf(result.least):
        return [f"least      none: of no influence are at most {share} of the pairs expected to be false, {how}"]
    return [f"least      {result.least:g}, from which at most {share} of the pairs are expected to be false, {how}"]


def format_undefined(result: InfluenceResult) -> list[str]:
    """Format how many pairs have nothing to be compared, if there are any."""
    if not result.undefined:
        return []
    reason = "no model was trained with the example, or none without it"
    advice = "; nothing can be compared, so train more models" if result.undefined == result.pairs else ""
    return [f"undefined  {result.undefined} of {result.pairs} pairs: {reason}{advice}"]


def print_strongest(console: Console, result: InfluenceResult, store: Store) -> None:
    """Print the pairs with the largest influence."""
    title = "most influential strong pairs" if result.strong.any() else "no pair is strong; the most influential ones"
    columns = ("target", "label", "training example", "label", "influence", "s.e.", "memorization", "q")
    table = make_table(title, columns, whole=("target", "training example"))
    examples = name_labels(store.examples(), store.class_names)
    for row in result.strongest()[:ROWS_SHOWN].tolist():
        [pair] = result.table.slice(row, 1).to_pylist()
        table.add_row(
            pair["test_id"],
            format_label(examples, pair["test_row"]),
            pair["train_id"],
            format_label(examples, pair["train_row"]),
            *(format_number(pair[key]) for key in ("influence", "se", "memorization")),
            "<0.001" if pair["q"] is not None and pair["q"] < 0.0005 else format_number(pair["q"]),
        )
    console.print(table)

"""Influence in a terminal: how many pairs matter, how many of them chance would give, and the strongest."""

from rich.console import Console
from rich.markup import escape

from memscore.analysis.influence_pairs import InfluenceResult
from memscore.plots.bank import format_label
from memscore.store.store import Store
from memscore.tables.bank_tables import format_number, format_unfinished
from memscore.tables.console import make_table

SHOWN = 8
KINDS = {
    "test": "test examples",
    "train": "training examples",
    "train-held-out": "training examples, over models without them",
}


def print_influence(console: Console, found: InfluenceResult, store: Store, picture: str | None) -> None:
    """Everything that a run has found, and where it lies.

    Args:
        console: where to.
        found: by the run.
        store: the bank.
        picture: path of the picture within the store, if there is one.
    """
    for path, why in found.damaged.items():
        console.print(f"[yellow]damaged[/] {path}: {escape(why)}; left out", soft_wrap=True)
    for line in summary(found):
        console.print(line, soft_wrap=True, highlight=False, markup=False)
    if found.table.num_rows:
        strongest(console, found, store)
    place = store.folder.display_name
    lines = [f"every pair: {place}/influence/{found.name}.parquet" + (f"; {place}/{picture}" if picture else "")]
    for line in lines:
        console.print(line, soft_wrap=True, markup=False)


def summary(found: InfluenceResult) -> list[str]:
    """The numbers of the run as a whole."""
    strong = found.strong
    n_strong = int(strong.sum())
    per_target = found.table["test_row"].filter(strong).value_counts()
    hit, once = len(per_target), per_target.field("counts").to_pylist().count(1)
    share = 100 * hit / found.n_targets
    lines = [
        f"influence  of training examples on {KINDS[found.targets]}: {found.models} models of {found.arm}"
        f"{format_unfinished(found.unfinished)}",
        f"strong     {n_strong} pairs with influence >= {found.least:g} and memorization >= "
        f"{found.least_memorization:g} of the training example",
        f"targets    {hit} of {found.n_targets} ({share:.1f} %) have a strong pair, {once} exactly one",
        f"chance     {found.opposite} such pairs have influence <= {-found.least:g}: as far as that is noise, about as "
        "many of the strong ones are",
    ]
    if n_strong and 2 * found.opposite > n_strong:
        lines.append("           most strong pairs may be noise: train more models, or raise --least")
    return lines


def strongest(console: Console, found: InfluenceResult, store: Store) -> None:
    """The pairs with the largest influence."""
    title = "most influential strong pairs" if found.strong.any() else "no pair is strong; the most influential ones"
    columns = ("target", "label", "training example", "label", "influence", "s.e.", "memorization")
    table, examples = make_table(title, columns), store.examples()
    for row in found.strongest()[:SHOWN].tolist():
        [pair] = found.table.slice(row, 1).to_pylist()
        table.add_row(
            escape(pair["test_id"]),
            format_label(examples, pair["test_row"]),
            escape(pair["train_id"]),
            format_label(examples, pair["train_row"]),
            *(format_number(pair[key]) for key in ("influence", "se", "memorization")),
        )
    console.print(table)

"""The examples of a page: the training examples of a bank with their scores, as columns."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from memscore.report.columns import NO_CLASS, Columns
from memscore.report.omissions import Omission, read_or_omit
from memscore.report.score_words import ATTACKS, MEMORIZATION, describe_direction, describe_score, split_score_name
from memscore.store.parquet import decode_metadata
from memscore.store.store import Store

ENDINGS = ("se", "lo", "hi", "n", "n_in", "n_out", "se_block", "in", "out")
"""Of columns that belong to a score, which stands before them."""
FIRST_CHOSEN = ("memorization_blend", "memorization", "cscore", "lira", "attack_success", "rmia")
N_CHOSEN = 4
"""Scores whose histograms are open at first, as many of these as there are."""
SUSPECT_ABOUT = (
    "models that never saw it are wrong on it more often than not: the upper end of the C-score's 95 % interval is "
    "below one half. Its label is wrong, or it is unlike the others of its class"
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Examples:
    """The training examples of a page.

    Attributes:
        table: one row for each, as in scores.parquet.
        scores: names of the scores in it.
        n: how many examples there are.
    """

    table: pa.Table
    scores: list[str]

    @property
    def n(self) -> int:
        """How many there are."""
        return int(self.table.num_rows)

    def read(self, column: str) -> np.ndarray:
        """Read a column of numbers, float64 [n], NaN where undefined."""
        return np.asarray(self.table[column].to_numpy(), np.float64)

    def find_first(self, *stems: str) -> str | None:
        """Find the first score of one of these stems, in their order; None where there is none."""
        return next((name for stem in stems for name in self.scores if split_score_name(name)[0] == stem), None)


def read_examples(store: Store, omissions: list[Omission]) -> Examples:
    """Read the training examples with all scores that can be read; ValueError where not even their ids can be."""
    table = None
    if store.folder.exists("scores.parquet"):
        table = read_or_omit("the table of all scores", omissions, store.read_table, "scores.parquet")
    # a bank whose scores are being written has their own files before it has the table of all
    if table is None:
        table = join_scores(store, omissions)
    scores = [name for name in table.column_names if is_score(name, table.schema)]
    if not scores:
        reason = f"there are none yet; run {store.rebuild_command}"
        omissions.append(Omission(what="scores", reason=reason, is_fault=False))
    return Examples(table=table, scores=scores)


def join_scores(store: Store, omissions: list[Omission]) -> pa.Table:
    """Join the examples with each score's own file, where the table of all scores is missing or damaged."""
    n_train = store.manifest.split_sizes[0]
    table = store.examples().slice(0, n_train)
    names = sorted(name.removesuffix(".parquet") for name in store.folder.names("scores"))
    for name in names:
        score = read_or_omit(f"the score {name}", omissions, store.read_score, name)
        if score is None:
            continue
        rows = np.asarray(score["row"].to_numpy())
        # a score may be of some examples alone, such as the candidates of an inversion
        places = np.full(n_train, -1, np.int64)
        places[rows[rows < n_train]] = np.flatnonzero(rows < n_train)
        taken = pa.array(places, mask=places < 0)
        for column in score.column_names[2:]:
            table = table.append_column(score.schema.field(column).with_nullable(True), score[column].take(taken))
    return table


def is_score(name: str, schema: pa.Schema) -> bool:
    """Return whether a column is a score, and no error, count or end of an interval of one."""
    # several endings may fit: x_n_in ends in _in and in _n_in
    bases = [name.removesuffix(f"_{ending}") for ending in ENDINGS if name.endswith(f"_{ending}")]
    return "direction" in decode_metadata(schema.field(name)) and not any(base in schema.names for base in bases)


def add_examples(columns: Columns, examples: Examples, class_names: Sequence[str]) -> None:
    """Add the columns of the examples: id, class, cluster, suspected wrong label, then every score."""
    table = examples.table
    # ids may be whole numbers in a table of another tool
    ids = [str(each) for each in table["id"].to_pylist()]
    columns.add("id", ids, role="id", title="Id", about="of the example in the data set")
    add_labels(columns, table, class_names)
    if "cluster" in table.column_names and table["cluster"].null_count < examples.n:
        clusters = np.asarray(table["cluster"].fill_null(-1).to_numpy(), np.int64)
        columns.add(
            "cluster",
            clusters,
            role="cluster",
            title="Cluster",
            about="of similar images, from which subsets are drawn",
            null=-1,
        )
    add_suspicions(columns, examples)
    # one arm needs no suffix in titles
    several = len({split_score_name(name)[1] for name in examples.scores} - {""}) > 1
    chosen = choose_first(examples.scores)
    # those that are open at first come first, and the first of all is the page's first order
    for name in [*chosen, *(name for name in examples.scores if name not in chosen)]:
        add_score(columns, examples, name, chosen=name in chosen, several_arms=several)
    add_accuracies(columns, examples)


def add_labels(columns: Columns, table: pa.Table, class_names: Sequence[str]) -> None:
    """Add the class of each example, and the published one where labels were changed."""
    if "label" not in table.column_names or table["label"].null_count == table.num_rows:
        return
    labels = np.asarray(table["label"].fill_null(NO_CLASS).to_numpy(), np.int64)
    # labels beyond the named classes cannot be shown by name
    labels = np.where((labels < 0) | (labels >= len(class_names)), NO_CLASS, labels)
    columns.add("label", labels, role="class", title="Class", about="its label in training", null=NO_CLASS)
    if "label_true" not in table.column_names:
        return
    # equal columns would be two filters of one thing
    published = np.asarray(table["label_true"].fill_null(NO_CLASS).to_numpy(), np.int64)
    if not np.array_equal(np.where(published >= len(class_names), NO_CLASS, published), labels):
        columns.add(
            "label_true",
            published,
            role="label_true",
            title="Published class",
            about="its label before some were changed",
            null=NO_CLASS,
        )


def add_suspicions(columns: Columns, examples: Examples) -> None:
    """Add which labels are suspected to be wrong, where a C-score has an interval."""
    cscore = examples.find_first("cscore")
    if cscore and f"{cscore}_hi" in examples.table.column_names:
        # NaN is not below one half: an example that was always in is not suspected
        upper = examples.read(f"{cscore}_hi")
        columns.add("suspect", upper < 0.5, role="suspect", title="Suspected wrong label", about=SUSPECT_ABOUT)


def choose_first(scores: Sequence[str]) -> list[str]:
    """Choose the scores whose histograms are open at first."""
    # of the first arm that has it: two arms' histograms of one score would look alike
    by_stem = {split_score_name(name)[0]: name for name in reversed(scores)}
    ranked = [by_stem[stem] for stem in FIRST_CHOSEN if stem in by_stem]
    # the blend is the better estimate of the same, so that both would show one picture
    if any(split_score_name(name)[0] == "memorization_blend" for name in ranked):
        ranked = [name for name in ranked if split_score_name(name)[0] != "memorization"]
    return [*ranked, *(name for name in scores if name not in ranked)][:N_CHOSEN]


def add_score(columns: Columns, examples: Examples, name: str, *, chosen: bool, several_arms: bool) -> None:
    """Add a score with its interval, or its standard error where it has no interval."""
    table, (stem, suffix) = examples.table, split_score_name(name)
    metadata = decode_metadata(table.schema.field(name))
    words = describe_score(stem)
    ends: dict[str, Any] = {}
    for ending in ("lo", "hi", "se"):
        # an interval says all that a standard error does
        if f"{name}_{ending}" in table.column_names and not (ending == "se" and "hi" in ends):
            ends[ending] = columns.add_values(examples.read(f"{name}_{ending}"), f"{name}_{ending}")
    # as stored, not oriented: a reader compares with scores.parquet
    direction = int(metadata["direction"])
    about = f"{words.about[:1].upper()}{words.about[1:]}. " if words.about else ""
    columns.add(
        name,
        examples.read(name),
        role="score" if words.group in {MEMORIZATION, ATTACKS} else "proxy",
        title=f"{words.title} ({suffix})" if several_arms and suffix else words.title,
        group=words.group,
        about=about + describe_direction(direction),
        chosen=chosen,
        unit=metadata.get("unit", ""),
        direction=direction,
        source=metadata.get("source", ""),
        **ends,
    )


def add_accuracies(columns: Columns, examples: Examples) -> None:
    """Add how often models with and without an example are right on it, of the first arm that has both."""
    memorization, cscore = examples.find_first("memorization"), examples.find_first("cscore")
    # shares of two arms are of other subsets and have no difference
    if not memorization or not cscore or split_score_name(memorization)[1] != split_score_name(cscore)[1]:
        return
    right_out = examples.read(cscore)
    about = "share of the models trained {} it that are right on it"
    # memorization is the difference of the two shares
    columns.add(
        "p_in",
        np.clip(examples.read(memorization) + right_out, 0, 1),
        role="p_in",
        title="Right with it",
        about=about.format("on"),
        unit="probability",
    )
    columns.add(
        "p_out",
        right_out,
        role="p_out",
        title="Right without it",
        about=about.format("without"),
        unit="probability",
    )

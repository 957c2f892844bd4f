"""Forget sets by specification.

A specification is a kind, or a kind and an argument: `random`, `memorization_k0.500:high`, `entanglement:low`,
`entanglement-at-memorization_k0.500:low`, `class:3`, `class:0,1`, `id:train/00042`. Scores come from a store and are
oriented so that higher is more memorized or riskier; examples whose score is undefined are never selected by it. Two
kinds change the training data before anything is trained, and so need separate originals and oracles: `canaries` and
`confusion:0,1`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from memscore.choices import validate_choice
from memscore.data.id_lists import read_matching_ids
from memscore.data.splits import Dataset, Splits
from memscore.seeds import generator
from unlearn.class_arguments import number_classes, parse_class, parse_classes
from unlearn.data_changes import inject_canaries, inject_confusion
from unlearn.meta.partition import ScoreReader, align_scores
from unlearn.meta.rum import distance_to_centroid
from unlearn.meta.worst_case import LOSS_SCORE, OUT_PREFIX, WORST_CASE, compute_gaps
from unlearn.problem import validate_forget_rows

LEVELS = ("low", "medium", "high")
SCORE_PARTS = (*LEVELS, "union", "riskiest", "twin")
ENTANGLEMENT_AT = "entanglement-at-"
"""Prefix of the score that all levels of entanglement have in common."""
LEVEL_POSITIONS = {"low": 14 / 14, "medium": 12 / 14, "high": 3 / 14}
"""Positions among the groups of rising distance to the centroid, as in RUM's code: groups 15, 13 and 4 of 15 at
|F| = 3,000. The nearest group of all has a low ES again, since it lies to one side of the centroid."""
MIN_GROUP_SIZE = 5
"""Smallest group in which the three positions differ."""


class SizeTooLargeError(ValueError):
    """A forget set of that kind can only be smaller."""


@dataclass(frozen=True, kw_only=True)
class ForgetSet:
    """The examples to forget.

    Attributes:
        name: the specification as the user wrote it, with the size.
        rows: of the training set, rising.
        by_class: whether it holds all training examples of its classes.
    """

    name: str
    rows: tuple[int, ...]
    by_class: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class Selection:
    """What a kind of forget set selects rows from.

    Attributes:
        kind: the specification before its colon.
        part: the specification after it.
        size: number of examples.
        splits: the data set.
        scores: reads a score of the store.
        embeddings: returns float [n_train, E] of the original.
        available: int64, rows that may be selected, ascending.
        rng: the set's random stream.
    """

    kind: str
    part: str
    size: int
    splits: Splits
    scores: ScoreReader
    embeddings: Callable[[], np.ndarray]
    available: np.ndarray
    rng: np.random.Generator

    def draw(self, candidates: np.ndarray, described: str) -> np.ndarray:
        """Draw `size` of the candidates, or raise if there are fewer."""
        size = _require_at_most(self.size, len(candidates), described)
        rows: np.ndarray = self.rng.choice(candidates, size, replace=False)
        return rows


@dataclass(frozen=True, kw_only=True)
class ForgetSetKind:
    """One kind of forget set: an entry of FORGET_SETS.

    Attributes:
        meanings: values of --forget as a user writes them -> what they select, for docs/reference/forget-sets.md.
        select: returns the rows of a selection; None if the kind changes the training data.
        inject: (part, size, splits, random stream) -> the changed training set, the record of the change, the rows.
        sized: whether --size gives the number of examples.
    """

    meanings: dict[str, str]
    select: Callable[[Selection], np.ndarray] | None = None
    inject: Callable[[str, int, Splits, np.random.Generator], tuple[Dataset, dict[str, object], np.ndarray]] | None = (
        None
    )
    sized: bool = True


def find_kind(spec: str) -> ForgetSetKind:
    """Find the kind of a specification; what is no kind's name is a score's."""
    name = spec.partition(":")[0]
    if name.startswith(ENTANGLEMENT_AT):
        return FORGET_SETS["entanglement-at-SCORE"]
    return FORGET_SETS.get(name, FORGET_SETS["SCORE"])


def changes_data(spec: str) -> bool:
    """Report whether a forget set changes the training data, so that it needs a separate store."""
    return find_kind(spec).inject is not None


def select_forget_set(
    spec: str,
    size: int,
    splits: Splits,
    scores: ScoreReader,
    embeddings: Callable[[], np.ndarray],
    seed: int,
    excluded: tuple[int, ...] = (),
) -> ForgetSet:
    """Select the forget set of a specification.

    Args:
        spec: random; SCORE:low, :medium, :high (medium is nearest 0.5 for memorization, else nearest the median),
            :union (a third of each), :riskiest (= high), :twin (as many random examples that are not among the
            riskiest); entanglement:low, :medium, :high; entanglement-at-SCORE:low, :medium, :high, at equal values of
            that score; worst-case:k0.500, the farthest of theta_o from models without them; class:K or class:K,L,...
            with numbers or names; partial-class:K; id:ID; ids:FILE.
        size: number of examples; ignored where the specification fixes it (class, id, ids).
        splits: the data set.
        scores: reads a score of the store.
        embeddings: returns float [n_train, E] of the original; called for levels of entanglement only.
        seed: seed of the random draws.
        excluded: rows that are never selected, so that a second, disjoint set of the same kind can be drawn; ignored by
            class, id and ids.

    Returns:
        The forget set.

    Raises:
        ValueError: an unknown specification, more examples than are available, or an invalid set.
    """
    spec = number_classes(spec, splits)
    kind, colon, part = spec.partition(":")
    if kind == "random" and colon:
        raise ValueError(f"{spec}: a random set has no part; --size is the number of examples, --seed decides which")
    n_train, entry = len(splits.train), find_kind(spec)
    if entry.sized and not 0 < size < n_train:
        error = ValueError if size < 1 else SizeTooLargeError
        raise error(f"--size {size}: a forget set has 1 to {n_train - 1} of the {n_train} training examples")
    selection = Selection(
        kind=kind,
        part=part,
        size=size,
        splits=splits,
        scores=scores,
        embeddings=embeddings,
        available=np.setdiff1d(np.arange(n_train), np.array(excluded, dtype=np.int64)),
        # The specification is part of the stream: sets of two specifications are drawn independently.
        rng=generator(seed, "forget-set", spec),
    )
    # A kind that changes the data is made by inject_forget_set; here its name is as unknown as a misspelt one.
    rows = _validate_rows((entry.select or _select_by_score)(selection), n_train)
    return ForgetSet(name=f"{spec} of {size}" if entry.sized else spec, rows=rows, by_class=kind == "class")


def find_score_name(spec: str) -> str:
    """Return the name of the score that a specification selects by; "" if there is none."""
    kind, _, part = spec.partition(":")
    if kind == WORST_CASE:
        return f"{OUT_PREFIX}{part}"
    return "" if kind == "entanglement" or part not in SCORE_PARTS else kind.removeprefix(ENTANGLEMENT_AT)


def resolve_score_alias(spec: str, find_name: Callable[[str], str]) -> str:
    """Replace the score of a specification by its stored name, so that both ways of writing it are one set."""
    score = find_score_name(spec)
    return spec.replace(score, find_name(score), 1) if score else spec


def inject_forget_set(spec: str, size: int, splits: Splits, seed: int) -> tuple[Splits, ForgetSet]:
    """Change the training data for a forget set, and return both.

    Args:
        spec: "canaries": random examples; in one of twenty all pixels are shuffled, each example by a different
            permutation, and the label is kept (SURE 5, Canary Unlearning); "confusion:A,B": a random 1 % of the
            examples of two classes, each labelled as the other class (SURE appendix F; Goel et al. 2022).
        size: size of the forget set of canaries; ignored for confusion.
        splits: the unchanged data set.
        seed: seed of the random draws.

    Returns:
        The changed data, with another fingerprint, and the forget set in it.

    Raises:
        ValueError: an invalid specification, two equal classes, or no example to change.
    """
    spec = number_classes(spec, splits)
    kind, colon, part = spec.partition(":")
    if kind == "canaries" and colon:
        raise ValueError(f"{spec}: canaries have no part; --size is the size of the forget set, one in 20 is a canary")
    entry = find_kind(spec)
    if entry.inject is None:
        raise ValueError(f"{spec} does not change the training data; select_forget_set makes it")
    rng = generator(seed, "forget-set", spec)
    changed, changes, rows = entry.inject(part, size, splits, rng)
    # Changed images or labels give another fingerprint, so no store mixes both data sets; this records the change.
    changes |= {"canaries_seed" if kind == "canaries" else "confused_seed": seed}
    changed_splits = replace(splits, train=changed, label_changes={**splits.label_changes, **changes})
    name = f"{spec} of {size}" if entry.sized else spec
    return changed_splits, ForgetSet(name=name, rows=_validate_rows(rows, len(splits.train)))


def _select_random(selection: Selection) -> np.ndarray:
    """Draw examples."""
    return selection.draw(selection.available, "training examples to choose from")


def _select_class_part(selection: Selection) -> np.ndarray:
    """Draw examples of one class."""
    available, labels = selection.available, selection.splits.train.labels
    candidates = available[labels[available] == parse_class(selection.part, selection.splits)]
    return selection.draw(candidates, f"training examples of class {selection.part}")


def _select_by_score(selection: Selection) -> np.ndarray:
    """Select available rows by one score of the store; medium is relative to all rows."""
    score, size, available = selection.kind, selection.size, selection.available
    if not selection.part:
        # A score needs a part, so a bare word is a misspelt kind.
        words = (
            "random",
            "worst-case",
            "entanglement:high",
            "class:0",
            "partial-class:0",
            "id:...",
            "ids:...",
            "canaries",
        )
        raise ValueError(
            f"unknown forget set {score!r}; known: {', '.join((*words, 'confusion:0,1'))}, or a score of the store "
            f"with one of :{', :'.join(SCORE_PARTS)}, as memorization_k0.500:high"
        )
    part = validate_choice("part of a score", selection.part, SCORE_PARTS)
    rows, values = _drop_undefined(*selection.scores(score), selection.splits)
    # unlike a probit
    in_unit_interval = score.startswith((
        *("memorization_k", "memorization_blend_k", "memorization_stacked_k", "memorization_probability_k"),
    ))
    # Before available rows are selected: `medium` means the same for a second set, disjoint from the first.
    middle = 0.5 if in_unit_interval or not len(values) else float(np.median(values))
    selectable = np.isin(rows, available)
    rows, values = rows[selectable], values[selectable]
    restriction = " and that are not in the other forget set" * (len(available) < len(selection.splits.train))
    _require_at_most(size, len(rows), f"training examples whose {score} is defined{restriction}")
    # Ties by row: a set depends on scores, not on the order in which a store has them.
    rising = rows[np.lexsort((rows, values))]
    # By distance to the middle: the first ones are the level medium.
    nearest = rows[np.lexsort((rows, np.abs(values - middle)))]
    if part == "twin":
        # A control for :riskiest, disjoint from it, with equally many examples.
        return selection.draw(np.setdiff1d(available, rising[-size:]), "other examples")
    if part != "union":
        levels = {"low": rising[:size], "medium": nearest[:size], "high": rising[-size:]}
        level: np.ndarray = levels["high" if part == "riskiest" else part]
        return level
    third = size // 3
    if 3 * third != size or not third:
        raise ValueError(f"--size {size}: the union of low, medium and high has three equal parts; use a multiple of 3")

    def join_levels(n: int) -> np.ndarray:
        return np.concatenate([rising[:n], nearest[:n], rising[-n:]])

    # The thirds overlap where too few examples have distinct levels. The hint is the largest size without an overlap.
    if len(np.unique(join_levels(third))) < size:
        largest = next((n for n in range(third, 0, -1) if len(np.unique(join_levels(n))) == 3 * n), 0)
        raise SizeTooLargeError(
            f"--size {size}: low, medium and high {score} share examples at {third} each; "
            + (f"use --size {3 * largest} or less" if largest else "so few examples have no three levels")
        )
    return join_levels(third)


def _drop_undefined(ids: np.ndarray, values: np.ndarray, splits: Splits) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of the training set whose score is defined, and their scores."""
    # A store may score examples that are not in this training set; these have row -1.
    rows_by_id = {example: row for row, example in enumerate(splits.train.ids.tolist())}
    rows = np.array([rows_by_id.get(example, -1) for example in ids.tolist()])
    defined = (rows >= 0) & ~np.isnan(values)
    return rows[defined], values[defined]


def _select_by_entanglement(selection: Selection) -> np.ndarray:
    """Select one group by rising distance to the centroid (RUM A.3): the farthest are the least entangled."""
    size, level = selection.size, validate_choice("level of entanglement", selection.part, LEVELS)
    distance = distance_to_centroid(selection.embeddings(), selection.available)
    groups = len(distance) // size
    if groups < 3:
        raise SizeTooLargeError(
            f"--size {size}: levels of entanglement are three groups of that size out of {len(distance)} training "
            f"examples; use {len(distance) // 3} or fewer"
        )
    # Whole groups of `size` by rising distance; the farthest n mod size examples are in none.
    start = round(LEVEL_POSITIONS[level] * (groups - 1)) * size
    return selection.available[np.argsort(distance, kind="stable")[start : start + size]]


def _select_by_entanglement_at_score(selection: Selection) -> np.ndarray:
    """Select at equal score: from each of `size` groups of rising score, one example by its rank in distance."""
    size, score = selection.size, selection.kind.removeprefix(ENTANGLEMENT_AT)
    # Groups are made of available rows alone, so that each can give an example.
    rows, values = _drop_undefined(*selection.scores(score), selection.splits)
    selectable = np.isin(rows, selection.available)
    rows, values = rows[selectable], values[selectable]
    level = validate_choice("level of entanglement", selection.part, LEVELS)
    # Groups divide the score's range among themselves: mean scores of two levels differ by at most range / size.
    groups = np.array_split(np.lexsort((rows, values)), size)
    # array_split makes the last group the smallest.
    if len(groups[-1]) < MIN_GROUP_SIZE:
        raise SizeTooLargeError(
            f"--size {size}: levels of entanglement at equal {score} take one of {MIN_GROUP_SIZE} or more each, and it "
            f"is defined for {len(rows)} training examples that may be chosen; "
            f"use {len(rows) // MIN_GROUP_SIZE} or fewer"
        )
    distance = distance_to_centroid(selection.embeddings(), rows)
    by_distance = [group[np.argsort(distance[group], kind="stable")] for group in groups]
    return rows[[group[round(LEVEL_POSITIONS[level] * (len(group) - 1))] for group in by_distance]]


def _select_worst_case(selection: Selection) -> np.ndarray:
    """Select the examples on which theta_o is farthest from the bank's models without them."""
    n_train, train_ids = len(selection.splits.train), selection.splits.train.ids
    if not selection.part:
        raise ValueError(f"{WORST_CASE} needs the keep fraction of the models to compare with, as {WORST_CASE}:k0.500")
    names = LOSS_SCORE, f"{OUT_PREFIX}{selection.part}"
    try:
        loss, oriented = (align_scores(name, selection.scores, train_ids) for name in names)
    except ValueError as error:
        raise ValueError(
            f"{WORST_CASE} compares {names[0]}, which `python -m memscore.estimate --originals N` gives, with "
            f"{names[1]}, of the models without an example: {error}"
        ) from None
    # Scores are oriented to memorization, and a high C-score is a low one.
    rows, gaps = _drop_undefined(train_ids, compute_gaps(loss, -oriented), selection.splits)
    selectable = np.isin(rows, selection.available)
    rows, gaps = rows[selectable], gaps[selectable]
    described = f"training examples whose {names[0]} and {names[1]} are defined"
    if len(selection.available) < n_train:
        described += " and that are not in the other forget set"
    _require_at_most(selection.size, len(rows), described)
    # Ties by row, as everywhere.
    worst: np.ndarray = rows[np.lexsort((rows, -gaps))[: selection.size]]
    return worst


def _select_classes(selection: Selection) -> np.ndarray:
    """Select all examples of the classes."""
    labels, classes = selection.splits.train.labels, parse_classes(selection.part, selection.splits)
    return np.flatnonzero(np.isin(labels, classes))


def _select_ids(selection: Selection) -> np.ndarray:
    """Select the example of one id, or those of the ids in a file."""
    kind, part, splits = selection.kind, selection.part, selection.splits
    known = splits.train.ids.tolist()
    other = "id" if kind == "ids" else "ids"
    is_file, is_id = Path(part).is_file(), part in known
    # an id may look like a file's name, so what exists decides
    if is_id != (kind == "id") and (is_id if kind == "ids" else is_file):
        what = "an id, and no file of ids" if is_id else "a file, and no id"
        raise ValueError(f"--forget {kind}:{part} names {what}; use --forget {other}:{part}")
    ids = np.array([part]) if kind == "id" else read_matching_ids(part, known, "--forget ids:").ids
    names, counts = np.unique(ids, return_counts=True)
    for repeated in names[counts > 1][:1]:
        raise ValueError(f"{part} names {str(repeated)!r} more than once; name each example once")
    rows_by_id = {example: row for row, example in enumerate(known)}
    unknown = [example for example in ids.tolist() if example not in rows_by_id]
    if unknown:
        origin = f" of {Path(part).name}" if kind == "ids" else ""
        raise ValueError(
            f"{unknown[0]!r}{origin} is no id of the training set"
            + (f", nor are {len(unknown) - 1} more" if len(unknown) > 1 else "")
            + f"; ids are as {str(splits.train.ids[0])!r}, all of them in the store's examples.parquet"
        )
    return np.array([rows_by_id[example] for example in ids.tolist()], dtype=np.int64)


def _validate_rows(rows: np.ndarray, n_train: int) -> tuple[int, ...]:
    return tuple(validate_forget_rows(rows, n_train).tolist())


def _require_at_most(size: int, n_available: int, described: str) -> int:
    """Return the size, or raise if fewer examples are available."""
    if size > n_available:
        raise SizeTooLargeError(f"--size {size}, but there are {n_available} {described}; use {n_available} or fewer")
    return size


FORGET_SETS: dict[str, ForgetSetKind] = {
    "random": ForgetSetKind(
        meanings={"random": "`--size` training examples drawn at random"},
        select=_select_random,
    ),
    "SCORE": ForgetSetKind(
        meanings={
            "SCORE:low SCORE:medium SCORE:high": "the lowest, middle or highest by a score",
            "SCORE:union": "a third of each",
            "SCORE:riskiest SCORE:twin": "the riskiest by a score, and as many that are not",
        },
        select=_select_by_score,
    ),
    "entanglement": ForgetSetKind(
        meanings={"entanglement:high": "by entanglement with the retain set: low, medium or high"},
        select=_select_by_entanglement,
    ),
    "entanglement-at-SCORE": ForgetSetKind(
        meanings={"entanglement-at-SCORE:high": "by entanglement, at equal levels of a score"},
        select=_select_by_entanglement_at_score,
    ),
    "worst-case": ForgetSetKind(
        meanings={
            "worst-case worst-case:k0.700": "the farthest of theta_o from the bank's models without the example: the "
            "hardest for what changes little"
        },
        select=_select_worst_case,
    ),
    "class": ForgetSetKind(
        meanings={"class:3 class:cat class:0,1": "whole classes, by number or name"},
        select=_select_classes,
        sized=False,
    ),
    "partial-class": ForgetSetKind(
        meanings={"partial-class:3": "`--size` examples of a class, drawn at random"},
        select=_select_class_part,
    ),
    "id": ForgetSetKind(meanings={"id:ID": "one example by id"}, select=_select_ids, sized=False),
    "ids": ForgetSetKind(
        meanings={"ids:FILE": "examples by id, from a .txt, .csv, .json, .npz or .parquet file"},
        select=_select_ids,
        sized=False,
    ),
    "canaries": ForgetSetKind(
        meanings={
            "canaries": "random examples, one in twenty of them with all its pixels shuffled and its label kept (SURE)"
        },
        inject=inject_canaries,
    ),
    "confusion": ForgetSetKind(
        meanings={"confusion:0,1": "1 % of the examples of two classes, with their labels swapped"},
        inject=inject_confusion,
        sized=False,
    ),
}
"""Every kind of forget set by the name before its colon. To add one: a function above, its entry here, a test, and
`make reference`."""

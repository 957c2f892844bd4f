"""Which examples are to be forgotten.

A forget set is written as one word or two: `random`, `memorization_k0.500:high`, `entanglement:low`,
`entanglement-at-memorization_k0.500:low`, `class:3`, `class:0,1`, `id:train/00042`. Scores are those of a store,
turned so that higher is more memorized or riskier; examples whose score is undefined are never chosen by it. Two kinds
change the training data before anything is trained, and so have originals and oracles of their own: `canaries` and
`confusion:0,1`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from memscore.choices import validate_choice
from memscore.data.id_lists import read_id_list
from memscore.data.splits import Splits
from memscore.seeds import generator
from unlearn.meta.partition import ScoreReader
from unlearn.meta.rum import distance_to_centroid
from unlearn.problem import validate_forget_rows

LEVELS = ("low", "medium", "high")
SCORE_PARTS = (*LEVELS, "union", "riskiest", "twin")
ENTANGLEMENT_AT = "entanglement-at-"
"""Before the name of the score that levels of entanglement have in common."""
CANARY_SHARE = 0.05
"""Share of the forget set that is scrambled: SURE's 50 of 1,000."""
CONFUSION_SHARE = 0.01
"""Share of the two classes whose labels are swapped (SURE appendix F)."""
LEVEL_POSITIONS = {"low": 14 / 14, "medium": 12 / 14, "high": 3 / 14}
"""Of the groups of rising distance to the centroid, as RUM's code takes them: 15, 13 and 4 of 15 at |F| = 3,000. The
nearest of all have a low ES again, since they lie to one side of the centroid."""
MIN_GROUP_SIZE = 5
"""Examples among which those places are three."""


@dataclass(frozen=True, kw_only=True)
class ForgetSet:
    """What is to be forgotten.

    Attributes:
        name: as the user wrote it, with its size.
        rows: of the training set, rising.
        by_class: whether it holds all training examples of its classes.
    """

    name: str
    rows: tuple[int, ...]
    by_class: bool = False


def changes_data(spec: str) -> bool:
    """Whether a forget set changes the training data, so that it needs a store of its own."""
    return spec.partition(":")[0] in {"canaries", "confusion"}


def select_forget_set(
    spec: str,
    size: int,
    splits: Splits,
    scores: ScoreReader,
    embeddings: Callable[[], np.ndarray],
    seed: int,
    excluded: tuple[int, ...] = (),
) -> ForgetSet:
    """The forget set of that name.

    Args:
        spec: random; SCORE:low, :medium, :high (medium is nearest 0.5 for memorization, else nearest the median),
            :union (a third of each), :riskiest (= high), :twin (as many at random that are not among the riskiest);
            entanglement:low, :medium, :high; entanglement-at-SCORE:low, :medium, :high, which have that score in
            common; class:K or class:K,L,...; partial-class:K; id:ID; ids:FILE.
        size: how many; ignored where the words say it (class, id, ids).
        splits: the data set.
        scores: those of the store.
        embeddings: float [n_train, E], of the original, asked for by the levels of entanglement alone.
        seed: of what is drawn.
        excluded: rows that are not chosen, so that another set of the same kind can be had; of no matter to class, id
            and ids.

    Returns:
        The forget set.

    Raises:
        ValueError: unknown words, more examples than there are to choose from, or a set that is none.
    """
    kind, colon, part = spec.partition(":")
    if kind == "random" and colon:
        raise ValueError(f"{spec}: a random set has no part; --size says how many, --seed which")
    n_train, rng = len(splits.train), generator(seed, "forget-set", spec)
    if kind in {"class", "id", "ids"}:
        rows = _named(kind, part, splits)
        return ForgetSet(name=spec, rows=_checked(rows, n_train), by_class=kind == "class")
    if not 0 < size < n_train:
        raise ValueError(f"--size {size}: a forget set has 1 to {n_train - 1} of the {n_train} training examples")
    free = np.setdiff1d(np.arange(n_train), np.array(excluded, dtype=np.int64))
    if kind == "random":
        rows = rng.choice(free, _at_most(size, len(free), "training examples to choose from"), replace=False)
    elif kind == "partial-class":
        own = free[splits.train.labels[free] == _class(part, splits)]
        rows = rng.choice(own, _at_most(size, len(own), f"training examples of class {part}"), replace=False)
    elif kind == "entanglement":
        rows = free[_entangled(embeddings(), free, size, validate_choice("level of entanglement", part, LEVELS))]
    elif kind.startswith(ENTANGLEMENT_AT):
        score = kind.removeprefix(ENTANGLEMENT_AT)
        known, values = _defined(*scores(score), splits)
        there = np.isin(known, free)
        level = validate_choice("level of entanglement", part, LEVELS)
        rows = _entangled_at(embeddings(), known[there], values[there], size, level, score)
    elif not part:
        words = ("random", "entanglement:high", "class:0", "partial-class:0", "id:...", "ids:...", "canaries")
        raise ValueError(
            f"unknown forget set {spec!r}; known: {', '.join((*words, 'confusion:0,1'))}, or a score of the store with "
            f"one of :{', :'.join(SCORE_PARTS)}, as memorization_k0.500:high"
        )
    else:
        rows = _by_score(
            *scores(kind), splits, kind, validate_choice("part of a score", part, SCORE_PARTS), size, rng, free
        )
    return ForgetSet(name=f"{spec} of {size}", rows=_checked(rows, n_train))


def find_score_name(spec: str) -> str:
    """The score that decides which examples a forget set in words has; "" where none does."""
    kind, _, part = spec.partition(":")
    return "" if kind == "entanglement" or part not in SCORE_PARTS else kind.removeprefix(ENTANGLEMENT_AT)


def inject_forget_set(spec: str, size: int, splits: Splits, seed: int) -> tuple[Splits, ForgetSet]:
    """A forget set that changes the training data, and the data with it.

    Args:
        spec: "canaries": random examples, one in twenty of them with all its pixels shuffled by an order of its own
            and its label kept (SURE 5, Canary Unlearning); "confusion:A,B": 1 % of the examples of two classes, at
            random, each labelled as the other class (SURE appendix F; Goel et al. 2022).
        size: of the canaries' forget set; ignored for confusion.
        splits: the data set as it is.
        seed: of what is drawn.

    Returns:
        The changed data, which is another data set to every store, and the forget set in it.

    Raises:
        ValueError: unknown words, two equal classes, or fewer than one example to change.
    """
    kind, colon, part = spec.partition(":")
    if kind == "canaries" and colon:
        raise ValueError(f"{spec}: canaries have no part; --size says how many are forgotten, one in 20 is a canary")
    rng, train = generator(seed, "forget-set", spec), splits.train
    if kind == "canaries":
        if not 0 < size < len(train):
            raise ValueError(f"--size {size}: a forget set has 1 to {len(train) - 1} of {len(train)} training examples")
        rows = rng.choice(len(train), size, replace=False)
        scrambled = rows[: round(CANARY_SHARE * size)]
        if not len(scrambled):
            raise ValueError(f"one canary in twenty of --size {size} is none; use --size 20 or more")
        images = train.images.copy()
        flat = images.reshape(len(images), images.shape[1], -1)
        for row in scrambled:
            flat[row] = flat[row][:, rng.permutation(flat.shape[2])]
        changed = replace(train, images=images)
        said: dict[str, object] = {"canaries": len(scrambled), "canaries_of": size, "canaries_seed": seed}
    else:
        first, second = _two_classes(part, splits)
        rows = np.concatenate([
            rng.choice(own := np.flatnonzero(train.labels == label), round(CONFUSION_SHARE * len(own)), replace=False)
            for label in (first, second)
        ])
        if not len(rows):
            raise ValueError(f"1 % of classes {first} and {second} is no example; use data with 50 or more of a class")
        labels = train.labels.copy()
        labels[rows] = np.where(train.labels[rows] == first, second, first)
        changed = replace(train, labels=labels)
        said = {"confused": f"{first},{second}", "confused_seed": seed}
    planted = replace(splits, train=changed, label_changes={**splits.label_changes, **said})
    name = f"{spec} of {size}" if kind == "canaries" else spec
    return planted, ForgetSet(name=name, rows=_checked(rows, len(train)))


def _by_score(
    ids: np.ndarray,
    values: np.ndarray,
    splits: Splits,
    score: str,
    part: str,
    size: int,
    rng: np.random.Generator,
    free: np.ndarray,
) -> np.ndarray:
    """Rows by one score of the store, out of those that are free; the middle is that of all."""
    rows, values = _defined(ids, values, splits)
    between = score.startswith(("memorization_k", "memorization_probability_k"))  # 0 and 1; a probit has no such middle
    middle = 0.5 if between or not len(values) else float(np.median(values))
    known = np.isin(rows, free)
    rows, values = rows[known], values[known]
    left = " and that are not in the other forget set" * (len(free) < len(splits.train))
    _at_most(size, len(rows), f"training examples whose {score} is defined{left}")
    rising = rows[np.lexsort((rows, values))]
    nearest = rows[np.lexsort((rows, np.abs(values - middle)))]
    if part == "twin":
        others = np.setdiff1d(free, rising[-size:])
        drawn: np.ndarray = rng.choice(others, _at_most(size, len(others), "other examples"), replace=False)
        return drawn
    if part != "union":
        levels = {"low": rising[:size], "medium": nearest[:size], "high": rising[-size:]}
        level: np.ndarray = levels["high" if part == "riskiest" else part]
        return level
    third = size // 3
    if 3 * third != size or not third:
        raise ValueError(f"--size {size}: the union of low, medium and high has three equal parts; use a multiple of 3")

    def thirds(each: int) -> np.ndarray:
        return np.concatenate([rising[:each], nearest[:each], rising[-each:]])

    if len(np.unique(thirds(third))) < size:
        fits = next((each for each in range(third, 0, -1) if len(np.unique(thirds(each))) == 3 * each), 0)
        raise ValueError(
            f"--size {size}: low, medium and high {score} share examples at {third} each; "
            + (f"use --size {3 * fits} or less" if fits else "so few examples have no three levels")
        )
    return thirds(third)


def _defined(ids: np.ndarray, values: np.ndarray, splits: Splits) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the training set whose score is defined, and the score of each."""
    row_of = {example: row for row, example in enumerate(splits.train.ids.tolist())}
    rows = np.array([row_of.get(example, -1) for example in ids.tolist()])
    known = (rows >= 0) & ~np.isnan(values)
    return rows[known], values[known]


def _entangled(embeddings: np.ndarray, free: np.ndarray, size: int, level: str) -> np.ndarray:
    """One of the groups of rising distance to the centroid (RUM A.3): the farthest are the least entangled."""
    distance = distance_to_centroid(embeddings, free)
    groups = len(distance) // size
    if groups < 3:
        raise ValueError(
            f"--size {size}: levels of entanglement are three groups of that size out of {len(distance)} training "
            f"examples; use {len(distance) // 3} or fewer"
        )
    start = round(LEVEL_POSITIONS[level] * (groups - 1)) * size
    chosen: np.ndarray = np.argsort(distance, kind="stable")[start : start + size]
    return chosen


def _entangled_at(
    embeddings: np.ndarray, rows: np.ndarray, values: np.ndarray, size: int, level: str, score: str
) -> np.ndarray:
    """The same at equal score: from each of `size` groups of rising score the one at that place by distance."""
    # groups divide the score's range among themselves: mean scores of two levels differ by at most range / size
    groups = np.array_split(np.lexsort((rows, values)), size)
    if len(groups[-1]) < MIN_GROUP_SIZE:
        raise ValueError(
            f"--size {size}: levels of entanglement at equal {score} take one of {MIN_GROUP_SIZE} or more each, and "
            "it is "
            f"defined for {len(rows)} training examples that may be chosen; use {len(rows) // MIN_GROUP_SIZE} or fewer"
        )
    distance = distance_to_centroid(embeddings, rows)
    far_last = [group[np.argsort(distance[group], kind="stable")] for group in groups]
    return rows[[group[round(LEVEL_POSITIONS[level] * (len(group) - 1))] for group in far_last]]


def _named(kind: str, part: str, splits: Splits) -> np.ndarray:
    """Rows of classes, of one id, or of the ids in a file."""
    if kind == "class":
        return np.flatnonzero(np.isin(splits.train.labels, parse_classes(part, splits)))
    ids = np.array([part]) if kind == "id" else read_id_list(part, "--forget ids:")
    names, counts = np.unique(ids, return_counts=True)
    for twice in names[counts > 1][:1]:
        raise ValueError(f"{part} names {str(twice)!r} more than once; name each example once")
    row_of = {example: row for row, example in enumerate(splits.train.ids.tolist())}
    unknown = [example for example in ids.tolist() if example not in row_of]
    if unknown:
        where = f" of {Path(part).name}" if kind == "ids" else ""
        raise ValueError(
            f"{unknown[0]!r}{where} is no id of the training set"
            + (f", nor are {len(unknown) - 1} more" if len(unknown) > 1 else "")
            + f"; ids are as {str(splits.train.ids[0])!r}, all of them in the store's examples.parquet"
        )
    return np.array([row_of[example] for example in ids.tolist()], dtype=np.int64)


def _checked(rows: np.ndarray, n_train: int) -> tuple[int, ...]:
    return tuple(validate_forget_rows(rows, n_train).tolist())


def parse_classes(part: str, splits: Splits) -> list[int]:
    """Classes by their numbers, as 3 or 0,1,3; none of the data, one that is named twice, or all are an error."""
    found = [_class(number, splits) for number in part.split(",")]
    for number in found:
        if found.count(number) > 1:
            raise ValueError(f"class:{part} names class {number} more than once; name each class once")
    if len(found) > 1 and len(found) == splits.n_classes:
        raise ValueError(f"class:{part} names all {splits.n_classes} classes, and some must stay; leave one out")
    return found


def _class(part: str, splits: Splits) -> int:
    """A class by its number."""
    if not part.isdecimal() or int(part) >= splits.n_classes:
        raise ValueError(f"{part!r} is no class; classes are the numbers 0 to {splits.n_classes - 1}")
    return int(part)


def _two_classes(part: str, splits: Splits) -> tuple[int, int]:
    """Two different classes, as in 0,1."""
    first, comma, second = part.partition(",")
    if not comma:
        raise ValueError(f"confusion:{part} needs two classes, as confusion:0,1")
    pair = _class(first, splits), _class(second, splits)
    if pair[0] == pair[1]:
        raise ValueError(f"confusion:{part} swaps a class with itself; name two different ones")
    return pair


def _at_most(size: int, there: int, what: str) -> int:
    """The size, unless there are fewer."""
    if size > there:
        raise ValueError(f"--size {size}, but there are {there} {what}; use {there} or fewer")
    return size

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
from memscore.data.id_lists import read_id_list
from memscore.data.splits import Splits
from memscore.seeds import generator
from unlearn.meta.partition import ScoreReader
from unlearn.meta.rum import distance_to_centroid
from unlearn.problem import validate_forget_rows

LEVELS = ("low", "medium", "high")
SCORE_PARTS = (*LEVELS, "union", "riskiest", "twin")
ENTANGLEMENT_AT = "entanglement-at-"
"""Prefix of the score that all levels of entanglement have in common."""
CANARY_SHARE = 0.05
"""Share of the forget set whose pixels are shuffled: SURE's 50 of 1,000."""
CONFUSION_SHARE = 0.01
"""Share of the two classes whose labels are swapped (SURE appendix F)."""
LEVEL_POSITIONS = {"low": 14 / 14, "medium": 12 / 14, "high": 3 / 14}
"""Positions among the groups of rising distance to the centroid, as in RUM's code: groups 15, 13 and 4 of 15 at
|F| = 3,000. The nearest group of all has a low ES again, since it lies to one side of the centroid."""
MIN_GROUP_SIZE = 5
"""Smallest group in which the three positions differ."""


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


def changes_data(spec: str) -> bool:
    """Report whether a forget set changes the training data, so that it needs a separate store."""
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
    """Select the forget set of a specification.

    Args:
        spec: random; SCORE:low, :medium, :high (medium is nearest 0.5 for memorization, else nearest the median),
            :union (a third of each), :riskiest (= high), :twin (as many random examples that are not among the
            riskiest); entanglement:low, :medium, :high; entanglement-at-SCORE:low, :medium, :high, at equal values of
            that score; class:K or class:K,L,...; partial-class:K; id:ID; ids:FILE.
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
    kind, colon, part = spec.partition(":")
    if kind == "random" and colon:
        raise ValueError(f"{spec}: a random set has no part; --size is the number of examples, --seed decides which")
    # The specification is part of the stream: sets of two specifications are drawn independently.
    n_train, rng = len(splits.train), generator(seed, "forget-set", spec)
    # These name their examples; size and excluded rows do not apply.
    if kind in {"class", "id", "ids"}:
        rows = _find_named_rows(kind, part, splits)
        return ForgetSet(name=spec, rows=_validate_rows(rows, n_train), by_class=kind == "class")
    if not 0 < size < n_train:
        raise ValueError(f"--size {size}: a forget set has 1 to {n_train - 1} of the {n_train} training examples")
    # Every other kind chooses `size` of these rows.
    available = np.setdiff1d(np.arange(n_train), np.array(excluded, dtype=np.int64))
    if kind == "random":
        rows = rng.choice(
            available, _require_at_most(size, len(available), "training examples to choose from"), replace=False
        )
    elif kind == "partial-class":
        candidates = available[splits.train.labels[available] == _parse_class(part, splits)]
        rows = rng.choice(
            candidates, _require_at_most(size, len(candidates), f"training examples of class {part}"), replace=False
        )
    elif kind == "entanglement":
        rows = available[
            _select_by_entanglement(
                embeddings(), available, size, validate_choice("level of entanglement", part, LEVELS)
            )
        ]
    elif kind.startswith(ENTANGLEMENT_AT):
        score = kind.removeprefix(ENTANGLEMENT_AT)
        # Groups are made of available rows alone, so that each can give an example.
        scored_rows, values = _drop_undefined(*scores(score), splits)
        selectable = np.isin(scored_rows, available)
        level = validate_choice("level of entanglement", part, LEVELS)
        rows = _select_by_entanglement_at_score(
            embeddings(), scored_rows[selectable], values[selectable], size, level, score
        )
    elif not part:
        # A score needs a part, so a bare word is a misspelt kind.
        words = ("random", "entanglement:high", "class:0", "partial-class:0", "id:...", "ids:...", "canaries")
        raise ValueError(
            f"unknown forget set {spec!r}; known: {', '.join((*words, 'confusion:0,1'))}, or a score of the store with "
            f"one of :{', :'.join(SCORE_PARTS)}, as memorization_k0.500:high"
        )
    else:
        rows = _select_by_score(
            *scores(kind), splits, kind, validate_choice("part of a score", part, SCORE_PARTS), size, rng, available
        )
    return ForgetSet(name=f"{spec} of {size}", rows=_validate_rows(rows, n_train))


def find_score_name(spec: str) -> str:
    """Return the name of the score that a specification selects by; "" if there is none."""
    kind, _, part = spec.partition(":")
    return "" if kind == "entanglement" or part not in SCORE_PARTS else kind.removeprefix(ENTANGLEMENT_AT)


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
    kind, colon, part = spec.partition(":")
    if kind == "canaries" and colon:
        raise ValueError(f"{spec}: canaries have no part; --size is the size of the forget set, one in 20 is a canary")
    rng, train = generator(seed, "forget-set", spec), splits.train
    if kind == "canaries":
        if not 0 < size < len(train):
            raise ValueError(f"--size {size}: a forget set has 1 to {len(train) - 1} of {len(train)} training examples")
        rows = rng.choice(len(train), size, replace=False)
        # rows are in random order, so the first ones are a random share.
        scrambled = rows[: round(CANARY_SHARE * size)]
        if not len(scrambled):
            raise ValueError(f"one canary in twenty of --size {size} is none; use --size 20 or more")
        images = train.images.copy()
        # A view [N, C, H W] of the copy: one permutation of pixels for all channels, another one for each image.
        flat = images.reshape(len(images), images.shape[1], -1)
        for row in scrambled:
            flat[row] = flat[row][:, rng.permutation(flat.shape[2])]
        changed = replace(train, images=images)
        label_changes: dict[str, object] = {"canaries": len(scrambled), "canaries_of": size, "canaries_seed": seed}
    else:
        first, second = _parse_two_classes(part, splits)
        rows = np.concatenate([
            rng.choice(
                candidates := np.flatnonzero(train.labels == label),
                round(CONFUSION_SHARE * len(candidates)),
                replace=False,
            )
            for label in (first, second)
        ])
        if not len(rows):
            raise ValueError(f"1 % of classes {first} and {second} is no example; use data with 50 or more of a class")
        labels = train.labels.copy()
        labels[rows] = np.where(train.labels[rows] == first, second, first)
        changed = replace(train, labels=labels)
        label_changes = {"confused": f"{first},{second}", "confused_seed": seed}
    # Changed images or labels give another fingerprint, so no store mixes both data sets; this records the change.
    changed_splits = replace(splits, train=changed, label_changes={**splits.label_changes, **label_changes})
    name = f"{spec} of {size}" if kind == "canaries" else spec
    return changed_splits, ForgetSet(name=name, rows=_validate_rows(rows, len(train)))


def _select_by_score(
    ids: np.ndarray,
    values: np.ndarray,
    splits: Splits,
    score: str,
    part: str,
    size: int,
    rng: np.random.Generator,
    available: np.ndarray,
) -> np.ndarray:
    """Select available rows by one score of the store; medium is relative to all rows."""
    rows, values = _drop_undefined(ids, values, splits)
    in_unit_interval = score.startswith(("memorization_k", "memorization_probability_k"))  # unlike a probit
    # Before available rows are selected: `medium` means the same for a second set, disjoint from the first.
    middle = 0.5 if in_unit_interval or not len(values) else float(np.median(values))
    selectable = np.isin(rows, available)
    rows, values = rows[selectable], values[selectable]
    restriction = " and that are not in the other forget set" * (len(available) < len(splits.train))
    _require_at_most(size, len(rows), f"training examples whose {score} is defined{restriction}")
    # Ties by row: a set depends on scores, not on the order in which a store has them.
    rising = rows[np.lexsort((rows, values))]
    # By distance to the middle: the first ones are the level medium.
    nearest = rows[np.lexsort((rows, np.abs(values - middle)))]
    if part == "twin":
        # A control for :riskiest, disjoint from it, with equally many examples.
        others = np.setdiff1d(available, rising[-size:])
        drawn: np.ndarray = rng.choice(others, _require_at_most(size, len(others), "other examples"), replace=False)
        return drawn
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
        raise ValueError(
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


def _select_by_entanglement(embeddings: np.ndarray, available: np.ndarray, size: int, level: str) -> np.ndarray:
    """Select one group by rising distance to the centroid (RUM A.3): the farthest are the least entangled."""
    distance = distance_to_centroid(embeddings, available)
    groups = len(distance) // size
    if groups < 3:
        raise ValueError(
            f"--size {size}: levels of entanglement are three groups of that size out of {len(distance)} training "
            f"examples; use {len(distance) // 3} or fewer"
        )
    # Whole groups of `size` by rising distance; the farthest n mod size examples are in none.
    start = round(LEVEL_POSITIONS[level] * (groups - 1)) * size
    selected: np.ndarray = np.argsort(distance, kind="stable")[start : start + size]
    return selected


def _select_by_entanglement_at_score(
    embeddings: np.ndarray, rows: np.ndarray, values: np.ndarray, size: int, level: str, score: str
) -> np.ndarray:
    """Select at equal score: from each of `size` groups of rising score, one example by its rank in distance."""
    # Groups divide the score's range among themselves: mean scores of two levels differ by at most range / size.
    groups = np.array_split(np.lexsort((rows, values)), size)
    # array_split makes the last group the smallest.
    if len(groups[-1]) < MIN_GROUP_SIZE:
        raise ValueError(
            f"--size {size}: levels of entanglement at equal {score} take one of {MIN_GROUP_SIZE} or more each, and it "
            f"is defined for {len(rows)} training examples that may be chosen; "
            f"use {len(rows) // MIN_GROUP_SIZE} or fewer"
        )
    distance = distance_to_centroid(embeddings, rows)
    by_distance = [group[np.argsort(distance[group], kind="stable")] for group in groups]
    return rows[[group[round(LEVEL_POSITIONS[level] * (len(group) - 1))] for group in by_distance]]


def _find_named_rows(kind: str, part: str, splits: Splits) -> np.ndarray:
    """Find the rows of classes, of one id, or of the ids in a file."""
    if kind == "class":
        return np.flatnonzero(np.isin(splits.train.labels, parse_classes(part, splits)))
    ids = np.array([part]) if kind == "id" else read_id_list(part, "--forget ids:")
    names, counts = np.unique(ids, return_counts=True)
    for repeated in names[counts > 1][:1]:
        raise ValueError(f"{part} names {str(repeated)!r} more than once; name each example once")
    rows_by_id = {example: row for row, example in enumerate(splits.train.ids.tolist())}
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


def parse_classes(part: str, splits: Splits) -> list[int]:
    """Parse class numbers such as 3 or 0,1,3; unknown, repeated or all classes are an error."""
    classes = [_parse_class(number, splits) for number in part.split(",")]
    for number in classes:
        if classes.count(number) > 1:
            raise ValueError(f"class:{part} names class {number} more than once; name each class once")
    if len(classes) > 1 and len(classes) == splits.n_classes:
        raise ValueError(
            f"class:{part} names all {splits.n_classes} classes, and at least one must be retained; leave one out"
        )
    return classes


def _parse_class(part: str, splits: Splits) -> int:
    """Parse a class number."""
    if not part.isdecimal() or int(part) >= splits.n_classes:
        raise ValueError(f"{part!r} is no class; classes are the numbers 0 to {splits.n_classes - 1}")
    return int(part)


def _parse_two_classes(part: str, splits: Splits) -> tuple[int, int]:
    """Parse two different classes such as 0,1."""
    first, comma, second = part.partition(",")
    if not comma:
        raise ValueError(f"confusion:{part} needs two classes, as confusion:0,1")
    pair = _parse_class(first, splits), _parse_class(second, splits)
    if pair[0] == pair[1]:
        raise ValueError(f"confusion:{part} swaps a class with itself; name two different ones")
    return pair


def _require_at_most(size: int, n_available: int, described: str) -> int:
    """Return the size, or raise if fewer examples are available."""
    if size > n_available:
        raise ValueError(f"--size {size}, but there are {n_available} {described}; use {n_available} or fewer")
    return size

"""How a forget set becomes a sequence of parts: every setting of RUM that does not say by which algorithm."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from memscore.seeds import generator
from unlearn.meta.rum import distance_to_centroid, refine, split_randomly

ScoreReader = Callable[[str], tuple[np.ndarray, np.ndarray]]
"""A score's name -> ids and the oriented vector, as Store.score gives them."""
Parts = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Partition:
    """A way to cut.

    Attributes:
        kind: "whole": one part, vanilla; "shuffle": random parts; "score": by a score of a store; "centroid": by the
            distance to the mean of theta_o's embeddings, which differs from original to original.
        score: its name, for "score".
        k: parts; 1 for "whole".
        rule: of refine.
        order: of refine.
    """

    kind: Literal["whole", "shuffle", "score", "centroid"] = "whole"
    score: str = ""
    k: int = 1
    rule: str = "equal"
    order: str = "ascending"

    def split(
        self,
        forget: tuple[int, ...],
        scored: Callable[[str], np.ndarray],
        embeddings: Callable[[], np.ndarray],
        seed: int,
        index: int = 0,
    ) -> Parts:
        """The parts, in the order in which they are forgotten.

        Args:
            forget: rows of the training set, rising.
            scored: a score's name -> float [n_train], oriented, NaN where undefined.
            embeddings: float [n_train, E] of theta_o; asked for by "centroid" alone.
            seed: of a shuffle.
            index: of the original; each shuffles anew, so that an interval over originals is one over shuffles too.

        Returns:
            Rows of the training set, rising within each part.

        Raises:
            ValueError: see refine; or an equal range of the score that holds no example.
        """
        rows = np.array(forget, dtype=np.int64)
        if self.kind == "whole":
            return (forget,)
        if self.kind == "shuffle":
            found = split_randomly(len(rows), self.k, generator(seed, "forget-set", f"shuffle-{self.k}", index))
        else:
            values = scored(self.score)[rows] if self.kind == "score" else distance_to_centroid(embeddings(), rows)
            found = refine(values, self.k, self.rule, self.order)
            if len(found) < self.k:
                raise ValueError(
                    f"{self.k} equal ranges of {self.score or self.kind} hold examples to forget in {len(found)} only; "
                    f"use --parts {len(found)} or --rule equal"
                )
        return tuple(tuple(rows[part].tolist()) for part in found)


def merge_parts(parts: Parts) -> tuple[int, ...]:
    """All rows of some parts, rising."""
    return tuple(sorted({row for part in parts for row in part}))


def align_scores(name: str, scores: ScoreReader, ids: np.ndarray) -> np.ndarray:
    """A score of a store, one value a training example.

    Args:
        name: of the score.
        scores: of the store.
        ids: of the training examples, in the order of their rows.

    Returns:
        float64 [n_train], oriented; NaN where it is undefined or the store has none.
    """
    named, values = scores(name)
    found = dict(zip(named.tolist(), values.tolist(), strict=True))
    return np.array([found.get(example, np.nan) for example in ids.tolist()], dtype=np.float64)


def mean_score(values: np.ndarray, rows: Sequence[int]) -> float:
    """Mean score of a forget set, over the examples whose score is defined; NaN where it is of none.

    Args:
        values: of align_scores.
        rows: of the forget set.

    Returns:
        The mean.
    """
    own = values[list(rows)]
    return float(np.nanmean(own)) if np.isfinite(own).any() else float("nan")

"""Partitions of a forget set into a sequence of parts: the settings of RUM except its algorithms."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from memscore.seeds import generator
from unlearn.meta.rum import distance_to_centroid, refine, split_randomly

ScoreReader = Callable[[str], tuple[np.ndarray, np.ndarray]]
"""A score's name -> ids and the oriented vector, as Store.score returns them."""
Parts = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Partition:
    """A rule that splits a forget set into parts.

    Attributes:
        kind: "whole": one part (vanilla); "shuffle": random parts; "score": by a score of a store; "centroid": by the
            distance to the mean of theta_o's embeddings, which differs between originals.
        score: name of the score, for "score".
        k: number of parts; 1 for "whole".
        rule: rule of refine.
        order: order of refine, or the positions of the parts, 0 the lowest, in the order in which they are forgotten.
    """

    kind: Literal["whole", "shuffle", "score", "centroid"] = "whole"
    score: str = ""
    k: int = 1
    rule: str = "equal"
    order: str | tuple[int, ...] = "ascending"

    def split(
        self,
        forget: tuple[int, ...],
        read_scores: Callable[[str], np.ndarray],
        embeddings: Callable[[], np.ndarray],
        seed: int,
        index: int = 0,
    ) -> Parts:
        """Split a forget set into parts, in the order in which they are forgotten.

        Args:
            forget: rows of the training set, rising.
            read_scores: a score's name -> float [n_train], oriented, NaN where undefined.
            embeddings: returns float [n_train, E] of theta_o; called for "centroid" only.
            seed: seed of a shuffle.
            index: index of the original; each has a different shuffle, so that intervals over originals include
                the variance of shuffles.

        Returns:
            Rows of the training set, rising within each part.

        Raises:
            ValueError: see refine; or a range of the score without examples.
        """
        rows = np.array(forget, dtype=np.int64)
        # The same rows in the same order: one part is the algorithm alone, bit for bit.
        if self.kind == "whole":
            return (forget,)
        if self.kind == "shuffle":
            # A stream for each k and each original: trials of one original share a shuffle, two originals do not.
            parts = split_randomly(len(rows), self.k, generator(seed, "forget-set", f"shuffle-{self.k}", index))
        else:
            values = read_scores(self.score)[rows] if self.kind == "score" else distance_to_centroid(embeddings(), rows)
            # Any other order is one of the parts, which must all be there first.
            order = self.order if isinstance(self.order, str) else "ascending"
            parts = refine(values, self.k, self.rule, order)
            # refine leaves empty ranges out; the user asked for k parts.
            if len(parts) < self.k:
                raise ValueError(
                    f"{self.k} equal ranges of {self.score or self.kind} hold examples to forget in {len(parts)} only; "
                    f"use --parts {len(parts)} or --rule equal"
                )
            if not isinstance(self.order, str):
                parts = [parts[level] for level in self.order]
        # Positions in the forget set to rows of the training set.
        return tuple(tuple(rows[part].tolist()) for part in parts)


def merge_parts(parts: Parts) -> tuple[int, ...]:
    """Merge the rows of several parts, rising."""
    return tuple(sorted({row for part in parts for row in part}))


def align_scores(name: str, scores: ScoreReader, ids: np.ndarray) -> np.ndarray:
    """Align a store's score with training ids: float64 in their order, oriented, NaN where undefined or missing."""
    scored_ids, values = scores(name)
    # By id, not by position: a score may be stored for other examples or in another order.
    by_id = dict(zip(scored_ids.tolist(), values.tolist(), strict=True))
    return np.array([by_id.get(example, np.nan) for example in ids.tolist()], dtype=np.float64)


def mean_score(values: np.ndarray, rows: Sequence[int]) -> float:
    """Compute the mean of these rows' scores from align_scores where they are defined; NaN if none is."""
    selected = values[list(rows)]
    return float(np.nanmean(selected)) if np.isfinite(selected).any() else float("nan")

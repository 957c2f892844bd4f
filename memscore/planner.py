"""How many models a wanted precision takes, from what a few models say.

    RMSE(M)^2 = mean q (1 - q) / ((1 - p) M) + mean r (1 - r) / (p M)

over examples: q and r are the chances of being right without and with the example in the training set, p the share of
the examples that a model sees. It is the binomial error of memorization (Feldman & Zhang 2020, equation 1), so it is
what bank_rmse measures; orthogonal designs do better than it says, which only the error between blocks sees. In iid
arms the models without an example are (1 - p) M in the mean only: what is measured divides by each example's own number
and leaves out those with fewer than two, so both differ: at keep 0.7 by some per cent with 32 models, a quarter with 5.
"""

from dataclasses import dataclass

import numpy as np

from memscore.subsets.designs import Arm

FEW = 32
"""Models below which the first estimate is too rough to plan with."""
CAREFUL = 0.9
"""Share of the models thought to be missing that is trained before the next look."""


@dataclass(frozen=True, kw_only=True)
class Spread:
    """How undecided models are about an example, mean over examples.

    Attributes:
        out: mean of q (1 - q), over models without the example.
        inside: mean of r (1 - r), over models with it.
    """

    out: float
    inside: float

    def rmse(self, keep: float, models: int) -> float:
        """The error that so many models of an arm with this keep leave."""
        return float(np.sqrt(self.out / ((1 - keep) * models) + self.inside / (keep * models)))


def spread_of(k_in: np.ndarray, n_in: np.ndarray, k_out: np.ndarray, n_out: np.ndarray) -> Spread:
    """Both means from counts, each example's k (n - k) / (n (n - 1)) being unbiased for its share's p (1 - p).

    Args:
        k_in: int [N], models that held the example and were right.
        n_in: int [N], models that held it.
        k_out: int [N], models that did not hold it and were right.
        n_out: int [N], models that did not hold it.

    Returns:
        The means over examples with two models or more on each side; NaN without any.
    """
    defined = (n_in >= 2) & (n_out >= 2)
    if not defined.any():
        return Spread(out=float("nan"), inside=float("nan"))
    out, inside = (
        float(np.mean(k[defined] * (n - k)[defined] / (n[defined] * (n[defined] - 1.0))))
        for k, n in ((k_out, n_out), (k_in, n_in))
    )
    return Spread(out=out, inside=inside)


def first_models(arm: Arm) -> int:
    """How many models a plan is made from: one block, or as many whole ones as make 32 models.

    Args:
        arm: the arm.

    Returns:
        Models, in whole blocks.

    >>> [first_models(Arm(design=d, block=b)) for d, b in (("orthogonal", 64), ("iid", 1), ("exact", 20))]
    [64, 32, 40]
    """
    return arm.models_per_block * -(-FEW // arm.models_per_block)


def models_for(spread: Spread, arm: Arm, rmse: float) -> int:
    """The smallest whole number of blocks whose predicted error is at most this.

    Args:
        spread: of the arm's models.
        arm: the arm.
        rmse: wanted, above 0.

    Returns:
        Models, at least one block.
    """
    return _whole((spread.rmse(arm.keep, 1) / rmse) ** 2, arm.models_per_block)


def models_after(models: int, measured: float, arm: Arm, rmse: float) -> int:
    """The same from an error that was measured with some models, since it falls with the root of their number.

    Args:
        models: that are there.
        measured: the error with them.
        arm: the arm.
        rmse: wanted, above 0.

    Returns:
        Models in whole blocks, at least one.
    """
    return _whole(models * (measured / rmse) ** 2, arm.models_per_block)


def next_look(arm: Arm, done: int, needed: int, most: int) -> int:
    """How far to train before the error is measured again: nine tenths of the way, then step by step.

    Args:
        arm: the arm.
        done: models that were looked at.
        needed: models that are thought to be needed; anything if nothing is known.
        most: a ceiling.

    Returns:
        A number of models above done, of whole blocks, or most.

    >>> [next_look(Arm(), done, 640, 10_000) for done in (64, 576, 640)]
    [576, 640, 704]
    """
    step = first_models(arm)
    return min(max(done + step, int(CAREFUL * needed) // step * step), most)


def _whole(models: float, block: int) -> int:
    """Rounded up to blocks; one block where nobody is undecided. Less than a millionth of a model is rounding."""
    return max(int(np.ceil((models - 1e-6) / block)), 1) * block

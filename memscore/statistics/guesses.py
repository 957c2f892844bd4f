"""Guesses of membership from scores: which are made is chosen on one half, how many are right is counted on another.

An attack that guesses "member" for some of the highest scores and "non-member" for some of the lowest may abstain from
the rest. The bounds of memscore/statistics/one_run.py hold for guesses whose number does not depend on membership, so
they are counted by rank, never by a threshold; examples of equal score are put in random order, not in that of the
data, which may have its members first.
"""

from dataclasses import dataclass

import numpy as np

from memscore.statistics.epsilon_bound import clopper_pearson, compute_log_ratio

CUTS_PER_OCTAVE = 2
"""Candidates for the share of guesses are 1/2, and less by factors of 2^(1/2)."""
SELECTION_TAIL = 0.01
"""Error of the ends that candidates are compared by. With .05, a few lucky guesses are often the best of all.

Chosen by medians of the bound for logistic scores and mixtures of Student's t, 200 to 3,000 examples."""


@dataclass(frozen=True, kw_only=True)
class GuessRule:
    """Which guesses an attack makes.

    Attributes:
        share: of the examples with a guess of each kind, at most 1/2.
        says: "member", "non-member" or "both", the kinds.
        members: "higher" or "lower", where the scores of members are expected.
    """

    share: float
    says: str
    members: str


def balance_members(member: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw as many members as non-members.

    A guess at random is then right half of the time, whatever share of the examples are members: given both numbers,
    membership of those drawn is a random half of them.

    Args:
        member: bool [n].
        rng: draws from the larger side.

    Returns:
        Positions of those drawn, int64, ascending.
    """
    sides = [rng.permutation(np.flatnonzero(side)) for side in (member, ~member)]
    n = min(len(side) for side in sides)
    return np.sort(np.concatenate([side[:n] for side in sides]))


def choose_guesses(scores: np.ndarray, member: np.ndarray, rng: np.random.Generator, delta: float = 0.0) -> GuessRule:
    """Choose the guesses whose bound on epsilon is the highest on these examples.

    Args:
        scores: [m], no NaN, of as many members as non-members.
        member: bool [m].
        rng: orders examples of equal score.
        delta: of the bound.

    Returns:
        The rule. What it gives on the same examples is the largest of many, so a bound needs other examples.
    """
    m = len(scores)
    steps = np.arange(0, CUTS_PER_OCTAVE * np.log2(max(m, 2)))
    cuts = np.unique(np.maximum(1, np.round(m / 2 * 2 ** (-steps / CUTS_PER_OCTAVE)).astype(np.int64)))
    right = _count_right(scores, member, rng, cuts)
    best, rule = -np.inf, GuessRule(share=0.5, says="both", members="higher")
    for (says, members), correct in right.items():
        # true and false rates of this kind of guess, as in Clopper & Pearson's bound; a kind alone has m / 2 targets
        guesses, targets = (2 * cuts, m) if says == "both" else (cuts, m / 2)
        precision, _ = clopper_pearson(correct, guesses, SELECTION_TAIL)
        rate = guesses / targets
        bounds = compute_log_ratio(precision * rate, (1 - precision) * rate, delta)
        if bounds.max() > best:
            best, rule = bounds.max(), GuessRule(share=float(cuts[bounds.argmax()]) / m, says=says, members=members)
    return rule


def count_guesses(scores: np.ndarray, member: np.ndarray, rng: np.random.Generator, rule: GuessRule) -> tuple[int, int]:
    """Count an attack's guesses, and the right ones.

    Args:
        scores: [m], no NaN, of as many members as non-members.
        member: bool [m].
        rng: orders examples of equal score.
        rule: the attack.

    Returns:
        Number of guesses, which depends on m and the rule alone, and of right ones.
    """
    cut = max(1, min(round(rule.share * len(scores)), len(scores) // 2))
    correct = _count_right(scores, member, rng, np.array([cut]))[rule.says, rule.members]
    return (2 * cut if rule.says == "both" else cut), int(correct[0])


def _count_right(
    scores: np.ndarray, member: np.ndarray, rng: np.random.Generator, cuts: np.ndarray
) -> dict[tuple[str, str], np.ndarray]:
    """Count right guesses for each kind and direction, int64 [cuts], of so many highest or lowest scores."""
    ranked = member[np.lexsort((rng.random(len(scores)), scores))]
    members_below, members_above = (np.cumsum(side)[cuts - 1] for side in (ranked, ranked[::-1]))
    right: dict[tuple[str, str], np.ndarray] = {}
    for direction, says_in, says_out in (
        ("higher", members_above, cuts - members_below),
        ("lower", members_below, cuts - members_above),
    ):
        right |= {("member", direction): says_in, ("non-member", direction): says_out}
        right["both", direction] = says_in + says_out
    return right

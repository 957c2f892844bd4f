"""The lower bound on epsilon is 0 in at least 95 % of nulls at every n, and positive where members are well above."""

from pathlib import Path

import numpy as np

from memscore.statistics.epsilon_bound import epsilon_lower_bound
from tests.cases._support import run_case

NULLS = 1000
ALLOWED = 70  # 5 % of the nulls are 50, with a standard deviation of 7


def check(folder: Path) -> list[str]:
    problems, rng = [], np.random.default_rng(0)
    for n in (10, 20, 100, 1000):
        for levels in (None, 2):
            positive = 0
            for _ in range(NULLS):
                scores = rng.normal(size=n) if levels is None else rng.integers(0, levels, n).astype(float)
                member = rng.permutation(n) < n // 2
                positive += epsilon_lower_bound(scores, member, rng).value > 0
            if positive > ALLOWED:
                problems.append(f"n = {n}, {levels or 'all'} levels: positive in {positive} of {NULLS} nulls")
    scores = np.concatenate([rng.normal(3, 1, 200), rng.normal(-3, 1, 200)])
    bound = epsilon_lower_bound(scores, np.arange(400) < 200, rng).value
    if not bound > 1:
        problems.append(f"members well above others: bound {bound}")
    return problems


if __name__ == "__main__":
    run_case(check)

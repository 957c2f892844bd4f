"""Whether an attack takes the unlearned example for one that was never trained on (INST 3.3.5; Song et al. 2019).

    attack: a member where p(y | x) >= tau,  tau with the highest balanced accuracy on remaining and on test examples
    outcome = 1 where the example is no member by it, else 0

The threshold is fitted to the unlearned network itself.
"""

import numpy as np

SOURCE = "INST 3.3.5, threshold on p(y | x) (Song et al. 2019)"


def find_threshold(members: np.ndarray, others: np.ndarray) -> float:
    """Find the p(y | x) from which on an example is called a member.

    Args:
        members: p(y | x) of examples that were trained on.
        others: of examples that were not.

    Returns:
        The threshold with the highest balanced accuracy, the highest of several; infinity, which calls nothing a
        member, where no threshold is better than chance.
    """
    values = np.unique(np.concatenate([members, others]))
    # At each value: the share of members at or above it, and of the others below it.
    found = 1 - np.searchsorted(np.sort(members), values, side="left") / len(members)
    refused = np.searchsorted(np.sort(others), values, side="left") / len(others)
    # twice the balanced accuracy, which is 1 by chance
    balanced = found + refused
    best = float(balanced.max())
    return float(values[balanced >= best - 1e-12][-1]) if best > 1 else np.inf


def attack_example(p: float, members: np.ndarray, others: np.ndarray) -> float:
    """Return 1.0 if an example with this p(y | x) is called a non-member, else 0.0."""
    return float(p < find_threshold(members, others))

"""The worst case of a bank: the examples on which theta_o is farthest from models that never saw them.

    g_i = | exp(-loss_i) - P[correct(i) | i not in the training set] |

loss_i is the mean cross-entropy of the originals on example i (score final_loss), so exp(-loss_i) is the geometric mean
of their probabilities of the label; the other term is the share of the bank's models without i that are right (score
cscore_k...). g_i is how far an algorithm that changes nothing is from retraining without i. All algorithms begin there,
and fine-tuning by its defaults hardly leaves it.

Not the search of Fan et al. 2024 ("Challenging forgets"), which no single training run replaces: they optimise a weight
for each example together with the unlearning, so that the *unlearned* model's loss on the set is least. Here examples
are ranked one by one, by removals of half of the data, and a set may matter more, or less, than its examples: two
copies of an image rank low each, because the other stays. By their objective a set is worst that an unlearned model
still predicts right, whether or not retraining would too; by this one, where retraining would not.
"""

import numpy as np

WORST_CASE = "worst-case"
LOSS_SCORE, OUT_PREFIX = "final_loss", "cscore_"


def compute_gaps(loss: np.ndarray, right_without: np.ndarray) -> np.ndarray:
    """Compute how far theta_o is from models without each example.

    Args:
        loss: float [n], mean cross-entropy of originals in nats.
        right_without: float [n], share of the models without the example that are right.

    Returns:
        float64 [n] in [0, 1]; NaN where either is.
    """
    gaps: np.ndarray = np.abs(np.exp(-loss.astype(np.float64)) - right_without)
    return gaps

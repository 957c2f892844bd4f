"""Tell outputs that cannot be logits: probabilities, and outputs that are the same for every image.

A network that ends in a softmax trains badly under cross-entropy, which takes a softmax of its own, and its log-odds
lie in a range of 2 whatever it learned. Log-probabilities are fine: they are logits with a log-sum-exp of 0.
"""

import torch
from torch import Tensor

PROBABILITIES = "probabilities"
SIGMOIDS = "sigmoids"
CONSTANT = "constant"
DESCRIPTIONS = {
    PROBABILITIES: "its outputs are already probabilities (none is below 0, and those of an image have one sum), as of "
    "a network that ends in a softmax or returns one-hot vectors",
    SIGMOIDS: "its outputs all lie between 0 and 1, as of a network that ends in a sigmoid",
    CONSTANT: "its outputs are the same for every image",
}
"""Kind -> what is wrong with outputs of that kind, after "the network" or a model's name."""
SUM_TOLERANCE = 0.01
"""Of an image's sum, in parts of it: half precision rounds a thousand probabilities to about .001."""


def find_output_kind(outputs: Tensor) -> str:
    """Find of which kind outputs are that are no logits.

    Args:
        outputs: [B, K], of many images that are not alike.

    Returns:
        A key of DESCRIPTIONS; empty for outputs that can be logits, and for fewer than two images.

    >>> find_output_kind(torch.tensor([[0.2, 0.8], [0.9, 0.1]]))
    'probabilities'
    >>> find_output_kind(torch.tensor([[0.2, 0.8], [0.9, -0.1]]))
    ''
    """
    if len(outputs) < 2 or not bool(torch.isfinite(outputs).all()):
        return ""
    values = outputs.double()
    sums = values.sum(1)
    is_positive = float(values.min()) >= 0
    # first of all, for a network that begins with the same probability of every class
    if is_positive and float((sums - 1).abs().max()) <= SUM_TOLERANCE:
        return PROBABILITIES
    if float((values.amax(0) - values.amin(0)).max()) <= 1e-6 * float(values.abs().max()):
        return CONSTANT
    # percentages too: their sums are 100
    if is_positive and float(sums.max() - sums.min()) <= SUM_TOLERANCE * float(sums.mean()):
        return PROBABILITIES
    return SIGMOIDS if is_positive and float(values.max()) <= 1 else ""

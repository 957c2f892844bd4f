"""How far one network's answers are from another's."""

from torch import Tensor
from torch.nn.functional import log_softmax


def divergence(teacher: Tensor, student: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(softmax(teacher / T) || softmax(student / T)) for each example.

    A sum over classes: a mean over examples and classes, the default of the library function that released codes call,
    is K times smaller. No factor T^2; who wants it says so.

    Args:
        teacher: logits [B, K].
        student: logits [B, K], through which the gradient flows.
        temperature: T > 0.

    Returns:
        [B], 0 or more up to rounding.
    """
    theirs, ours = log_softmax(teacher / temperature, dim=-1), log_softmax(student / temperature, dim=-1)
    return (theirs.exp() * (theirs - ours)).sum(dim=-1)

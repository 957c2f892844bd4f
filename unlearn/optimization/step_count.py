"""Count the optimizer steps that algorithms take in this process; of one-shot algorithms the batches of gradients."""

from collections.abc import Generator
from contextlib import contextmanager

from torch.optim.optimizer import register_optimizer_step_post_hook

# A list, so that functions change it without a global statement; a trial has its process to itself.
_taken = [0]


def count_steps_taken(n: int = 1) -> None:
    """Count so many steps more."""
    _taken[0] += n


def read_step_count() -> int:
    """Return how many steps were counted since the process began; a run's are the difference of two readings."""
    return _taken[0]


@contextmanager
def count_torch_steps() -> Generator[None, None, None]:
    """Count the steps of every optimizer of torch within the context, as a user's own algorithm builds them."""
    hook = register_optimizer_step_post_hook(lambda optimizer, args, kwargs: count_steps_taken())
    try:
        yield
    finally:
        hook.remove()

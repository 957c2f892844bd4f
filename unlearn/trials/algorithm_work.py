"""Count what each algorithm computes, from its config and the sizes of its sets: steps, and images there and back."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from memscore.pipeline.network_times import NetworkTimes
from memscore.pipeline.work import Work
from memscore.training.recipes import Recipe, count_steps


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Sizes of the sets that an algorithm gets: the retain set, the forget set, and what it may read of validation."""

    retain: int
    forget: int
    validation: int = 0


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What an algorithm computes.

    Attributes:
        steps: optimizer steps, or batches of a sum of gradients.
        trained: images that go through the network forward and backward.
        predicted: images that go through it forward only.
    """

    steps: float = 0.0
    trained: float = 0.0
    predicted: float = 0.0

    def compute_work(self, times: NetworkTimes) -> Work:
        """Compute the work, from the timed parts of a network."""
        return (
            times.lone_step * self.steps + times.trained_image * self.trained + times.predicted_image * self.predicted
        )


CountWork = Callable[[Any, Sizes, Recipe], Counts]
"""(config, sizes, recipe of the bank) -> counts."""


def count_passes(n: int, batch: int, epochs: int) -> Counts:
    """Count passes over a set, forward and backward, a step a batch."""
    return Counts(steps=epochs * -(-n // batch), trained=epochs * n)


def count_cycled(n: int, batch: int, steps: int) -> int:
    """Count the images of so many batches of a set that starts over; the last batch of a pass may be smaller."""
    passes, rest = divmod(steps, -(-n // batch))
    return passes * n + min(rest * batch, n)


def add(*parts: Counts) -> Counts:
    """Add counts."""
    return Counts(
        steps=sum(part.steps for part in parts),
        trained=sum(part.trained for part in parts),
        predicted=sum(part.predicted for part in parts),
    )


def count_retain_passes(config: Any, sizes: Sizes, recipe: Recipe) -> Counts:
    """Count the epochs over the retain set; of an algorithm that is not known here, a guess."""
    return count_passes(sizes.retain, getattr(config, "batch", recipe.batch), getattr(config, "epochs", 1))


def count_forget_passes(config: Any, sizes: Sizes, recipe: Recipe) -> Counts:
    """Count the epochs over the forget set."""
    return count_passes(sizes.forget, config.batch, config.epochs)


def count_last_layers(config: Any, sizes: Sizes, recipe: Recipe) -> Counts:
    """Count the epochs over the retain set of which the backward pass reaches the last layers only."""
    passes = count_passes(sizes.retain, config.batch, config.epochs)
    return Counts(steps=passes.steps, predicted=passes.trained)


def count_retraining(config: Any, sizes: Sizes, recipe: Recipe) -> Counts:
    """Count a training from scratch."""
    steps = count_steps(recipe, 1.0, sizes.retain)
    return Counts(steps=steps, trained=steps * recipe.batch)


def count_both_sets(config: Any, sizes: Sizes, recipe: Recipe) -> Counts:
    """Count the epochs over both sets, of which either is one pass or both are."""
    sets = [sizes.retain + sizes.forget] if config.order == "mixed" else [sizes.retain, sizes.forget]
    return add(*(count_passes(n, config.batch, config.epochs) for n in sets))


def count_salun(config: Any, sizes: Sizes, recipe: Recipe) -> Counts:
    """Count those, and the gradients of the forget set that select the weights."""
    return add(count_both_sets(config, sizes, recipe), count_passes(sizes.forget, config.batch, 1))


def count_beside_retain_set(config: Any, sizes: Sizes, recipe: Recipe) -> Counts:
    """Count the epochs over the retain set with a batch of the forget set in each step."""
    passes = count_retain_passes(config, sizes, recipe)
    batch = getattr(config, "forget_batch", config.batch)
    return add(passes, Counts(trained=count_cycled(sizes.forget, batch, int(passes.steps))))


def count_attacked(config: Any, sizes: Sizes, recipe: Recipe) -> Counts:
    """Count boundary-shrink: each image of the forget set is attacked, predicted, and trained on."""
    passes = count_forget_passes(config, sizes, recipe)
    return add(passes, Counts(trained=passes.trained, predicted=passes.trained))


def count_attacked_beside_retain_set(config: Any, sizes: Sizes, recipe: Recipe) -> Counts:
    """Count the plus form of boundary-shrink."""
    passes = count_retain_passes(config, sizes, recipe)
    read = count_cycled(sizes.forget, config.forget_batch, int(passes.steps))
    return add(passes, Counts(trained=2 * read, predicted=read))


def count_sure(config: Any, sizes: Sizes, recipe: Recipe) -> Counts:
    """Count SURE: a batch of the forget set and one of unseen images, at most as many of these, in each step."""
    unseen, batch = min(sizes.forget, sizes.validation) or 1, config.forget_batch
    passes = count_beside_retain_set(config, sizes, recipe)
    return add(passes, Counts(trained=count_cycled(unseen, batch, int(passes.steps))))


def count_ssd(config: Any, sizes: Sizes, recipe: Recipe) -> Counts:
    """Count the gradients of the training set, and of the forget set."""
    return add(count_passes(sizes.retain + sizes.forget, config.batch, 1), count_passes(sizes.forget, config.batch, 1))


def count_scrub(config: Any, sizes: Sizes, recipe: Recipe) -> Counts:
    """Count SCRUB: every image is predicted by the teacher too."""
    passes = add(
        count_passes(sizes.retain, config.batch, config.epochs),
        count_passes(sizes.forget, config.forget_batch, config.msteps),
    )
    return add(passes, Counts(predicted=passes.trained))


def count_scrub_rewind(config: Any, sizes: Sizes, recipe: Recipe) -> Counts:
    """Count SCRUB, and the predictions of the forget set by each epoch's network; of validation at most all."""
    rewound = Counts(predicted=(config.epochs + 1) * sizes.forget + sizes.validation)
    return add(count_scrub(config, sizes, recipe), rewound)


def count_bad_teacher(config: Any, sizes: Sizes, recipe: Recipe) -> Counts:
    """Count the epochs over the forget set and a share of the retain set, which two teachers predict too."""
    passes = count_passes(sizes.forget + max(1, int(config.retain_share * sizes.retain)), config.batch, config.epochs)
    return add(passes, Counts(predicted=2 * passes.trained))


def count_influence(config: Any, sizes: Sizes, recipe: Recipe) -> Counts:
    """Count the gradient of each set, and single gradients, or products with the curvature of the retain set."""
    gradients = add(count_passes(sizes.retain, config.batch, 1), count_passes(sizes.forget, config.batch, 1))
    if config.variant == "woodfisher":
        return add(gradients, count_passes(min(config.samples, sizes.retain), 1, 1))
    # at most: conjugate gradients may end earlier
    return add(gradients, count_passes(sizes.retain, config.batch, config.iterations))


COUNTERS: dict[str, CountWork] = {
    "original": lambda config, sizes, recipe: Counts(),
    "retrain": count_retraining,
    "finetune": count_retain_passes,
    "gradient-ascent": count_forget_passes,
    "neggrad-plus": count_beside_retain_set,
    "influence": count_influence,
    "boundary-shrink": count_attacked,
    "boundary-shrink-plus": count_attacked_beside_retain_set,
    "boundary-expand": count_forget_passes,
    "boundary-expand-plus": count_beside_retain_set,
    "sure": count_sure,
    "ssd": count_ssd,
    "l1-sparse": count_retain_passes,
    "random-label": count_both_sets,
    "salun": count_salun,
    "scrub": count_scrub,
    "scrub-rewind": count_scrub_rewind,
    "bad-teacher": count_bad_teacher,
    "cf-k": count_last_layers,
    "eu-k": count_last_layers,
}


def count_algorithm(name: str, config: Any, sizes: Sizes, recipe: Recipe) -> Counts:
    """Count what an algorithm computes; one that is not in the table is taken to train on the retain set."""
    return COUNTERS.get(name, count_retain_passes)(config, sizes, recipe)

"""Random labels: train on the retain set as it is, and on the forget set under labels drawn at random (RUM section 5).

    min_theta  E_(F under random labels, and R)[CE(theta(x), y)],  from theta_o

Labels are drawn anew each epoch, and are an override: nobody else's labels change. Of the released codes RUM's mixes
the two sets; SalUn's takes, on the smaller data sets, a pass over the forget set and then one over the retain set.
RUM's code relabels nothing on CIFAR-100 and Tiny-ImageNet; this one does on any data.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from unlearn.optimization.loop import StepCallback, UnlearningLoop, UnlearningLoopConfig, copy_model, require
from unlearn.problem import BatchSampler, ExampleSet
from unlearn.search_space import Domain, LogUniform


@dataclass(frozen=True, kw_only=True)
class RandomLabelConfig(UnlearningLoopConfig):
    """RUM A.2: 10 epochs, rate .01 to .1.

    Attributes:
        order: "mixed", one shuffled pass over both sets, or "sequential", the forget set and then the retain set.
        true_label: whether the label of an example may be drawn for it, as in the released codes.
    """

    epochs: int = 10
    lr: float = 0.03
    order: Literal["mixed", "sequential"] = "mixed"
    true_label: bool = True

    SPACE: ClassVar[dict[str, Domain]] = {
        "lr": LogUniform(low=5e-4, high=0.3, source="RUM A.2 .01 to .1, SURE .0014 and .067; widened"),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        known = self.order in {"mixed", "sequential"}
        require(type(self).__name__, "order", self.order, "mixed or sequential", holds=known)


def random_label(
    theta_o: nn.Module,
    retain: ExampleSet,
    forget: ExampleSet,
    config: RandomLabelConfig,
    rng: np.random.Generator,
    watch: StepCallback | None = None,
) -> nn.Module:
    """Descend on both sets, the forget set under labels of chance."""
    return train_with_random_labels(theta_o, retain, forget, config, rng, watch)


def train_with_random_labels(
    theta_o: nn.Module,
    retain: ExampleSet,
    forget: ExampleSet,
    config: RandomLabelConfig,
    rng: np.random.Generator,
    watch: StepCallback | None,
    mask: Mapping[str, Tensor] | None = None,
) -> nn.Module:
    """The same, moving only the coordinates of a mask as `Descent` takes it."""
    theta, chance = copy_model(theta_o), rng.spawn(1)[0]
    mixed = config.order == "mixed"
    parts = [forget.concatenate(retain)] if mixed else [forget, retain]
    batches = [BatchSampler(part, config.batch, rng) for part in parts]

    def losses() -> Iterator[Tensor]:
        for _ in range(config.epochs):
            drawn = draw_labels(forget, chance, true_label=config.true_label)
            shown = [torch.cat([drawn, retain.labels])] if mixed else [drawn, retain.labels]
            for batch, labels in zip(batches, shown, strict=True):
                for images, _, positions in batch.with_positions():
                    yield cross_entropy(theta(images), labels[positions])

    return UnlearningLoop(theta, config, watch=watch, mask=mask).run(losses())


def draw_labels(examples: ExampleSet, rng: np.random.Generator, *, true_label: bool) -> Tensor:
    """One label an example, uniform over all classes, or over all but its own; int64 [n]."""
    if true_label:
        drawn = rng.integers(examples.n_classes, size=len(examples))
        return torch.from_numpy(drawn).to(examples.labels.device)
    ahead = rng.integers(1, examples.n_classes, size=len(examples))
    return (examples.labels + torch.from_numpy(ahead).to(examples.labels.device)) % examples.n_classes

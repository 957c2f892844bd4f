"""Random labels: train on the retain set and on the forget set under random labels (RUM section 5).

    min_theta  E_(F under random labels, and R)[CE(theta(x), y)],  from theta_o

Labels are redrawn in each epoch and do not change the labels of any other set. RUM's released code mixes the two sets;
SalUn's makes, on the smaller data sets, a pass over the forget set and then one over the retain set. RUM's code
relabels nothing on CIFAR-100 and Tiny-ImageNet; this code relabels on all data.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from unlearn.optimization.loop import StepCallback, UnlearningLoop, UnlearningLoopConfig, copy_model, require
from unlearn.problem import BatchSampler, ExampleSet
from unlearn.search_space import Domain, LogUniform


@dataclass(frozen=True, kw_only=True)
class RandomLabelConfig(UnlearningLoopConfig):
    """RUM A.2: 10 epochs, learning rate .01 to .1.

    Attributes:
        order: "mixed", one shuffled pass over both sets, or "sequential", the forget set and then the retain set.
        true_label: whether an example's true label may be drawn, as in the released codes.
    """

    lr: float = 0.03
    order: Literal["mixed", "sequential"] = "mixed"
    true_label: bool = True

    PAPER: ClassVar[Mapping[str, Any]] = {"epochs": 10}
    SPACE: ClassVar[dict[str, Domain]] = {
        "lr": LogUniform(
            low=5e-4, high=0.3, paper=(0.01, 0.1), source="RUM A.2 .01 to .1, SURE .0014 and .067; widened"
        ),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        is_valid = self.order in {"mixed", "sequential"}
        require(type(self).__name__, "order", self.order, "mixed or sequential", holds=is_valid)


def random_label(
    theta_o: nn.Module,
    retain: ExampleSet,
    forget: ExampleSet,
    config: RandomLabelConfig,
    rng: np.random.Generator,
    step_callback: StepCallback | None = None,
) -> nn.Module:
    """Train on both sets, the forget set under random labels."""
    return train_with_random_labels(theta_o, retain, forget, config, rng, step_callback)


def train_with_random_labels(
    theta_o: nn.Module,
    retain: ExampleSet,
    forget: ExampleSet,
    config: RandomLabelConfig,
    rng: np.random.Generator,
    step_callback: StepCallback | None,
    mask: Mapping[str, Tensor] | None = None,
) -> nn.Module:
    """Train on F under random labels and on R, changing only the weights of a mask (see UnlearningLoop)."""
    # A stream for labels alone: `true_label` changes labels, and no order or augmentation.
    theta, label_rng = copy_model(theta_o), rng.spawn(1)[0]
    mixed = config.order == "mixed"
    # Either one set, F first, or F and R one after the other.
    parts = [forget.concatenate(retain)] if mixed else [forget, retain]
    batches = [BatchSampler(part, config.batch, rng) for part in parts]

    def losses() -> Iterator[Tensor]:
        for _ in range(config.epochs):
            # New labels in every epoch, laid out like the parts; a sampler yields positions in its part.
            random_labels = draw_labels(forget, label_rng, true_label=config.true_label)
            epoch_labels = [torch.cat([random_labels, retain.labels])] if mixed else [random_labels, retain.labels]
            for sampler, labels in zip(batches, epoch_labels, strict=True):
                for images, _, positions in sampler.with_positions():
                    yield cross_entropy(theta(images), labels[positions])

    return UnlearningLoop(theta, config, step_callback=step_callback, mask=mask).run(losses())


def draw_labels(examples: ExampleSet, rng: np.random.Generator, *, true_label: bool) -> Tensor:
    """Draw one label per example, uniform over all classes, or over all but the true one; int64 [n]."""
    if true_label:
        random_labels = rng.integers(examples.n_classes, size=len(examples))
        return torch.from_numpy(random_labels).to(examples.labels.device)
    # Adding 1 to K - 1 modulo K reaches every other class, each equally likely.
    shift = rng.integers(1, examples.n_classes, size=len(examples))
    return (examples.labels + torch.from_numpy(shift).to(examples.labels.device)) % examples.n_classes

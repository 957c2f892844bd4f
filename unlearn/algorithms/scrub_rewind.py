"""SCRUB+R: SCRUB, rewound to the epoch whose forget error is nearest the error on unseen examples.

    k* = argmin_k |error_F(theta_k) - reference|,  theta_0 = theta_o, ..., theta_E the last
    reference = sum_c (share of class c in F) error_V,c(theta_E)

(Kurmanji et al. 2023.) The reference is the last network's error on validation examples with F's class mix: each class
is weighted by its share of F, so that all its validation examples are used. Of equal distances the latest epoch is
taken. theta_o is among the candidates (the released code has no file for it, and fails). Only the class mix is matched:
a forget set that is harder than its classes, such as memorized examples, is rewound to too low an error.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from memscore.units import format_count
from unlearn.algorithms.scrub import ScrubConfig, scrub
from unlearn.optimization.loop import StepCallback, require
from unlearn.problem import ExampleSet, iterate_in_order


@dataclass(frozen=True, kw_only=True)
class ScrubRewindConfig(ScrubConfig):
    """As SCRUB.

    Attributes:
        least: minimum number of validation examples of each class of the forget set.
    """

    least: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        require("ScrubRewindConfig", "least", self.least, "1 or more", holds=self.least >= 1)


def scrub_rewind(
    theta_o: nn.Module,
    retain: ExampleSet,
    forget: ExampleSet,
    config: ScrubRewindConfig,
    rng: np.random.Generator,
    validation: ExampleSet,
    step_callback: StepCallback | None = None,
) -> nn.Module:
    """Run SCRUB, keep the weights of each epoch, and select one; a run that the callback ends is rewound too."""
    # Before training: too small a validation set is refused at once.
    matched = select_classes(validation, forget, config.least)
    # Deep copies: a state_dict refers to the weights, which the next step changes. states[0] is theta_o.
    states = [copy.deepcopy(theta_o.state_dict())]
    # Without the last epoch: its state, or that of a run which the callback ended early, is saved after the run.
    epoch_ends = config.epoch_end_steps(len(retain), len(forget))[:-1]

    def save_epoch(step: int, theta: nn.Module) -> bool:
        # Saved before the user's callback, which may end the run at this very step.
        if step in epoch_ends:
            states.append(copy.deepcopy(theta.state_dict()))
        return step_callback is not None and bool(step_callback(step, theta))

    theta = scrub(theta_o, retain, forget, config, rng, save_epoch)
    states.append(copy.deepcopy(theta.state_dict()))
    # The last network's, which theta still is; the loop below loads other states.
    reference = class_matched_error(forget, matched, find_mistakes(theta, matched, config.batch))
    errors = []
    # Running statistics are in the state too, and scrub returned theta in evaluation mode.
    for state in states:
        theta.load_state_dict(state)
        errors.append(float(find_mistakes(theta, forget, config.batch).double().mean()))
    theta.load_state_dict(states[find_nearest(errors, reference)])
    return theta


def find_nearest(errors: Sequence[float], reference: float) -> int:
    """Return k*, the index of the error nearest to the reference; the last one of several."""
    return min(range(len(errors)), key=lambda k: (abs(errors[k] - reference), -k))


def find_mistakes(theta: nn.Module, examples: ExampleSet, batch: int) -> Tensor:
    """Find the examples that the network misclassifies, bool [n], without augmentation."""
    with torch.no_grad():
        return torch.cat([theta(images).argmax(-1) != labels for images, labels in iterate_in_order(examples, batch)])


def select_classes(validation: ExampleSet, forget: ExampleSet, least: int) -> ExampleSet:
    """Select the validation examples of F's classes; ValueError if one of these has fewer than `least`."""
    class_counts = torch.bincount(validation.labels, minlength=forget.n_classes).tolist()
    for label in sorted(set(forget.labels.tolist())):
        if class_counts[label] < least:
            raise ValueError(
                f"the validation set is too small for scrub-rewind: of class {label}, one of the forget set's, it "
                f"holds {format_count(class_counts[label], 'example')}, and least is {least}; use a larger "
                "--validation, or scrub"
            )
    return validation.select(torch.isin(validation.labels, forget.labels).nonzero()[:, 0])


def class_matched_error(forget: ExampleSet, matched: ExampleSet, is_wrong: Tensor) -> float:
    """Compute the error on `matched`, reweighted to F's class mix; is_wrong is bool [n], one per matched example."""
    forget_counts, matched_counts, wrong_counts = (
        torch.bincount(labels, minlength=forget.n_classes).double()
        for labels in (forget.labels, matched.labels, matched.labels[is_wrong])
    )
    # sum over c of (share of c in F) error_c. A class that F lacks has share 0, but may have no example to divide by.
    return float((forget_counts / len(forget) * wrong_counts / matched_counts.clamp(min=1)).sum())

"""SCRUB+R: SCRUB, then back to the epoch where the forget set is answered as badly as what was never seen.

    k* = argmin_k |error_F(theta_k) - reference|,  theta_0 = theta_o, ..., theta_E the last
    reference = sum_c (share of class c in F) error_V,c(theta_E)

(Kurmanji et al. 2023.) The reference is the last network's error on validation examples of F's class mix: each class
counts as much as F has of it, so that all its validation examples serve. Of equal distances the latest epoch is taken.
theta_o is among the candidates (the released code has no file for it, and fails). Class mix is all that is alike: a
forget set that is harder than its classes, of memorized examples say, is rewound to where it is answered too well.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from unlearn.algorithms.scrub import ScrubConfig, scrub
from unlearn.optimization.loop import StepCallback, require
from unlearn.problem import ExampleSet, iterate_in_order


@dataclass(frozen=True, kw_only=True)
class ScrubRewindConfig(ScrubConfig):
    """As SCRUB.

    Attributes:
        least: validation examples that every class of the forget set must have.
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
    watch: StepCallback | None = None,
) -> nn.Module:
    """SCRUB with all its epochs kept until one is chosen; a run that the watch ends is rewound over what there is."""
    alike = select_classes(validation, forget, config.least)
    states = [copy.deepcopy(theta_o.state_dict())]
    early = config.epoch_end_steps(len(retain), len(forget))[:-1]

    def keep(step: int, theta: nn.Module) -> bool:
        if step in early:
            states.append(copy.deepcopy(theta.state_dict()))
        return watch is not None and bool(watch(step, theta))

    theta = scrub(theta_o, retain, forget, config, rng, keep)
    states.append(copy.deepcopy(theta.state_dict()))
    reference = class_matched_error(forget, alike, find_mistakes(theta, alike, config.batch))
    errors = []
    for state in states:
        theta.load_state_dict(state)
        errors.append(float(find_mistakes(theta, forget, config.batch).double().mean()))
    theta.load_state_dict(states[find_nearest(errors, reference)])
    return theta


def find_nearest(errors: Sequence[float], reference: float) -> int:
    """The index of the error that is nearest to the reference, the last one of several."""
    return min(range(len(errors)), key=lambda k: (abs(errors[k] - reference), -k))


def find_mistakes(theta: nn.Module, examples: ExampleSet, batch: int) -> Tensor:
    """Which examples the network gets wrong, bool [n], not augmented."""
    with torch.no_grad():
        return torch.cat([theta(images).argmax(-1) != labels for images, labels in iterate_in_order(examples, batch)])


def select_classes(validation: ExampleSet, forget: ExampleSet, least: int) -> ExampleSet:
    """The validation examples of the classes that are to be forgotten of.

    Args:
        validation: held out.
        forget: its labels say which classes.
        least: examples that each of them must have.

    Returns:
        Those of these classes.

    Raises:
        ValueError: a class has fewer.
    """
    held = torch.bincount(validation.labels, minlength=forget.n_classes).tolist()
    for label in sorted(set(forget.labels.tolist())):
        if held[label] < least:
            raise ValueError(
                f"the validation set is too small for scrub-rewind: of class {label}, one of the forget set's, it "
                f"holds {held[label]} examples, and least is {least}; use a larger --validation, or scrub"
            )
    return validation.select(torch.isin(validation.labels, forget.labels).nonzero()[:, 0])


def class_matched_error(forget: ExampleSet, alike: ExampleSet, wrong: Tensor) -> float:
    """The error on `alike`, bool [n] of mistakes, if its classes were as frequent as the forget set's."""
    wanted, there, missed = (
        torch.bincount(labels, minlength=forget.n_classes).double()
        for labels in (forget.labels, alike.labels, alike.labels[wrong])
    )
    return float((wanted / len(forget) * missed / there.clamp(min=1)).sum())

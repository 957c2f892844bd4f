"""Every factor of difficulty: what it is, where it comes from, and how it is expected to go with the FP-score."""

from dataclasses import dataclass

from unlearn.difficulty import (
    deepfool,
    density,
    forget_shift,
    last_layer,
    membership,
    parameter_shift,
    performance_shift,
)


@dataclass(frozen=True, kw_only=True)
class Factor:
    """A factor of difficulty.

    Attributes:
        title: in words.
        unit: of its column.
        direction: +1 if examples with a higher value are expected to be harder, -1 if easier, 0 if neither.
        source: paper and equation.
        before: whether it needs no unlearning.
        built_in: how the FP-score contains it, in words; "" where it does not.
    """

    title: str
    unit: str
    direction: int
    source: str
    before: bool = False
    built_in: str = ""


U = "U of the FP-score is made of the test set's probabilities, so a part of this correlation is built in"
F = "F of the FP-score is this fall where it is above 0, so a part of this correlation is built in"

FACTORS = {
    # Tolerance of performance shift: what unlearning costs elsewhere.
    "test_accuracy": Factor(
        title="change of test accuracy (TPS)",
        unit="share",
        direction=-1,
        source=performance_shift.SOURCE,
        built_in=U,
    ),
    "test_probability": Factor(
        title="change of test probability (TPS)",
        unit="probability",
        direction=-1,
        source=performance_shift.SOURCE,
        built_in=U,
    ),
    "test_loss": Factor(
        title="rise of test loss (TPS)", unit="nat", direction=1, source=performance_shift.SOURCE, built_in=U
    ),
    "remaining_accuracy": Factor(
        title="change of accuracy on remaining data", unit="share", direction=-1, source=performance_shift.SOURCE
    ),
    "remaining_probability": Factor(
        title="change of probability on remaining data",
        unit="probability",
        direction=-1,
        source=performance_shift.SOURCE,
    ),
    "remaining_loss": Factor(
        title="rise of loss on remaining data", unit="nat", direction=1, source=performance_shift.SOURCE
    ),
    # What happened to the example itself.
    "forget_probability": Factor(
        title="fall of the forgotten example's probability",
        unit="probability",
        direction=-1,
        source=forget_shift.SOURCE,
        built_in=F,
    ),
    "forget_loss": Factor(
        title="rise of the forgotten example's loss",
        unit="nat",
        direction=-1,
        source=forget_shift.LOSS_SOURCE,
        built_in=F,
    ),
    # Distance of parameter shift.
    "parameter_shift": Factor(
        title="distance of parameters, L1 (DPS)", unit="weight unit", direction=1, source=parameter_shift.SOURCE
    ),
    "parameter_shift_layers": Factor(
        title="distance of parameters, mean over layers (DPS)",
        unit="weight unit",
        direction=1,
        source=parameter_shift.LAYERS_SOURCE,
    ),
    "parameter_kl": Factor(title="KL of parameters (DPS)", unit="nat", direction=1, source=parameter_shift.KL_SOURCE),
    "activation_shift": Factor(
        title="distance of activations (DPS)",
        unit="embedding unit",
        direction=1,
        source=parameter_shift.ACTIVATIONS_SOURCE,
    ),
    # Number of unlearning steps; seconds depend on the machine and on what else it runs.
    "steps": Factor(
        title="steps to the flip, 20 where it does not flip (NUS)",
        unit="steps",
        direction=1,
        source="INST 3.3.4; the number of those that never flip is ranked last",
    ),
    "seconds": Factor(title="seconds to the flip (NUS)", unit="s", direction=1, source="INST 3.3.4"),
    # Resistance to a membership attack on the unlearned network.
    "mia": Factor(title="taken for a non-member (MIA)", unit="0 or 1", direction=-1, source=membership.SOURCE),
    # Known before unlearning: geometric distance to the decision boundary, and size of unlearning expansion.
    "deepfool": Factor(
        title="distance to the decision boundary, DeepFool (GDDB)",
        unit="pixel unit",
        direction=0,
        source=deepfool.SOURCE,
        before=True,
    ),
    "boundary_distance": Factor(
        title="distance to the decision boundary, last layer (GDDB)",
        unit="embedding unit",
        direction=0,
        source=last_layer.SOURCE,
        before=True,
    ),
    "boundary_distance_printed": Factor(
        title="the same as printed (GDDB)",
        unit="embedding unit",
        direction=0,
        source=last_layer.PRINTED_SOURCE,
        before=True,
    ),
    "density": Factor(
        title="density of remaining data (SUE)", unit="log density", direction=0, source=density.SOURCE, before=True
    ),
}

"""How far the weights are from the oracle's, after the oracle's units are put in the order that fits best.

    || theta_u - pi(theta_r) ||_2,   pi of rebasin.py;   penultimate: of the layer whose output the head reads
    relative: over the same distance from theta_o, so theta_o has 1 and theta_r has 0

SURE 5 and Fig. 5a (of the penultimate layer, its weights and biases), after Ainsworth et al. 2022. Running statistics
are reordered and not counted. theta_u and theta_o lie in one basin; it is theta_r that is moved. NaN for architectures
that rebasin.py refuses, and the penultimate distance where there is no hidden layer.
"""

import numpy as np
from torch import nn

from unlearn.measures.git_rebasin import (
    Symmetries,
    UnsupportedArchitecture,
    find_symmetries,
    match_units,
    permute_units,
)
from unlearn.measures.inputs import Column, ModelInputs

COLUMNS = {
    "weight_distance": Column(
        best="min", unit="L2 norm", ideal="0", description="of all weights, from theta_r re-based"
    ),
    "weight_distance_penultimate": Column(
        best="min", unit="L2 norm", ideal="0", description="of the last hidden layer's weights, from theta_r re-based"
    ),
    "weight_distance_relative": Column(
        best="min", unit="ratio", ideal="0", description="weight distance over that of theta_o, which has 1"
    ),
}


def weight_distance(case: ModelInputs) -> dict[str, float]:
    """The three distances."""
    try:
        found = find_symmetries(case.judged)
    except UnsupportedArchitecture:
        return dict.fromkeys(COLUMNS, float("nan"))
    oracle = _arrays(case.theta_r)
    whole, last = _apart(case, _arrays(case.judged), oracle, found)
    original, _ = _apart(case, _arrays(case.problem.theta_o), oracle, found)
    return {
        "weight_distance": whole,
        "weight_distance_penultimate": last,
        "weight_distance_relative": whole / original if original > 0 else float("nan"),
    }


def _arrays(model: nn.Module) -> dict[str, np.ndarray]:
    return {name: value.detach().cpu().double().numpy() for name, value in model.state_dict().items()}


def _apart(
    case: ModelInputs, ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray], found: Symmetries
) -> tuple[float, float]:
    """Of all weights, and of the penultimate layer's."""
    orders = match_units(ours, theirs, found.groups, case.rng("weight-distance"))
    moved = permute_units(theirs, found.groups, orders)
    trained = [name for name, _ in case.judged.named_parameters()]
    squares = {name: float(((ours[name] - moved[name]) ** 2).sum()) for name in trained}
    last = [value for name, value in squares.items() if name.rpartition(".")[0] == found.penultimate]
    return float(np.sqrt(sum(squares.values()))), float(np.sqrt(sum(last))) if last else float("nan")

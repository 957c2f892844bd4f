"""Distance of weights to the oracle's, after its hidden units are permuted to match.

    || theta_u - pi(theta_r) ||_2,   pi of git_rebasin.py;   penultimate: of the layer whose output is the head's input
    relative: over the same distance from theta_o, so theta_o has 1 and theta_r has 0

SURE 5 and Fig. 5a (of the penultimate layer, its weights and biases), after Ainsworth et al. 2022. Running statistics
are permuted and not counted. theta_u and theta_o lie in the same basin, so theta_r is permuted. Values are NaN for
architectures that git_rebasin.py does not support; the penultimate distance is NaN without a hidden layer.
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
from unlearn.measures.inputs import Column, Measure, ModelInputs

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


def weight_distance(inputs: ModelInputs) -> dict[str, float]:
    """Compute the three distances."""
    try:
        symmetries = find_symmetries(inputs.judged)
    except UnsupportedArchitecture:
        return dict.fromkeys(COLUMNS, float("nan"))
    oracle_arrays = _to_arrays(inputs.theta_r)
    # Each network is compared with the oracle as permuted to match that network.
    total, penultimate = _compute_distances(inputs, _to_arrays(inputs.judged), oracle_arrays, symmetries)
    original, _ = _compute_distances(inputs, _to_arrays(inputs.problem.theta_o), oracle_arrays, symmetries)
    return {
        "weight_distance": total,
        "weight_distance_penultimate": penultimate,
        "weight_distance_relative": total / original if original > 0 else float("nan"),
    }


MEASURE = Measure(
    fn=weight_distance,
    columns=COLUMNS,
    needs="weights",
    summary="distance to the oracle's weights after Git Re-Basin; all weights, and those of the penultimate layer",
    paper="SURE",
)


def _to_arrays(model: nn.Module) -> dict[str, np.ndarray]:
    return {name: value.detach().cpu().double().numpy() for name, value in model.state_dict().items()}


def _compute_distances(
    inputs: ModelInputs,
    judged_arrays: dict[str, np.ndarray],
    oracle_arrays: dict[str, np.ndarray],
    symmetries: Symmetries,
) -> tuple[float, float]:
    """Compute the distances of all weights and of the penultimate layer's."""
    permutations = match_units(judged_arrays, oracle_arrays, symmetries.groups, inputs.rng("weight-distance"))
    permuted = permute_units(oracle_arrays, symmetries.groups, permutations)
    # Parameters only: running statistics were permuted along, and are no weights.
    trained = [name for name, _ in inputs.judged.named_parameters()]
    squares = {name: float(((judged_arrays[name] - permuted[name]) ** 2).sum()) for name in trained}
    penultimate = [value for name, value in squares.items() if name.rpartition(".")[0] == symmetries.penultimate]
    return float(np.sqrt(sum(squares.values()))), float(np.sqrt(sum(penultimate))) if penultimate else float("nan")

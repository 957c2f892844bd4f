"""Every attack on banks without a leak, in which an example's confidence depends on its neighbours' memberships."""

import numpy as np
import pytest

from benchmarks.null_attacks import list_arms, simulate
from memscore.pipeline.attacks import ATTACKS
from memscore.subsets.designs import Arm

NEIGHBOURS = 0.6


def check(arm, models, neighbours, banks, smallest_effect):
    found = simulate(arm, models, neighbours, banks)
    assert found.keys() >= {score for attack in ATTACKS.values() for score in attack.scores}
    defined = {score: numbers for score, numbers in found.items() if not np.isnan(numbers[0])}
    for score, (mean, _, _, error) in defined.items():
        assert error < smallest_effect / 4, score
        # RMIA's shadows are of the target's block too, which moves it by up to .005
        assert abs(mean - 0.5) < max(4 * error, 0.01 * score.startswith("rmia")), score
    return defined


@pytest.mark.parametrize(
    ("arm", "models", "banks"),
    [
        (Arm(design="iid"), 8, 8),
        (Arm(design="exact", block=8), 8, 8),
        (Arm(design="exact", keep=0.75, block=16), 16, 6),
        (Arm(block=8), 16, 8),
        (Arm(keep=0.75, block=16), 32, 6),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_without_a_leak_every_attack_has_an_area_of_one_half(arm, models, banks):
    """Within 4 s.e., which are small enough to see .06; one orthogonal block of eight models is .1 away."""
    assert len(check(arm, models, NEIGHBOURS, banks, 0.06)) > len(ATTACKS)


def test_shadows_of_the_same_orthogonal_block_put_noise_below_one_half():
    """What the shadows of other blocks are for, and what the table says of a single block."""
    found = simulate(Arm(block=8), 8, NEIGHBOURS, 8)
    for score in ("lira", "lira_paper", "attack_success"):
        mean, _, high, error = found[score]
        assert high < 0.5
        assert mean < 0.5 - 4 * error


@pytest.mark.slow
@pytest.mark.parametrize("models", [4, 16, 64, 128])
@pytest.mark.parametrize("neighbours", [0.0, 0.3, 0.6])
def test_so_it_is_in_every_design(models, neighbours):
    for arm in list_arms(models):
        if arm.design != "orthogonal" or models // arm.models_per_block > 1 or not neighbours:
            check(arm, models, neighbours, 16, 0.03)

"""The table of an arm's scores says why a reliability is missing, and what attack success is without information."""

import numpy as np
import pyarrow as pa
import pytest

from memscore.pipeline.attack_repeats import SuccessSummary
from memscore.pipeline.scoring import ArmScores
from memscore.statistics.reliability import compute_reliability
from memscore.subsets.designs import Arm
from memscore.tables.score_tables import list_score_notes

NAN = float("nan")


def make_arm(reliability=None, **changes):
    options = {"suffix": "k0.500", "models": 2, "unfinished": 0, "names": [], "rmse": 0, "rmse_block": NAN}
    reliabilities = {"memorization": reliability} if reliability else {}
    return ArmScores(arm=Arm(), undefined=0, reliability=reliabilities, attacks={}, **(options | changes))


@pytest.mark.parametrize(("other", "explained"), [([1.0, 2.0, 3.0], False), ([3.0, 2.0, 1.0], True), ([2.0] * 3, True)])
def test_a_dash_among_the_reliabilities_is_explained(other, explained):
    """Halves that agree, that contradict each other, and one whose values are all equal."""
    reliability = compute_reliability([(np.array([1.0, 2.0, 3.0]), np.array(other))])
    lines = list_score_notes(pa.table({}), make_arm(reliability))
    assert any(line.startswith("-: the halves do not agree") for line in lines) == explained


def test_one_block_needs_another_and_undefined_values_are_counted():
    table = pa.table({"memorization_k0.500": [0.5, None, None]})
    success = {"attack_success": SuccessSummary(mean=0.6, no_information=0.48, reliability=None)}
    lines = list_score_notes(table, make_arm(success=success))
    assert "undefined: memorization for 2 examples" in lines
    assert any("use --models 128" in line for line in lines)
    assert any("without information" in line and "attack_success 0.480" in line for line in lines)

"""The comparison of two runs of an experiment: z is 1 where intervals are right, and reversals are counted."""

from dataclasses import asdict

import numpy as np
import pytest

from benchmarks.repeated_experiments import compare, read_claims, width_of
from memscore.statistics.claims import judge_claim
from memscore.statistics.means import estimate_mean


def make_claims(values_by_words):
    claims = [judge_claim(words, "p", estimate_mean(values), family="f") for words, values in values_by_words.items()]
    return read_claims([asdict(claim) for claim in claims])


@pytest.mark.parametrize(("shift", "expected"), [(0.0, (0.93, 1.07)), (3.0, (1.6, 3))])
def test_rms_z_is_1_for_runs_that_differ_by_chance_alone_and_more_for_others(shift, expected):
    rng = np.random.default_rng(0)
    truth = {f"claim {i}": rng.normal(scale=2) for i in range(600)}
    first, second = (
        make_claims({words: value + by + rng.normal(size=3) for words, value in truth.items()}) for by in (0.0, shift)
    )
    found = compare(first, second)
    assert expected[0] < found["rms_z"] < expected[1]
    # two standard errors of two degrees of freedom: Student's t with about 4 has a variance of 2
    assert found["rms_z_plain"] > found["rms_z"] * 1.15


def test_verdicts_are_counted_by_what_both_say():
    high, low, unclear = [0.9, 1.0, 1.1], [-0.9, -1.0, -1.1], [-1.0, 0.1, 1.0]
    words = ("the oracle is right more often", "b", "c", "alone")
    first = make_claims(dict(zip(words, (high, high, high, high), strict=True)))
    second = make_claims(dict(zip(words, (high, low, unclear), strict=False)))
    found = compare(first, second)
    assert (found["claims"], found["decided"], found["decided_in_both"]) == (3, [3, 2], 2)
    assert found["reversed"] == ["b"]
    assert found["known"] == {"the oracle is right more often": ["holds", "holds"]}
    assert found["half_width"][0] == pytest.approx(0.1 / np.sqrt(3) * 4.3026527)


def test_a_claim_without_spread_has_no_z():
    first, second = make_claims({"a": [1.0, 1.0], "b": [1.0, 1.1]}), make_claims({"a": [1.0, 2.0], "b": [1.0, 1.2]})
    found = compare(first, second)
    assert (found["claims"], found["tested"]) == (2, 1)
    assert found["each"]["a"]["z"] is None
    assert width_of(first, {"b": {}}) == pytest.approx(0.05 * 12.706204736)

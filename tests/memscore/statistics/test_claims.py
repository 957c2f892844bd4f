"""Verdicts on claims: by their own test, corrected within a family, and by simulation at the rate that is said."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import t as student

from benchmarks.moderated_variance import moderate_variances, simulate_family
from memscore.statistics.claims import (
    correct_families,
    judge_claim,
    judge_equivalent,
    judge_interval,
    judge_not_lower,
)
from memscore.statistics.intervals import Interval
from memscore.statistics.means import MeanEstimate, estimate_interval, estimate_mean

DF = 7.0


def estimate(value, se=0.01, df=DF, **more):
    """An estimate of 8 values with its 95 % interval."""
    found = MeanEstimate(value=value, lo=math.nan, hi=math.nan, se=se, df=df, n=8, n_clusters=8, **more)
    return estimate_interval(found, 0.95)


def judge(value, **more):
    return judge_claim("", "", estimate(value, **more), family="one")


def test_a_claim_is_judged_by_its_95_percent_interval():
    half = student.ppf(0.975, DF) * 0.01
    for value, verdict in ((half * 1.01, "holds"), (half * 0.99, "undecided"), (-half * 1.01, "fails")):
        claim = judge(value)
        assert (claim.verdict, claim.uncorrected) == (verdict, verdict)
        assert claim.p == pytest.approx(2 * student.sf(abs(value) / 0.01, DF))
        assert judge_interval(claim.value) == verdict


def test_equivalence_is_two_one_sided_tests():
    half = student.ppf(0.95, DF) * 0.01
    for distance, verdict in ((0.05 - half * 1.01, "holds"), (0.05 - half * 0.99, "undecided"), (0.2, "fails")):
        for sign in (1, -1):
            claim = judge_equivalent("alike", "", estimate(sign * distance), family="one", margin=0.05)
            assert claim.verdict == verdict
            assert (claim.value.hi - claim.value.lo) / 2 == pytest.approx(half)
    # an interval of 95 % would reach over the margin
    assert estimate(0.05 - half * 1.01).hi > 0.05
    assert "90 % interval within 0.05 of 0" in claim.claim
    # inside, but too uncertain to say so, or to say the contrary
    assert judge_equivalent("", "", estimate(0.0, se=0.1), family="one").verdict == "undecided"


def test_not_lower_has_its_margin():
    for value, verdict in ((0.0, "holds"), (-0.05, "undecided"), (-0.2, "fails")):
        assert judge_not_lower("", "", estimate(value), family="one").verdict == verdict


@pytest.mark.parametrize("judge", [judge_claim, judge_equivalent, judge_not_lower])
@pytest.mark.parametrize("values", [[], [0.3], [0.3] * 4, [0.1 + 0.2, 0.3, 0.3], [0.0] * 4])
def test_nothing_is_decided_by_one_value_or_by_equal_ones(judge, values):
    claim = judge("", "", estimate_mean(values), family="one")
    assert (claim.verdict, claim.uncorrected, claim.favours) == ("undecided", "undecided", "")
    assert math.isnan(claim.p)


def test_an_interval_without_width_decides_nothing():
    assert judge_interval(Interval(value=0.3, lo=0.3, hi=0.3)) == "undecided"


def test_what_is_left_out_leaves_no_verdict():
    for judge_one in (judge_claim, judge_equivalent, judge_not_lower):
        value = estimate(0.3, left_out="2 of 8 runs diverged")
        claims = correct_families([judge_one("", "", value, family="one"), judge(0.3)])
        assert claims[0].verdict == claims[0].uncorrected == "no verdict: 2 of 8 runs diverged"
        # and it is not counted in the family
        assert claims[1].p_family == claims[1].p


def test_a_verdict_of_one_tuning_says_so():
    assert judge(0.3, conditional=True).verdict == "holds, given this tuning"
    assert judge(-0.3, conditional=True).verdict == "fails, given this tuning"
    assert judge(0.0, conditional=True).verdict == "undecided"
    corrected = correct_families([judge(0.3, conditional=True), judge(0.0)])
    assert corrected[0].verdict == "holds, given this tuning"


def test_holm_multiplies_each_p_by_those_that_are_left():
    by_p = [replace(judge(0.1), p=p, claim=str(p)) for p in (0.03, 0.01, 0.02, 0.2)]
    other = replace(judge(0.1), p=0.04, family="another")
    corrected = correct_families([*by_p, other])
    assert [claim.claim for claim in corrected[:4]] == [claim.claim for claim in by_p]
    assert [claim.p_family for claim in corrected] == pytest.approx([0.06, 0.04, 0.06, 0.2, 0.04])
    assert [claim.verdict for claim in corrected] == ["undecided", "holds", "undecided", "undecided", "holds"]
    assert {claim.uncorrected for claim in corrected} == {"holds"}


def count_false_verdicts(correlation, repetitions=1000, n_claims=8, n=6):
    """Share of families without any effect in which a claim is judged, with and without correction."""
    rng = np.random.default_rng(1)
    counts = {"verdict": 0, "uncorrected": 0}
    for _ in range(repetitions):
        common, own = rng.normal(size=(n, 1)), rng.normal(size=(n, n_claims))
        values = np.sqrt(correlation) * common + np.sqrt(1 - correlation) * own
        errors = values.std(0, ddof=1) / math.sqrt(n)
        family = [judge(mean, se=se, df=n - 1.0) for mean, se in zip(values.mean(0), errors, strict=True)]
        corrected = correct_families(family)
        for name in counts:
            counts[name] += any(getattr(claim, name) != "undecided" for claim in corrected)
    return {name: count / repetitions for name, count in counts.items()}


@pytest.mark.parametrize(("correlation", "without"), [(0.0, 0.25), (0.8, 0.1)])
def test_holm_keeps_the_error_of_a_family(correlation, without):
    found = count_false_verdicts(correlation)
    assert found["verdict"] <= 0.05 + 4 * math.sqrt(0.05 * 0.95 / 1000)
    assert found["uncorrected"] > without


def test_equivalence_has_the_size_that_it_says():
    rng, n, repetitions = np.random.default_rng(2), 8, 2000
    margin, verdicts = 1.0, []
    # the difference is at the margin, where both verdicts are wrong most often
    values = margin + 0.5 * rng.normal(size=(repetitions, n))
    errors = values.std(1, ddof=1) / math.sqrt(n)
    for mean, se in zip(values.mean(1), errors, strict=True):
        claim = judge_equivalent("", "", estimate(mean, se=se, df=n - 1.0), family="one", margin=margin)
        verdicts.append(claim.verdict)
    bound = 4 * math.sqrt(0.05 * 0.95 / repetitions)
    assert verdicts.count("holds") / repetitions == pytest.approx(0.05, abs=bound)
    assert verdicts.count("fails") / repetitions == pytest.approx(0.05, abs=bound)


def test_moderated_variances_cover_independent_claims_alone():
    # three tunings: why claims keep Student's interval, see docs/decisions/091
    alike = simulate_family(3, 12, 0.0, 1.0, 400)
    assert alike.capped == pytest.approx(0.95, abs=0.015)
    shared = simulate_family(3, 12, 0.9, 10.0, 400)
    assert shared.student > 0.92
    assert shared.capped < 0.92
    assert shared.capped_largest < 0.85


def test_moderation_shrinks_to_a_common_variance():
    rng = np.random.default_rng(3)
    variances = rng.chisquare(7, 2000) / 7
    moderated, df = moderate_variances(variances, 7)
    assert moderated == pytest.approx(np.ones(2000), abs=0.15)
    assert df > 50
    # a prior of 10 degrees of freedom is found again
    spread = variances * 10 / rng.chisquare(10, 2000)
    assert moderate_variances(spread, 7)[1] == pytest.approx(17, abs=4)

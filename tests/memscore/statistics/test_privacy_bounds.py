"""All bounds on privacy loss at known truth: nulls, ties, few examples, members that score lower, perfect attacks."""

import numpy as np
import pytest

from benchmarks.epsilon_bounds import audit, build_mechanisms, count_above
from memscore.statistics.epsilon_bound import epsilon_lower_bound
from memscore.statistics.guesses import balance_members, choose_guesses, count_guesses
from memscore.statistics.privacy_bounds import PARAMETERS, bound_privacy

MECHANISMS = build_mechanisms()
BY_RATES = {"before", "clopper-pearson", "gdp"}


def seeded(count, seed=0):
    return [np.random.default_rng((seed, k)) for k in range(count)]


def bound_all(scores, member, **options):
    bounds = bound_privacy(scores, member, options.pop("rngs", seeded(1)), **options)
    return {bound.method: bound for bound in bounds}


def separate(n, distance, seed=0, share=0.5):
    rng = np.random.default_rng(seed)
    member = rng.permutation(n) < share * n
    return distance * member + rng.normal(size=n), member


@pytest.mark.parametrize(("n", "levels", "share"), [(12, None, 0.5), (60, 2, 0.5), (60, None, 0.2), (60, None, 0.45)])
def test_nulls_are_above_0_no_more_often_than_the_level_says(n, levels, share):
    """At level .8 up to a fifth of them may be: 4 standard errors more would be 29 of 80."""
    rng, runs = np.random.default_rng(1), 80
    positive = dict.fromkeys(PARAMETERS, 0)
    for _ in range(runs):
        scores = rng.normal(size=n) if levels is None else rng.integers(0, levels, n) * 1.0
        for method, bound in bound_all(scores, rng.permutation(n) < share * n, rngs=[rng], level=0.8).items():
            positive[method] += bound.value > 0
    assert max(positive.values()) < runs * 0.2 + 4 * np.sqrt(runs * 0.16), positive


def find_too_high(name, n, runs, delta):
    """Methods whose bounds are above a mechanism's truth in more than 5 % of runs, by 4 standard errors."""
    mechanism = MECHANISMS[name]
    found = [audit(mechanism, n, delta, np.random.default_rng((2, run))) for run in range(runs)]
    above = count_above(mechanism, {key: np.array([each[key] for each in found]) for key in found[0]}, delta)
    allowed = 0.05 + 4 * np.sqrt(0.05 * 0.95 / runs)
    return {
        key: share for key, share in above.items() if share > allowed and (mechanism.independent or key not in BY_RATES)
    }


@pytest.mark.parametrize("name", ["response 0.5", "fixed answers 1", "fixed members, response 1", "all or none 2"])
def test_known_losses_are_exceeded_seldom_enough(name):
    assert not find_too_high(name, 100, 40, 1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("delta", [0.0, 1e-3])
@pytest.mark.parametrize("n", [60, 400])
@pytest.mark.parametrize("name", MECHANISMS)
def test_no_known_loss_is_exceeded_more_often_than_in_5_percent(name, n, delta):
    assert not find_too_high(name, n, 200, delta)


def test_a_perfect_attack_reaches_the_ceiling_and_no_more():
    for n, share in ((40, 0.5), (200, 0.5), (301, 0.3)):
        member = np.random.default_rng(0).permutation(n) < share * n
        for delta in (0.0, 1e-3):
            for bound in bound_all(member * 1.0, member, delta=delta).values():
                assert bound.value == pytest.approx(bound.ceiling)
                assert bound.value > 0.5
                assert (bound.lowest, bound.median, bound.highest) == (bound.value,) * 3


def test_members_that_score_lower_are_as_good_evidence():
    scores, member = separate(400, 2.0)
    higher, lower = bound_all(scores, member, delta=1e-5), bound_all(-scores, member, delta=1e-5)
    for method in PARAMETERS:
        assert lower[method].value == higher[method].value > 0.3
        assert (higher[method].members, lower[method].members) == ("higher", "lower")
    assert epsilon_lower_bound(-scores, member, seeded(1)[0]).value == 0  # the audit's first bound takes one direction


def test_the_first_row_is_the_audits_bound_and_the_first_halves_are_the_bound():
    scores, member = separate(300, 1.5)
    bounds = bound_all(scores, member, rngs=seeded(6))
    assert bounds["clopper-pearson"].value == epsilon_lower_bound(scores, member, seeded(1)[0]).value
    for method in PARAMETERS:
        alone = [bound_all(scores, member, rngs=[rng])[method].value for rng in seeded(6)]
        one = bounds[method]
        assert (one.value, one.splits) == (alone[0], 6)
        assert (one.lowest, one.median, one.highest) == (min(alone), np.median(alone), max(alone))
        assert one.lowest < one.highest


def test_trap_examples_of_equal_score_are_not_ranked_in_the_order_of_the_data():
    """Bug: a stable sort of equal scores puts members, who stand last in the data, on top."""
    member = np.arange(200) >= 100
    ranked = member[np.argsort(np.zeros(200), kind="stable")]
    assert ranked[100:].all()
    rng, shares = np.random.default_rng(3), []
    for _ in range(200):
        rule = choose_guesses(np.zeros(200), member, rng)
        guesses, correct = count_guesses(np.zeros(200), member, rng, rule)
        shares.append(correct / guesses)
    assert abs(np.mean(shares) - 0.5) < 4 * np.std(shares) / np.sqrt(200)
    assert all(bound.value == 0 for bound in bound_all(np.zeros(200), member).values())


def test_guesses_are_counted_by_rank_on_as_many_members_as_others():
    scores, member = separate(200, 3.0, share=0.1)
    rows = balance_members(member, np.random.default_rng(0))
    assert (member[rows].sum(), (~member[rows]).sum()) == (20, 20)
    rule = choose_guesses(scores[rows], member[rows], np.random.default_rng(0))
    guesses, correct = count_guesses(scores[rows], member[rows], np.random.default_rng(0), rule)
    cut = round(rule.share * 40)
    ranked = member[rows][np.argsort(scores[rows])]
    right = {"member": ranked[40 - cut :].sum(), "non-member": (~ranked[:cut]).sum()}
    assert correct == (sum(right.values()) if rule.says == "both" else right[rule.says])
    assert guesses == (2 * cut if rule.says == "both" else cut)


@pytest.mark.parametrize(("n_in", "n_out"), [(0, 50), (50, 0), (1, 1), (1, 50), (0, 0)])
def test_without_members_or_others_in_each_half_nothing_is_defined(n_in, n_out):
    scores, member = np.arange(n_in + n_out) * 1.0, np.arange(n_in + n_out) < n_in
    for bound in bound_all(scores, member, rngs=seeded(2), delta=1e-5).values():
        assert np.isnan([bound.value, bound.epsilon, bound.ceiling, bound.median, bound.lowest, bound.highest]).all()


def test_two_of_each_are_enough_for_a_bound_of_0():
    for bound in bound_all(np.arange(4.0), np.arange(4) > 1).values():
        assert bound.value == 0.0


def test_infinite_scores_are_ranked():
    scores, member = separate(200, 6.0)
    scores[member & (scores > 6)] = np.inf
    scores[~member & (scores < 0)] = -np.inf
    assert all(bound.value > 0.5 for bound in bound_all(scores, member).values())


def test_mu_has_an_epsilon_at_a_delta_above_0_only():
    scores, member = separate(400, 2.0)
    none, some = bound_all(scores, member), bound_all(scores, member, delta=1e-5)
    for method in ("gdp", "one-run-gdp"):
        assert none[method].value == some[method].value > 0
        assert np.isnan(none[method].epsilon)
        assert some[method].epsilon > some[method].value


@pytest.mark.parametrize("delta", [-1e-9, 1.0, np.nan, np.inf])
def test_a_delta_outside_its_range_is_refused(delta):
    with pytest.raises(ValueError, match=r"delta must lie in \[0, 1\), got"):
        bound_privacy(np.arange(8.0), np.arange(8) > 3, seeded(1), delta=delta)

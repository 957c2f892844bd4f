"""The printed table of bounds: every method, its ceiling and halves, the direction, and what delta means."""

import numpy as np
import pytest
from rich.console import Console

from memscore.statistics.privacy_bounds import bound_privacy
from memscore.tables.epsilon_lines import METHOD_NAMES, print_epsilon_bounds


def show(distance, n=400, delta=0.0, sign=1, width=110):
    rng = np.random.default_rng(0)
    member = np.arange(n) < n // 2
    bounds = bound_privacy(
        sign * (distance * member + rng.normal(size=n)),
        member,
        [np.random.default_rng(k) for k in range(3)],
        delta=delta,
    )
    console = Console(width=width, record=True)
    print_epsilon_bounds(console, bounds, n)
    return bounds, console.export_text()


def find_row(printed, name):
    [line] = [line for line in printed.splitlines() if line.startswith(f" {name}  ")]
    return line.removeprefix(f" {name} ").split()


def test_every_bound_has_its_ceiling_its_halves_and_its_counts():
    bounds, printed = show(2.0, delta=1e-5)
    for bound in bounds:
        row = find_row(printed, METHOD_NAMES[bound.method])
        numbers = (bound.value, bound.ceiling, bound.median)
        assert row[:3] == [f"{number:.3f}" for number in numbers]
        assert row[3:5] == [f"[{bound.lowest:.3f},", f"{bound.highest:.3f}]"]
        means = f"{METHOD_NAMES[bound.method]}: {bound.value:.3f} is epsilon {bound.epsilon:.3f} at delta 1e-05"
        assert (means in printed) == (bound.parameter == "mu")
        counts = bound.counts
        if "hits" in counts:
            assert row[5:] == [f"{counts['hits']}/{counts['of_hits']}", f"{counts['false']}/{counts['of_false']}"]
        else:
            right, guesses = counts["correct"], counts["guesses"]
            assert row[5:] == [f"{right}/{guesses}", f"{guesses - right}/{guesses}"]
    assert "n x delta is 0.004 with n = 400" in printed
    assert "has 3 chances to err" in printed
    assert "members score lower" not in printed


def test_low_scores_of_members_are_said():
    _, printed = show(2.0, sign=-1)
    assert "members score lower in 5 of 5 bounds" in printed
    assert "members score lower" not in show(0.0, sign=-1)[1]  # a bound of 0 says nothing of either


def test_a_mu_without_an_epsilon_is_said():
    _, printed = show(2.0)
    assert "is epsilon" not in printed
    assert "a mu above 0 has no epsilon at delta 0" in printed


@pytest.mark.parametrize("n", [1, 2])
def test_without_a_bound_there_is_no_table(n):
    assert show(1.0, n=n)[1].startswith("epsilon   no bound")


@pytest.mark.parametrize("delta", [0.0, 1e-5])
def test_the_table_is_one_at_80_columns(delta):
    _, printed = show(2.0, n=1500, delta=delta, width=80)
    assert max(map(len, printed.splitlines())) <= 80
    assert sum("lower bound of" in line for line in printed.splitlines()) == 1

"""Whether a forget set tells algorithms apart: what oracles get against each other, beside doing nothing."""

import math

import numpy as np
import pytest
from scipy.stats import t as student

from unlearn.measures.inputs import EvaluationInputs, Outputs
from unlearn.measures.tow import tow
from unlearn.trials.second_oracle import (
    COLUMN,
    add_second_oracle,
    compare_second_oracle,
    compute_pairs,
    describe_second_oracle,
)


def make_rows(forget, nothing, retain=None):
    """Rows of the oracle and of doing nothing, original after original."""
    kept = retain or [1.0] * len(forget)
    oracles = [
        {"algorithm": "oracle", "index": i, "forget_accuracy": f, "retain_accuracy": r, "accuracy_test": 0.9}
        for i, (f, r) in enumerate(zip(forget, kept, strict=True))
    ]
    return [*oracles, *({"algorithm": "original", "index": i, "tow_test": value} for i, value in enumerate(nothing))]


def test_pairs_are_the_tow_of_one_oracle_against_another():
    rng, n, right = np.random.default_rng(0), 60, []
    sets = {"retain": np.arange(30), "forget": np.arange(30, 45), "held_out": np.arange(45, 60)}
    labels = rng.integers(0, 2, n)
    for _ in range(2):
        logits = rng.normal(size=(n, 2)).astype(np.float32)
        right.append(Outputs(logits=logits, embeddings=logits))
    inputs = EvaluationInputs(
        judged=right[0], theta_r=right[1], theta_o=right[1], labels=labels, labels_true=labels, **sets
    )
    rows = [
        {"index": i, "algorithm": "oracle"}
        | {
            column: float(outputs.correct(sets[name], labels).mean())
            for column, name in (
                ("forget_accuracy", "forget"),
                ("retain_accuracy", "retain"),
                ("accuracy_test", "held_out"),
            )
        }
        for i, outputs in enumerate(right)
    ]
    assert compute_pairs(rows) == pytest.approx(dict.fromkeys((0, 1), tow(inputs)["tow"]))


def test_the_interval_is_the_jackknifes():
    forget, nothing = [0.4, 0.5, 0.7, 0.42], [0.3, 0.5, 0.4, 0.35]
    found = compare_second_oracle(make_rows(forget, nothing))

    def compute_mean(kept):
        pairs = [1 - abs(forget[i] - forget[j]) for i in kept for j in kept if i != j]
        return np.mean(pairs) - np.mean([nothing[i] for i in kept])

    everything = compute_mean(range(4))
    pseudo = [4 * everything - 3 * compute_mean([j for j in range(4) if j != i]) for i in range(4)]
    half = student.ppf(0.975, 3) * np.std(pseudo, ddof=1) / 2
    above = found.above_original
    assert (above.value, above.lo, above.hi) == pytest.approx((everything, everything - half, everything + half))
    assert found.tow.value == pytest.approx(1 - np.mean([abs(a - b) for a in forget for b in forget]) * 4 / 3)


def test_a_set_that_the_oracle_changes_tells_apart_and_one_in_its_spread_does_not():
    spread = [0.97, 0.98, 0.99, 0.98]
    apart = compare_second_oracle(make_rows([0.4, 0.42, 0.38, 0.41], [0.4, 0.42, 0.38, 0.41]))
    assert apart.tells_apart
    alike = make_rows(spread, [0.98, 0.985, 0.99, 0.98])
    assert not compare_second_oracle(alike).tells_apart
    [line] = describe_second_oracle(alike)
    assert line.startswith("this forget set is unable to tell algorithms apart with 4 originals: doing nothing has a")
    assert compare_second_oracle(make_rows(spread[:2], [0.1, 0.1])).tells_apart is None
    assert not describe_second_oracle(make_rows(spread[:2], [0.1, 0.1]))


def test_a_plan_that_ends_with_doing_nothing_is_not_theta_o():
    rows = [
        row | {"contender": row["algorithm"], "select": "", "level": 0, "levels": 0}
        for row in make_rows([0.4, 0.42, 0.38], [0.4, 0.41, 0.39])
    ]
    plan = {"contender": "salun>nothing", "algorithm": "original", "select": "oracle", "levels": 2}
    rows += [plan | {"index": 0, "level": level, "tow_test": 0.99} for level in (1, 2)]
    assert compare_second_oracle(rows).above_original.value == pytest.approx(0.9733333 - 0.4, abs=1e-4)
    added = add_second_oracle(rows)
    assert added[0][COLUMN] == added[3][COLUMN] == added[-1][COLUMN] == pytest.approx(0.98)
    assert math.isnan(added[-2][COLUMN])


def test_the_interval_covers():
    rng, truth, covered, n = np.random.default_rng(1), None, 0, 8
    draws = rng.normal(0.5, 0.05, (1000, n)), rng.normal(0.6, 0.03, (1000, n))
    truth = 1 - 2 * 0.05 / math.sqrt(math.pi) - 0.6
    for forget, nothing in zip(*draws, strict=True):
        above = compare_second_oracle(make_rows(list(forget), list(nothing))).above_original
        covered += above.lo <= truth <= above.hi
    assert covered / 1000 == pytest.approx(0.95, abs=0.03)

"""Models far from the others: each kind of wild model is named, healthy banks name none, blocks add up."""

import numpy as np
import pytest

from memscore.statistics.outlying_models import (
    FLOORS,
    compute_limit,
    convert_to_unit,
    find_outlying_models,
    measure_models,
    sum_model_outputs,
)

WILD = 3


def make_bank(rng, models, n=400):
    """Logit confidences with an effect of the example and one of membership."""
    member = rng.random((models, n)) < 0.5
    phi = rng.normal(1 + member) + rng.normal(size=n)
    return {"member": member, "correct": phi > 0, "logit_confidence": phi.astype(np.float32)}


def spoil(columns, change):
    """Change the outputs of one model, and its right predictions with them."""
    phi = columns["logit_confidence"].copy()
    phi[WILD] = change(phi[WILD])
    correct = columns["correct"].copy()
    correct[WILD] = phi[WILD] > 0
    return columns | {"logit_confidence": phi, "correct": correct}


def find(columns):
    return [model.position for model in find_outlying_models(sum_model_outputs(columns))]


WILD_KINDS = {
    "30 times larger": lambda phi: 30 * phi,
    "10 times smaller": lambda phi: 0.1 * phi,
    "negated": lambda phi: -phi,
    "constant": lambda phi: np.full_like(phi, np.median(phi)),
    "all zero": np.zeros_like,
    "untrained": lambda phi: np.random.default_rng(1).normal(-2.2, 0.3, len(phi)).astype(np.float32),
    "all right, and sure": lambda phi: np.full_like(phi, 60.0),
    "mixed with noise": lambda phi: phi + np.random.default_rng(1).normal(0, 30, len(phi)).astype(np.float32),
}


@pytest.mark.parametrize("models", [8, 32, 256])
@pytest.mark.parametrize("kind", WILD_KINDS)
def test_each_kind_of_wild_model_is_named_alone(kind, models):
    assert find(spoil(make_bank(np.random.default_rng(0), models), WILD_KINDS[kind])) == [WILD]


@pytest.mark.parametrize("models", [4, 8, 32, 256])
def test_healthy_banks_name_no_model(models):
    rng = np.random.default_rng(0)
    assert not any(find(make_bank(rng, models)) for _ in range(1000 // models))


def test_rows_that_are_not_those_of_the_other_models_are_found_by_their_correlation():
    """Margins that agree between models; equal distributions, so that only the order of the examples tells."""
    rng = np.random.default_rng(0)
    columns = make_bank(rng, 32)
    columns["logit_confidence"] += 3 * rng.normal(size=400).astype(np.float32)
    [model] = find_outlying_models(sum_model_outputs(spoil(columns, rng.permutation)))
    assert model.position == WILD
    assert model.deviations[0].measure == "agreement"
    assert abs(model.deviations[0].value) < 0.2 < 0.9 < model.deviations[0].median


def test_accuracy_alone_is_compared_where_no_outputs_are_stored():
    columns = make_bank(np.random.default_rng(0), 32)
    del columns["logit_confidence"]
    assert find(columns) == []
    columns["correct"][WILD] = np.random.default_rng(2).random(400) < 0.1
    [model] = find_outlying_models(sum_model_outputs(columns))
    measures = {deviation.measure: deviation for deviation in model.deviations}
    assert set(measures) == {"accuracy_members", "accuracy_left_out"}
    member = columns["member"][WILD]
    assert measures["accuracy_members"].value == pytest.approx(columns["correct"][WILD][member].mean())


def test_one_outlying_number_makes_no_model_far():
    columns = make_bank(np.random.default_rng(0), 32)
    columns["logit_confidence"][WILD, 7] = 1e6
    columns["logit_confidence"][5, 8] = -1e6
    assert find(columns) == []


def test_fewer_than_four_models_and_empty_sides_name_nothing():
    columns = make_bank(np.random.default_rng(0), 3)
    assert find(spoil(columns, lambda phi: 30 * phi) if len(columns["member"]) > WILD else columns) == []
    columns = make_bank(np.random.default_rng(0), 8)
    columns["member"][:] = True
    assert find(columns) == []
    assert np.isnan(measure_models(sum_model_outputs(columns))["accuracy_left_out"]).all()


def test_the_sums_of_blocks_add_and_every_step_th_example_is_taken():
    columns = make_bank(np.random.default_rng(0), 8)
    whole = sum_model_outputs(columns)
    parts = [{name: values[:, rows] for name, values in columns.items()} for rows in (slice(0, 150), slice(150, None))]
    assert sum(map(sum_model_outputs, parts)) == pytest.approx(whole)
    thinned = {name: values[:, ::4] for name, values in columns.items()}
    assert (sum_model_outputs(columns, 4)[4:] == sum_model_outputs(thinned)[4:]).all()
    assert (sum_model_outputs(columns, 4)[:4] == whole[:4]).all()


def test_measures_are_what_their_equations_say():
    columns = make_bank(np.random.default_rng(0), 8)
    measures = measure_models(sum_model_outputs(columns))
    a = np.arcsinh(columns["logit_confidence"].astype(float))
    m, others = a[2], np.delete(a, 2, 0).mean(0)
    member, correct = columns["member"][2], columns["correct"][2]
    expected = {
        "confidence": np.sinh(m.mean()),
        "size": np.sinh(np.abs(m).mean()),
        "spread": m.std(),
        "agreement": np.corrcoef(m, others)[0, 1],
        "accuracy_members": correct[member].mean(),
        "accuracy_left_out": correct[~member].mean(),
    }
    assert set(expected) == set(measures) == set(FLOORS)
    for name, value in expected.items():
        assert convert_to_unit(name, measures[name][2]) == pytest.approx(value), name


def test_the_limit_falls_with_the_models_and_rises_again_for_very_many():
    limits = [compute_limit(models) for models in (4, 8, 32, 256)]
    assert limits == sorted(limits, reverse=True)
    assert compute_limit(4096) > compute_limit(256)


def test_normal_values_are_rarely_far():
    """Share of 4,000 draws of one measure without a floor in which one of M normal values exceeds the limit."""
    rng = np.random.default_rng(0)
    for models, share in ((4, 0.02), (8, 0.006), (32, 0.001)):
        x = rng.normal(size=(4000, models))
        deviation = np.abs(x - np.median(x, 1, keepdims=True))
        z = deviation / (1.4826 * np.median(deviation, 1, keepdims=True))
        assert (z.max(1) > compute_limit(models)).mean() <= share

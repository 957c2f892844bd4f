"""Membership inference attacks on a model that knows all examples, a model that knows none, and the oracle."""

import numpy as np
import pytest
from scipy.special import log_softmax, logit
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedShuffleSplit, cross_val_score
from sklearn.svm import SVC

from tests.fixtures.cases import make_inputs, make_outputs
from unlearn.measures.inputs import EvaluationInputs, Outputs
from unlearn.measures.mia import (
    compute_nonmember_share,
    find_best_threshold,
    mia,
    mia_confidence,
    mia_losses,
    mia_representation,
    mia_threshold,
    modified_entropy,
    sample_forgotten_and_unseen,
    sample_members_and_nonmembers,
)
from unlearn.measures.tow import tow, tow_mia

N_RETAIN, N_FORGET, N_HELD = 400, 200, 300
RETAIN, FORGET = np.arange(N_RETAIN), np.arange(N_FORGET) + N_RETAIN
HELD = np.arange(N_HELD) + N_RETAIN + N_FORGET
N = N_RETAIN + N_FORGET + N_HELD
CLASSES = np.arange(N) % 2


def make_model(forget_like, seed=0, *, separate=True):
    """Make outputs for two classes: p_y near .97 on known examples and near .5 on others; embeddings differ too."""
    rng = np.random.default_rng(seed)
    is_known = np.zeros(N, dtype=bool)
    is_known[RETAIN] = separate
    is_known[FORGET] = separate and forget_like == "retain"
    p = np.clip(np.where(is_known, rng.beta(40, 1.2, N), rng.beta(3, 3, N)), 1e-6, 1 - 1e-9)
    logits = np.zeros((N, 2))
    logits[np.arange(N), CLASSES] = logit(p)
    embeddings = rng.normal(0, 0.3, (N, 4)) + np.where(is_known[:, None], [3.0, 0, 0, 0], [0, 3.0, 0, 0])
    return Outputs(logits=logits.astype(np.float32), embeddings=embeddings.astype(np.float32))


def make_inputs_for(judged, theta_r=None, **more):
    oracle = theta_r or make_model("unseen", seed=1)
    usual = {"labels": CLASSES, "labels_true": CLASSES, "retain": RETAIN, "forget": FORGET, "held_out": HELD}
    return EvaluationInputs(judged=judged, theta_r=oracle, theta_o=make_model("retain"), **usual | more)


SHARES = [(mia, "mia"), (mia_threshold, "mia_threshold"), (mia_threshold, "mia_modified_entropy")]
SHARES += [(mia_confidence, "mia_confidence"), (mia_representation, "miars_2")]
ACCURACIES = [(mia_losses, "mia_losses"), (mia_representation, "miars_1")]


@pytest.mark.parametrize(("attack", "column"), SHARES)
def test_a_share_is_of_non_members_low_where_all_is_known_and_high_where_it_is_forgotten(attack, column):
    assert attack(make_inputs_for(make_model("retain")))[column] < 0.1
    assert attack(make_inputs_for(make_model("unseen")))[column] > 0.9


@pytest.mark.parametrize(("attack", "column"), ACCURACIES)
def test_an_accuracy_is_high_where_the_forget_set_stands_out_and_half_where_it_does_not(attack, column):
    assert attack(make_inputs_for(make_model("retain")))[column] > 0.9
    assert attack(make_inputs_for(make_model("unseen")))[column] == pytest.approx(0.5, abs=0.12)
    assert attack(make_inputs_for(make_model("unseen", separate=False)))[column] == pytest.approx(0.5, abs=0.12)


@pytest.mark.parametrize(("attack", "column"), SHARES + ACCURACIES)
def test_every_model_is_attacked_with_one_draw_so_the_oracle_has_no_gap_to_itself(attack, column):
    oracle = make_model("unseen", seed=1)
    assert (
        attack(make_inputs_for(oracle))[column]
        == attack(make_inputs_for(make_model("retain")).with_model(oracle))[column]
    )


@pytest.mark.parametrize(("attack", "column"), [*SHARES, *ACCURACIES])
def test_the_order_of_a_set_changes_nothing(attack, column):
    rng = np.random.default_rng(0)
    mixed = {"retain": rng.permutation(RETAIN), "held_out": rng.permutation(HELD)}
    assert (
        attack(make_inputs_for(make_model("retain"), **mixed))[column]
        == attack(make_inputs_for(make_model("retain")))[column]
    )


@pytest.mark.parametrize(("attack", "column"), [*SHARES, *ACCURACIES])
def test_without_examples_there_is_no_number(attack, column):
    empty = {"held_out": HELD[:0]}
    assert np.isnan(attack(make_inputs_for(make_model("retain"), **empty))[column])


@pytest.mark.parametrize(("attack", "column"), ACCURACIES)
def test_nine_examples_are_too_few_to_cross_validate(attack, column):
    assert np.isnan(attack(make_inputs_for(make_model("retain"), forget=FORGET[:9]))[column])
    assert not np.isnan(attack(make_inputs_for(make_model("retain"), forget=FORGET[:10]))[column])


def test_members_and_others_are_as_many_and_from_where_they_should_be():
    members, others = sample_members_and_nonmembers(
        make_inputs_for(make_model("retain")), np.random.default_rng(0), max_per_side=250
    )
    assert len(set(members)) == len(set(others)) == 250
    assert set(members) <= set(RETAIN)
    assert set(others) <= set(HELD)


def test_others_of_the_forget_set_are_of_its_classes():
    ones = FORGET[CLASSES[FORGET] == 1]
    forgotten, others = sample_forgotten_and_unseen(
        make_inputs_for(make_model("retain"), forget=ones), np.random.default_rng(0)
    )
    assert len(forgotten) == len(others) == len(ones)
    assert set(CLASSES[others]) == {1}


def label_probabilities(inputs):
    return np.exp(inputs.judged.label_log_probabilities(np.arange(N), CLASSES))


def attack_with_first_members(inputs):
    """The bug: as many members as there are test examples, the first ones in order; all of them if too few."""
    p = label_probabilities(inputs)
    members, others = inputs.retain[: len(inputs.held_out)], inputs.held_out
    y = np.repeat([1, 0], [len(members), len(others)])
    attack = SVC(C=3, gamma="auto").fit(p[np.concatenate([members, others])][:, None], y)
    return 1 - attack.predict(p[inputs.forget][:, None]).mean()


def test_bug_12_members_are_no_first_slice_and_sides_are_balanced():
    rng = np.random.default_rng(2)
    uneven_model = make_model("unseen")
    uneven_model.logits[RETAIN[:300], CLASSES[:300]] = rng.normal(0.5, 0.3, 300)  # the first of R are hardly known
    assert compute_nonmember_share(
        make_inputs_for(uneven_model, retain=RETAIN[::-1]), uneven_model
    ) == compute_nonmember_share(make_inputs_for(uneven_model), uneven_model)
    assert (
        abs(
            attack_with_first_members(make_inputs_for(uneven_model))
            - attack_with_first_members(make_inputs_for(uneven_model, retain=RETAIN[::-1]))
        )
        > 0.1
    )
    # a retain set that is a tenth of the held-out set: an unbalanced attack predicts "non-member"
    uninformative_model = make_model("unseen", separate=False)
    few_members = make_inputs_for(uninformative_model, retain=RETAIN[:30])
    assert attack_with_first_members(few_members) == 1.0
    assert 0.1 < compute_nonmember_share(few_members, uninformative_model) < 0.9


@pytest.mark.parametrize("kind", ["retain", "unseen"])
def test_equal_examples_counted_once_are_the_same_attack(kind):
    """Against a machine fitted to every example as it is."""
    outputs = make_model(kind)
    inputs = make_inputs_for(outputs)
    p = label_probabilities(inputs)
    members, others = sample_members_and_nonmembers(inputs, inputs.rng("mia"))
    whole = SVC(C=3, gamma="auto").fit(p[np.concatenate([members, others])][:, None], np.repeat([1, 0], len(members)))
    predictions = 1 - whole.predict(p[inputs.forget][:, None])
    assert compute_nonmember_share(inputs, outputs) == pytest.approx(predictions.mean(), abs=1.5 / len(predictions))


def modified_entropy_with_bugs(log_p, labels):
    """The bug: log p_c where log(1 - p_c) belongs, and all rows indexed by all labels."""
    mixed = np.exp(log_p)
    mixed[:, labels] = 1 - mixed[:, labels]
    return -(mixed * log_p).sum(1)


def test_bug_11_modified_entropy_is_that_of_the_hand():
    p = np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6], [0.25, 0.5, 0.25]])
    labels = np.array([0, 1, 1])
    by_hand = [
        -(0.3 * np.log(0.7) + 0.2 * np.log(0.8) + 0.1 * np.log(0.9)),
        -(0.7 * np.log(0.3) + 0.1 * np.log(0.9) + 0.6 * np.log(0.4)),
        -(0.5 * np.log(0.5) + 0.25 * np.log(0.75) + 0.25 * np.log(0.75)),
    ]
    np.testing.assert_allclose(modified_entropy(np.log(p), labels), by_hand, rtol=1e-12)
    assert not np.allclose(modified_entropy_with_bugs(np.log(p), labels), by_hand, rtol=0.1)


def test_modified_entropy_is_finite_where_a_probability_is_0_or_1():
    log_p = log_softmax([[900.0, 0.0, -900.0], [900.0, 0.0, -900.0]], axis=1)
    right, wrong = modified_entropy(log_p, np.array([0, 2]))
    assert right == 0
    assert np.isfinite(wrong)
    assert wrong > 100


def test_the_best_threshold_is_the_one_that_is_right_most_often():
    assert find_best_threshold(np.array([0.9, 0.8, 0.3]), np.array([0.1, 0.2, 0.4])) == pytest.approx(0.25)
    assert find_best_threshold(np.array([0.9, 0.9, 0.5]), np.array([0.5, 0.5, 0.9])) == pytest.approx(0.7)
    assert find_best_threshold(np.array([0.1, 0.2]), np.array([0.8, 0.9])) == -np.inf


@pytest.mark.parametrize("forget_like", ["retain", "unseen"])
def test_the_cheap_attack_agrees_with_the_machine(forget_like):
    inputs = make_inputs_for(make_model(forget_like))
    assert mia_threshold(inputs)["mia_threshold"] == pytest.approx(mia(inputs)["mia"], abs=0.05)


@pytest.mark.slow
def test_two_thousand_a_side_say_what_six_thousand_say():
    rng = np.random.default_rng(0)
    n, labels = 13_000, np.zeros(13_000, dtype=np.int64)
    p = rng.beta(12, 0.3, n)
    p[6000:12_000] = np.where(rng.random(6000) < 0.88, p[6000:12_000], rng.beta(0.6, 0.8, 6000))
    p[12_000:] = np.where(rng.random(1000) < 0.7, p[12_000:], rng.beta(0.6, 0.8, 1000))
    outputs = Outputs(
        logits=np.stack([logit(np.clip(p, 1e-9, 1 - 1e-7)), np.zeros(n)], 1).astype(np.float32),
        embeddings=np.zeros((n, 1), np.float32),
    )
    sets = {"retain": np.arange(6000), "held_out": np.arange(6000, 12_000), "forget": np.arange(12_000, n)}
    whole = compute_nonmember_share(
        EvaluationInputs(judged=outputs, theta_r=outputs, theta_o=outputs, labels=labels, labels_true=labels, **sets),
        outputs,
        6000,
    )
    sampled = [
        mia(
            EvaluationInputs(
                judged=outputs, theta_r=outputs, theta_o=outputs, labels=labels, labels_true=labels, seed=seed, **sets
            )
        )["mia"]
        for seed in range(3)
    ]
    assert np.abs(np.array(sampled) - whole).max() < 0.02


@pytest.mark.parametrize("forget_like", ["retain", "unseen"])
@pytest.mark.parametrize("seed", range(3))
def test_logistic_attacks_are_those_of_scikit_learn(forget_like, seed):
    inputs = make_inputs_for(make_model(forget_like, seed), seed=seed)
    log_p = inputs.judged.label_log_probabilities(np.arange(N), CLASSES)
    rng = inputs.rng("mia-losses")
    rows = np.concatenate(sample_forgotten_and_unseen(inputs, rng))
    splits = StratifiedShuffleSplit(5, test_size=0.1, random_state=int(rng.integers(2**31)))
    accuracies = cross_val_score(LogisticRegression(), -log_p[rows, None], np.arange(400) < 200, cv=splits)
    assert mia_losses(inputs) == {"mia_losses": accuracies.mean(), "mia_losses_n": 200}
    rows = np.concatenate(sample_members_and_nonmembers(inputs, inputs.rng("mia-confidence")))
    attack = LogisticRegression().fit(np.exp(log_p[rows, None]), np.arange(600) < 300)
    assert mia_confidence(inputs) == {"mia_confidence": 1 - attack.predict(np.exp(log_p[FORGET, None])).mean()}


def test_tow_mia_is_one_for_the_oracle_and_its_product_for_others():
    oracle, original = make_model("unseen", seed=1), make_model("retain")
    assert tow_mia(make_inputs_for(oracle, oracle)) == {"tow_mia": 1.0}
    inputs = make_inputs_for(original, oracle)
    distances = tow(inputs)
    expected = 1 - abs(compute_nonmember_share(inputs, original) - compute_nonmember_share(inputs, oracle))
    expected *= (1 - distances["da_retain"]) * (1 - distances["da_held_out"])
    assert tow_mia(inputs)["tow_mia"] == pytest.approx(expected)
    assert tow_mia(inputs)["tow_mia"] < 0.3


def test_a_coin_flipper_is_called_neither():
    flat = make_outputs(np.ones(120, dtype=bool), margin=0.0)
    assert 0.1 < mia_threshold(make_inputs(flat))["mia_threshold"] < 0.95
    assert mia_losses(make_inputs(flat))["mia_losses"] == pytest.approx(0.5, abs=0.25)


def test_dead_embeddings_are_no_error():
    dead = make_model("retain")
    dead.embeddings[:] = 0
    assert mia_representation(make_inputs_for(dead))["miars_1"] == pytest.approx(0.5, abs=0.1)

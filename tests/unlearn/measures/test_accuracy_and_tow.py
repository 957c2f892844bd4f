"""Accuracies by counting, and tug of war."""

import numpy as np
import pytest

from tests.fixtures.cases import FORGET, HELD_OUT, LABELS, RETAIN, make_inputs, make_outputs
from unlearn.measures.accuracy import accuracy, held_out_accuracy, kept_class_accuracy
from unlearn.measures.class_matched import class_matched
from unlearn.measures.tow import tow


def test_the_oracle_is_at_no_distance_from_itself():
    assert tow(make_inputs(make_inputs().theta_r)) == {
        "tow": 1.0,
        "da_forget": 0.0,
        "da_retain": 0.0,
        "da_held_out": 0.0,
    }


def test_tow_is_the_product_of_what_is_left_of_three_distances():
    right = np.zeros(len(LABELS), dtype=bool)
    right[RETAIN[:45]] = right[FORGET[:5]] = right[HELD_OUT[:10]] = True  # .75, .25, .25; the oracle has 1, .5, .5
    values = tow(make_inputs(make_outputs(right)))
    assert values == {"tow": 0.75**3, "da_forget": 0.25, "da_retain": 0.25, "da_held_out": 0.25}


def test_forgetting_too_much_is_as_far_as_forgetting_too_little():
    much, little = np.ones(len(LABELS), dtype=bool), np.ones(len(LABELS), dtype=bool)
    much[FORGET] = False
    assert (
        tow(make_inputs(make_outputs(much)))["da_forget"] == tow(make_inputs(make_outputs(little)))["da_forget"] == 0.5
    )


def test_accuracies_are_counted():
    right = np.zeros(len(LABELS), dtype=bool)
    right[RETAIN[:15]] = right[FORGET[:1]] = right[HELD_OUT[LABELS[HELD_OUT] == 2]] = True
    inputs = make_inputs(make_outputs(right), forget=FORGET[LABELS[FORGET] == 2])
    assert held_out_accuracy(inputs) == {"accuracy": 0.25, "class_accuracy": 1.0}
    assert accuracy(make_inputs(make_outputs(right)))["retain_accuracy"] == 0.25


def test_a_class_that_is_gone_is_no_part_of_what_should_be_kept():
    right = LABELS != 2  # a perfect forgetting of class 2
    retained = RETAIN[LABELS[RETAIN] != 2]
    inputs = make_inputs(make_outputs(right), forget=np.flatnonzero(LABELS == 2), retain=retained)
    assert kept_class_accuracy(inputs) == {"kept_class_accuracy": 1.0}
    assert held_out_accuracy(inputs)["accuracy"] == 0.75
    assert kept_class_accuracy(make_inputs(make_outputs(right))) == {
        "kept_class_accuracy": 0.75
    }  # each class has a retained example


def test_a_tie_is_no_right_answer():
    flat = make_outputs(np.ones(len(LABELS), dtype=bool))
    flat.logits[:] = 1.0
    assert accuracy(make_inputs(flat))["retain_accuracy"] == 0.0


def test_wrong_labels_are_judged_both_ways():
    wrong = LABELS.copy()
    wrong[FORGET] = (LABELS[FORGET] + 1) % 4
    values = accuracy(make_inputs(make_outputs(np.ones(len(LABELS), dtype=bool)), labels=wrong))
    assert (values["forget_accuracy"], values["forget_accuracy_true"]) == pytest.approx((0.0, 1.0))


def test_the_class_matched_error_weighs_held_out_classes_as_the_forget_set_has_them():
    right = np.ones(len(LABELS), dtype=bool)
    right[HELD_OUT[LABELS[HELD_OUT] == 1][:5]] = False  # half of class 1's ten
    right[FORGET[LABELS[FORGET] == 1][:3]] = False
    forget = FORGET[np.isin(LABELS[FORGET], (0, 1))][:6]  # rows 60, 61, 64, 65, 68, 69: three of each class
    values = class_matched(make_inputs(make_outputs(right), forget=forget))
    assert values["class_matched_error"] == pytest.approx(0.5 * 0 + 0.5 * 0.5)
    assert values["class_matched_gap"] == pytest.approx(abs(3 / 6 - 0.25))


def test_who_forgets_a_whole_class_is_to_be_wrong_on_it_and_to_do_nothing_is_farthest_from_that():
    gone, retained = np.flatnonzero(LABELS == 2), RETAIN[LABELS[RETAIN] != 2]
    nothing, perfect = np.ones(len(LABELS), dtype=bool), LABELS != 2
    values = [
        class_matched(make_inputs(make_outputs(right), forget=gone, retain=retained)) for right in (nothing, perfect)
    ]
    assert [result["class_matched_error"] for result in values] == [1, 1]
    assert [result["class_matched_gap"] for result in values] == [1, 0]


def test_a_class_that_nothing_held_out_has_leaves_the_reference_undefined():
    values = class_matched(make_inputs(held_out=HELD_OUT[LABELS[HELD_OUT] != 2]))
    assert all(np.isnan(value) for value in values.values())

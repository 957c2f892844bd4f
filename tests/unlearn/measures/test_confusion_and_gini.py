"""Two swapped classes, and the spread of losses."""

import numpy as np
import pytest

from memscore.statistics.inequality import gini
from tests.fixtures.cases import FORGET, HELD_OUT, LABELS, RETAIN, make_inputs, make_outputs
from unlearn.measures.confusion import confusion, find_swapped_classes, held_out_confusion
from unlearn.measures.gini import loss_gini
from unlearn.measures.inputs import Outputs

SWAPPED = LABELS.copy()
SWAPPED[FORGET] = np.where(LABELS[FORGET] == 0, 1, np.where(LABELS[FORGET] == 1, 0, LABELS[FORGET]))


def make_outputs_answering(answers):
    return Outputs(logits=np.eye(4, dtype=np.float32)[answers] * 5, embeddings=np.zeros((len(answers), 2), np.float32))


def test_the_two_classes_are_read_from_the_labels():
    assert find_swapped_classes(SWAPPED, LABELS) == (0, 1)
    assert find_swapped_classes(LABELS, LABELS) is None
    assert find_swapped_classes((LABELS + 1) % 4, LABELS) is None


def test_errors_are_counted_on_the_two_classes_by_their_published_labels():
    answers = LABELS.copy()
    zeros, ones, twos = (HELD_OUT[LABELS[HELD_OUT] == label] for label in (0, 1, 2))
    answers[zeros[:3]] = 1  # one for the other
    answers[ones[:1]] = 0
    answers[ones[1:3]] = 3  # for a third
    answers[twos] = 0  # of a class that was not confused
    values = held_out_confusion(make_inputs(make_outputs_answering(answers), labels=SWAPPED))
    assert values == {"ic_err": pytest.approx(6 / 20), "fgt_err": pytest.approx(4 / 20), "fgt_count": 4.0}
    assert confusion(make_inputs(make_outputs_answering(answers), labels=SWAPPED)) == {
        "ic_err_retain": 0.0, "fgt_err_retain": 0.0, "fgt_count_retain": 0.0,
    }  # fmt: skip


def test_a_model_that_learned_the_swap_is_wrong_on_all_and_a_tie_is_wrong():
    answers = np.where(LABELS == 0, 1, np.where(LABELS == 1, 0, LABELS))
    values = confusion(make_inputs(make_outputs_answering(answers), labels=SWAPPED))
    assert values["ic_err_retain"] == values["fgt_err_retain"] == 1.0
    assert values["fgt_count_retain"] == np.isin(LABELS[RETAIN], (0, 1)).sum()
    flat = make_outputs(np.ones(len(LABELS), dtype=bool))
    flat.logits[:] = 1.0
    assert confusion(make_inputs(flat, labels=SWAPPED))["ic_err_retain"] == 1.0


def test_where_no_labels_were_swapped_there_is_no_number():
    for labels in (LABELS, (LABELS + 1) % 4):
        inputs = make_inputs(labels=labels)
        assert all(np.isnan(value) for value in (confusion(inputs) | held_out_confusion(inputs)).values())


def test_gini_is_of_the_losses():
    logits = np.zeros((len(LABELS), 4), np.float32)
    odds = np.linspace(0.5, 4, len(FORGET))
    logits[FORGET, LABELS[FORGET]] = odds
    values = loss_gini(make_inputs(Outputs(logits=logits, embeddings=np.zeros((len(LABELS), 1), np.float32))))
    assert values["gini_forget"] == pytest.approx(gini(np.log1p(3 * np.exp(-odds))), rel=1e-6)
    assert values["gini_retain"] == pytest.approx(0, abs=1e-12)


def test_one_example_that_holds_all_the_loss_is_the_most_uneven():
    right = np.ones(len(LABELS), dtype=bool)
    right[FORGET[0]] = False
    assert loss_gini(make_inputs(make_outputs(right, margin=30.0)))["gini_forget"] == pytest.approx(
        1 - 1 / len(FORGET), abs=1e-6
    )

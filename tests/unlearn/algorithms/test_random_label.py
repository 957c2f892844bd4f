"""Random labels: drawn uniformly and anew, for the forget set alone."""

import importlib

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from torch.nn.functional import cross_entropy

from tests.fixtures.problems import make_tiny_problem, run_algorithm
from tests.fixtures.spies import classify_batches, record_batches_read
from unlearn.algorithms.random_label import RandomLabelConfig, draw_labels


def record_labels(monkeypatch, problem, **params):
    """(row, label) of every example that is trained on, in order."""
    labels = []

    def record(scores, targets):
        labels.extend(targets.tolist())
        return cross_entropy(scores, targets)

    monkeypatch.setattr(importlib.import_module("unlearn.algorithms.random_label"), "cross_entropy", record)
    batch_rows = record_batches_read(monkeypatch, lambda: run_algorithm("random-label", problem, **params))
    rows = [row for batch in batch_rows for row in batch]
    assert len(rows) == len(labels)
    return list(zip(rows, labels, strict=True))


def select_pairs(pairs, examples):
    rows = set(examples.rows.tolist())
    return [(row, label) for row, label in pairs if row in rows]


def is_uniform(labels, classes):
    counts = np.bincount(labels, minlength=classes)
    return chisquare(counts).pvalue > 1e-3


def relabel_on_two_data_sets(examples, data):
    """A small copy of bug 2."""
    labels = examples.labels.clone()
    if data in {"cifar10", "svhn"}:
        labels = torch.from_numpy(np.random.default_rng(0).integers(examples.n_classes, size=len(labels)))
    return labels


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("order", ["mixed", "sequential"])
def test_bug_2_the_forget_set_keeps_its_labels_on_other_data_sets(order, channels, monkeypatch):
    problem = make_tiny_problem("mlp", channels=channels, forget=range(0, 40, 4))  # one class
    for data, right in (("cifar10", True), ("cifar100", False)):
        drawn = [relabel_on_two_data_sets(problem.forget, data).numpy() for _ in range(20)]
        assert is_uniform(np.concatenate(drawn)[:30], 4) == right
    pairs = record_labels(monkeypatch, problem, order=order, epochs=20, lr=1e-3)
    assert is_uniform([label for _, label in select_pairs(pairs, problem.forget)], 4)


@pytest.mark.parametrize("order", ["mixed", "sequential"])
def test_random_labels_never_leak_into_the_retain_set(order, monkeypatch):
    problem = make_tiny_problem("mlp")
    truth = dict(zip(problem.retain.rows.tolist(), problem.retain.labels.tolist(), strict=True))
    retain_pairs = select_pairs(record_labels(monkeypatch, problem, order=order, epochs=3), problem.retain)
    assert len(retain_pairs) == 3 * 54
    assert all(truth[row] == label for row, label in retain_pairs)


def test_labels_are_drawn_anew_each_epoch(monkeypatch):
    problem = make_tiny_problem("mlp")
    forget_pairs = select_pairs(record_labels(monkeypatch, problem, epochs=5), problem.forget)
    epochs = {tuple(sorted(forget_pairs[start : start + 10])) for start in range(0, 50, 10)}
    assert len(epochs) == 5


def test_the_true_label_is_drawn_only_if_it_may_be(monkeypatch):
    problem = make_tiny_problem("mlp")
    truth = dict(zip(problem.forget.rows.tolist(), problem.forget.labels.tolist(), strict=True))
    for allowed in (True, False):
        forget_pairs = select_pairs(
            record_labels(monkeypatch, problem, true_label=allowed, epochs=20, lr=1e-3), problem.forget
        )
        hits = [truth[row] == label for row, label in forget_pairs]
        assert np.mean(hits) == pytest.approx(0.25, abs=0.1) if allowed else not any(hits)


def test_another_label_is_uniform_over_the_others():
    forget = make_tiny_problem("mlp", forget=range(0, 60, 4)).forget
    rng = np.random.default_rng(0)
    shifts = torch.cat([(draw_labels(forget, rng, true_label=False) - forget.labels) % 4 for _ in range(30)])
    assert (shifts > 0).all()
    assert is_uniform(shifts.numpy() - 1, 3)


def test_the_order_is_the_one_that_is_asked_for(monkeypatch):
    problem = make_tiny_problem("mlp")
    batch_rows = record_batches_read(
        monkeypatch, lambda: run_algorithm("random-label", problem, order="sequential", batch=10)
    )
    assert classify_batches(batch_rows, problem.forget) == "FRRRRRR" * 2
    batch_rows = record_batches_read(
        monkeypatch, lambda: run_algorithm("random-label", problem, order="mixed", batch=32)
    )
    assert classify_batches(batch_rows, problem.forget) == "MM" * 2


def test_an_unknown_order_is_refused():
    with pytest.raises(ValueError, match="order of RandomLabelConfig must be mixed or sequential, got shuffled"):
        RandomLabelConfig(order="shuffled")

"""Holdout retraining against a plain loop, and the traps of its released code."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from memscore.data.datasets import load_dataset
from memscore.data.splits import split_halves
from memscore.models.architectures import Classifier, build_network
from memscore.proxies.holdout_retraining import (
    TEST,
    VALIDATION,
    HoldoutConfig,
    build_fine_tuning_recipe,
    fine_tune,
    holdout_retraining,
    select_held_out_rows,
    symmetric_kl,
)
from memscore.training.device_data import to_device
from memscore.training.loop import EpochSampler

SHAPE, K = (1, 4, 4), 3
TRAIN, HELD_OUT = np.arange(20), np.arange(20, 50)
CONFIG = HoldoutConfig(batch=10, epochs=12, patience=2)


def points(flat=True):
    rng = np.random.default_rng(0)
    raw = rng.integers(0, 256, (80, *SHAPE), dtype=np.uint8)
    images = to_device(raw, (0.5,), (0.3,), torch.device("cpu"), flat=flat)
    return images, torch.from_numpy(rng.integers(0, K, 80))


def rng():
    return np.random.default_rng(7)


def scores(theta, images, labels, config=CONFIG):
    return holdout_retraining(theta, images, labels, len(TRAIN), HELD_OUT, config, rng())


def test_it_is_half_of_both_divergences():
    rng = torch.Generator().manual_seed(0)
    p, q = torch.randn(2, 30, 5, generator=rng).double().softmax(-1)
    expected = ((p * (p / q).log()).sum(1) + (q * (q / p).log()).sum(1)) / 2
    torch.testing.assert_close(symmetric_kl(p.log(), q.log()), expected, rtol=1e-10, atol=1e-14)


def test_an_example_that_moves_further_scores_more_and_a_clamp_would_tie_them():
    """Two classes, log-odds from a to -a: (2 sigmoid(a) - 1) a, which is a itself for such a."""
    odds = torch.tensor([1.0, 30.0, 60.0, 900.0]).double()
    logits = torch.stack([odds, torch.zeros(4).double()], 1)
    expected = (2 * odds.sigmoid() - 1) * odds

    def is_exact(divergence):
        result = divergence(logits.log_softmax(-1), (-logits).log_softmax(-1))
        torch.testing.assert_close(result, expected, rtol=1e-10, atol=0)

    def clamped(log_p, log_q):
        return symmetric_kl(log_p.exp().clamp_min(1e-10).log(), log_q.exp().clamp_min(1e-10).log())

    is_exact(symmetric_kl)
    with pytest.raises(AssertionError):
        is_exact(clamped)
    tied = clamped(logits.log_softmax(-1), (-logits).log_softmax(-1))
    torch.testing.assert_close(tied[1], tied[3], rtol=1e-9, atol=0)  # both at the clamp, -2 log 1e-10 apart


@pytest.mark.parametrize("arch", ["mlp-9", "cnn-3"])
def test_fine_tuning_is_a_plain_loop_that_stops_where_the_loss_has_not_fallen_for_the_patience(arch):
    images, labels = points(flat=arch == "mlp-9")
    theta = build_network(arch, SHAPE, K, 0)
    twin = copy.deepcopy(theta)
    config = replace(CONFIG, epochs=30, weight_decay=0.1, patience=1)
    losses = fine_tune(theta, images, labels, HELD_OUT, config, rng())
    best = int(np.argmin(losses))
    assert len(losses) == best + 1 + config.patience < config.epochs  # it did stop early
    order = EpochSampler(HELD_OUT, rng().spawn(2)[0])
    sgd = torch.optim.SGD(twin.parameters(), 0.1, 0.9, weight_decay=0.1)
    for loss in losses:
        for _ in range(3):
            rows = torch.from_numpy(order.take(10)[0])
            sgd.zero_grad()
            cross_entropy(twin(images.take(rows)), labels[rows]).backward()
            sgd.step()
        rows = torch.from_numpy(HELD_OUT)
        assert loss == pytest.approx(float(cross_entropy(twin(images.take(rows)), labels[rows]).detach()), rel=1e-4)
    for got, expected in zip(theta.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)  # float32 rounding over all its steps


def test_without_a_reason_to_stop_all_epochs_are_taken():
    images, labels = points()
    theta = build_network("mlp-9", SHAPE, K, 0)
    slow = replace(CONFIG, lr=1e-3)
    losses = fine_tune(theta, images, labels, HELD_OUT, slow, rng())
    assert len(losses) == slow.epochs
    assert (np.diff(losses) < 0).all()


def test_theta_o_stays_as_it_was_and_the_score_is_the_divergence_of_before_and_after():
    images, labels = points(flat=False)
    theta_o = build_network("cnn-3", SHAPE, K, 0)
    theta_o.body.append(torch.nn.BatchNorm1d(theta_o.head.in_features))
    state_before = copy.deepcopy(theta_o.state_dict())
    result = scores(theta_o, images, labels)
    assert all(torch.equal(state_before[name], value) for name, value in theta_o.state_dict().items())
    assert all(layer.training for layer in theta_o.modules())
    theta = copy.deepcopy(theta_o)
    fine_tune(theta, images, labels, HELD_OUT, CONFIG, rng())
    shown = images.take(torch.from_numpy(TRAIN))
    p, q = (model.eval()(shown).softmax(-1).detach().double() for model in (theta_o, theta))
    expected = ((p - q) * (p.log() - q.log())).sum(1) / 2
    np.testing.assert_allclose(result, expected, rtol=1e-3, atol=1e-9)  # p here is rounded to float32
    assert result.dtype == np.float64
    assert (result > 0).all()


def test_labels_of_the_training_set_play_no_part():
    images, labels = points()
    other = labels.clone()
    other[TRAIN] = (other[TRAIN] + 1) % K
    theta_o = build_network("mlp-9", SHAPE, K, 0)
    assert np.array_equal(scores(theta_o, images, labels), scores(theta_o, images, other))


def test_validation_is_halved_and_the_paper_s_form_says_that_it_leaks():
    splits = load_dataset("digits")
    n, v = len(splits.train), len(splits.validation)
    first, second = split_halves(splits.validation, 0)
    rows = select_held_out_rows(splits, HoldoutConfig(), seed=0)
    assert splits.validation.ids[rows - n].tolist() == first.ids.tolist()
    assert not set(splits.validation.ids[rows - n]) & set(second.ids)  # left for selection
    assert HoldoutConfig().metadata() == {"variant": VALIDATION, "leaks": "nothing"}
    paper = HoldoutConfig(variant=TEST)
    assert np.array_equal(select_held_out_rows(splits, paper, seed=0), np.arange(n + v, n + v + len(splits.test)))
    assert paper.metadata() == {"variant": "test-set (leaks)", "leaks": "test"}


def test_without_validation_it_is_refused_by_name():
    splits = load_dataset("digits", validation=0)
    with pytest.raises(ValueError, match=r"holdout retraining .* there are 0; load with a validation share above 0"):
        select_held_out_rows(splits, HoldoutConfig(), seed=0)


def test_what_cannot_be_fine_tuned_is_refused():
    images, labels = points(flat=False)
    theta_o = build_network("mlp-9", SHAPE, K, 0)
    with pytest.raises(ValueError, match="reads flat images, got channels last ones"):
        scores(theta_o, images, labels)
    with pytest.raises(ValueError, match=r"diverged at lr 1000000000.0; use a lower one"):
        scores(theta_o, *points(), replace(CONFIG, lr=1e9))
    with pytest.raises(ValueError, match=r"did you mean 'validation'"):
        HoldoutConfig(variant="validatoin")
    with pytest.raises(ValueError, match="patience must be 1 epoch or more, got 0"):
        HoldoutConfig(patience=0)
    with pytest.raises(ValueError, match="lr must be above 0"):
        HoldoutConfig(lr=0.0)


def test_a_batch_is_never_larger_than_what_is_held_out():
    assert build_fine_tuning_recipe(HoldoutConfig(), 98).batch == 98
    assert build_fine_tuning_recipe(HoldoutConfig(), 5000).batch == 256


def test_a_network_that_draws_has_one_value_whatever_the_process_has_drawn():
    """Dropout draws from torch's global generator, which is seeded by the score's stream and restored."""
    images, labels = points(flat=False)
    theta = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.ReLU(), nn.Dropout(0.5)), nn.Linear(12, K))
    values = []
    for _ in range(2):
        torch.rand(5)
        before = torch.default_generator.get_state()
        values.append(scores(theta, images, labels))
        assert torch.equal(torch.default_generator.get_state(), before)
    np.testing.assert_array_equal(*values)

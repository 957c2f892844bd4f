"""Loss curvature against closed forms, and known bugs of other implementations."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from memscore.models.architectures import Classifier, build_network
from memscore.proxies.epoch_mean import EpochMean
from memscore.proxies.loss_curvature import (
    CURVATURES,
    CurvatureConfig,
    compute_gradient_change,
    curvature,
    draw_rademacher_signs,
    track_curvature,
)
from memscore.training.device_data import DeviceImages, to_device
from memscore.training.loop import TrainingRun, train
from memscore.training.recipes import Recipe

SHAPE, N = (1, 4, 4), 12
SIGN, RADEMACHER = CURVATURES["sign"], CURVATURES["rademacher"]


def rng():
    return np.random.default_rng(3)


def points(n=N):
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(n, *SHAPE)))
    shades = {"black": torch.zeros(1), "white": torch.ones(1)}
    images = DeviceImages(pixels=x.permute(0, 2, 3, 1).contiguous(), shape=SHAPE, flat=False, **shades)
    return images, torch.arange(n) % 2


def linear(classes=2):
    model = Classifier(nn.Flatten(), nn.Linear(16, classes)).double()
    with torch.no_grad():
        weight = np.random.default_rng(1).normal(size=(classes, 16)) / 4
        model.head.weight.copy_(torch.from_numpy(weight))
    return model


def hessians(model, images):
    """W^T (diag p - p p^T) W of each example."""
    w = model.head.weight.detach()
    p = model(images.take(torch.arange(len(images)))).softmax(-1).detach()
    return torch.stack([w.T @ (torch.diag(q) - q[:, None] * q) @ w for q in p]).numpy()


def test_in_a_quadratic_bowl_the_gradient_changes_by_a_times_the_step():
    """l = x^T A x / 2 has gradient A x everywhere, so each probe gives h ||A v|| exactly, at any h."""
    a = torch.from_numpy(np.random.default_rng(2).normal(size=(16, 16)))
    a = a + a.T
    x = points()[0].take(torch.arange(N))

    def compute_gradient(at):
        return (at.flatten(1) @ a).view_as(at)

    config = replace(RADEMACHER, h=0.5)
    probes = draw_rademacher_signs(x.shape, 10, rng()).double().flatten(2)
    expected = 0.5 * (probes @ a).norm(dim=-1).mean(1)
    torch.testing.assert_close(
        compute_gradient_change(compute_gradient, x, config, rng()), expected, rtol=1e-10, atol=0
    )
    signs = compute_gradient(x).flatten(1).sign()
    torch.testing.assert_close(
        compute_gradient_change(compute_gradient, x, replace(SIGN, h=0.5), rng()),
        0.5 * (signs @ a).norm(dim=1) / 4,
        rtol=1e-10,
        atol=0,
    )


def test_along_the_sign_a_linear_classifier_of_two_classes_has_a_closed_form():
    """H = p (1 - p) w w^T and sign(grad) = +-sign(w): h p (1 - p) ||w||_2 ||w||_1 / sqrt D."""
    model, (images, labels) = linear(), points()
    w = (model.head.weight[1] - model.head.weight[0]).detach()
    p = model(images.take(torch.arange(N))).softmax(-1)[:, 1].detach()
    h = 1e-5
    expected = h * p * (1 - p) * w.norm() * w.abs().sum() / 4
    got = curvature(model, images, labels, replace(SIGN, h=h), rng())
    np.testing.assert_allclose(got, expected, rtol=1e-4)  # the next term is h ||w|| = 2e-5 of it


def test_random_probes_give_the_trace_of_the_squared_hessian():
    """E ||grad(x + h v) - grad(x)||^2 = h^2 Tr(H^2), Garg et al.; one probe, many draws."""
    model, (images, labels) = linear(3), points()
    h, draws, stream = 1e-4, 400, rng()
    config = replace(RADEMACHER, h=h, probes=1)
    squares = np.stack([curvature(model, images, labels, config, stream) ** 2 for _ in range(draws)]) / h**2
    trace = (hessians(model, images) ** 2).sum((1, 2))
    se = squares.std(0, ddof=1) / np.sqrt(draws)
    assert (abs(squares.mean(0) - trace) < 4 * se).all()


def test_the_mean_over_probes_is_that_of_the_definition():
    model, (images, labels) = linear(3), points()
    shown = images.take(torch.arange(N))
    expected = []
    for k, probes in enumerate(draw_rademacher_signs(shown.shape, 10, rng()).double()):

        def compute_gradient(at, k=k):
            at = at.clone().requires_grad_()
            return torch.autograd.grad(cross_entropy(model(at[None]), labels[k : k + 1]), at)[0]

        gradient = compute_gradient(shown[k])
        expected.append(np.mean([float((compute_gradient(shown[k] + 1e-3 * v) - gradient).norm()) for v in probes]))
    # differences of size 1e-3 between slopes that float64 knows to 1e-16
    np.testing.assert_allclose(curvature(model, images, labels, RADEMACHER, rng()), expected, rtol=1e-10)


@pytest.mark.parametrize("config", CURVATURES.values(), ids=CURVATURES)
def test_the_batch_size_changes_nothing_and_a_mean_loss_would(config):
    model, (images, labels) = build_network("cnn-3", SHAPE, 2, 0).double(), points()

    def does_not_depend_on_the_batch(score):
        np.testing.assert_allclose(score(5), score(N), rtol=1e-9)  # differences of 1e-3 in slopes known to 1e-16

    does_not_depend_on_the_batch(lambda batch: curvature(model, images, labels, config, rng(), batch))

    def by_mean_loss(batch):
        parts = []
        for start in range(0, N, batch):
            rows = torch.arange(start, min(start + batch, N))

            def compute_gradient(at, rows=rows):
                at = at.detach().requires_grad_()
                return torch.autograd.grad(cross_entropy(model(at), labels[rows]), at)[0]

            parts.append(compute_gradient_change(compute_gradient, images.take(rows), config, rng()))
        return torch.cat(parts).numpy()

    with pytest.raises(AssertionError):
        does_not_depend_on_the_batch(by_mean_loss)


def test_a_network_is_looked_at_in_evaluation_mode_and_left_as_it_was():
    (images, labels), plain = points(), build_network("mlp-5", SHAPE, 2, 0).double()
    dropping = copy.deepcopy(plain)
    dropping.body.append(nn.Dropout(0.5))
    for config in CURVATURES.values():
        expected = curvature(plain, images, labels, config, rng())
        np.testing.assert_array_equal(curvature(dropping, images, labels, config, rng()), expected)
    assert all(layer.training for layer in dropping.modules())
    assert all(p.grad is None for p in dropping.parameters())


def test_a_flat_loss_has_no_curvature():
    model, (images, labels) = linear(), points()
    with torch.no_grad():
        model.head.weight.zero_()
    for config in CURVATURES.values():
        assert (curvature(model, images, labels, config, rng()) == 0).all()


def test_probes_are_fair_signs_that_do_not_depend_on_the_batch():
    shape = torch.Size([40, 1, 5, 5])
    whole = draw_rademacher_signs(shape, 3, rng())
    stream = rng()
    parts = [draw_rademacher_signs(torch.Size([n, 1, 5, 5]), 3, stream) for n in (7, 33)]
    assert torch.equal(whole, torch.cat(parts))
    assert set(whole.unique().tolist()) == {-1, 1}
    assert abs(int(whole.sum())) < 4 * np.sqrt(whole.numel())  # 4 s.e.


@pytest.mark.parametrize("flat", [True, False])
def test_over_epochs_it_is_the_mean_of_each_epoch_and_training_goes_on_as_if_nothing_had_looked(flat):
    raw = np.random.default_rng(0).integers(0, 256, (40, *SHAPE), dtype=np.uint8)
    images = to_device(raw, (0.5,), (0.3,), torch.device("cpu"), flat=flat)
    labels = torch.from_numpy(np.random.default_rng(1).integers(0, 2, 40))
    recipe = Recipe(epochs=3, batch=10, lr=0.1)

    def train_with(make_callback):
        model = build_network("mlp-7" if flat else "cnn-3", SHAPE, 2, 0)
        order_rng, augmentation_rng = np.random.default_rng(5).spawn(2)
        each = TrainingRun(model=model, rows=np.arange(40), order_rng=order_rng, augmentation_rng=augmentation_rng)
        train([each], images, labels, recipe, 12, on_epoch_end=make_callback(model))
        return model

    each_epoch, averages = [], []

    def track(model):
        averages.append(track_curvature(model, images, labels, RADEMACHER, rng()))
        return averages[0]

    def by_hand(model):
        stream = rng()
        return lambda _: each_epoch.append(curvature(copy.deepcopy(model), images, labels, RADEMACHER, stream))

    models = [train_with(make_callback) for make_callback in (track, by_hand, lambda _: None)]
    assert len(each_epoch) == averages[0].count == 3
    np.testing.assert_allclose(averages[0].mean(), np.mean(each_epoch, 0, dtype=np.float64), rtol=1e-10)
    assert np.std(each_epoch, axis=0).min() > 0  # three epochs, three curvatures
    for other in models[1:]:
        assert all(torch.equal(a, b) for a, b in zip(models[0].parameters(), other.parameters(), strict=True))


def test_a_mean_over_chosen_epochs_takes_those_alone_and_never_an_empty_one():
    values = iter([1.0, 5.0])
    mean = EpochMean(lambda: np.array([next(values), np.nan]), epochs=(2, 4))
    with pytest.raises(ValueError, match=r"no score was taken at epochs \[2, 4\]"):
        mean.mean()
    for epoch in range(1, 6):
        mean(epoch)
    np.testing.assert_array_equal(mean.mean(), [3.0, np.nan])


def test_a_config_refuses_what_has_no_meaning():
    with pytest.raises(ValueError, match="did you mean 'rademacher'"):
        CurvatureConfig(direction="rademacer")
    with pytest.raises(ValueError, match=r"h must be above 0 and finite, got 0"):
        CurvatureConfig(h=0)
    with pytest.raises(ValueError, match="probes must be 1 or more, and 1 for direction 'sign', got 10"):
        CurvatureConfig(probes=10)

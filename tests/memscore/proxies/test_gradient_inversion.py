"""Gradient inversion against a plain loop of one image, and attacks whose outcome is known."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from memscore.models.architectures import build_network
from memscore.proxies.gradient_inversion import (
    InversionConfig,
    compute_objective,
    gradient_inversion,
    normalize_gradients,
    optimize_image,
    reconstruct_images,
)
from memscore.proxies.per_example_gradients import build_gradient_function, evaluation_mode

SHAPE, K, NORMALISATION = (1, 6, 6), 4, ((0.4,), (0.3,))
BOX = (torch.tensor(-4 / 3).double().view(1, 1, 1, 1), torch.tensor(2.0).double().view(1, 1, 1, 1))


def examples(n=5):
    rng = np.random.default_rng(0)
    pixels = torch.from_numpy(rng.random((n, *SHAPE)))
    return (pixels - 0.4) / 0.3, torch.from_numpy(rng.integers(0, K, n))


def network(arch="mlp-24"):
    return build_network(arch, SHAPE, K, 0).double()


def starts(n=5, restarts=1):
    return torch.from_numpy(np.random.default_rng(1).standard_normal((n, restarts, *SHAPE)))


def naive_objective(model, image, label, target, weight):
    loss = cross_entropy(model(image[None]), label[None])
    weight_gradients = torch.autograd.grad(loss, list(model.parameters()), create_graph=True)
    flat = torch.cat([s.flatten() for s in weight_gradients])
    tv = (image[..., 1:, :] - image[..., :-1, :]).abs().mean() + (image[..., 1:] - image[..., :-1]).abs().mean()
    return 1 - (flat @ target) / (flat.norm() * target.norm()) + weight * tv


def naive_target(model, image, label):
    weight_gradients = torch.autograd.grad(cross_entropy(model(image[None]), label[None]), list(model.parameters()))
    return torch.cat([s.flatten() for s in weight_gradients]).detach()


@pytest.mark.parametrize("arch", ["mlp-24", "cnn-3-4"])
def test_every_image_of_a_batch_equals_a_plain_loop_with_torch_s_adam(arch):
    model, (images, labels), config = network(arch), examples(3), InversionConfig(iterations=16)
    gradients = build_gradient_function(model)
    target = normalize_gradients(gradients(images, labels))
    result = optimize_image(gradients, target, labels, starts(3)[:, 0], BOX, config)
    for k in range(3):
        goal = naive_target(model, images[k], labels[k])
        image = starts(3)[k, 0].clamp(BOX[0].item(), BOX[1].item()).requires_grad_()
        adam = torch.optim.Adam([image], lr=0.1)
        schedule = torch.optim.lr_scheduler.MultiStepLR(adam, [6, 10, 14], gamma=0.1)
        for _ in range(16):
            adam.zero_grad()
            naive_objective(model, image, labels[k], goal, 0.1).backward()
            image.grad.sign_()
            adam.step()
            schedule.step()
            image.data.clamp_(BOX[0].item(), BOX[1].item())
        torch.testing.assert_close(result[k], image.detach(), rtol=1e-10, atol=1e-12)
        expected = naive_objective(model, image, labels[k], goal, 0.1).detach()
        got = compute_objective(
            gradients(result[k : k + 1], labels[k : k + 1]), tuple(t[k : k + 1] for t in target), result[k : k + 1], 0.1
        )
        torch.testing.assert_close(got[0], expected, rtol=1e-10, atol=1e-12)


def attack(model=None, *, n=5, config=None, chunk=64, images=None, labels=None):
    x, y = (values[:n] for values in examples())
    config = config or InversionConfig(iterations=25, total_variation=0.0)
    images, labels = x if images is None else images, y if labels is None else labels
    return gradient_inversion(
        model or network(), images, labels, NORMALISATION, config, np.random.default_rng(2), chunk
    )


def test_an_attack_does_not_depend_on_the_other_examples():
    whole, parts, single = attack(chunk=64), attack(chunk=2), attack(n=1)
    for name in ("psnr", "ssim", "objective"):
        np.testing.assert_allclose(parts[name], whole[name], rtol=1e-6)  # float64 products in another order
        np.testing.assert_allclose(single[name][0], whole[name][0], rtol=1e-6)


def test_a_fully_connected_network_gives_its_inputs_away():
    """dW_1 = delta x^T: the first layer's gradient is the image times a scale, so cosine alone must find it."""
    result = attack(network("mlp-64"), config=InversionConfig(iterations=300, total_variation=0.0))
    x, _ = examples()
    np.testing.assert_allclose(result["rebuilt"], x * 0.3 + 0.4, atol=1e-3)  # the last step is 1e-4 pixels long
    assert result["success"].all()
    assert result["ssim"].min() > 0.999
    early = attack(network("mlp-64"), config=InversionConfig(iterations=3, total_variation=0.0))
    assert (early["psnr"] < result["psnr"]).all()
    assert not early["success"].any()


def test_an_example_whose_probability_rounds_to_1_is_still_attacked_in_float32():
    """The gradient of a member is tiny, not absent; through 1 - p_y in float32 it would lose the label's own entry."""
    model, (images, _) = build_network("mlp-24", SHAPE, K, 0), examples()
    with torch.no_grad():
        model.head.weight.mul_(300)
        labels = model(images.float()).argmax(1)
        sure = model(images.float()).softmax(-1).amax(1)
    assert (sure == 1).any()
    config = InversionConfig(iterations=300, total_variation=0.0)
    result = attack(model, config=config, images=images.float(), labels=labels)
    assert result["success"][(sure == 1).numpy()].all()


def test_of_several_starts_the_best_match_is_kept_not_the_smoothest_nor_the_nearest_image():
    model, (images, labels) = network("cnn-3-4"), examples()
    config = InversionConfig(iterations=10, restarts=4, total_variation=0.5)
    gradients, many = build_gradient_function(model), starts(5, 4)
    with evaluation_mode(model):
        target = normalize_gradients(gradients(images, labels))
        best, lowest = reconstruct_images(gradients, target, labels, many, BOX, config)
        alone = [reconstruct_images(gradients, target, labels, many[:, r : r + 1], BOX, config) for r in range(4)]
    objectives, ended = torch.stack([value for _, value in alone]), torch.stack([image for image, _ in alone])
    with evaluation_mode(model):
        costs = torch.stack([compute_objective(gradients(image, labels), target, image, 0.0) for image in ended])
    each, chosen = torch.arange(5), costs.argmin(0)
    assert torch.equal(best, ended[chosen, each])
    assert torch.equal(lowest, objectives[chosen, each])
    assert not torch.equal(best, ended[objectives.argmin(0), each])  # the total variation prefers a smoother image
    nearest = ((ended - images) ** 2).mean((2, 3, 4)).argmin(0)
    assert not torch.equal(best, ended[nearest, each])  # the attacker cannot see which is nearest


def test_the_network_stays_as_it_was_and_pixels_stay_in_the_box():
    model = network("cnn-3-4")
    model.body.append(torch.nn.Dropout(0.5))
    state_before = copy.deepcopy(model.state_dict())
    result = attack(model, config=InversionConfig(iterations=20, lr=5.0))
    assert all(torch.equal(state_before[name], value) for name, value in model.state_dict().items())
    assert all(layer.training for layer in model.modules())
    assert all(p.grad is None for p in model.parameters())
    assert result["rebuilt"].min() >= 0
    assert result["rebuilt"].max() <= 1
    assert {name: values.shape for name, values in result.items()} == {
        "psnr": (5,),
        "ssim": (5,),
        "psnr_fitted": (5,),
        "ssim_fitted": (5,),
        "success": (5,),
        "objective": (5,),
        "rebuilt": (5, *SHAPE),
    }


def test_success_is_the_stated_threshold():
    psnr = attack()["psnr"]
    bar = float(np.median(psnr))
    result = attack(config=InversionConfig(iterations=25, total_variation=0.0, success_psnr=bar))
    assert np.array_equal(result["success"], psnr >= bar)
    assert 0 < result["success"].sum() < len(psnr)


def test_total_variation_smooths():
    rough, smooth = (attack(config=InversionConfig(iterations=60, total_variation=w))["rebuilt"] for w in (0.0, 1.0))
    assert np.abs(np.diff(smooth)).mean() < np.abs(np.diff(rough)).mean()


def test_normalized_gradients_have_length_1_even_of_gradients_whose_squares_underflow():
    weight_gradients = (torch.tensor([[3e-30], [0.0], [3.0]]), torch.tensor([[[4e-30]], [[0.0]], [[4.0]]]))
    expected = (torch.tensor([[0.6], [0.0], [0.6]]), torch.tensor([[[0.8]], [[0.0]], [[0.8]]]))
    for got, unit_target in zip(normalize_gradients(weight_gradients), expected, strict=True):
        torch.testing.assert_close(got, unit_target)
    assert float((weight_gradients[0][0] ** 2 + weight_gradients[1][0, 0] ** 2).sqrt()) == 0  # the plain norm is 0


def test_zero_gradients_have_an_objective_of_1_and_its_gradient_is_0():
    image = torch.zeros(1, *SHAPE).double().requires_grad_()
    nothing = ((image * 0).flatten(1),)
    value = compute_objective(nothing, (torch.ones(1, 36).double() / 6,), image, 0.0)
    assert float(value.detach()) == 1
    assert (torch.autograd.grad(value.sum(), image)[0] == 0).all()


def test_a_config_refuses_what_has_no_meaning():
    for change in ({"iterations": 0}, {"lr": 0.0}, {"total_variation": -1.0}, {"restarts": 0}):
        with pytest.raises(ValueError, match=f"{next(iter(change))} must be"):
            replace(InversionConfig(), **change)

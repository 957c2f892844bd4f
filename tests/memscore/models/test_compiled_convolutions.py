"""The compiled convolutions against torch's in float64, and where torch's own layers run instead."""

import copy
import sys

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, jvp, vmap
from torch.nn.functional import cross_entropy

from memscore.models import compiled_convolutions
from memscore.models.architectures import build_network
from memscore.models.compiled_convolutions import (
    MAX_WEIGHTS,
    explain_plain_convolutions,
    find_processor,
    run_backward,
    run_forward,
    run_plain,
)
from memscore.models.convolution_kernels import Network
from memscore.models.convolution_sizes import NORMAL, WIDE

pytestmark = pytest.mark.skipif(isinstance(find_processor(), str), reason="this processor runs torch's own layers")

GREY = (1, 8, 8)
NETWORKS = (
    ((1, 28, 28), (16, 32), False),
    ((3, 13, 11), (8, 24, 40), False),  # odd sizes, widths that end in half a vector
    ((3, 8, 10), (5,), True),  # one layer, and the gradient of the images
    ((5, 9, 12), (3, 7), True),  # more channels than a vector of outputs is worth
    ((7, 4, 5), (33, 2), False),
    ((1, 16, 16), (2, 3, 4, 5), False),  # down to one pixel
)


@pytest.fixture
def calls(monkeypatch):
    """How often the compiled forward pass ran."""
    batches, run = [], compiled_convolutions.run_forward

    def record(images, *arguments, **options):
        batches.append(len(images))
        return run(images, *arguments, **options)

    monkeypatch.setattr(compiled_convolutions, "run_forward", record)
    return batches


def draw(shape, widths, count=4):
    """Images of some layout, and parameters whose activations have a size of about 1."""
    rng = torch.Generator().manual_seed(0)
    channels = (shape[0], *widths)
    parameters = []
    for inputs, outputs in zip(channels, widths, strict=False):
        weight = torch.randn(outputs, inputs, 3, 3, generator=rng) / (3 * inputs**0.5)
        parameters += [weight, torch.randn(outputs, generator=rng) / 10]
    return torch.randn(count, *shape, generator=rng), parameters


def compute_all(images, parameters, input_gradient):
    """Embeddings, and the gradients for a fixed gradient of them."""
    output, *kept = run_forward(images, parameters, input_gradient=input_gradient)
    gradient = torch.randn(output.shape, generator=torch.Generator().manual_seed(1))
    gradients = run_backward(gradient, images, parameters, *kept, input_gradient=input_gradient)
    return [output, *(value for value in gradients if value is not None)], gradient


def relative_error(actual, truth):
    return float((actual.double() - truth).norm() / truth.norm())


def loss_of(model, images, labels):
    return cross_entropy(model(images), labels)


def make_case(arch="cnn-4-8", shape=GREY, count=6):
    rng = torch.Generator().manual_seed(3)
    return (
        build_network(arch, shape, 3, seed=0),
        torch.randn(count, *shape, generator=rng),
        torch.randint(0, 3, (count,), generator=rng),
    )


def run_plainly(function, *arguments):
    """What torch's layers give."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiled_convolutions, "find_processor", lambda: "a test says so")
        return function(*arguments)


@pytest.mark.parametrize(("shape", "widths", "input_gradient"), NETWORKS)
def test_outputs_and_gradients_are_those_of_float64(shape, widths, input_gradient):
    images, parameters = draw(shape, widths)
    actual, gradient = compute_all(images, parameters, input_gradient)
    exact = [value.double().requires_grad_() for value in (images, *parameters)]
    output = run_plain(exact[0], exact[1:])
    wanted = exact if input_gradient else exact[1:]
    truth = [output, *torch.autograd.grad(output, wanted, gradient.double())]
    # float32 rounds to 6e-8, and a sum of some hundred terms has some ten times that
    assert max(relative_error(a, t.detach()) for a, t in zip(actual, truth, strict=True)) < 1e-5


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_layout_of_images_and_weights_changes_no_bit(layout):
    images, parameters = draw((3, 9, 8), (8, 4))
    usual = compute_all(images, parameters, True)[0]
    moved = [value.to(memory_format=layout) if value.ndim == 4 else value for value in (images, *parameters)]
    other = compute_all(moved[0], moved[1:], True)[0]
    assert [torch.equal(a, b) for a, b in zip(usual, other, strict=True)] == [True] * 6
    assert [value.stride() for value in other[1:]] == [value.stride() for value in moved]


@pytest.mark.parametrize("shape", [(1, 9, 8), (5, 9, 8)])
def test_bits_depend_neither_on_vectors_nor_threads_nor_other_images(shape, monkeypatch):
    images, parameters = draw(shape, (17, 40))
    usual = compute_all(images, parameters, False)[0]
    compiled_convolutions.get_network.cache_clear()
    other = NORMAL if find_processor() is WIDE else WIDE
    # vectors that the processor lacks are split by the compiler
    monkeypatch.setattr(compiled_convolutions, "find_processor", lambda: other)
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    again = compute_all(images, parameters, False)[0]
    torch.set_num_threads(threads)
    compiled_convolutions.get_network.cache_clear()
    assert [torch.equal(a, b) for a, b in zip(usual, again, strict=True)] == [True] * 5
    assert torch.equal(run_forward(images[2:3], parameters, input_gradient=False)[0], usual[0][2:3])


def test_what_is_not_a_number_stays():
    images, parameters = draw((2, 6, 6), (3, 3))
    images[1, 0, 4, 4] = torch.nan
    images[2] = torch.inf
    actual = run_forward(images, parameters, input_gradient=False)[0]
    truth = run_plain(images, parameters)
    assert actual[1].isnan().any()
    assert torch.equal(actual.isnan(), truth.isnan())


def test_no_images_have_gradients_of_zero():
    images, parameters = draw((1, 4, 4), (2,), count=0)
    (output, *gradients), _ = compute_all(images, parameters, False)
    assert output.shape == (0, 8)
    assert all((gradient == 0).all() for gradient in gradients)


def test_a_network_has_the_gradients_of_its_plain_layers(calls):
    model, images, labels = make_case()
    actual = torch.autograd.grad(loss_of(model, images, labels), [*model.parameters()])
    assert calls == [6]
    plain = run_plainly(lambda: torch.autograd.grad(loss_of(model, images, labels), [*model.parameters()]))
    assert calls == [6]
    for a, b in zip(actual, plain, strict=True):
        torch.testing.assert_close(a, b)


def test_frozen_weights_get_no_gradient(calls):
    model, images, labels = make_case()
    model.body[0].weight.requires_grad_(False)
    loss_of(model, images, labels).backward()
    assert model.body[0].weight.grad is None
    assert all(p.grad is not None for name, p in model.named_parameters() if name != "body.0.weight")
    assert calls == [6]


def test_gradients_of_gradients_are_those_of_the_plain_layers(calls):
    model, images, labels = make_case()

    def curve():
        weights = [*model.parameters()]
        first = torch.autograd.grad(loss_of(model, images, labels), weights, create_graph=True)
        return torch.autograd.grad(sum((value**2).sum() for value in first), weights)

    actual, plain = curve(), run_plainly(curve)
    assert calls == [6]
    for a, b in zip(actual, plain, strict=True):
        torch.testing.assert_close(a, b)


def test_a_batch_of_gradients_at_once_is_computed_by_torch(calls):
    model, images, _ = make_case()
    output, weight = model(images), model.body[0].weight
    unit = torch.eye(3)[:, None].expand(3, 6, 3)
    together = torch.autograd.grad(output, weight, unit, retain_graph=True, is_grads_batched=True)[0]
    apart = [torch.autograd.grad(output, weight, row, retain_graph=True)[0] for row in unit]
    assert calls == [6]
    torch.testing.assert_close(together, torch.stack(apart))


def test_changed_weights_are_an_error_in_the_backward_pass():
    model, images, labels = make_case()
    loss = loss_of(model, images, labels)
    with torch.no_grad():
        model.body[3].weight.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def under_transforms(model, images, labels):
    weights = {name: value.detach() for name, value in model.named_parameters()}

    def loss(weights, image, label):
        return cross_entropy(functional_call(model, weights, (image[None],)), label[None])

    vmap(grad(loss), in_dims=(None, 0, 0))(weights, images, labels)


def under_forward_gradients(model, images, labels):
    jvp(model, (images,), (images,))


def under_autocast(model, images, labels):
    with torch.autocast("cpu"):
        model(images)


def with_a_hook(model, images, labels):
    heard = []
    with model.body[1].register_forward_hook(lambda *_: heard.append(1)):
        model(images)
    assert heard


def with_a_hook_everywhere(model, images, labels):
    heard = []
    with nn.modules.module.register_module_forward_hook(lambda *_: heard.append(1)):
        model(images)
    assert len(heard) > 3


def in_float64(model, images, labels):
    model.double()(images.double())


def in_a_device_context(model, images, labels):
    with torch.device("cpu"):
        model(images)


def with_another_layer(model, images, labels):
    model.body[2] = nn.Tanh()
    model(images)


def without_bias(model, images, labels):
    model.body[0].bias = None
    model(images)


def with_one_image_alone(model, images, labels):
    model.body[:-1](images[0])


def with_wide_layers(model, images, labels):
    side = int((MAX_WEIGHTS / 9) ** 0.5) + 1
    build_network(f"cnn-{side}-{side}", GREY, 3, seed=0)(images[:1])


@pytest.mark.parametrize(
    "use",
    [
        *(under_transforms, under_forward_gradients, under_autocast, with_a_hook, with_a_hook_everywhere, in_float64),
        *(in_a_device_context, with_another_layer, without_bias, with_one_image_alone, with_wide_layers),
    ],
    ids=lambda use: use.__name__,
)
def test_torch_runs_what_the_compiled_functions_cannot(use, calls):
    use(*make_case())
    assert calls == []


def test_a_small_image_is_torchs_error(calls):
    model, images, _ = make_case()
    with pytest.raises(RuntimeError, match="too small"):
        model(images[..., :3])
    assert calls == []


def test_a_machine_without_llvmlite_trains_as_before(calls):
    model, images, labels = make_case()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "llvmlite.binding", None)
        find_processor.cache_clear()
        reason = explain_plain_convolutions(model, "float32")
        loss_of(model, images, labels).backward()
    find_processor.cache_clear()
    assert reason.startswith("llvmlite cannot be imported")
    assert model.body[0].weight.grad is not None
    assert calls == []


def test_the_reason_for_plain_layers_is_said():
    model = make_case()[0]
    assert explain_plain_convolutions(model, "float32") == ""
    assert explain_plain_convolutions(model, "bfloat16") == "the precision is bfloat16"
    assert explain_plain_convolutions(build_network("mlp-4", GREY, 3, seed=0), "float32") is None
    model.body[0].register_forward_hook(lambda *_: None)
    assert explain_plain_convolutions(model, "float32") == "a layer has hooks"


def test_copies_and_stored_weights_are_those_of_plain_layers():
    model, images, _ = make_case()
    assert [*model.state_dict()][:2] == ["body.0.weight", "body.0.bias"]
    assert torch.equal(copy.deepcopy(model)(images), model(images))


def test_a_first_layer_of_few_channels_is_stored_without_padding():
    assert [layer.channels for layer in Network((3, 8, 8), (5, 9), False, WIDE).layers] == [3, 8]
    assert [layer.channels for layer in Network((3, 8, 8), (5, 9), True, WIDE).layers] == [8, 8]

"""Architectures: known sizes, shapes, seeds, and the float32 head."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from memscore.models.architectures import (
    ARCHITECTURES,
    Classifier,
    build_network,
    compute_logits,
    count_parameters,
    embed,
    find_mlp_layers,
)

RGB, GREY, DIGIT, TINY = (3, 32, 32), (1, 28, 28), (1, 8, 8), (3, 64, 64)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def conv(n_in, n_out, side):
    return n_in * n_out * side**2


@pytest.mark.parametrize(
    ("arch", "shape", "n_classes", "count"),
    [
        ("mlp", DIGIT, 10, 64 * 128 + 128 + 128 * 10 + 10),
        ("mlp-512-256", GREY, 10, 785 * 512 + 513 * 256 + 257 * 10),
        ("cnn", GREY, 10, conv(1, 16, 3) + 16 + conv(16, 32, 3) + 32 + (32 * 7 * 7 + 1) * 10),
        ("cnn-8", DIGIT, 2, conv(1, 8, 3) + 8 + (8 * 4 * 4 + 1) * 2),
        (  # two convolutions a stage after the stem, one in two shortcuts, batch norm after each, the head
            *("resnet8-16-32-64", RGB, 10),
            conv(3, 16, 3)
            + conv(16 + 16, 16, 3)
            + conv(16 + 32, 32, 3)
            + conv(32 + 64, 64, 3)
            + (16 * 32 + 32 * 64)
            + 2 * 3 * (16 + 32 + 64)
            + 65 * 10,
        ),
        ("resnet18", RGB, 10, 11_173_962),  # the count every CIFAR ResNet-18 states
        ("resnet18-imagenet-stem", RGB, 10, 11_181_642),
        ("resnet50", RGB, 10, 23_520_842),
        ("vgg16", RGB, 10, 14_728_266),
        # 4 blocks of width d = 64: 12 d^2 + 13 d; class token, final norm, 5 positions, patches of 16 pixels, head
        ("vit-narrow", DIGIT, 10, 4 * (12 * 64**2 + 13 * 64) + 64 + 2 * 64 + 5 * 64 + 17 * 64 + 65 * 10),
        ("vit-small", RGB, 10, 12 * (12 * 384**2 + 13 * 384) + 384 + 2 * 384 + 65 * 384 + 49 * 384 + 385 * 10),
    ],
)
def test_networks_have_the_published_size(arch, shape, n_classes, count):
    assert count_parameters(build_network(arch, shape, n_classes, seed=0)) == count


def test_resnext_differs_from_its_imagenet_form_in_stem_and_head_only():
    """ResNeXt-50 32x4d has 25,028,904 weights in torchvision's table."""
    expected = 25_028_904 - conv(3, 64, 7) + conv(3, 64, 3) - 2049 * 1000 + 2049 * 10
    assert count_parameters(build_network("resnext50", RGB, 10, seed=0)) == expected


ALL_SHAPES = (DIGIT, GREY, RGB, TINY)
SMALLEST_AND_LARGEST = (DIGIT, TINY)
"""For networks of 20 million weights and more, whose blocks and stem are those of resnet18 at the shapes between."""
SHAPES = dict.fromkeys([*ARCHITECTURES, "mlp-16-8", "cnn-4-8-16", "resnet8-4-4-8"], ALL_SHAPES) | dict.fromkeys(
    ["resnet50", "resnext50"], SMALLEST_AND_LARGEST
)


@pytest.mark.parametrize(("arch", "shape"), [(arch, shape) for arch in SHAPES for shape in SHAPES[arch]], ids=str)
def test_logits_and_embeddings_have_their_shapes_or_the_input_is_refused(arch, shape):
    if shape[1] < {"vgg16": 32, "resnet18-imagenet-stem": 16}.get(arch, 8):
        with pytest.raises(ValueError, match=rf"needs images of \d+x\d+ or more, got 1x{shape[1]}x{shape[2]}"):
            build_network(arch, shape, 7, seed=0)
        return
    model = build_network(arch, shape, 7, seed=0).eval()
    images = torch.zeros(2, *shape)
    with torch.no_grad():
        scores, embedding = compute_logits(model, images, None), embed(model, images)
    assert scores.shape == (2, 7)
    assert scores.dtype == torch.float32
    torch.testing.assert_close(model.head(embedding), scores)


def test_a_cnn_may_have_any_image_down_to_one_pixel_a_feature_map():
    assert build_network("cnn", (2, 4, 5), 3, seed=0)(torch.zeros(1, 2, 4, 5)).shape == (1, 3)
    with pytest.raises(ValueError, match="2 poolings needs images of 4x4 or more, got 2x3x5"):
        build_network("cnn", (2, 3, 5), 3, seed=0)


def test_resnet8_takes_any_image_of_8_pixels_and_three_widths():
    blocks = build_network("resnet8-4-4-8", (2, 9, 15), 3, seed=0).eval().body[3:6]
    images = torch.zeros(1, 4, 9, 15)
    shapes = [tuple((images := block(images)).shape[1:]) for block in blocks]
    assert shapes == [(4, 9, 15), (4, 5, 8), (8, 3, 4)]
    assert [block.downsample is None for block in blocks] == [True, False, False]
    with pytest.raises(ValueError, match="resnet8 needs images of 8x8 or more, got 1x7x9"):
        build_network("resnet8", (1, 7, 9), 10, seed=0)
    with pytest.raises(ValueError, match="so three widths, got 2; write resnet8-16-32-64"):
        build_network("resnet8-16-32", RGB, 10, seed=0)


@pytest.mark.parametrize("shape", [(3, 32, 28), (3, 30, 30)], ids=str)
def test_a_vit_takes_whole_square_patches(shape):
    with pytest.raises(ValueError, match=f"4x4 patches, got images {shape[0]}x{shape[1]}x{shape[2]}"):
        build_network("vit-narrow", shape, 10, seed=0)


def test_a_vit_takes_larger_patches_from_larger_images():
    assert build_network("vit-small", (1, 96, 96), 10, seed=0).body.conv_proj.kernel_size == (16, 16)


@pytest.mark.parametrize("arch", ["mlp", "cnn", "resnet8", "resnet18", "vgg16", "vit-narrow"])
def test_the_seed_alone_decides_the_weights(arch):
    def weights(seed):
        return torch.cat([p.detach().flatten() for p in build_network(arch, RGB, 10, seed=seed).parameters()])

    torch.manual_seed(1)
    first = weights(0)
    torch.manual_seed(2)
    assert torch.equal(weights(0), first)
    assert not torch.equal(weights(1), first)


def test_seeds_are_63_bits_wide_and_weights_are_float32_on_the_cpu():
    model = build_network("cnn", GREY, 10, seed=2**63 - 1)
    assert {(p.dtype, p.device.type) for p in model.parameters()} == {(torch.float32, "cpu")}


@pytest.mark.parametrize("arch", ["mlp", "vit-narrow", f"{__name__}:dropping"])
def test_building_leaves_the_global_generator_alone(arch):
    before = torch.get_rng_state()
    build_network(arch, DIGIT, 10, seed=3)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_replaced_stem_starts_as_torchvision_starts_its_own(channels):
    """Fan-out initialisation: variance 2 / (64 * 3 * 3), whatever the channels."""
    weights = torch.cat([
        build_network("resnet18", (channels, 32, 32), 10, seed=s).body.conv1.weight.flatten() for s in range(4)
    ])
    n, variance = len(weights), 2 / (64 * 9)
    assert (
        abs(weights.var().item() - variance) < 4 * variance * (2 / n) ** 0.5
    )  # 4 standard errors of a normal's variance


def test_pooling_before_relu_is_relu_before_pooling():
    model, images = (
        build_network("cnn", GREY, 10, seed=0),
        torch.randn(4, *GREY, generator=torch.Generator().manual_seed(0)),
    )
    first, pool, relu, second, *_, flatten = model.body
    usual = nn.Sequential(first, relu, pool, second, relu, pool, flatten, model.head)
    assert torch.equal(nn.Sequential(*model.body, model.head)(images), usual(images))


def test_the_head_is_computed_in_float32_under_bfloat16():
    model, images = (
        build_network("cnn", GREY, 10, seed=0),
        torch.randn(8, *GREY, generator=torch.Generator().manual_seed(0)),
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = model.body(images)
        inside = compute_logits(model, images, torch.bfloat16)  # an outer autocast changes nothing
    assert rounded.dtype == torch.bfloat16
    scores = compute_logits(model, images, torch.bfloat16)
    assert scores.dtype == torch.float32
    assert torch.equal(scores, model.head(rounded.float()))
    assert torch.equal(scores, inside)
    assert not torch.equal(scores, compute_logits(model, images, None))
    assert torch.equal(compute_logits(model, images, None), model(images))


def test_gradients_reach_every_weight_through_the_autocast_body():
    model = build_network("mlp", DIGIT, 10, seed=0)
    compute_logits(model, torch.ones(2, *DIGIT), torch.bfloat16).sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in model.parameters())


def test_plain_mlps_show_their_linear_layers_in_order():
    layers = find_mlp_layers(build_network("mlp-32-16", DIGIT, 10, seed=0))
    assert [(layer.in_features, layer.out_features) for layer in layers] == [(64, 32), (32, 16), (16, 10)]
    mine = nn.Sequential(nn.Flatten(), nn.Sequential(nn.Linear(64, 8), nn.ReLU()), nn.Linear(8, 10))
    assert find_mlp_layers(mine) == [mine[1][0], mine[2]]
    alone = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    assert find_mlp_layers(alone) == [alone[1]]


SHARED = nn.Linear(64, 64)
FROZEN = nn.Linear(64, 10).requires_grad_(False)


@pytest.mark.parametrize(
    "layers",
    [
        [nn.Linear(64, 10)],
        [nn.Flatten(), nn.Linear(64, 8), nn.Linear(8, 10)],
        [nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10), nn.ReLU()],
        [nn.Flatten(), nn.Linear(64, 8), nn.GELU(), nn.Linear(8, 10)],
        [nn.Flatten(), nn.Linear(64, 8), nn.Dropout(), nn.ReLU(), nn.Linear(8, 10)],
        [nn.Flatten(), nn.Linear(64, 10, bias=False)],
        [nn.Flatten(), SHARED, nn.ReLU(), SHARED, nn.ReLU(), nn.Linear(64, 10)],
        [nn.Flatten(), FROZEN],
        [nn.Flatten(), nn.utils.parametrizations.weight_norm(nn.Linear(64, 10))],
    ],
)
def test_what_is_not_exactly_a_plain_mlp_has_no_linear_layers(layers):
    assert find_mlp_layers(nn.Sequential(*layers)) is None


def test_other_architectures_have_no_linear_layers():
    assert find_mlp_layers(build_network("cnn", GREY, 10, seed=0)) is None
    assert find_mlp_layers(Custom(64, 10)) is None


class Custom(nn.Module):
    """A user's network whose last linear layer was made first."""

    def __init__(self, n_in, n_classes):
        super().__init__()
        self.last = nn.Linear(8, n_classes)
        self.first = nn.Linear(n_in, 8)

    def forward(self, images):
        return self.last(self.first(images.flatten(1)).tanh())


def custom(shape, n_classes):
    return Custom(torch.Size(shape).numel(), n_classes)


def dropping(shape, n_classes):
    frozen = nn.BatchNorm2d(shape[0]).eval()
    return nn.Sequential(frozen, nn.Flatten(), nn.Dropout(), nn.Linear(torch.Size(shape).numel(), n_classes))


def a_string(shape, n_classes):
    return "resnet"


def one_class_too_many(shape, n_classes):
    return custom(shape, n_classes + 1)


def grey_only(shape, n_classes):
    return Custom(64, n_classes)


def lists(shape, n_classes):
    class Two(Custom):
        def forward(self, images):
            return [super().forward(images)]

    return Two(torch.Size(shape).numel(), n_classes)


def test_a_users_function_is_seeded_and_comes_back_in_the_modes_it_was_made_in():
    one, other = (build_network(f"{__name__}:custom", DIGIT, 10, seed=s) for s in (0, 0))
    assert torch.equal(one.first.weight, other.first.weight)
    assert not torch.equal(one.first.weight, build_network(f"{__name__}:custom", DIGIT, 10, seed=1).first.weight)
    model = build_network(f"{__name__}:dropping", DIGIT, 10, seed=0)
    assert [layer.training for layer in model] == [False, True, True, True]


def test_embeddings_of_any_network_are_what_its_last_linear_layer_reads():
    model, images = build_network(f"{__name__}:custom", DIGIT, 10, seed=0), torch.ones(3, *DIGIT)
    torch.testing.assert_close(embed(model, images), model.first(images.flatten(1)).tanh())
    assert not model.last._forward_pre_hooks


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("a_string", r"must return an nn.Module, got str of a_string\(.*\), line \d+ of test_architectures.py"),
        (
            "one_class_too_many",
            r"must map \[2, 3, 32, 32\] to logits \[2, 10\], got \[2, 11\], line \d+ of test_arch.*use that",
        ),
        ("lists", r"to logits \[2, 10\], got list, line \d+ of test_architectures.py"),
        (
            "grey_only",
            r"grey_only fails in line \d+ of test_architectures.py: RuntimeError: .*3072.*\(on a zero batch of \[2, 3",
        ),
        ("no_such", "has no no_such"),
    ],
)
def test_a_users_function_is_refused_by_what_came_back(function, message):
    with pytest.raises(ValueError, match=message):
        build_network(f"{__name__}:{function}", RGB, 10, seed=0)


def test_a_module_that_is_not_there_is_named():
    with pytest.raises(ValueError, match=r"there is no module no_such_module; run the command in"):
        build_network("no_such_module:net", RGB, 10, seed=0)


def test_a_users_network_without_a_known_head_is_refused_under_autocast():
    model, images = Custom(64, 10), torch.zeros(2, *DIGIT)
    assert torch.equal(compute_logits(model, images, None), model(images))
    with pytest.raises(ValueError, match=r"Custom cannot run in torch\.bfloat16.*Classifier\(body, head\)"):
        compute_logits(model, images, torch.bfloat16)


@pytest.mark.parametrize(
    ("model", "last_layer"),
    [(nn.Sequential(nn.Conv2d(1, 10, 8), nn.Flatten()), "none"), (nn.Linear(8, 3), r"one that reads \[2, 1, 8, 8\]")],
)
def test_a_network_without_embeddings_says_so(model, last_layer):
    with pytest.raises(ValueError, match=f"has {last_layer}"):
        embed(model, torch.zeros(2, *DIGIT))


def test_bad_requests_are_refused():
    with pytest.raises(ValueError, match="unknown architecture 'resnet-18'; did you mean 'resnet18'"):
        build_network("resnet-18", RGB, 10, seed=0)
    with pytest.raises(ValueError, match="unknown architecture 'mlp-0'"):
        build_network("mlp-0", RGB, 10, seed=0)
    with pytest.raises(ValueError, match="2 classes or more, got 1"):
        build_network("mlp", RGB, 1, seed=0)
    with pytest.raises(ValueError, match=r"three positive sizes \(C, H, W\), got \(8, 8\)"):
        build_network("mlp", (8, 8), 10, seed=0)


def test_a_classifier_is_its_head_on_its_body():
    model = Classifier(nn.Flatten(), nn.Linear(4, 2))
    images = torch.arange(4.0).view(1, 1, 2, 2)
    assert torch.equal(model(images), model.head(images.flatten(1)))


def test_an_mlp_does_not_pay_for_the_import_of_torchvision():
    code = (
        "import sys, memscore.models.architectures as m; m.build_network('mlp', (1, 8, 8), 2, 0); "
        "print('torchvision' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout == b"False\n"

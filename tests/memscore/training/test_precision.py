"""Precisions: what torch is set to, which device has which, and convolutions that a CPU computes wrongly."""

import ast
import logging
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d, conv3d

from memscore.models.architectures import Classifier
from memscore.training import precision as rules
from memscore.training.numerics import float32_matmul
from memscore.training.precision import Convolution, list_convolutions, require_precision, require_trainable
from tests.fixtures.banks import manifest

ROOT = Path(__file__).parents[3]
CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def cudnn_settings():
    """What torch computes convolutions, recurrent layers and matrix products of a GPU in."""
    backends = torch.backends
    return [part.fp32_precision for part in (backends.cudnn.conv, backends.cudnn.rnn, backends.cuda.matmul)]


@pytest.mark.parametrize(
    ("precision", "convolutions", "receipt"),
    [
        ("float32", "ieee", "highest"),
        ("tf32", "tf32", "highest, tf32 convolutions"),
        ("bfloat16", "ieee", "highest"),
    ],
)
@pytest.mark.parametrize("everywhere", ["none", "tf32"])
def test_a_gpu_has_tf32_in_convolutions_for_tf32_alone_and_never_in_products(
    precision, convolutions, receipt, everywhere
):
    """A program's own setting for all of torch changes nothing here, and is there again afterwards."""
    torch.backends.fp32_precision = everywhere
    try:
        # the older call for products raises while a newer one says otherwise
        torch.set_float32_matmul_precision("highest")
        before = cudnn_settings()
        with float32_matmul(CUDA, precision) as arithmetic:
            assert cudnn_settings() == [convolutions, convolutions, before[2]]
            assert before[2] != "tf32"
            assert arithmetic == receipt
            assert torch.backends.cudnn.benchmark
        assert cudnn_settings() == before
        assert not torch.backends.cudnn.benchmark
    finally:
        torch.backends.fp32_precision = "none"


def test_tf32_is_what_torch_does_on_a_gpu_by_default():
    default = cudnn_settings()
    with float32_matmul(CUDA, "tf32"):
        assert [setting == "tf32" for setting in cudnn_settings()] == [setting == "tf32" for setting in default]


def test_all_who_train_or_evaluate_have_the_precision_of_the_bank():
    """A dry run alone times steps on a CPU, whatever trains them later."""
    calls = {
        path: [len(call.args) for call in ast.walk(ast.parse(path.read_text())) if is_call(call, "float32_matmul")]
        for package in ("memscore", "unlearn")
        for path in (ROOT / package).rglob("*.py")
    }
    found = {path.name: set(counts) for path, counts in calls.items() if counts}
    assert all(found.pop(f"{name}_times.py") == {1} for name in ("network", "proxy", "precision"))
    assert len(found) >= 5
    assert all(counts == {2} for counts in found.values()), found


def is_call(node, name):
    """Whether a node of a syntax tree calls a function of that name."""
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name


def test_an_error_leaves_no_setting_behind():
    before = cudnn_settings(), torch.get_float32_matmul_precision()
    with pytest.raises(KeyError), float32_matmul(CUDA, "float32"):
        raise KeyError
    assert before == (cudnn_settings(), torch.get_float32_matmul_precision())


def pretend_gpu(monkeypatch, major):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: type("P", (), {"major": major}))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla V100")


def test_a_cpu_has_no_tf32():
    for check in (lambda: require_precision("tf32", "cpu"), lambda: float32_matmul(CPU, "tf32").__enter__()):
        with pytest.raises(ValueError, match=r"^precision tf32 .* a CPU has none; train on a GPU, or use a bank with"):
            check()
    require_precision("float32", "cpu")
    require_precision("bfloat16", "cpu")


@pytest.mark.parametrize("name", ["tf32", "bfloat16"])
def test_a_gpu_older_than_ampere_is_named(monkeypatch, name):
    pretend_gpu(monkeypatch, major=7)
    with pytest.raises(ValueError, match=rf"^precision {name} is not one of Tesla V100, which .* --precision float32$"):
        require_precision(name, "cuda")
    require_precision("float32", "cuda")
    pretend_gpu(monkeypatch, major=8)
    require_precision(name, "cuda")


@pytest.mark.parametrize(
    ("recipe", "device", "has_convolutions", "expected"),
    [
        ("float32", "cuda", True, "tf32"),
        ("float32", "cuda", False, "float32"),
        ("float32", "cpu", True, "float32"),
        ("bfloat16", "cuda", True, "bfloat16"),
    ],
)
def test_a_new_bank_has_tf32_for_convolutions_on_a_gpu(recipe, device, has_convolutions, expected):
    assert rules.resolve_precision(recipe, device, has_convolutions=has_convolutions) == expected


@pytest.mark.parametrize(("major", "expected"), [(7, "float32"), (8, "tf32")])
def test_a_new_bank_on_a_gpu_without_tf32_is_in_float32(monkeypatch, major, expected):
    pretend_gpu(monkeypatch, major)
    assert rules.resolve_precision("float32", "cuda", has_convolutions=True) == expected


class Functional(nn.Module):
    """A user's network: a convolution that is no layer, one that is transposed, and one over three directions."""

    def __init__(self, classes):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4, 3, 3, 3))
        self.cube = nn.Parameter(torch.ones(1, 1, 3, 3, 3))
        self.up, self.deep = nn.ConvTranspose2d(4, 4, 2, 2), nn.Conv3d(1, 1, (2, 3, 3), (1, 2, 1))
        self.head = nn.Linear(4, classes)

    def forward(self, images):
        maps = self.up(conv2d(images, self.weight, stride=2, padding=1))
        self.deep(maps[:, None])
        conv3d(maps[:, None], self.cube, padding="same")
        return self.head(maps.mean((2, 3)))


def build_functional(shape, classes):
    """Build it; named as "module:function"."""
    return Functional(classes)


def describe(convolutions):
    """Image, windows, kernel, stride and padding of each."""
    return [(c.image, c.windows, c.kernel, c.stride, c.padding) for c in convolutions]


def test_convolutions_are_found_whoever_wrote_the_network():
    assert list_convolutions("mlp", (1, 8, 8), 10) == []
    assert describe(list_convolutions("cnn", (1, 8, 8), 10)) == [
        ((8, 8), (8, 8), (3, 3), (1, 1), (1, 1)),
        ((4, 4), (4, 4), (3, 3), (1, 1), (1, 1)),
    ]
    assert describe(list_convolutions(f"{__name__}:build_functional", (3, 6, 6), 2)) == [
        ((6, 6), (3, 3), (3, 3), (2, 2), (1, 1)),
        ((6, 6), (3, 3), (2, 2), (2, 2), (0, 0)),  # transposed: its image is the larger one, its output
        ((4, 6, 6), (3, 2, 4), (2, 3, 3), (1, 2, 1), (0, 0, 0)),
        ((4, 6, 6), (4, 6, 6), (3, 3, 3), (1, 1, 1), (0, 0, 0)),  # padding by name is for strides of 1 alone
    ]


def test_listing_convolutions_draws_nothing():
    state = torch.get_rng_state()
    list_convolutions("cnn", (1, 8, 8), 10)
    assert torch.equal(torch.get_rng_state(), state)


def worst_error(image, channels, kernel, stride, padding, dtype):
    """Largest relative error of outputs and weight gradients on a CPU, with freed memory full of large numbers."""
    rng = torch.Generator().manual_seed(0)
    images = torch.randn(16, channels, *image, generator=rng).to(dtype).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(channels, channels, kernel, kernel, generator=rng).to(dtype).requires_grad_()
    exact_weight = weight.detach().double().requires_grad_()
    exact = conv2d(images.double(), exact_weight, None, stride, padding)
    upstream = torch.randn(exact.shape, generator=rng).to(dtype)
    truth = exact.detach(), torch.autograd.grad(exact, exact_weight, upstream.double())[0]
    errors = []
    for _ in range(3):
        # as many values as the gradient has, and twice and half as many, as any other tensor may leave behind
        leftovers = [torch.full((int(weight.numel() * part),), 1e30, dtype=dtype) for part in (1, 1, 2, 0.5)]
        leftovers += [torch.full((weight.numel(),), 1e30)]
        result = conv2d(images, weight, None, stride, padding)
        del leftovers
        found = result.detach(), torch.autograd.grad(result, weight, upstream)[0]
        errors += [float((a.double() - b).abs().max() / b.abs().max()) for a, b in zip(found, truth, strict=True)]
    return max(torch.inf if error != error else error for error in errors)


SHAPES = [
    # image, channels, kernel, stride, padding
    ((1, 1), 64, 3, 2, 1),
    ((2, 2), 64, 3, 2, 1),
    ((2, 2), 64, 3, 3, 1),
    ((1, 2), 64, 3, 2, 1),
    ((2, 1), 64, 3, 2, 1),
    ((3, 3), 64, 5, 4, 2),
    ((4, 4), 64, 7, 2, 3),
    ((1, 1), 64, 3, 1, 1),
    ((4, 4), 16, 4, 4, 0),
    ((8, 8), 16, 4, 4, 0),
    ((4, 4), 16, 4, 1, 0),
    ((5, 5), 16, 3, 3, 0),
]


def build_convolution(image, kernel, stride, padding):
    """The record of a convolution with these sizes."""
    windows = tuple((size + 2 * padding - kernel) // stride + 1 for size in image)
    sizes = ((size, size) for size in (kernel, stride, padding))
    return Convolution(image=image, windows=windows, **dict(zip(("kernel", "stride", "padding"), sizes, strict=True)))


@pytest.mark.parametrize(("image", "channels", "kernel", "stride", "padding"), SHAPES)
def test_bfloat16_is_right_on_a_cpu_wherever_it_is_allowed(image, channels, kernel, stride, padding):
    """Where it is refused it need not be wrong: that depends on the CPU."""
    if not build_convolution(image, kernel, stride, padding).is_unsafe_in_bfloat16():
        assert worst_error(image, channels, kernel, stride, padding, torch.bfloat16) < 0.05
    assert worst_error(image, channels, kernel, stride, padding, torch.float32) < 1e-5


def test_what_went_wrong_in_bfloat16_on_a_cpu_is_refused():
    """The seven of the shapes above that were right are allowed: the rule refuses no more than it must."""
    allowed = [not build_convolution(image, *rest).is_unsafe_in_bfloat16() for image, _, *rest in SHAPES]
    assert allowed == [False, True, False, True, False, False, True, True, False, True, True, True]


def build_shrinking(shape, classes):
    """A network that halves images of 4 pixels three times; named as "module:function"."""
    layers = [nn.Conv2d(channels, 8, 3, 2, 1) for channels in (shape[0], 8, 8)]
    return Classifier(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()), nn.Linear(8, classes))


def test_a_network_whose_images_shrink_below_its_stride_is_refused_in_bfloat16_on_a_cpu_alone():
    arch = f"{__name__}:build_shrinking"
    small, large = (
        manifest(architecture=arch, precision="bfloat16", n_classes=10, input_shape=(3, size, size)) for size in (4, 8)
    )
    with pytest.raises(
        ValueError,
        match=rf"^--precision bfloat16 on a CPU: oneDNN computes {arch}'s 3x3 convolution of stride 2x2 on an image of "
        r"1x1 wrongly there; an image must be at least as wide as .* use --precision float32, larger images, or a GPU$",
    ):
        require_trainable(small, "cpu")
    require_trainable(small, "cuda")
    require_trainable(large, "cpu")
    require_trainable(rules.replace_precision(small, "float32"), "cpu")


@pytest.mark.slow
def test_the_papers_memorization_network_is_refused_at_16_pixels_and_not_at_32():
    unsafe = [
        {
            c.kernel
            for c in list_convolutions("resnet18-imagenet-stem", (3, size, size), 10)
            if c.is_unsafe_in_bfloat16()
        }
        for size in (16, 32)
    ]
    assert unsafe == [{(3, 3), (1, 1)}, set()]


def test_images_with_a_depth_are_refused_where_the_kernel_is_larger():
    """Of these more gradients are wrong; see the comment at the rule."""
    sizes = {"windows": (1, 3, 3), "kernel": (3, 3, 3), "stride": (1, 1, 1), "padding": (1, 0, 0)}
    assert Convolution(image=(2, 5, 5), **sizes).is_unsafe_in_bfloat16()
    assert not Convolution(image=(3, 5, 5), **sizes).is_unsafe_in_bfloat16()


def test_an_audit_of_a_gpu_s_bank_says_on_a_cpu_what_it_does(monkeypatch, caplog):
    """Nothing is trained, so the CPU is no reason to refuse."""
    from memscore.analysis import audit

    used = []
    monkeypatch.setattr(audit, "build_shared_data", lambda *_: None)
    monkeypatch.setattr(audit, "float32_matmul", lambda device, precision: used.append(precision) or 1 / 0)
    store = type("S", (), {"manifest": manifest(precision="tf32")})
    with caplog.at_level(logging.WARNING):
        for device in ("cpu", "cuda"):
            with pytest.raises(ZeroDivisionError):
                audit.compute_predictions(store, None, None, device)
    assert used == ["float32", "tf32"]
    assert len(caplog.records) == 1

"""Precisions of training: which one a device has, which one a new bank gets, and which networks a CPU trains wrongly.

float32 is exact on every device. tf32 is what torch does on a GPU by default, and what the papers' code ran:
TF32 in convolutions, float32 in matrix products. bfloat16 is autocast of the body. bfloat16-products is of the stacks
of fully connected networks on CPUs (memscore/training/bfloat16_stack.py); all that is not training is float32 there.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from memscore.models.architectures import Classifier, build_network, find_mlp_layers
from memscore.models.user_networks import Shape
from memscore.store.manifest import Manifest, split_architecture
from memscore.training.recipes import BFLOAT16_PRODUCTS, Recipe


@dataclass(frozen=True, kw_only=True)
class Convolution:
    """One convolution of a forward pass; sizes are of height and width, or of one or three directions.

    Attributes:
        image: of what the kernel slides over: the input, or the output where the convolution is transposed.
        windows: how often the kernel stands in each direction.
        kernel: sizes of the kernel.
        stride: strides.
        padding: pixels on each side.
    """

    image: tuple[int, ...]
    windows: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]

    def is_unsafe_in_bfloat16(self) -> bool:
        """Return whether oneDNN may compute it, or its weight gradient, wrongly in bfloat16 on a CPU."""
        # Found by comparing random convolutions with float64, freed memory filled with 1e30 before each (torch 2.14.1).
        # Results hold leftovers of freed memory, or the process dies, where an image is narrower than the stride; from
        # a stride of 4 also where there is a single window in a row or padding. Of images with a depth more go wrong,
        # all of them smaller than the kernel in some direction. Not every such convolution is wrong, which depends on
        # channels, batch and CPU, but none beyond them was.
        if len(self.image) > 2:
            return any(size < max(k, s) for size, k, s in zip(self.image, self.kernel, self.stride, strict=True))
        width, windows, stride, padding = (sizes[-1] for sizes in (self.image, self.windows, self.stride, self.padding))
        return width < stride or (stride >= 4 and (windows == 1 or padding > 0))

    def __str__(self) -> str:
        kernel, stride, image = ("x".join(map(str, sizes)) for sizes in (self.kernel, self.stride, self.image))
        return f"{kernel} convolution of stride {stride} on an image of {image}"


class _ConvolutionRecorder(TorchFunctionMode):  # type: ignore[no-untyped-call]
    """Record all convolutions that Python code calls, in layers or not."""

    # Not TorchDispatchMode, which sees calls of scripted networks too: it imports torch's compiler, for 3 to 7 seconds.

    def __init__(self) -> None:
        super().__init__()
        self.convolutions: list[Convolution] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        if re.fullmatch(r"conv(_transpose)?[123]d", name):
            call = dict(zip(("input", "weight", "bias", "stride", "padding"), args, strict=False)) | kwargs
            kernel = tuple(call["weight"].shape[2:])
            images = [tuple(part.shape[-len(kernel) :]) for part in (call["input"], result)]
            image, windows = reversed(images) if "transpose" in name else images
            # padding by name ("same") is for strides of 1, which are never unsafe
            named = isinstance(call.get("padding"), str)
            stride, padding = (
                (size,) * len(kernel) if isinstance(size, int) else tuple(size) * (len(kernel) // len(size))
                for size in (call.get("stride", 1), 0 if named else call.get("padding", 0))
            )
            self.convolutions.append(
                Convolution(image=image, windows=windows, kernel=kernel, stride=stride, padding=padding)
            )
        return result


def list_convolutions(architecture: str, input_shape: Shape, n_classes: int) -> list[Convolution]:
    """List the convolutions that a network runs in a forward pass, in order."""
    # A network of its own, in evaluation mode: nothing that is trained changes.
    model = build_network(architecture, input_shape, n_classes, seed=0).eval()
    recorder = _ConvolutionRecorder()
    with torch.random.fork_rng(devices=[]), torch.no_grad(), recorder:
        model(torch.zeros(2, *input_shape))
    return recorder.convolutions


def list_manifest_convolutions(manifest: Manifest) -> list[Convolution]:
    """List the convolutions of a bank's network."""
    return list_convolutions(split_architecture(manifest.architecture)[0], manifest.input_shape, manifest.n_classes)


def build_manifest_network(manifest: Manifest) -> nn.Module:
    """Build a bank's network with any weights."""
    architecture = split_architecture(manifest.architecture)[0]
    return build_network(architecture, manifest.input_shape, manifest.n_classes, seed=0)


def resolve_precision(precision: str, device: str, *, has_convolutions: bool) -> str:
    """Resolve the precision of a new bank whose user names none.

    Args:
        precision: the recipe's.
        device: of the workers, "cpu" or "cuda".
        has_convolutions: of the network; those without one stay in float32, in which a GPU trains them as a stack.

    Returns:
        "tf32" in place of float32 for convolutions on a GPU, else the recipe's.

    >>> resolve_precision("float32", "cuda", has_convolutions=True)
    'tf32'
    """
    return "tf32" if (precision, device) == ("float32", "cuda") and has_convolutions and may_have_tf32() else precision


def may_have_tf32() -> bool:
    """Return whether workers on GPUs may have TF32: not if this machine has a GPU, and that has none."""
    return not torch.cuda.is_available() or torch.cuda.is_tf32_supported()


def require_precision(precision: str, device: str) -> None:
    """Raise ValueError if "cpu" or "cuda" lacks a precision; of another machine's GPU only that machine can tell."""
    advice = "use a bank with --precision float32"
    if precision == "tf32" and device == "cpu":
        raise ValueError(
            f"precision tf32 is TF32 in the convolutions of a GPU, and a CPU has none; train on a GPU, or {advice} "
            "(what is stored stays, and is scored on a CPU too)"
        )
    if precision == BFLOAT16_PRODUCTS and device != "cpu":
        raise ValueError(
            f"precision {precision} is of products on CPUs; train on CPUs (--device cpu), or use a bank with "
            "--precision float32, in which a GPU trains fully connected networks as stacks"
        )
    if device == "cpu" or not torch.cuda.is_available():
        return
    lacks_tf32 = precision == "tf32" and not torch.cuda.is_tf32_supported()
    if lacks_tf32 or (precision == "bfloat16" and not torch.cuda.is_bf16_supported(including_emulation=False)):
        name = torch.cuda.get_device_name()
        raise ValueError(f"precision {precision} is not one of {name}, which is older than NVIDIA's Ampere; {advice}")


def require_trainable(manifest: Manifest, device: str) -> None:
    """Raise ValueError if workers on "cpu" or "cuda" cannot train a bank's networks in its precision."""
    require_precision(manifest.precision, device)
    if (manifest.precision, device) == ("bfloat16", "cpu"):
        require_safe_in_bfloat16(manifest.architecture, list_manifest_convolutions(manifest))
    if manifest.precision == BFLOAT16_PRODUCTS:
        require_hidden_layers(build_manifest_network(manifest), manifest.architecture)


def require_trained_precision(model: nn.Module, recipe: Recipe) -> None:
    """Raise ValueError if no engine trains this network in the recipe's precision; other rules are of the device."""
    if recipe.precision == BFLOAT16_PRODUCTS:
        require_hidden_layers(model, type(model).__name__)


def require_hidden_layers(model: nn.Module, name: str) -> None:
    """Raise ValueError if a network is not fully connected with a hidden layer, as bfloat16-products needs it."""
    layers = find_mlp_layers(model)
    if layers is None or len(layers) < 2:
        what = "is no plain stack of linear layers" if layers is None else "has no hidden layer"
        raise ValueError(
            f"--precision {BFLOAT16_PRODUCTS} is of the hidden layers of fully connected networks (mlp, mlp-512-256), "
            f"and {name} {what}; use --precision float32"
        )


def require_safe_in_bfloat16(architecture: str, convolutions: Sequence[Convolution]) -> None:
    """Raise ValueError if a CPU would compute a wrong gradient of a network in bfloat16."""
    for convolution in convolutions:
        if convolution.is_unsafe_in_bfloat16():
            raise ValueError(
                f"--precision bfloat16 on a CPU: oneDNN computes {architecture}'s {convolution} wrongly there; an "
                "image must be at least as wide as the stride, and from a stride of 4 have two windows a row and no "
                "padding; use --precision float32, larger images, or a GPU"
            )


def require_own_head(manifest: Manifest) -> None:
    """Raise ValueError if a user's network does not show which layer is its last, which is never in bfloat16."""
    network = build_manifest_network(manifest)
    if not isinstance(network, Classifier):
        raise ValueError(
            f"--precision bfloat16 leaves the last layer in float32, and {manifest.architecture} returns a "
            f"{type(network).__name__}, which does not show its last layer; return "
            "memscore.models.architectures.Classifier(body, head), or use --precision float32"
        )


def replace_precision(manifest: Manifest, precision: str) -> Manifest:
    """Return the manifest of the same bank in another precision, which stands in the recipe too."""
    return replace(manifest, precision=precision, recipe=manifest.recipe | {"precision": precision})

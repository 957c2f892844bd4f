"""The convolutions of a small CNN, run on a CPU as one compiled function each way (convolution_kernels.py).

The layers, their weights and their names are those of a plain nn.Sequential, which is run wherever the compiled
functions cannot serve: on a GPU, in another precision, on a processor without fused multiply-add, under torch.func and
forward-mode gradients, inside modes that watch operations, and where somebody changed a layer or listens to it.
"""

import platform
import time
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.functional import conv2d, max_pool2d, relu

from memscore.models.user_networks import Shape

if TYPE_CHECKING:
    from memscore.models.convolution_kernels import Network
    from memscore.models.convolution_sizes import Processor

MAX_WEIGHTS = 9 * 128 * 256
"""Of a layer. The weights of larger ones leave the cache between two images, and torch is faster there: its time is 1.1
of that of the compiled functions at this size, and 0.7 at four times as many."""


def keep_channels_last(_: nn.Module, inputs: tuple[Tensor]) -> None:
    """Give the gradient of a layer's input its layout, channels last; a forward pre-hook of Flatten layers."""
    # The backward pass of Flatten returns gradients that are contiguous as [B, C, H, W]. The layers before it run
    # channels last, and torch takes a slow path for two layouts in one operation.
    if inputs[0].ndim == 4 and inputs[0].requires_grad:
        inputs[0].register_hook(  # type: ignore[no-untyped-call]
            lambda gradient: gradient.contiguous(memory_format=torch.channels_last)
        )


class ConvolutionLayers(nn.Sequential):
    """3x3 convolutions, each with 2x2 max pooling and ReLU, then Flatten."""

    def forward(self, images: Tensor) -> Tensor:
        """Compute the embeddings [B, E] of images [B, C, H, W]."""
        parameters = self.list_compiled_parameters(images)
        if not parameters:
            plain: Tensor = super().forward(images)  # type: ignore[no-untyped-call]
            return plain
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (images, *parameters)):
            output: Tensor = CompiledLayers.apply(images, *parameters)  # type: ignore[no-untyped-call]
            return output
        return run_forward(images, parameters, input_gradient=False)[0]

    def list_compiled_parameters(self, images: Tensor) -> list[Tensor]:
        """List weight and bias of each convolution where the compiled functions serve images like these, else none."""
        parameters = [] if has_other_needs() or self.explain_plain_layers() else self._list_parameters()
        is_served = (
            parameters
            and all(is_array(tensor) for tensor in (images, *parameters))
            and images.ndim == 4
            and images.shape[1] == parameters[0].shape[1]
            and min(images.shape[2:]) >= 2 ** (len(parameters) // 2)
        )
        return parameters if is_served else []

    def _list_parameters(self) -> list[Tensor]:
        """List weight and bias of each convolution."""
        convolutions = [layer for layer in self if isinstance(layer, nn.Conv2d)]
        return [value for layer in convolutions for value in (layer.weight, layer.bias) if value is not None]

    def explain_plain_layers(self) -> str:
        """Return why the compiled functions cannot serve these layers; "" where they can."""
        processor = find_processor()
        if isinstance(processor, str):
            return processor
        layers = list(self)
        kinds = [nn.Conv2d, nn.MaxPool2d, nn.ReLU] * (len(layers) // 3) + [nn.Flatten]
        if len(layers) < 4 or [type(layer) for layer in layers] != kinds:
            return "the layers were changed"
        convolutions = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
        if not all(is_plain_convolution(layer) for layer in convolutions) or any(
            after.in_channels != before.out_channels for before, after in pairwise(convolutions)
        ):
            return "the convolutions were changed"
        if any(layer.weight.numel() > MAX_WEIGHTS for layer in convolutions):
            return f"a layer has more than {MAX_WEIGHTS:,} weights, with which torch is faster"
        if not all(is_plain_pooling(layer) for layer in layers if isinstance(layer, nn.MaxPool2d)):
            return "the poolings were changed"
        if (getattr(layers[-1], "start_dim", 0), getattr(layers[-1], "end_dim", 0)) != (1, -1):
            return "the last layer was changed"
        if any(has_hooks(layer) for layer in layers):
            return "a layer has hooks"
        return ""


def explain_plain_convolutions(model: nn.Module, precision: str) -> str | None:
    """Return why a CPU runs a network of ConvolutionLayers plainly, "" if it does not, None for other networks."""
    bodies = [layers for layers in model.modules() if isinstance(layers, ConvolutionLayers)]
    if not bodies:
        return None
    reasons = [layers.explain_plain_layers() for layers in bodies]
    return next(filter(None, reasons), "" if precision == "float32" else f"the precision is {precision}")


def compile_convolutions(model: nn.Module, input_shape: Shape) -> float:
    """Compile what a small CNN needs on a CPU, once in a process and before a clock starts.

    Args:
        model: any network.
        input_shape: (C, H, W) of its images.

    Returns:
        The seconds that it took; 0 for other networks.
    """
    started, is_compiled = time.perf_counter(), False
    for layers in model.modules():
        if isinstance(layers, ConvolutionLayers) and not layers.explain_plain_layers():
            parameters = layers._list_parameters()
            if all(is_array(parameter) for parameter in parameters):
                network = get_network(input_shape, tuple(len(bias) for bias in parameters[1::2]), False)
                is_compiled = bool(network.compiled_forward and network.compiled_backward)
    return time.perf_counter() - started if is_compiled else 0.0


def is_array(tensor: Tensor) -> bool:
    """Return whether it is float32 in this machine's memory, and no wrapper around another tensor."""
    is_plain = type(tensor) in {Tensor, nn.Parameter} and tensor.layout is torch.strided
    return is_plain and torch._C._has_storage(tensor) and tensor.device.type == "cpu" and tensor.dtype is torch.float32


def has_other_needs() -> bool:
    """Return whether torch's own layers are needed here: for another precision, a transform, a mode, or hooks."""
    # The lengths of the two stacks are those of modes that count or record operations, or say where tensors are made.
    return (
        torch.is_autocast_enabled("cpu")
        or is_transformed()
        or torch.compiler.is_compiling()
        or torch._C._is_tracing()
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._len_torch_function_stack() > 0
        or nn.modules.module._has_any_global_hook()  # type: ignore[no-untyped-call]
    )


def is_transformed() -> bool:
    """Return whether torch.func, vmap or forward-mode differentiation is at work."""
    return bool(torch._C._are_functorch_transforms_active()) or forward_ad._current_level >= 0


def is_plain_convolution(layer: nn.Conv2d) -> bool:
    """Return whether it is 3x3, pads by one pixel of zeros, and has nothing that is special."""
    sizes = (layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.groups, layer.padding_mode)
    return sizes == ((3, 3), (1, 1), (1, 1), (1, 1), 1, "zeros") and layer.bias is not None


def is_plain_pooling(layer: nn.MaxPool2d) -> bool:
    """Return whether it takes the maximum of 2x2 windows that do not overlap, and returns nothing else."""
    plain = (layer.padding, layer.dilation, layer.ceil_mode, layer.return_indices) == (0, 1, False, False)
    return plain and (layer.kernel_size, layer.stride) == (2, 2)


def has_hooks(layer: nn.Module) -> bool:
    """Return whether somebody else than the training loop listens to a layer."""
    listeners = [
        *layer._forward_hooks.values(),
        *layer._backward_hooks.values(),
        *layer._backward_pre_hooks.values(),
        *(hook for hook in layer._forward_pre_hooks.values() if hook is not keep_channels_last),
    ]
    return bool(listeners)


@cache
def find_processor() -> "Processor | str":
    """Return which code this processor runs, or why none."""
    try:
        import llvmlite.binding as llvm  # not at the top: without it everything runs, more slowly

        from memscore.models.convolution_sizes import NORMAL, WIDE
    except (ImportError, OSError) as error:
        return f"llvmlite cannot be imported ({error})"
    if platform.machine().lower() in {"arm64", "aarch64"}:
        return NORMAL
    features = llvm.get_host_cpu_features()
    if all(features.get(name) for name in ("avx512f", "avx512vl", "avx512bw")):
        return WIDE
    if all(features.get(name) for name in ("avx2", "fma")):
        return NORMAL
    return "the processor has no fused multiply-add"


@cache
def get_network(shape: tuple[int, int, int], widths: tuple[int, ...], input_gradient: bool) -> "Network":
    """Return the functions of one network; each is compiled at its first call, once in a process."""
    from memscore.models.convolution_kernels import Network

    processor = find_processor()
    if isinstance(processor, str):
        raise RuntimeError(f"no compiled convolutions here: {processor}")
    return Network(shape, widths, input_gradient, processor)


def find_network(images: Tensor, parameters: Sequence[Tensor], *, input_gradient: bool) -> "Network":
    """Return the functions for these images and parameters."""
    channels, height, width = images.shape[1:]
    return get_network((channels, height, width), tuple(len(bias) for bias in parameters[1::2]), input_gradient)


def run_forward(images: Tensor, parameters: Sequence[Tensor], *, input_gradient: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the embeddings, and what the backward pass reads.

    Args:
        images: float32 [B, C, H, W] of any strides.
        parameters: weights and biases, layer by layer.
        input_gradient: whether the backward pass is to give the gradient of the images.

    Returns:
        Embeddings [B, E], and the floats and bytes that run_backward takes.
    """
    count, network = len(images), find_network(images, parameters, input_gradient=input_gradient)
    output = torch.empty(count, network.features)
    floats = torch.empty(count * network.kept_floats)
    marks = torch.empty(count * network.kept_bytes, dtype=torch.uint8)
    scratch = torch.empty(network.forward_scratch)
    arguments = [count, images.data_ptr(), *images.stride()]
    arguments += [tensor.data_ptr() for tensor in (output, floats, marks, scratch)]
    biases = [bias.contiguous() for bias in parameters[1::2]]
    for weight, bias in zip(parameters[::2], biases, strict=True):
        arguments += [weight.data_ptr(), *weight.stride(), bias.data_ptr()]
    network.compiled_forward(*arguments)
    return output, floats, marks


def run_backward(
    gradient: Tensor,
    images: Tensor,
    parameters: Sequence[Tensor],
    floats: Tensor,
    marks: Tensor,
    *,
    input_gradient: bool,
) -> list[Tensor | None]:
    """Compute the gradients of the images (None without input_gradient) and of the parameters."""
    network = find_network(images, parameters, input_gradient=input_gradient)
    gradient = gradient.contiguous()
    scratch = torch.empty(network.backward_scratch)
    image_gradient = torch.empty_like(images) if input_gradient else scratch[:0].view(0, 1, 1, 1)
    # a gradient with its parameter's strides: an optimizer's step on two layouts takes ten times as long
    gradients = [torch.empty_like(parameter) for parameter in parameters]
    arguments = [len(images), *(tensor.data_ptr() for tensor in (gradient, floats, marks, scratch, image_gradient))]
    arguments += image_gradient.stride()
    for weight, weight_gradient, bias_gradient in zip(parameters[::2], gradients[::2], gradients[1::2], strict=True):
        arguments += [weight.data_ptr(), *weight.stride(), weight_gradient.data_ptr(), *weight_gradient.stride()]
        arguments += [bias_gradient.data_ptr()]
    network.compiled_backward(*arguments)
    return [image_gradient if input_gradient else None, *gradients]


def run_plain(images: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """Compute the embeddings by torch's operations, which can be differentiated any number of times."""
    values = images
    for weight, bias in zip(parameters[::2], parameters[1::2], strict=True):
        values = relu(max_pool2d(conv2d(values, weight, bias, padding=1), 2))
    return values.flatten(1)


class CompiledLayers(torch.autograd.Function):
    """All layers as one operation of autograd: images and parameters to embeddings."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, *parameters: Tensor) -> Tensor:  # type: ignore[override]
        """Compute the embeddings."""
        output, *kept = run_forward(images, parameters, input_gradient=ctx.needs_input_grad[0])
        ctx.save_for_backward(images, *parameters, *kept)
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """Compute the gradients; by torch's operations where they are to be differentiated again."""
        images, *parameters, floats, marks = ctx.saved_tensors
        needed = ctx.needs_input_grad
        if torch.is_grad_enabled() or is_transformed() or not is_array(gradient):
            tensors = (images, *parameters)
            wanted = [tensor for tensor, is_needed in zip(tensors, needed, strict=True) if is_needed]
            with torch.enable_grad():
                output = run_plain(images, parameters)
            found = iter(torch.autograd.grad(output, wanted, gradient, create_graph=torch.is_grad_enabled()))
            return tuple(next(found) if is_needed else None for is_needed in needed)
        gradients = run_backward(gradient, images, parameters, floats, marks, input_gradient=needed[0])
        return tuple(value if is_needed else None for value, is_needed in zip(gradients, needed, strict=True))

"""Architectures by name: a body that maps images to embeddings, and one linear head."""

import math
import re
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from memscore.choices import validate_choice
from memscore.models.compiled_convolutions import ConvolutionLayers
from memscore.models.random_state import seed_generators
from memscore.models.user_networks import Shape, build_user_network

Builder = Callable[[Shape, int], nn.Module]

RESNET8_STAGES = 3


class Classifier(nn.Module):
    """head(body(x)): the body returns the embedding, the head is the last linear layer."""

    def __init__(self, body: nn.Module, head: nn.Linear) -> None:
        super().__init__()
        self.body = body
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        """Compute logits [B, K] of images [B, C, H, W]."""
        logits: Tensor = self.head(self.body(images))
        return logits


def mlp(shape: Shape, n_classes: int, *, widths: tuple[int, ...]) -> Classifier:
    """Build an MLP: flatten, a linear layer and ReLU for each width, then the head."""
    sizes = (math.prod(shape), *widths)
    layers: list[nn.Module] = [nn.Flatten()]
    for n_in, n_out in zip(sizes, widths, strict=False):
        layers += [nn.Linear(n_in, n_out), nn.ReLU()]
    return Classifier(nn.Sequential(*layers), nn.Linear(sizes[-1], n_classes))


def cnn(shape: Shape, n_classes: int, *, widths: tuple[int, ...]) -> Classifier:
    """Build a CNN: a 3x3 convolution, 2x2 max pooling and ReLU for each width, then the head."""
    channels, height, width = shape
    shrink = 2 ** len(widths)
    _require_image_size(f"a CNN of {len(widths)} poolings", shape, shrink)
    layers: list[nn.Module] = []
    for n_in, n_out in zip((channels, *widths), widths, strict=False):
        # The maximum and ReLU commute; in this order ReLU reads a quarter of the values.
        layers += [nn.Conv2d(n_in, n_out, 3, padding=1), nn.MaxPool2d(2), nn.ReLU()]
    features = widths[-1] * (height // shrink) * (width // shrink)
    return Classifier(ConvolutionLayers(*layers, nn.Flatten()), nn.Linear(features, n_classes))


def resnet8(shape: Shape, n_classes: int, *, widths: tuple[int, ...]) -> Classifier:
    """Build the ResNet of 8 layers for small images: a 3x3 convolution, 3 stages of one basic block, the head.

    He et al. 2016, section 4.2 with n = 1, where the widths are 16, 32, 64. Stages after the first halve the sides; a
    block that changes sides or width has a 1x1 convolution with batch norm in its shortcut, as torchvision's have.

    Args:
        shape: (C, H, W), sides of 8 pixels or more.
        n_classes: K.
        widths: channels of each stage.

    Returns:
        The network, in training mode.

    Raises:
        ValueError: smaller images, or another number of widths.
    """
    from torchvision.models.resnet import BasicBlock  # as in resnet

    if len(widths) != RESNET8_STAGES:
        raise ValueError(
            f"resnet8 has {RESNET8_STAGES} stages, so three widths, got {len(widths)}; write resnet8-16-32-64"
        )
    _require_image_size("resnet8", shape, 8)
    n_in = widths[0]
    stem = nn.Conv2d(shape[0], n_in, 3, padding=1, bias=False)
    layers: list[nn.Module] = [stem, nn.BatchNorm2d(n_in), nn.ReLU(inplace=True)]
    # A block whose output has the shape of its input adds the input itself, as the first one does.
    for stage, n_out in enumerate(widths):
        stride, shortcut = 1 if stage == 0 else 2, None
        if stride > 1 or n_in != n_out:
            convolution = nn.Conv2d(n_in, n_out, 1, stride=stride, bias=False)
            shortcut = nn.Sequential(convolution, nn.BatchNorm2d(n_out))
        layers.append(BasicBlock(n_in, n_out, stride, shortcut))
        n_in = n_out
    body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    # BasicBlock leaves torch's default weights, and torchvision's ResNet initialises them, as done here.
    for layer in body.modules():
        if isinstance(layer, nn.Conv2d):
            _he_normal(layer)
    return Classifier(body, nn.Linear(n_in, n_classes))


def resnet(shape: Shape, n_classes: int, *, network: str, cifar_stem: bool = True) -> Classifier:
    """Build a ResNet or ResNeXt; the CIFAR stem is one 3x3 convolution of stride 1, no pooling."""
    from torchvision import models  # the import takes two seconds, and an MLP does not need it

    _require_image_size(
        f"{network} with the {'CIFAR' if cifar_stem else 'ImageNet'} stem", shape, 8 if cifar_stem else 16
    )
    # torchvision's stem is made for 224 pixels and shrinks each side to a quarter: of CIFAR's 32 pixels it leaves 8.
    # New layers get the initial weights that torchvision gives to the layers that they replace.
    net = models.get_model(network, weights=None, num_classes=n_classes)
    if cifar_stem:
        net.conv1 = _he_normal(nn.Conv2d(shape[0], 64, 3, padding=1, bias=False))
        net.maxpool = nn.Identity()
    elif shape[0] != 3:
        net.conv1 = _he_normal(nn.Conv2d(shape[0], 64, 7, stride=2, padding=3, bias=False))
    head, net.fc = net.fc, nn.Identity()
    return Classifier(net, head)


def vgg16(shape: Shape, n_classes: int) -> Classifier:
    """Build VGG-16: 13 convolutions with batch norm, average pooling to 512 values, the head."""
    from torchvision.models.vgg import cfgs, make_layers

    _require_image_size("vgg16 with its 5 poolings", shape, 32)
    # make_layers leaves torch's default weights; torchvision's VGG class initialises them, as done here.
    convolutions = make_layers(cfgs["D"], batch_norm=True)
    if shape[0] != 3:
        convolutions[0] = nn.Conv2d(shape[0], 64, 3, padding=1)
    for layer in convolutions:
        if isinstance(layer, nn.Conv2d):
            _he_normal(layer)
    # The two layers of 4,096 are left out, as usual at 32 or 64 pixels: made for 7x7 feature maps, they would hold 120
    # of 134 million weights. SCALE does not say which head it used.
    return Classifier(nn.Sequential(convolutions, nn.AdaptiveAvgPool2d(1), nn.Flatten()), nn.Linear(512, n_classes))


def vit(shape: Shape, n_classes: int, *, width: int, depth: int, heads: int, patch: int | None = None) -> Classifier:
    """Build a vision transformer; patch None takes 4 pixels up to 64x64 images and 16 beyond."""
    from torchvision.models import VisionTransformer

    channels, side, other = shape
    patch = patch or (4 if side <= 64 else 16)
    if side != other or side % patch:
        raise ValueError(
            f"a ViT cuts squares into {patch}x{patch} patches, got images {_format_shape(shape)}; pad or use cnn"
        )
    net = VisionTransformer(side, patch, depth, heads, width, 4 * width, num_classes=n_classes)
    # torchvision's patch projection reads 3 channels; this is the same layer with the same initial weights for others.
    if channels != 3:
        net.conv_proj = nn.Conv2d(channels, width, patch, stride=patch)
        nn.init.trunc_normal_(net.conv_proj.weight, std=math.sqrt(1 / (channels * patch**2)))
        nn.init.zeros_(net.conv_proj.bias)
    net.heads = nn.Identity()  # torchvision's head starts at zero, this one at torch's random weights
    return Classifier(net, nn.Linear(width, n_classes))


ARCHITECTURES: dict[str, Builder] = {
    "mlp": partial(mlp, widths=(128,)),
    "cnn": partial(cnn, widths=(16, 32)),
    "resnet8": partial(resnet8, widths=(8, 16, 32)),
    "resnet18": partial(resnet, network="resnet18"),
    "resnet18-imagenet-stem": partial(resnet, network="resnet18", cifar_stem=False),
    "resnet50": partial(resnet, network="resnet50"),
    "resnext50": partial(resnet, network="resnext50_32x4d"),
    "vgg16": vgg16,
    "vit-small": partial(vit, width=384, depth=12, heads=6),
    "vit-narrow": partial(vit, width=64, depth=4, heads=4, patch=4),
}
WIDTH_FAMILIES = {"mlp": mlp, "cnn": cnn, "resnet8": resnet8}
"""Families whose name gives the widths."""
WIDTH_EXAMPLES = {"mlp": "mlp-512-256", "cnn": "cnn-32-64", "resnet8": "resnet8-16-32-64"}


def build_network(arch: str, input_shape: Shape, n_classes: int, seed: int, *, in_thread: bool = False) -> nn.Module:
    """Build a freshly initialised network on the CPU in float32.

    The global generators do not change.

    Args:
        arch: a name of ARCHITECTURES, a family with widths (WIDTH_EXAMPLES), or "module:function", which
            names a class or function of the user's that gives an nn.Module; see memscore/models/user_networks.py.
        input_shape: (C, H, W).
        n_classes: K >= 2.
        seed: of the initial weights; equal seeds give equal weights.
        in_thread: other threads may draw from torch's global generator meanwhile; the weights are the same. Not for a
            user's function, which may draw from anything.

    Returns:
        The network in training mode: [B, C, H, W] -> [B, K]. A Classifier, unless the user's function built it.

    Raises:
        ValueError: an unknown architecture, an unsupported shape, a user's function that returns something else, or one
            in a thread.

    >>> build_network("mlp-32", (1, 8, 8), 10, seed=0)(torch.zeros(2, 1, 8, 8)).shape
    torch.Size([2, 10])
    """
    if len(input_shape) != 3 or min(input_shape) < 1:
        raise ValueError(f"input_shape must be three positive sizes (C, H, W), got {input_shape}")
    if n_classes < 2:
        raise ValueError(f"a classifier needs 2 classes or more, got {n_classes}")
    # A user's function may also draw its weights from NumPy or Python; to seed those takes .2 ms, a third of what
    # building a small network takes.
    if ":" in arch:
        if in_thread:
            raise ValueError(f"architecture {arch!r} may draw from global generators; build it without in_thread")
        with seed_generators(seed, torch.device("cpu")), torch.device("cpu"):
            return build_user_network(arch, input_shape, n_classes)
    builder = _find_builder(arch)
    if in_thread:
        # imported here: its first use imports torch's compiler, which takes a second
        from memscore.models.own_generator import DrawFrom

        with DrawFrom(torch.Generator().manual_seed(seed)), torch.device("cpu"):
            return builder(input_shape, n_classes)
    # devices=[]: forking the GPUs' generators too would start CUDA in a process that may never use it.
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reach the GPUs' generators too
        return builder(input_shape, n_classes)


def compute_logits(model: nn.Module, images: Tensor, autocast: torch.dtype | None) -> Tensor:
    """Compute float32 logits [B, K]: the body in `autocast` (None: float32), the head always in float32."""
    device_type = images.device.type
    if not isinstance(model, Classifier):
        if autocast is not None:
            raise ValueError(
                f"{type(model).__name__} cannot run in {autocast}: only a memscore.models.architectures.Classifier "
                "shows which layer stays in float32; return Classifier(body, head) or use precision float32"
            )
        logits: Tensor = model(images)
        return logits.float()
    with torch.autocast(device_type, dtype=autocast, enabled=autocast is not None):
        embedding: Tensor = model.body(images)
    # Scores are differences of logits, and many would be equal if logits were rounded to bfloat16's 8 significant bits.
    # enabled=False also turns off a caller's autocast.
    with torch.autocast(device_type, enabled=False):
        logits = model.head(embedding.float())
    return logits


def embed(model: nn.Module, images: Tensor) -> Tensor:
    """Compute embeddings [B, E]: what the last nn.Linear that runs in a forward pass reads."""
    if isinstance(model, Classifier):
        embedding: Tensor = model.body(images)
        return embedding
    # A user's network does not tell which layer is last, and the order of modules() is not the order of execution. So
    # every linear layer reports its input when it runs, and the last report stays.
    inputs: list[Tensor] = []

    def keep_last(_: nn.Module, arguments: tuple[Tensor]) -> None:
        inputs[:] = arguments

    hooks = [m.register_forward_pre_hook(keep_last) for m in model.modules() if isinstance(m, nn.Linear)]
    try:
        model(images)
    finally:
        for hook in hooks:
            hook.remove()
    if not inputs or inputs[0].ndim != 2:
        last_layer = f"one that reads {list(inputs[0].shape)}" if inputs else "none"
        raise ValueError(
            f"embeddings are what the last nn.Linear reads, [B, E]; {type(model).__name__} has {last_layer}"
        )
    return inputs[0]


def count_parameters(model: nn.Module) -> int:
    """Count the parameters of a model."""
    return sum(parameter.numel() for parameter in model.parameters())


def find_mlp_layers(model: nn.Module) -> list[nn.Linear] | None:
    """Return the linear layers of a plain MLP, in order; None for every other network."""
    # Plain is what the stack computes: Flatten, Linear, then (ReLU, Linear) any number of times, each layer with a
    # bias, none frozen and none used twice. Types must be equal: a subclass may have a forward pass of its own.
    layers = flatten_layers(model)
    if [type(layer) for layer in layers] != [nn.Flatten, nn.Linear] + [nn.ReLU, nn.Linear] * (len(layers) // 2 - 1):
        return None
    linear_layers = [layer for layer in layers if isinstance(layer, nn.Linear)]
    trainable = all(
        layer.bias is not None and all(p.requires_grad for p in layer.parameters()) for layer in linear_layers
    )
    return linear_layers if trainable and len(set(linear_layers)) == len(linear_layers) else None


def flatten_layers(model: nn.Module) -> list[nn.Module]:
    """Return the layers that a Classifier or (nested) Sequential applies one after the other."""
    if type(model) is Classifier:
        return [*flatten_layers(model.body), model.head]
    if isinstance(model, nn.Sequential) and type(model) in {nn.Sequential, ConvolutionLayers}:
        return [leaf for layer in model for leaf in flatten_layers(layer)]
    return [model]


def _find_builder(arch: str) -> Builder:
    # No width starts with 0: mlp-064 and mlp-64 would be one network with two names.
    match = re.fullmatch(rf"({'|'.join(WIDTH_FAMILIES)})((?:-[1-9]\d*)+)", arch)
    if match:
        return partial(WIDTH_FAMILIES[match[1]], widths=tuple(int(width) for width in match[2][1:].split("-")))
    examples = (*WIDTH_EXAMPLES.values(), "module:function")  # handled above; they are only suggestions
    return ARCHITECTURES[validate_choice("architecture", arch, (*ARCHITECTURES, *examples))]


def _he_normal(layer: nn.Conv2d) -> nn.Conv2d:
    """Initialise as torchvision does for ResNet and VGG: variance 2 / fan-out, bias 0."""
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def _require_image_size(name: str, shape: Shape, side: int) -> None:
    """Raise if an image side has fewer than the given number of pixels."""
    if min(shape[1:]) < side:
        raise ValueError(
            f"{name} needs images of {side}x{side} or more, got {_format_shape(shape)}; use mlp or a smaller cnn"
        )


def _format_shape(shape: Shape) -> str:
    return "x".join(str(size) for size in shape)

"""Git Re-Basin: match the units of two networks by their weights (Ainsworth et al. 2022).

Permuting a hidden layer's units does not change a network's function but moves its weights far away, so two networks
are compared after permuting the units of one:

    max over permutations of  sum_l <W_l of a, P_l W_l of b P_(l-1)^T>,   one layer at a time, each a linear assignment

A group lists the axes that must be permuted together: the rows of a layer, its bias, its batch norm with the running
mean and variance (left out by ports of the authors' code), the columns of the layers that read it; after a flattened
convolution, the blocks of columns; along a residual stream, all layers that write to it or read it. The order of groups
is random; a sweep without gain ends the search. For a chain of layers it finds the optimum in practice, for a residual
network a local one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import linear_sum_assignment
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from memscore.models.architectures import Classifier, flatten_layers

SWEEPS = 100
MIN_GAIN = 1e-9
"""Minimum relative gain of a new order; with less, rounding could cause an infinite loop."""

PERMUTATION_INVARIANT_LAYERS = (
    *(nn.Flatten, nn.ReLU, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Dropout, nn.Dropout2d, nn.Identity),
)
"""Layers that treat all units equally."""

BLOCKS = {"BasicBlock", "Bottleneck"}
"""torchvision's residual blocks, by the names of their classes: to import them takes seconds."""

State = Mapping[str, np.ndarray]
Group = list[tuple[str, int]]


class UnsupportedArchitecture(ValueError):
    """The symmetries of this architecture are not implemented."""


@dataclass
class Symmetries:
    """The axes of weights that share one order of units.

    Attributes:
        groups: lists of (name in the state, axis); an axis that is k times as long as the first of its group has k
            consecutive entries for each unit.
        penultimate: name of the last module with weights before the head.
    """

    groups: list[Group] = field(default_factory=list)
    penultimate: str = ""

    def add_outputs(self, layer: nn.Module, name: str, group: Group | None = None) -> Group:
        """Add a layer's outputs to a group, or to a new one."""
        if group is None:
            group = []
            self.groups.append(group)
        group += [(f"{name}.{part}", 0) for part in ("weight", "bias") if getattr(layer, part) is not None]
        # Never called for the head, whose outputs stay: the last call is for the layer before it.
        self.penultimate = name
        return group


def find_symmetries(model: nn.Module) -> Symmetries:
    """Find the symmetries of a chain of linear and ungrouped convolutional layers, torchvision's ResNet, or its blocks.

    Args:
        model: a Classifier, a Sequential, or a torchvision ResNet.

    Returns:
        Its groups.

    Raises:
        UnsupportedArchitecture: another architecture; the message names the unsupported layer.
    """
    # Walk along the chain; `group` holds the axes that share the order of the units which the next layer reads. It is
    # None at the input, whose channels and pixels are not permuted.
    names = {module: name for name, module in model.named_modules()}
    symmetries = Symmetries()
    chain = flatten_layers(model)
    head = next((layer for layer in reversed(chain) if isinstance(layer, nn.Linear)), None)
    group: Group | None = None
    for layer in chain:
        name = names[layer]
        # The head's columns are the last hidden units; its rows are classes, which stay.
        if layer is head and group is not None:
            group.append((f"{name}.weight", 1))
        elif isinstance(layer, nn.Linear | nn.Conv2d) and layer is not head:
            group = _connect_layer(symmetries, layer, name, group)
        elif isinstance(layer, _BatchNorm):
            _add_norm(layer, name, group)
        elif type(layer).__name__ == "ResNet" and isinstance(model, Classifier):
            group = _connect_resnet(symmetries, layer, names)
        elif type(layer).__name__ in BLOCKS and group is not None:
            group = _connect_block(symmetries, layer, names, group)
        elif layer is not head and not isinstance(layer, PERMUTATION_INVARIANT_LAYERS):
            raise UnsupportedArchitecture(
                f"weights of {type(layer).__name__} cannot be matched; Git Re-Basin is written for chains of linear "
                "and ungrouped convolutional layers, torchvision's ResNet and resnet8"
            )
    return symmetries


def _connect_layer(
    symmetries: Symmetries, layer: nn.Module, name: str, input_group: Group | None, output_group: Group | None = None
) -> Group:
    """Add a layer that reads one group and writes another, or a new one; return the latter."""
    if getattr(layer, "groups", 1) != 1:
        raise UnsupportedArchitecture(
            f"{name} is a grouped convolution, which cannot be matched; use a network without one"
        )
    # Columns of this layer are the units of the layer before; after a flattened convolution a block of columns each.
    if input_group is not None:
        input_group.append((f"{name}.weight", 1))
    return symmetries.add_outputs(layer, name, output_group)


def _add_norm(layer: _BatchNorm, name: str, group: Group | None) -> None:
    parts = ("weight", "bias", "running_mean", "running_var")
    if group is not None:
        group += [(f"{name}.{part}", 0) for part in parts if getattr(layer, part) is not None]


def _connect_resnet(symmetries: Symmetries, net: nn.Module, names: Mapping[nn.Module, str]) -> Group:
    """Add torchvision's ResNet; return the group of its last stream."""
    parts = dict(net.named_children())
    # The first convolution opens the stream's group.
    stream = _connect_layer(symmetries, parts["conv1"], names[parts["conv1"]], None)
    _add_norm(parts["bn1"], names[parts["bn1"]], stream)  # type: ignore[arg-type]
    for block in (block for stage in ("layer1", "layer2", "layer3", "layer4") for block in parts[stage].children()):
        stream = _connect_block(symmetries, block, names, stream)
    return stream


def _connect_block(symmetries: Symmetries, block: nn.Module, names: Mapping[nn.Module, str], stream: Group) -> Group:
    """Add a block of a ResNet; a stream has one order until a block projects it. Return the stream after it."""
    children = dict(block.named_children())
    # A block adds to the stream, so its last convolution writes in the stream's order. With a projection, a new
    # stream begins: the projection's outputs and the last convolution's share one order.
    block_output: Group | None = stream
    if "downsample" in children:
        project, norm = children["downsample"].children()
        block_output = _connect_layer(symmetries, project, names[project], stream)
        _add_norm(norm, names[norm], block_output)  # type: ignore[arg-type]
    # Bottlenecks have three convolutions, basic blocks two. Units within a block have orders of their own.
    last = 3 if "conv3" in children else 2
    input_group = stream
    for position in range(1, last + 1):
        layer, norm = children[f"conv{position}"], children[f"bn{position}"]
        input_group = _connect_layer(
            symmetries, layer, names[layer], input_group, block_output if position == last else None
        )
        _add_norm(norm, names[norm], input_group)  # type: ignore[arg-type]
    return input_group


def permute_units(state: State, groups: Sequence[Group], orders: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Permute the units of a network without changing its function.

    Args:
        state: arrays by name, buffers included.
        groups: groups of symmetries.
        orders: for each group, int64 [units]: unit i becomes what unit order[i] was.

    Returns:
        The state, with new arrays for permuted entries.
    """
    permuted = dict(state)
    for group, order in zip(groups, orders, strict=True):
        for name, axis in group:
            # [units, rest], reordered; then back: the axis to its length, and to its place.
            rows = _flatten_by_unit(permuted[name], axis, len(order))[order]
            moved_shape = np.moveaxis(permuted[name], axis, 0).shape
            permuted[name] = np.ascontiguousarray(np.moveaxis(rows.reshape(moved_shape), 0, axis))
    return permuted


def match_units(target: State, other: State, groups: Sequence[Group], rng: np.random.Generator) -> list[np.ndarray]:
    """Find the orders of units that bring one network's weights nearest another's.

    Args:
        target: fixed network, arrays by name.
        other: network to permute, arrays by name.
        groups: groups of symmetries.
        rng: draws the order of groups in a sweep.

    Returns:
        An order for each group, for permute_units with `other`.
    """
    # From the identity, one group at a time with the others fixed. Then the objective is linear in this group's order.
    orders = [np.arange(other[group[0][0]].shape[group[0][1]]) for group in groups]
    permuted = dict(other)
    for _ in range(SWEEPS):
        improved = False
        for index in rng.permutation(len(groups)):
            group, units = groups[index], len(orders[index])
            # [units, units]: inner products of all weights of unit i of the target and unit j of the other network.
            similarity = sum(
                _flatten_by_unit(target[name], axis, units) @ _flatten_by_unit(permuted[name], axis, units).T
                for name, axis in group
                if ".running_" not in name  # running statistics are permuted too, but are no weights
            )
            rows, order = linear_sum_assignment(similarity, maximize=True)
            # Only a gain above rounding counts: orders of equal value would alternate without end.
            if similarity[rows, order].sum() - similarity.trace() > MIN_GAIN * np.abs(similarity).sum() / units:
                # `permuted` has all orders so far applied; `orders` composes them, as rows of `other`.
                permuted = permute_units(permuted, [group], [order])
                orders[index], improved = orders[index][order], True
        if not improved:
            break
    return orders


def _flatten_by_unit(values: np.ndarray, axis: int, units: int) -> np.ndarray:
    """Reshape to [units, everything else]."""
    return np.moveaxis(values, axis, 0).reshape(units, -1)

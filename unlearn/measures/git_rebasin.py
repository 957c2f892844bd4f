"""Which units of one network are which of another: Git Re-Basin's weight matching (Ainsworth et al. 2022).

Reordering a hidden layer's units leaves what a network computes as it was and its weights far away, so two networks are
compared after the order of one is chosen:

    max over permutations of  sum_l <W_l of a, P_l W_l of b P_(l-1)^T>,   one layer at a time, each a linear assignment

A group is what must be reordered together: the rows of a layer, its bias, its batch norm with the running mean and
variance (left out by ports of the authors' code), the columns of what reads it; after a convolution is flattened, the
blocks of columns; along a residual stream, all that write to it or read it. The order of groups is drawn; a sweep
without gain ends. For a chain of layers the optimum is found in practice, for a residual network a local one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import linear_sum_assignment
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from memscore.models.architectures import Classifier, flatten_layers

SWEEPS = 100
GAIN = 1e-9
"""Share of what a group has in common now that a new order must add, or rounding would go in circles."""

UNORDERED = (
    *(nn.Flatten, nn.ReLU, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Dropout, nn.Dropout2d, nn.Identity),
)
"""Layers that treat all units alike."""

State = Mapping[str, np.ndarray]
Group = list[tuple[str, int]]


class UnsupportedArchitecture(ValueError):
    """Nobody has said which units of this architecture may be reordered."""


@dataclass
class Symmetries:
    """Which axes of which weights share an order.

    Attributes:
        groups: of (name in the state, axis); an axis that is k times as long as the first of its group has k entries
            for each unit, one after the other.
        penultimate: module whose output the head reads: its last weights.
    """

    groups: list[Group] = field(default_factory=list)
    penultimate: str = ""

    def writes(self, layer: nn.Module, name: str, group: Group | None = None) -> Group:
        """A layer's outputs join a group, or begin one."""
        if group is None:
            group = []
            self.groups.append(group)
        group += [(f"{name}.{part}", 0) for part in ("weight", "bias") if getattr(layer, part) is not None]
        self.penultimate = name
        return group


def find_symmetries(model: nn.Module) -> Symmetries:
    """What may be reordered in a network: a chain of linear and plain convolutional layers, or torchvision's ResNet.

    Args:
        model: a Classifier, a Sequential, or a torchvision ResNet.

    Returns:
        Its groups.

    Raises:
        UnsupportedArchitecture: another architecture, by the layer that is not understood.
    """
    names = {module: name for name, module in model.named_modules()}
    found = Symmetries()
    chain = flatten_layers(model)
    head = next((layer for layer in reversed(chain) if isinstance(layer, nn.Linear)), None)
    group: Group | None = None
    for layer in chain:
        name = names[layer]
        if layer is head and group is not None:
            group.append((f"{name}.weight", 1))
        elif isinstance(layer, nn.Linear | nn.Conv2d) and layer is not head:
            group = _passed(found, layer, name, group)
        elif isinstance(layer, _BatchNorm):
            _normed(layer, name, group)
        elif type(layer).__name__ == "ResNet" and isinstance(model, Classifier):
            group = _residual(found, layer, names)
        elif layer is not head and not isinstance(layer, UNORDERED):
            raise UnsupportedArchitecture(
                f"weights of {type(layer).__name__} cannot be matched; Git Re-Basin is written for chains of linear "
                "and ungrouped convolutional layers and for torchvision's ResNet"
            )
    return found


def _passed(found: Symmetries, layer: nn.Module, name: str, read: Group | None, into: Group | None = None) -> Group:
    """A layer reads one group and writes another."""
    if getattr(layer, "groups", 1) != 1:
        raise UnsupportedArchitecture(
            f"{name} is a grouped convolution, which cannot be matched; use a network without one"
        )
    if read is not None:
        read.append((f"{name}.weight", 1))
    return found.writes(layer, name, into)


def _normed(layer: _BatchNorm, name: str, group: Group | None) -> None:
    parts = ("weight", "bias", "running_mean", "running_var")
    if group is not None:
        group += [(f"{name}.{part}", 0) for part in parts if getattr(layer, part) is not None]


def _residual(found: Symmetries, net: nn.Module, names: Mapping[nn.Module, str]) -> Group:
    """The stream that blocks add to keeps one order until a block projects it into another."""
    parts = dict(net.named_children())
    stream = _passed(found, parts["conv1"], names[parts["conv1"]], None)
    _normed(parts["bn1"], names[parts["bn1"]], stream)  # type: ignore[arg-type]
    for block in (block for stage in ("layer1", "layer2", "layer3", "layer4") for block in parts[stage].children()):
        inner = dict(block.named_children())
        onward: Group | None = stream
        if "downsample" in inner:
            project, norm = inner["downsample"].children()
            onward = _passed(found, project, names[project], stream)
            _normed(norm, names[norm], onward)  # type: ignore[arg-type]
        last = 3 if "conv3" in inner else 2
        read = stream
        for place in range(1, last + 1):
            layer, norm = inner[f"conv{place}"], inner[f"bn{place}"]
            read = _passed(found, layer, names[layer], read, onward if place == last else None)
            _normed(norm, names[norm], read)  # type: ignore[arg-type]
        stream = read
    return stream


def permute_units(state: State, groups: Sequence[Group], orders: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """A network that computes the same with its units in another order.

    Args:
        state: arrays by name, buffers included.
        groups: of symmetries.
        orders: for each group, int64 [units]: unit i becomes what unit order[i] was.

    Returns:
        New arrays where something moved.
    """
    moved = dict(state)
    for group, order in zip(groups, orders, strict=True):
        for name, axis in group:
            rows = _by_unit(moved[name], axis, len(order))[order]
            front = np.moveaxis(moved[name], axis, 0).shape
            moved[name] = np.ascontiguousarray(np.moveaxis(rows.reshape(front), 0, axis))
    return moved


def match_units(target: State, other: State, groups: Sequence[Group], rng: np.random.Generator) -> list[np.ndarray]:
    """The orders that bring one network's weights nearest another's.

    Args:
        target: what stays, arrays by name.
        other: what is reordered.
        groups: of symmetries.
        rng: draws the order of groups in a sweep.

    Returns:
        An order for each group, to be handed to reordered with `other`.
    """
    orders = [np.arange(other[group[0][0]].shape[group[0][1]]) for group in groups]
    now = dict(other)
    for _ in range(SWEEPS):
        gained = False
        for at in rng.permutation(len(groups)):
            group, units = groups[at], len(orders[at])
            common = sum(
                _by_unit(target[name], axis, units) @ _by_unit(now[name], axis, units).T
                for name, axis in group
                if ".running_" not in name  # statistics follow, but are no weights
            )
            kept, best = linear_sum_assignment(common, maximize=True)
            if common[kept, best].sum() - common.trace() > GAIN * np.abs(common).sum() / units:
                now = permute_units(now, [group], [best])
                orders[at], gained = orders[at][best], True
        if not gained:
            break
    return orders


def _by_unit(values: np.ndarray, axis: int, units: int) -> np.ndarray:
    """[units, everything else]."""
    return np.moveaxis(values, axis, 0).reshape(units, -1)

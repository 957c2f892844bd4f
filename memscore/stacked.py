"""Many small fully connected networks trained side by side: one batched product for all of them, by hand."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.sgd import sgd

from memscore.images import Images, padded
from memscore.models import linear_layers
from memscore.recipes import Recipe


def stack_size(model: nn.Module, cache_bytes: int = 4 * 2**20) -> int:
    """How many models of this size fit in the cache with their gradients and momenta: 12 bytes a weight, 1 to 64."""
    weights = sum(p.numel() for p in model.parameters())
    return int(np.clip(2 ** np.floor(np.log2(max(1.0, cache_bytes / (12 * weights)))), 1, 64))


class Stack:
    """S fully connected networks side by side, forward and backward by hand, all activations with the batch last.

    For layers l = 1 .. L, a_0 = x^T, z_l = W_l a_{l-1} + b_l, a_l = max(z_l, 0), delta_L = (softmax(z_L) - onehot) / B:

        dW_l = delta_l a_{l-1}^T     db_l = sum_B delta_l     delta_{l-1} = (W_l^T delta_l) * 1[a_{l-1} > 0]

    With the batch last, the softmax over few classes and the sums run along memory. Weights, gradients and momenta are
    one buffer each, a tensor of all models after the other, each model's part padded to 64 bytes: one fused SGD step
    updates them all, and every batched product reads and writes whole tensors.
    """

    def __init__(self, models: Sequence[nn.Module], images: Images, labels: Tensor, recipe: Recipe):
        self.images, self.labels, self.recipe = images, labels, recipe
        self.layers = [layers_of(model) for model in models]
        shapes = [tuple(layer.weight.shape) for layer in self.layers[0]]
        self.count, batch, device = len(models), recipe.batch, labels.device
        self.shapes = [shape for n_out, n_in in shapes for shape in ((n_out, n_in), (n_out, 1))]
        size = self.count * sum(padded(n_out * n_in) for n_out, n_in in self.shapes)
        self.theta, self.slope, self.momentum = (torch.zeros(size, device=device) for _ in range(3))
        self.weights, self.slopes = self._views(self.theta), self._views(self.slope)
        for k, layers in enumerate(self.layers):
            for view, value in zip(self.weights, (p for a in layers for p in (a.weight, a.bias)), strict=True):
                view[k].copy_(value.detach().view_as(view[k]))
        self.inputs = torch.empty(self.count * batch, images.pixels.shape[1], device=device)
        self.shown = self.inputs.view(self.count, batch, -1)[..., : shapes[0][1]]
        self.acts = [aligned(self.count, n_out, batch, device) for n_out, _ in shapes]
        self.deltas = [aligned(self.count, n_out, batch, device) for n_out, _ in shapes]
        self.minus = torch.full((self.count, 1, batch), -1.0, device=device)

    def _views(self, flat: Tensor) -> list[Tensor]:
        """W [S, out, in] and b [S, out, 1] of each layer, as views into one buffer."""
        views, start = [], 0
        for rows, columns in self.shapes:
            width = padded(rows * columns)
            view = flat[start : start + self.count * width].view(self.count, width)
            views.append(view[:, : rows * columns].view(self.count, rows, columns))
            start += self.count * width
        return views

    @torch.no_grad()
    def run(self, rows: Tensor, rates: Sequence[float], *, keep: bool) -> Tensor | None:
        """Take one step for each rate; returns float32 logits [S, steps, B, K] before each step if they are wanted."""
        models, length, batch = rows.shape
        said = torch.empty(models, self.shapes[-1][0], length, batch, device=rows.device) if keep else None
        labels = self.labels[rows]
        for step, rate in enumerate(rates):
            torch.index_select(self.images.pixels, 0, rows[:, step].reshape(-1), out=self.inputs)
            self.forward()
            if said is not None:
                said[:, :, step] = self.acts[-1]
            self.backward(labels[:, step, None])
            self.update(rate)
        return said.permute(0, 2, 3, 1) if said is not None else None

    def forward(self) -> None:
        """Fill the activations; the last ones are the logits."""
        below = self.shown.transpose(1, 2)
        for layer, act in enumerate(self.acts):
            torch.baddbmm(self.weights[2 * layer + 1], self.weights[2 * layer], below, out=act)
            if layer < len(self.acts) - 1:
                act.relu_()
            below = act

    def backward(self, labels: Tensor) -> None:
        """Fill the gradients from the activations, of which hidden ones become 1 where they were above 0."""
        delta = torch.softmax(self.acts[-1], 1, out=self.deltas[-1])
        delta.scatter_add_(1, labels, self.minus).div_(self.recipe.batch)
        for layer in range(len(self.acts) - 1, -1, -1):
            below = self.acts[layer - 1].transpose(1, 2) if layer else self.shown
            torch.bmm(delta, below, out=self.slopes[2 * layer])
            torch.sum(delta, 2, keepdim=True, out=self.slopes[2 * layer + 1])
            if layer:
                torch.bmm(self.weights[2 * layer].transpose(1, 2), delta, out=self.deltas[layer - 1])
                delta = self.deltas[layer - 1].mul_(self.acts[layer - 1].sign_())

    def update(self, rate: float) -> None:
        """One fused step of SGD on all weights; momenta start from 0, so the first one is the gradient."""
        sgd(
            [self.theta],
            [self.slope],
            [self.momentum],
            fused=True,
            weight_decay=self.recipe.weight_decay,
            momentum=self.recipe.momentum,
            lr=rate,
            dampening=0.0,
            nesterov=False,
            maximize=False,
        )

    def write_back(self) -> None:
        """Copy the weights into the models they belong to."""
        with torch.no_grad():
            for k, layers in enumerate(self.layers):
                for view, value in zip(self.weights, (p for a in layers for p in (a.weight, a.bias)), strict=True):
                    value.copy_(view[k].view_as(value))


def layers_of(model: nn.Module) -> list[nn.Linear]:
    """The linear layers of a model that stacks."""
    layers = linear_layers(model)
    if layers is None:
        raise ValueError(f"{type(model).__name__} is not a plain stack of linear layers and cannot be trained as one")
    return layers


def aligned(models: int, batch: int, width: int, device: torch.device) -> Tensor:
    """An empty [S, B, width] in which every model starts at a 64-byte boundary."""
    flat = torch.empty(models, padded(batch * width), device=device)
    return flat[:, : batch * width].view(models, batch, width)

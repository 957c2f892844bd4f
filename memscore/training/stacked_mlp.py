"""Many small fully connected networks trained side by side: one batched product for all of them, by hand."""

from collections.abc import Iterator, Sequence
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.sgd import sgd

from memscore.models.architectures import find_mlp_layers
from memscore.training.device_data import DeviceImages, round_up_to_alignment
from memscore.training.recipes import Recipe

UPDATE_CHUNK_BYTES = 400 * 2**10  # of a weight matrix that is updated while its momentum is still in the cache
TINY_PRODUCT = (
    16**3
)  # multiplications of a batched product up to which torch leaves it to the usual library in any setting


def compute_stack_size(model: nn.Module, cache_bytes: int = 4 * 2**20) -> int:
    """How many models of this size fit in the cache with their momenta and activations: 12 bytes a weight, 1 to 64."""
    weights = sum(p.numel() for p in model.parameters())
    return int(np.clip(2 ** np.floor(np.log2(max(1.0, cache_bytes / (12 * weights)))), 1, 64))


class StackedMLPEngine:
    """S fully connected networks side by side, forward and backward by hand, all activations with the batch last.

    For layers l = 1 .. L, a_0 = x^T, z_l = W_l a_{l-1} + b_l, a_l = max(z_l, 0), delta_L = (softmax(z_L) - onehot) / B:

        dW_l = delta_l a_{l-1}^T     db_l = sum_B delta_l     delta_{l-1} = (W_l^T delta_l) * 1[a_{l-1} > 0]

    With the batch last, the softmax over few classes and the sums run along memory. Weights, gradients and momenta are
    one buffer each, a tensor of all models after the other, each model's part padded to 128 bytes: every batched
    product reads and writes whole tensors, and one fused SGD step updates them all. A large matrix is updated by
    itself, some rows at a time: the product adds to their momentum, M <- mu M + dW, and while that is in the cache
    M <- M + d W and W <- W - r M (weight decay d, rate r); its gradient is never stored. Which way is taken depends on
    the sizes of one model, not on S.
    """

    def __init__(self, models: Sequence[nn.Module], images: DeviceImages, labels: Tensor, recipe: Recipe):
        self.images, self.labels, self.recipe = images, labels, recipe
        self.layers = [require_linear_layers(model) for model in models]
        self.count, batch, device = len(models), recipe.batch, labels.device
        self.shapes = [shape for layer in self.layers[0] for shape in (tuple(layer.weight.shape), (len(layer.bias), 1))]
        large = [4 * rows * columns > UPDATE_CHUNK_BYTES for rows, columns in self.shapes]
        order = sorted(range(len(self.shapes)), key=lambda k: not large[k])  # so that all the rest is one run of memory
        ends = list(accumulate(self.count * round_up_to_alignment(int(np.prod(self.shapes[k]))) for k in order))
        self.starts = dict(zip(order, [0, *ends], strict=False))
        theta, momentum, slope = (make(ends[-1], device=device) for make in (torch.zeros, torch.zeros, torch.empty))
        self.weights, self.speeds, self.slopes = (self._views(flat) for flat in (theta, momentum, slope))
        small = [0, *ends][sum(large)]
        self.rest = (theta[small:], slope[small:], momentum[small:])
        for view, value in self._pairs():
            view.copy_(value.detach().view_as(view))
        outputs = [rows for rows, _ in self.shapes[::2]]
        self.inputs = torch.empty(self.count * batch, images.pixels.shape[1], device=device)
        self.shown = self.inputs.view(self.count, batch, -1)[..., : self.shapes[0][1]]
        self.acts = [allocate_aligned(self.count, n_out, batch, device) for n_out in outputs]
        self.deltas = [allocate_aligned(self.count, n_out, batch, device) for n_out in outputs]
        self.minus = torch.full((self.count, 1, batch), -1.0, device=device)
        self.tiny = [rows * columns * batch <= TINY_PRODUCT for rows, columns in self.shapes[::2]]
        self.pieces = [self._pieces(layer) if large[2 * layer] else [] for layer in range(len(outputs))]

    def _views(self, flat: Tensor) -> list[Tensor]:
        """W [S, out, in] and b [S, out, 1] of each layer, as views into one buffer."""
        views = []
        for k, (rows, columns) in enumerate(self.shapes):
            width, start = round_up_to_alignment(rows * columns), self.starts[k]
            view = flat[start : start + self.count * width].view(self.count, width)
            views.append(view[:, : rows * columns].view(self.count, rows, columns))
        return views

    def _pairs(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Every tensor of every model: where it lies here, and the model's own."""
        for k, layers in enumerate(self.layers):
            own = (value for layer in layers for value in (layer.weight, layer.bias))
            yield from zip((view[k] for view in self.weights), own, strict=True)

    def _pieces(self, layer: int) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Of each model, some rows of a large matrix, of its momentum and of its deltas, and what those multiply."""
        n_out, n_in = self.shapes[2 * layer]
        height = max(16, UPDATE_CHUNK_BYTES // (4 * n_in) // 16 * 16)
        below = self.acts[layer - 1].transpose(1, 2) if layer else self.shown
        weight, speed, delta = self.weights[2 * layer], self.speeds[2 * layer], self.deltas[layer]
        parts = [(k, slice(row, row + height)) for k in range(self.count) for row in range(0, n_out, height)]
        return [(weight[k, rows], speed[k, rows], delta[k, rows], below[k]) for k, rows in parts]

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
            self.backward(labels[:, step, None], rate)
        return said.permute(0, 2, 3, 1) if said is not None else None

    def forward(self) -> None:
        """Fill the activations; the last ones are the logits."""
        below = self.shown.transpose(1, 2)
        for layer, act in enumerate(self.acts):
            self._product(layer, self.weights[2 * layer], below, act).add_(self.weights[2 * layer + 1])
            if layer < len(self.acts) - 1:
                act.relu_()
            below = act

    def backward(self, labels: Tensor, rate: float) -> None:
        """Step from the activations, of which hidden ones become 1 where they were above 0."""
        delta = torch.softmax(self.acts[-1], 1, out=self.deltas[-1])
        delta.scatter_add_(1, labels, self.minus).div_(self.recipe.batch)
        for layer in range(len(self.acts) - 1, -1, -1):
            if layer:
                self._product(layer, self.weights[2 * layer].transpose(1, 2), delta, self.deltas[layer - 1])
            below = self.acts[layer - 1].transpose(1, 2) if layer else self.shown
            if self.pieces[layer]:
                self.step_in_pieces(layer, rate)
            else:
                self._product(layer, delta, below, self.slopes[2 * layer])
            torch.sum(delta, 2, keepdim=True, out=self.slopes[2 * layer + 1])
            if layer:
                delta = self.deltas[layer - 1].mul_(self.acts[layer - 1].sign_())
        self.step(rate)

    def _product(self, layer: int, left: Tensor, right: Tensor, out: Tensor) -> Tensor:
        """A layer's product, for all models by the library that one of them alone would get."""
        if not self.tiny[layer]:
            return torch.bmm(left, right, out=out)
        # "medium" takes another library for what all models together make large, and on some CPUs its bits differ
        setting = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        torch.bmm(left, right, out=out)
        torch.set_float32_matmul_precision(setting)
        return out

    def step_in_pieces(self, layer: int, rate: float) -> None:
        """SGD on a large matrix."""
        for weight, speed, delta, below in self.pieces[layer]:
            speed.addmm_(delta, below, beta=self.recipe.momentum)
            if self.recipe.weight_decay:
                speed.add_(weight, alpha=self.recipe.weight_decay)
            weight.add_(speed, alpha=-rate)

    def step(self, rate: float) -> None:
        """SGD on all the rest; momenta start from 0, so the first one is the gradient."""
        weights, slopes, speeds = self.rest
        sgd(
            [weights],
            [slopes],
            [speeds],
            fused=True,
            weight_decay=self.recipe.weight_decay,
            momentum=self.recipe.momentum,
            lr=rate,
            dampening=0.0,
            nesterov=False,
            maximize=False,
        )

    @torch.no_grad()
    def write_back(self) -> None:
        """Copy the weights into the models they belong to."""
        for view, value in self._pairs():
            value.copy_(view.view_as(value))


def require_linear_layers(model: nn.Module) -> list[nn.Linear]:
    """The linear layers of a model that stacks."""
    layers = find_mlp_layers(model)
    if layers is None:
        raise ValueError(f"{type(model).__name__} is not a plain stack of linear layers and cannot be trained as one")
    return layers


def allocate_aligned(models: int, rows: int, columns: int, device: torch.device) -> Tensor:
    """An empty [S, rows, columns] in which every model starts at a 128-byte boundary."""
    flat = torch.empty(models, round_up_to_alignment(rows * columns), device=device)
    return flat[:, : rows * columns].view(models, rows, columns)

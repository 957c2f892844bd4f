"""Train many small fully connected networks as one stack, by hand-written products."""

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
TINY_PRODUCT = 16**3  # multiplications of a batched product up to which torch uses the default library in any setting


def compute_stack_size(model: nn.Module, cache_bytes: int = 4 * 2**20) -> int:
    """Return how many models fit in the cache: 12 bytes per weight, 1 to 64 models."""
    weights = sum(p.numel() for p in model.parameters())
    return int(np.clip(2 ** np.floor(np.log2(max(1.0, cache_bytes / (12 * weights)))), 1, 64))


class StackedMLPEngine:
    """S fully connected networks in one stack, forward and backward written by hand.

    All activations have the batch as last dimension.

    For layers l = 1 .. L, a_0 = x^T, z_l = W_l a_{l-1} + b_l, a_l = max(z_l, 0), delta_L = (softmax(z_L) - onehot) / B:

        dW_l = delta_l a_{l-1}^T     db_l = sum_B delta_l     delta_{l-1} = (W_l^T delta_l) * 1[a_{l-1} > 0]

    With the batch last, the softmax over few classes and the sums run along memory. Weights, gradients and momenta are
    one buffer each; in it the tensors of all models follow each other, each model's part padded to 128 bytes: every
    batched product reads and writes whole tensors, and one fused SGD step updates them all. A large matrix is updated
    separately, some rows at a time: the product adds to their momentum, M <- mu M + dW, and while that is in the cache
    M <- M + d W and W <- W - r M (weight decay d, learning rate r); its gradient is never stored. Which of the two
    updates a matrix gets depends on the sizes of one model, not on S.

    Args:
        models: S plain MLPs of one architecture; their weights are read here and written by write_back only.
        images: N flat images on the device.
        labels: int64 [N], same device.
        recipe: plain SGD; `batch`, `momentum` and `weight_decay` are used.

    Raises:
        ValueError: a model is not a plain MLP.
    """

    def __init__(self, models: Sequence[nn.Module], images: DeviceImages, labels: Tensor, recipe: Recipe):
        self.images, self.labels, self.recipe = images, labels, recipe
        self.layers = [require_linear_layers(model) for model in models]
        self.count, batch, device = len(models), recipe.batch, labels.device
        # Tensors are numbered W, b of layer 0, W, b of layer 1, ...: those of layer l are 2 l and 2 l + 1. A bias is a
        # column [out, 1], so that it broadcasts over activations [S, out, B].
        self.shapes = [shape for layer in self.layers[0] for shape in (tuple(layer.weight.shape), (len(layer.bias), 1))]
        large = [4 * rows * columns > UPDATE_CHUNK_BYTES for rows, columns in self.shapes]
        # Where each tensor starts in the buffers, as S models one after the other, each padded. With the large matrices
        # in front, all others are one slice, which one fused SGD step updates.
        order = sorted(range(len(self.shapes)), key=lambda k: not large[k])
        ends = list(accumulate(self.count * round_up_to_alignment(int(np.prod(self.shapes[k]))) for k in order))
        self.starts = dict(zip(order, [0, *ends], strict=False))
        # Gradients need no zeros: each is overwritten at every step, and what is never written (padding, the gradients
        # of large matrices) reaches no weight in use. Momenta of zero make the first step the plain one, M <- dW + d W.
        theta, momentum, gradient = (make(ends[-1], device=device) for make in (torch.zeros, torch.zeros, torch.empty))
        self.weights, self.momenta, self.gradients = (self._views(flat) for flat in (theta, momentum, gradient))
        small = [0, *ends][sum(large)]
        self.small = (theta[small:], gradient[small:], momentum[small:])
        for view, value in self._pairs():
            view.copy_(value.detach().view_as(view))
        # All storage of a step is made once. Images are padded to a multiple of 32 numbers, so a batch is gathered
        # padded, one row per image; the first layer reads the view without padding, [S, B, in].
        outputs = [rows for rows, _ in self.shapes[::2]]
        self.inputs = torch.empty(self.count * batch, images.pixels.shape[1], device=device)
        self.batch_inputs = self.inputs.view(self.count, batch, -1)[..., : self.shapes[0][1]]
        self.activations = [allocate_aligned(self.count, n_out, batch, device) for n_out in outputs]
        self.deltas = [allocate_aligned(self.count, n_out, batch, device) for n_out in outputs]
        self.minus_one = torch.full((self.count, 1, batch), -1.0, device=device)
        # How a layer is computed depends on one model's sizes, never on S: a model has the same bits in any stack.
        self.tiny = [rows * columns * batch <= TINY_PRODUCT for rows, columns in self.shapes[::2]]
        self.chunks = [self._chunks(layer) if large[2 * layer] else [] for layer in range(len(outputs))]

    def _views(self, flat: Tensor) -> list[Tensor]:
        """Return W [S, out, in] and b [S, out, 1] of each layer, as views into one buffer."""
        views = []
        for k, (rows, columns) in enumerate(self.shapes):
            width, start = round_up_to_alignment(rows * columns), self.starts[k]
            view = flat[start : start + self.count * width].view(self.count, width)
            views.append(view[:, : rows * columns].view(self.count, rows, columns))
        return views

    def _pairs(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield every tensor of every model: its view in the buffer, and the model's tensor."""
        for k, layers in enumerate(self.layers):
            values = (value for layer in layers for value in (layer.weight, layer.bias))
            yield from zip((view[k] for view in self.weights), values, strict=True)

    def _chunks(self, layer: int) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Split a layer into row chunks: weight and momentum [h, in], deltas [h, B], input [B, in] of one model."""
        n_out, n_in = self.shapes[2 * layer]
        height = max(16, UPDATE_CHUNK_BYTES // (4 * n_in) // 16 * 16)
        layer_input = self.activations[layer - 1].transpose(1, 2) if layer else self.batch_inputs
        weight, momentum, delta = self.weights[2 * layer], self.momenta[2 * layer], self.deltas[layer]
        chunks = [(k, slice(row, row + height)) for k in range(self.count) for row in range(0, n_out, height)]
        return [(weight[k, rows], momentum[k, rows], delta[k, rows], layer_input[k]) for k, rows in chunks]

    @torch.no_grad()
    def run(self, rows: Tensor, learning_rates: Sequence[float], *, return_logits: bool) -> Tensor | None:
        """Take a step per learning rate; optionally return logits [S, steps, B, K] before each."""
        models, length, batch = rows.shape
        # Stored as the steps leave them, [S, K, steps, B], and returned as a permuted view.
        logits = torch.empty(models, self.shapes[-1][0], length, batch, device=rows.device) if return_logits else None
        labels = self.labels[rows]
        for step, learning_rate in enumerate(learning_rates):
            torch.index_select(self.images.pixels, 0, rows[:, step].reshape(-1), out=self.inputs)
            self.forward()
            # Copied now: the next forward pass overwrites the activations.
            if logits is not None:
                logits[:, :, step] = self.activations[-1]
            self.backward(labels[:, step, None], learning_rate)
        return logits.permute(0, 2, 3, 1) if logits is not None else None

    def forward(self) -> None:
        """Compute the activations; those of the last layer are the logits."""
        layer_input = self.batch_inputs.transpose(1, 2)  # a_0 = x^T, [S, in, B]
        for layer, activation in enumerate(self.activations):
            self._product(layer, self.weights[2 * layer], layer_input, activation).add_(self.weights[2 * layer + 1])
            if layer < len(self.activations) - 1:
                activation.relu_()
            layer_input = activation

    def backward(self, labels: Tensor, learning_rate: float) -> None:
        """Backpropagate and step; hidden activations become 1 where they were above 0."""
        # delta_L = (softmax(z_L) - onehot) / B over the classes, dimension 1 of [S, K, B]; labels are [S, 1, B].
        delta = torch.softmax(self.activations[-1], 1, out=self.deltas[-1])
        delta.scatter_add_(1, labels, self.minus_one).div_(self.recipe.batch)
        for layer in range(len(self.activations) - 1, -1, -1):
            # W_l^T delta_l comes first: the chunked step below changes a large W_l at once, and the error must pass
            # through the weights of the forward pass.
            if layer:
                self._product(layer, self.weights[2 * layer].transpose(1, 2), delta, self.deltas[layer - 1])
            layer_input = self.activations[layer - 1].transpose(1, 2) if layer else self.batch_inputs
            # dW_l = delta_l a_{l-1}^T, [S, out, B] x [S, B, in]: into the gradient, or straight into the momentum.
            if self.chunks[layer]:
                self.step_in_chunks(layer, learning_rate)
            else:
                self._product(layer, delta, layer_input, self.gradients[2 * layer])
            torch.sum(delta, 2, keepdim=True, out=self.gradients[2 * layer + 1])
            # Multiply by ReLU's derivative, 1[a_{l-1} > 0]. a_{l-1} is not negative, so its sign is that mask. The mask
            # replaces the activations, so it must come after dW_l, their last use.
            if layer:
                delta = self.deltas[layer - 1].mul_(self.activations[layer - 1].sign_())
        self.step(learning_rate)

    def _product(self, layer: int, left: Tensor, right: Tensor, out: Tensor) -> Tensor:
        """Compute a layer's product for all models with the library of a single model."""
        # Always a product that overwrites: one that adds to its output (baddbmm) gives other bits for one small model
        # than for seven.
        if not self.tiny[layer]:
            return torch.bmm(left, right, out=out)
        # With "medium", torch gives a product to another library once all models together make it large enough, and on
        # some CPUs its bits differ. So a layer that is tiny for one model keeps the default library in any stack.
        setting = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        torch.bmm(left, right, out=out)
        torch.set_float32_matmul_precision(setting)
        return out

    def step_in_chunks(self, layer: int, learning_rate: float) -> None:
        """Take an SGD step on a large matrix, chunk by chunk and model by model."""
        # M <- mu M + dW in the product itself, then M <- M + d W, W <- W - r M: as torch's SGD with dampening 0.
        for weight, momentum, delta, layer_input in self.chunks[layer]:
            momentum.addmm_(delta, layer_input, beta=self.recipe.momentum)
            if self.recipe.weight_decay:
                momentum.add_(weight, alpha=self.recipe.weight_decay)
            weight.add_(momentum, alpha=-learning_rate)

    def step(self, learning_rate: float) -> None:
        """Take an SGD step on all other tensors at once."""
        weights, gradients, momenta = self.small
        sgd(
            [weights],
            [gradients],
            [momenta],
            fused=True,
            weight_decay=self.recipe.weight_decay,
            momentum=self.recipe.momentum,
            lr=learning_rate,
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
    """Return the linear layers of a stackable model; ValueError for other models."""
    layers = find_mlp_layers(model)
    if layers is None:
        raise ValueError(f"{type(model).__name__} is not a plain stack of linear layers and cannot be trained as one")
    return layers


def allocate_aligned(models: int, rows: int, columns: int, device: torch.device) -> Tensor:
    """Allocate an empty [S, rows, columns] in which every model starts at a 128-byte boundary."""
    flat = torch.empty(models, round_up_to_alignment(rows * columns), device=device)
    return flat[:, : rows * columns].view(models, rows, columns)

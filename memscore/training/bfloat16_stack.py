"""Train a stack of small fully connected networks with the products of its hidden layers in bfloat16."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from memscore.training.device_data import DeviceImages
from memscore.training.recipes import Recipe
from memscore.training.stacked_mlp import StackedMLPEngine, allocate_aligned


class Bfloat16StackEngine(StackedMLPEngine):
    """StackedMLPEngine with the products of the hidden layers in bfloat16, on a CPU.

    With r the rounding to bfloat16, for the hidden layers l = 1 .. L - 1:

        z_l = r(r(W_l) r(a_{l-1})) + b_l     dW_l = r(r(delta_l) r(a_{l-1})^T)     delta_{l-1} = r(r(W_l)^T r(delta_l))

    Sums within a product are float32, as the processor's instructions have them; torch gives such a product on a CPU
    in bfloat16 only. Weights, momenta, biases, the update and the last layer, whose logits are observed, are float32.

    The rounded weights are kept beside the weights: they are made anew where the update has the weights in the cache.

    Args:
        models: S plain MLPs of one architecture with a hidden layer.
        images: N flat images on the CPU.
        labels: int64 [N].
        recipe: plain SGD.

    Raises:
        ValueError: a model is not a plain MLP, or the device is not a CPU.
    """

    def __init__(self, models: Sequence[nn.Module], images: DeviceImages, labels: Tensor, recipe: Recipe):
        if labels.device.type != "cpu":
            raise ValueError(f"bfloat16 products of a stack are of a CPU, got {labels.device}; use precision float32")
        super().__init__(models, images, labels, recipe)
        batch, hidden = recipe.batch, self.shapes[:-2:2]
        # a batch of rounded images, padded as they are
        self.rounded_inputs = torch.empty(self.inputs.shape, dtype=torch.bfloat16)
        self.rounded_batch = self.rounded_inputs.view(self.count, batch, -1)[..., : self.shapes[0][1]]
        self.rounded_weights, self.rounded_gradients = (
            [self._allocate(rows, columns) for rows, columns in hidden] for _ in range(2)
        )
        # products of the forward pass, then rounded activations; products of the backward pass, then rounded deltas
        self.rounded_activations, self.rounded_deltas = (
            [self._allocate(rows, batch) for rows, _ in hidden] for _ in range(2)
        )
        for rounded, weight in zip(self.rounded_weights, self.weights[::2], strict=False):
            rounded.copy_(weight)
        # Views of every product, model by model: torch's batched product in bfloat16 may sum in another order for one
        # model than for two, and a model's bits would depend on the stack.
        inputs = [self.rounded_batch.transpose(1, 2), *self.rounded_activations]
        weights, errors = self.rounded_weights, self.rounded_deltas
        self.forward_products = [
            [*zip(*operands, strict=True)] for operands in zip(weights, inputs, self.rounded_activations, strict=False)
        ]
        self.gradient_products = [
            [*zip(error, layer_input.transpose(1, 2), gradient, strict=True)]
            for error, layer_input, gradient in zip(errors, inputs, self.rounded_gradients, strict=False)
        ]
        self.error_products = [
            [*zip(weight.transpose(1, 2), error, below, strict=True)]
            for weight, error, below in zip(weights[1:], errors[1:], errors, strict=False)
        ]
        self.rounded_chunks = [self._split(layer) if self.chunks[layer] else [] for layer in range(len(hidden))]

    def _allocate(self, rows: int, columns: int) -> Tensor:
        return allocate_aligned(self.count, rows, columns, torch.device("cpu"), torch.bfloat16)

    def _split(self, layer: int) -> list[tuple[Tensor, ...]]:
        """Split a layer into row chunks of one model: weight, momentum, rounded gradient, rounded weight, [h, in]."""
        tensors = (self.weights[2 * layer], self.momenta[2 * layer])
        rounded = (self.rounded_gradients[layer], self.rounded_weights[layer])
        return [tuple(tensor[k, rows] for tensor in tensors + rounded) for k, rows in self._chunk_rows(layer)]

    def forward(self) -> None:
        """Compute the activations; those of the last layer are the logits."""
        self.rounded_inputs.copy_(self.inputs)
        for layer, rounded in enumerate(self.rounded_activations):
            self._multiply(self.forward_products[layer])
            rounded.copy_(self.activations[layer].copy_(rounded).add_(self.weights[2 * layer + 1]).relu_())
        last = len(self.rounded_activations)
        self._product(last, self.weights[2 * last], self.activations[last - 1], self.activations[last])
        self.activations[last].add_(self.weights[2 * last + 1])

    def backward(self, labels: Tensor, learning_rate: float | Tensor) -> None:
        """Backpropagate and step; hidden activations become 1 where they were above 0."""
        delta, last = self._compute_logit_errors(labels), len(self.rounded_activations)
        self._product(last, self.weights[2 * last].transpose(1, 2), delta, self.deltas[last - 1])
        self._compute_gradients(last, delta, self.activations[last - 1].transpose(1, 2), learning_rate)
        # ReLU's mask keeps a number or makes it 0, so it may come before or after a rounding.
        delta = self.rounded_deltas[last - 1].copy_(self.deltas[last - 1].mul_(self.activations[last - 1].sign_()))
        for layer in range(last - 1, -1, -1):
            if layer:
                self._multiply(self.error_products[layer - 1])
            self._multiply(self.gradient_products[layer])
            torch.sum(delta, 2, keepdim=True, dtype=torch.float32, out=self.gradients[2 * layer + 1])
            if self.chunks[layer]:
                self.step_in_rounded_chunks(layer, learning_rate)
            else:
                self.gradients[2 * layer].copy_(self.rounded_gradients[layer])
            if layer:
                delta = self.rounded_deltas[layer - 1].mul_(self.activations[layer - 1].sign_())
        self.step(learning_rate)

    def _multiply(self, products: Sequence[tuple[Tensor, Tensor, Tensor]]) -> None:
        """Compute a layer's product for each model."""
        for left, right, out in products:
            torch.mm(left, right, out=out)

    def step_in_rounded_chunks(self, layer: int, learning_rate: float | Tensor) -> None:
        """Take an SGD step on a large matrix from its rounded gradient, chunk by chunk and model by model."""
        for weight, momentum, gradient, rounded_weight in self.rounded_chunks[layer]:
            self._update(weight, gradient.float(), momentum, learning_rate)
            rounded_weight.copy_(weight)

    def step(self, learning_rate: float | Tensor) -> None:
        """Take an SGD step on all other tensors at once, and round the weights that it changed."""
        super().step(learning_rate)
        for layer, rounded in enumerate(self.rounded_weights):
            if not self.chunks[layer]:
                rounded.copy_(self.weights[2 * layer])

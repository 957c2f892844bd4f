"""Train many small fully connected networks as one stack, by hand-written products."""

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.sgd import sgd

from memscore.models.architectures import find_mlp_layers
from memscore.training.device_data import DeviceImages, round_up_to_alignment
from memscore.training.graph_recording import record_graph, take_stream
from memscore.training.recipes import Recipe

UPDATE_CHUNK_BYTES = 400 * 2**10  # of a weight matrix that is updated while its momentum is still in the cache
MAX_TABLE_STEPS, TABLE_BYTES = 256, 64 * 2**20  # steps in a captured stack's tables, at most, and size of their logits
TINY_PRODUCT = 16**3  # multiplications of a batched product up to which torch uses the default library in any setting


CACHE_BYTES, MAX_MODELS = 4 * 2**20, 64  # of a stack on a CPU: what fits in its cache
GPU_BYTES, MAX_GPU_MODELS = 2**29, 512  # on a GPU: enough to fill it, and few enough that several GPUs share a bank


def compute_stack_size(model: nn.Module, device: str = "cpu") -> int:
    """Return how many models make a stack, a power of 2, by 12 bytes per weight of a CPU's cache or a GPU's memory."""
    size, most = (GPU_BYTES, MAX_GPU_MODELS) if device == "cuda" else (CACHE_BYTES, MAX_MODELS)
    weights = sum(p.numel() for p in model.parameters())
    return int(np.clip(2 ** np.floor(np.log2(max(1.0, size / (12 * weights)))), 1, most))


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

    On a GPU a step is captured as a CUDA graph, which is one launch instead of some 20: rows, learning rates and logits
    lie in tables on the device, and a counter that the step increments is the index into them. All matrices are then
    updated by the fused step, because a GPU gains nothing from chunks.

    Args:
        models: S plain MLPs of one architecture; their weights are read here and written by write_back only.
        images: N flat images on the device.
        labels: int64 [N], same device.
        recipe: plain SGD; `batch`, `momentum` and `weight_decay` are used.
        capture: whether steps are replayed from a CUDA graph.

    Raises:
        ValueError: a model is not a plain MLP.
        GraphCaptureError: the step cannot be captured.
        GraphRecordingError: capturing it failed.
        torch.OutOfMemoryError: memory ran out.
    """

    def __init__(
        self,
        models: Sequence[nn.Module],
        images: DeviceImages,
        labels: Tensor,
        recipe: Recipe,
        *,
        capture: bool = False,
    ):
        self.images, self.labels, self.recipe = images, labels, recipe
        self.layers = [require_linear_layers(model) for model in models]
        self.count, batch, device = len(models), recipe.batch, labels.device
        # Tensors are numbered W, b of layer 0, W, b of layer 1, ...: those of layer l are 2 l and 2 l + 1. A bias is a
        # column [out, 1], so that it broadcasts over activations [S, out, B].
        self.shapes = [shape for layer in self.layers[0] for shape in (tuple(layer.weight.shape), (len(layer.bias), 1))]
        large = [not capture and 4 * rows * columns > UPDATE_CHUNK_BYTES for rows, columns in self.shapes]
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
        self.replay: Callable[[], None] | None = None
        if capture:
            self._capture(models[0], momentum)

    def _capture(self, network: nn.Module, momentum: Tensor) -> None:
        """Make the tables and capture a step that reads them; weights and momenta are as before."""
        batch, classes, device = self.recipe.batch, self.shapes[-1][0], self.labels.device
        length = min(MAX_TABLE_STEPS, max(1, TABLE_BYTES // (4 * self.count * batch * classes)))
        self.position = torch.zeros(1, dtype=torch.int64, device=device)
        # valid rows, because the steps before the capture read them; rates of 0, so that these change no weight
        rows = torch.arange(length * self.count * batch, device=device)
        self.rows_table = rows.remainder_(len(self.labels)).view(length, -1)
        self.rates_table, self.learning_rate = torch.zeros(length, device=device), torch.zeros((), device=device)
        self.logits_table = torch.zeros(length, self.count, classes, batch, device=device)
        stream = take_stream(self, device)
        self.replay = record_graph(self._step_from_tables, network, stream).replay
        momentum.zero_()

    @torch.no_grad()
    def _step_from_tables(self) -> None:
        """Take one step, from the tables' row at the counter; nothing in it depends on a value on the host."""
        # The reset must not be recorded: every replay would start from the first row again.
        if not torch.cuda.is_current_stream_capturing():
            self.position.zero_()
        rows = self.rows_table.index_select(0, self.position)[0]
        self.learning_rate.copy_(self.rates_table.index_select(0, self.position)[0])
        torch.index_select(self.images.pixels, 0, rows, out=self.inputs)
        self.forward()
        self.logits_table.index_copy_(0, self.position, self.activations[-1][None])
        self.backward(self.labels.index_select(0, rows).view(self.count, 1, -1), self.learning_rate)
        self.position.add_(1)

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
        layer_input = self.activations[layer - 1].transpose(1, 2) if layer else self.batch_inputs
        weight, momentum, delta = self.weights[2 * layer], self.momenta[2 * layer], self.deltas[layer]
        chunks = self._chunk_rows(layer)
        return [(weight[k, rows], momentum[k, rows], delta[k, rows], layer_input[k]) for k, rows in chunks]

    def _chunk_rows(self, layer: int) -> list[tuple[int, slice]]:
        """Split the rows of a large matrix: model, and rows of which weights or momenta fill UPDATE_CHUNK_BYTES."""
        n_out, n_in = self.shapes[2 * layer]
        height = max(16, UPDATE_CHUNK_BYTES // (4 * n_in) // 16 * 16)
        return [(k, slice(row, row + height)) for k in range(self.count) for row in range(0, n_out, height)]

    @torch.no_grad()
    def run(self, rows: Tensor, learning_rates: Sequence[float], *, return_logits: bool) -> Tensor | None:
        """Take a step per learning rate; optionally return logits [S, steps, B, K] before each."""
        models, length, batch = rows.shape
        # Stored as the steps leave them, [S, K, steps, B], and returned as a permuted view.
        logits = torch.empty(models, self.shapes[-1][0], length, batch, device=rows.device) if return_logits else None
        if self.replay is not None:
            self._replay_steps(self.replay, rows, learning_rates, logits)
            return logits.permute(0, 2, 3, 1) if logits is not None else None
        labels = self.labels[rows]
        for step, learning_rate in enumerate(learning_rates):
            torch.index_select(self.images.pixels, 0, rows[:, step].reshape(-1), out=self.inputs)
            self.forward()
            # Copied now: the next forward pass overwrites the activations.
            if logits is not None:
                logits[:, :, step] = self.activations[-1]
            self.backward(labels[:, step, None], learning_rate)
        return logits.permute(0, 2, 3, 1) if logits is not None else None

    def _replay_steps(
        self, replay: Callable[[], None], rows: Tensor, learning_rates: Sequence[float], logits: Tensor | None
    ) -> None:
        """Replay the captured step for rows [S, steps, B], as many steps as the tables hold at a time."""
        for start in range(0, len(learning_rates), len(self.rows_table)):
            part = slice(start, start + len(self.rows_table))
            rates = np.array(learning_rates[part], dtype=np.float32)
            self.position.zero_()
            self.rows_table[: len(rates)].copy_(rows[:, part].transpose(0, 1).flatten(1))
            self.rates_table[: len(rates)].copy_(torch.from_numpy(rates))
            for _ in rates:
                replay()
            if logits is not None:
                logits[:, :, part] = self.logits_table[: len(rates)].permute(1, 2, 0, 3)

    def forward(self) -> None:
        """Compute the activations; those of the last layer are the logits."""
        layer_input = self.batch_inputs.transpose(1, 2)  # a_0 = x^T, [S, in, B]
        for layer, activation in enumerate(self.activations):
            self._product(layer, self.weights[2 * layer], layer_input, activation).add_(self.weights[2 * layer + 1])
            if layer < len(self.activations) - 1:
                activation.relu_()
            layer_input = activation

    def backward(self, labels: Tensor, learning_rate: float | Tensor) -> None:
        """Backpropagate and step; hidden activations become 1 where they were above 0."""
        delta = self._compute_logit_errors(labels)
        for layer in range(len(self.activations) - 1, -1, -1):
            # W_l^T delta_l comes first: the chunked step below changes a large W_l at once, and the error must pass
            # through the weights of the forward pass.
            if layer:
                self._product(layer, self.weights[2 * layer].transpose(1, 2), delta, self.deltas[layer - 1])
            layer_input = self.activations[layer - 1].transpose(1, 2) if layer else self.batch_inputs
            self._compute_gradients(layer, delta, layer_input, learning_rate)
            # Multiply by ReLU's derivative, 1[a_{l-1} > 0]. a_{l-1} is not negative, so its sign is that mask. The mask
            # replaces the activations, so it must come after dW_l, their last use.
            if layer:
                delta = self.deltas[layer - 1].mul_(self.activations[layer - 1].sign_())
        self.step(learning_rate)

    def _compute_logit_errors(self, labels: Tensor) -> Tensor:
        """Compute delta_L = (softmax(z_L) - onehot) / B over the classes of [S, K, B]; labels are [S, 1, B]."""
        delta = torch.softmax(self.activations[-1], 1, out=self.deltas[-1])
        return delta.scatter_add_(1, labels, self.minus_one).div_(self.recipe.batch)

    def _compute_gradients(self, layer: int, delta: Tensor, layer_input: Tensor, learning_rate: float | Tensor) -> None:
        """Compute a layer's gradients; a large matrix takes its step at once."""
        # dW_l = delta_l a_{l-1}^T, [S, out, B] x [S, B, in]: into the gradient, or straight into the momentum.
        if self.chunks[layer]:
            self.step_in_chunks(layer, learning_rate)
        else:
            self._product(layer, delta, layer_input, self.gradients[2 * layer])
        torch.sum(delta, 2, keepdim=True, out=self.gradients[2 * layer + 1])

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

    def step_in_chunks(self, layer: int, learning_rate: float | Tensor) -> None:
        """Take an SGD step on a large matrix, chunk by chunk and model by model."""
        # M <- mu M + dW in the product itself, then M <- M + d W, W <- W - r M: as torch's SGD with dampening 0.
        for weight, momentum, delta, layer_input in self.chunks[layer]:
            momentum.addmm_(delta, layer_input, beta=self.recipe.momentum)
            if self.recipe.weight_decay:
                momentum.add_(weight, alpha=self.recipe.weight_decay)
            weight.add_(momentum, alpha=-float(learning_rate))

    def step(self, learning_rate: float | Tensor) -> None:
        """Take an SGD step on all other tensors at once."""
        self._update(*self.small, learning_rate)

    def _update(self, weights: Tensor, gradients: Tensor, momenta: Tensor, learning_rate: float | Tensor) -> None:
        sgd(
            [weights],
            [gradients],
            [momenta],
            fused=True,
            weight_decay=self.recipe.weight_decay,
            momentum=self.recipe.momentum,
            lr=learning_rate,  # type: ignore[arg-type]  # a tensor, too, is read by the fused step
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


def allocate_aligned(
    models: int, rows: int, columns: int, device: torch.device, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Allocate an empty [S, rows, columns] in which every model starts at a multiple of 32 numbers."""
    flat = torch.empty(models, round_up_to_alignment(rows * columns), device=device, dtype=dtype)
    return flat[:, : rows * columns].view(models, rows, columns)

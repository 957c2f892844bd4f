"""The steps of a small CNN as two compiled functions: 3x3 convolution, bias, 2x2 max pooling and ReLU, layer by layer.

    y[c, i, j] = max(0, max over d, e in {0, 1} of b[c] + sum over k, u, v of w[c, k, u, v] x[k, 2i+d+u, 2j+e+v])

with x padded by one pixel of zeros. All four positions of a pooling window are computed at once and only their maximum
is stored, with a byte that says which one it was, or that ReLU made it 0. A pool passes the gradient of one of the four
on, so the backward pass has a quarter of a convolution's multiplications, and none where ReLU made a 0. An image goes
through all layers, forward or backward, before the next one does: what lies between them stays in the cache.

Sums have one order, which depends on the network alone: over u, then v and k in the forward pass, over images, then
windows in the backward pass, each step one fused multiply-add. So the bits are the same whatever the batch, the number
of threads and the width of the processor's vectors.
"""

from dataclasses import dataclass
from functools import cached_property

from memscore.models.convolution_backward import collect_gradient, spread_gradient
from memscore.models.convolution_copies import (
    clear_border,
    copy_weights,
    pack_weights,
    pad_image,
    transpose,
    unpad_image,
)
from memscore.models.convolution_forward import convolve
from memscore.models.convolution_sizes import FEW_CHANNELS, GROUP, Layer, Processor, round_up
from memscore.models.vector_code import BYTE, FLOAT, OFFSET, Array, CompiledFunction, VectorCode


@dataclass(frozen=True)
class Network:
    """The layers of one network, the code for them, and where their numbers lie.

    Attributes:
        shape: (C, H, W) of an image.
        widths: output channels of each layer.
        input_gradient: whether the gradient of the images is computed.
        processor: that runs it.
    """

    shape: tuple[int, int, int]
    widths: tuple[int, ...]
    input_gradient: bool
    processor: Processor

    @cached_property
    def layers(self) -> list[Layer]:
        """The sizes, layer by layer."""
        inputs, height, width = self.shape
        channels = round_up(inputs) if self.input_gradient or inputs > FEW_CHANNELS else inputs
        layers = []
        for outputs in self.widths:
            layers.append(Layer(channels, inputs, outputs, height, width))
            inputs, channels, height, width = outputs, round_up(outputs), height // 2, width // 2
        return layers

    @property
    def features(self) -> int:
        """Numbers in the output of one image."""
        return self.widths[-1] * self.layers[-1].windows

    @property
    def kept_floats(self) -> int:
        """Numbers of one image that the backward pass reads: the padded input of each layer."""
        return sum(layer.padded_size for layer in self.layers)

    @property
    def kept_bytes(self) -> int:
        """Bytes of one image that the backward pass reads: the positions of each layer."""
        return sum(layer.windows * layer.stored_outputs for layer in self.layers)

    @property
    def forward_scratch(self) -> int:
        """Numbers that the forward pass writes for itself: weights in its order, and the last layer's output."""
        weights = sum((layer.taps + 1) * layer.stored_outputs for layer in self.layers)
        return weights + self.layers[-1].windows * self.layers[-1].stored_outputs

    @property
    def backward_scratch(self) -> int:
        """Numbers that the backward pass writes for itself; see `compiled_backward`."""
        sizes = (
            layer.padded_size + 2 * layer.taps * layer.stored_outputs + layer.stored_outputs for layer in self.layers
        )
        last = self.layers[-1]
        return sum(sizes) + last.windows * last.stored_outputs + 2 * max(layer.windows for layer in self.layers)

    @cached_property
    def compiled_forward(self) -> CompiledFunction:
        """The forward pass, compiled at its first use.

        Its arguments: number of images; their address and four strides (image, channel, row, column); address of the
        output [B, C * h * w]; of kept_floats B and kept_bytes B; of forward_scratch; and for each layer the address of
        the weights, their four strides (output, input, row, column), and the address of the biases.
        """
        per_layer = [FLOAT, OFFSET, OFFSET, OFFSET, OFFSET, FLOAT]
        code = VectorCode(
            "forward", [OFFSET, FLOAT, *[OFFSET] * 4, FLOAT, FLOAT, BYTE, FLOAT, *per_layer * len(self.layers)]
        )
        count, images, *strides = code.arguments[:6]
        output, kept, positions, scratch = code.arguments[6:10]
        weights = []
        # Weights are put in the order in which they are read, once for all images of the batch.
        for number, layer in enumerate(self.layers):
            given, *weight_strides, bias = code.arguments[10 + 6 * number : 16 + 6 * number]
            pack_weights(code, layer, given, weight_strides, bias, scratch)
            weights.append(scratch)
            scratch = scratch.start_at((layer.taps + 1) * layer.stored_outputs)
        with code.loop(count) as n:
            # What is kept of an image lies together: its padded input, then that of the second layer, and so on.
            inputs = kept.start_at(n * self.kept_floats)
            marks = positions.start_at(n * self.kept_bytes)
            pad_image(code, self.layers[0], images.start_at(n * strides[0]), strides[1:], inputs)
            for number, layer in enumerate(self.layers):
                following = inputs.start_at(layer.padded_size)
                # A layer writes into the middle of the next one's padded input; the last one's output is not padded.
                if number + 1 < len(self.layers):
                    after = self.layers[number + 1]
                    clear_border(code, after, following)
                    place = (following.start_at(after.row + after.channels), after.row)
                else:
                    place = (scratch, layer.columns * layer.stored_outputs)
                convolve(code, layer, self.processor, inputs, weights[number], place, marks)
                inputs, marks = following, marks.start_at(layer.windows * layer.stored_outputs)
            last = self.layers[-1]
            # nn.Flatten has the channels first, and so has the head that reads it
            transpose(code, scratch, last, output.start_at(n * self.features), to_channels_first=True)
        return code.compile()

    @cached_property
    def compiled_backward(self) -> CompiledFunction:
        """The backward pass, compiled at its first use.

        Its arguments: number of images; address of the output's gradient [B, C * h * w]; of what the forward pass kept,
        floats and bytes; of backward_scratch; of the images' gradient (not read without input_gradient) and its four
        strides; and for each layer the address of the weights and their four strides, the address of their gradient and
        its four strides, and the address of the biases' gradient.
        """
        per_layer = [*[FLOAT, OFFSET, OFFSET, OFFSET, OFFSET] * 2, FLOAT]
        code = VectorCode(
            "backward", [OFFSET, FLOAT, FLOAT, BYTE, FLOAT, FLOAT, *[OFFSET] * 4, *per_layer * len(self.layers)]
        )
        count, gradient, kept, positions, scratch, image_gradient, *strides = code.arguments[:10]
        own = [code.arguments[10 + 11 * number : 21 + 11 * number] for number in range(len(self.layers))]
        # Scratch: for each layer sums of its weights' gradient, of its biases', its weights, and its input's gradient.
        sums: list[Array] = []
        bias_sums: list[Array] = []
        turned: list[Array] = []
        input_gradients: list[Array] = []
        for layer, arguments in zip(self.layers, own, strict=True):
            for part, size in (
                (sums, layer.taps * layer.stored_outputs),
                (bias_sums, layer.stored_outputs),
                (turned, layer.taps * layer.stored_outputs),
                (input_gradients, layer.padded_size),
            ):
                part.append(scratch)
                scratch = scratch.start_at(size)
            code.clear(sums[-1], layer.taps * layer.stored_outputs)
            code.clear(bias_sums[-1], layer.stored_outputs)
            code.clear(turned[-1], layer.taps * layer.stored_outputs)
            copy_weights(code, layer, arguments[0], arguments[1:5], turned[-1], back=False)
        last = self.layers[-1]
        last_gradient, lists = scratch, scratch.start_at(last.windows * last.stored_outputs)
        with code.loop(count) as n:
            transpose(code, gradient.start_at(n * self.features), last, last_gradient, to_channels_first=False)
            source, row = last_gradient, last.columns * last.stored_outputs
            inputs, marks = kept.start_at(n * self.kept_floats), positions.start_at(n * self.kept_bytes)
            # Where the layers' kept inputs and positions start; they are walked through from the last to the first.
            starts = []
            for layer in self.layers:
                starts.append((inputs, marks))
                inputs = inputs.start_at(layer.padded_size)
                marks = marks.start_at(layer.windows * layer.stored_outputs)
            for number, layer in reversed([*enumerate(self.layers)]):
                known, totals = (*starts[number], (source, row)), (sums[number], bias_sums[number])
                if layer.channels % GROUP:  # a first layer, whose images need no gradient
                    spread_gradient(code, layer, self.processor, *known, *totals)
                    continue
                target = input_gradients[number] if number or self.input_gradient else None
                if target is not None:
                    code.clear(target, layer.padded_size)
                collect_gradient(code, layer, self.processor, *known, *totals, turned[number], target, lists)
                # the gradient of this layer's input, without its padding, is that of the output of the one before
                source, row = input_gradients[number].start_at(layer.row + layer.channels), layer.row
            if self.input_gradient:
                unpad_image(code, self.layers[0], source, image_gradient.start_at(n * strides[0]), strides[1:])
        # The sums over all images, in the strides of the gradients that torch reads.
        for number, layer in enumerate(self.layers):
            weight_gradient, *gradient_strides, bias_gradient = own[number][5:]
            copy_weights(code, layer, weight_gradient, gradient_strides, sums[number], back=True)
            with code.loop(layer.outputs) as c:
                bias_gradient.store(c, bias_sums[number].load(c))
        return code.compile()

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

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from memscore.models.vector_code import BYTE, FLOAT, INT, OFFSET, Array, CompiledFunction, Value, VectorCode, vector

DEAD = 4  # the byte of a window in which ReLU made a 0; the others are the position, 2 d + e
NARROW = 4  # channels up to which a first layer's images are stored without padding
GROUP = 8  # numbers in the shortest vector; channels are padded to a multiple


@dataclass(frozen=True)
class Layer:
    """The sizes of one layer.

    Attributes:
        channels: of the input, as stored.
        inputs: of them, in the network.
        outputs: channels of the output, in the network.
        height: of the input.
        width: of the input.
    """

    channels: int
    inputs: int
    outputs: int
    height: int
    width: int

    @property
    def stored_outputs(self) -> int:
        """Channels of the output, as stored."""
        return round_up(self.outputs)

    @property
    def row(self) -> int:
        """Numbers in a row of the padded input."""
        return (self.width + 2) * self.channels

    @property
    def padded_size(self) -> int:
        """Numbers in the padded input of one image."""
        return (self.height + 2) * self.row

    @property
    def rows(self) -> int:
        """Windows below each other."""
        return self.height // 2

    @property
    def columns(self) -> int:
        """Windows beside each other."""
        return self.width // 2

    @property
    def windows(self) -> int:
        """Windows of one image."""
        return self.rows * self.columns

    @property
    def taps(self) -> int:
        """Weights of one output channel, as stored."""
        return 9 * self.channels


@dataclass(frozen=True)
class Processor:
    """What the code is written for.

    Attributes:
        lanes: numbers in a long vector.
        tile: windows whose positions are summed at once.
        vectors: long vectors of output channels that are summed at once.
        sums: vectors that a weight gradient may keep in registers.
    """

    lanes: int
    tile: int
    vectors: int
    sums: int


WIDE = Processor(lanes=16, tile=2, vectors=2, sums=27)  # 32 registers of 16 numbers
NORMAL = Processor(lanes=8, tile=1, vectors=2, sums=9)  # 16 registers of 8, or 32 of 4


def round_up(channels: int) -> int:
    """Round up to whole vectors."""
    return -(-channels // GROUP) * GROUP


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
        channels = round_up(inputs) if self.input_gradient or inputs > NARROW else inputs
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


def split_channels(channels: int, lanes: int) -> list[tuple[int, int]]:
    """Split channels into vectors.

    Args:
        channels: how many, a multiple of GROUP.
        lanes: of a long vector.

    Returns:
        Where each vector starts, and its length.

    >>> split_channels(40, 16)
    [(0, 16), (16, 16), (32, 8)]
    """
    whole = channels // lanes * lanes
    return [(start, lanes) for start in range(0, whole, lanes)] + [
        (start, GROUP) for start in range(whole, channels, GROUP)
    ]


def locate(indices: Sequence[Value], strides: Sequence[Value]) -> Value:
    """Compute where an element lies."""
    first, *others = [index * stride for index, stride in zip(indices, strides, strict=True)]
    for other in others:
        first = first + other
    return first


def pack_weights(
    code: VectorCode, layer: Layer, given: Array, strides: Sequence[Value], bias: Array, packed: Array
) -> None:
    """Order weights as [u, v, input, output] and put the biases behind them; what is padded is 0."""
    size = layer.taps * layer.stored_outputs
    code.clear(packed, size + layer.stored_outputs)
    with code.loop(3) as u, code.loop(3) as v, code.loop(layer.inputs) as k, code.loop(layer.outputs) as c:
        place = ((u * 3 + v) * layer.channels + k) * layer.stored_outputs + c
        packed.store(place, given.load(locate((c, k, u, v), strides)))
    with code.loop(layer.outputs) as c:
        packed.store(c + size, bias.load(c))


def copy_weights(
    code: VectorCode, layer: Layer, given: Array, strides: Sequence[Value], packed: Array, *, back: bool
) -> None:
    """Copy weights to the order of the backward pass, or its gradients from that order.

    It is [output, u, v, input], and [u, v, input, output] for gradients of a first layer of few channels.
    """
    with code.loop(layer.outputs) as c, code.loop(3) as u, code.loop(3) as v, code.loop(layer.inputs) as k:
        tap = (u * 3 + v) * layer.channels + k
        place = tap * layer.stored_outputs + c if layer.channels % GROUP else c * layer.taps + tap
        outside = locate((c, k, u, v), strides)
        if back:
            given.store(outside, packed.load(place))
        else:
            packed.store(place, given.load(outside))


def pad_image(code: VectorCode, layer: Layer, image: Array, strides: Sequence[Value], padded: Array) -> None:
    """Copy an image into the middle of zeros, channels last."""
    code.clear(padded, layer.padded_size)
    inside = padded.start_at(layer.row + layer.channels)
    with code.loop(layer.height) as i, code.loop(layer.width) as j, code.loop(layer.inputs) as k:
        inside.store(i * layer.row + j * layer.channels + k, image.load(locate((k, i, j), strides)))


def unpad_image(code: VectorCode, layer: Layer, inside: Array, image: Array, strides: Sequence[Value]) -> None:
    """Copy the gradient of an image out of its padding."""
    with code.loop(layer.height) as i, code.loop(layer.width) as j, code.loop(layer.inputs) as k:
        image.store(locate((k, i, j), strides), inside.load(i * layer.row + j * layer.channels + k))


def clear_border(code: VectorCode, layer: Layer, padded: Array) -> None:
    """Write the zeros around a padded input."""
    code.clear(padded, layer.row + layer.channels)
    # the last pixel of a row and the first of the next are neighbours
    with code.loop(layer.height) as i:
        code.clear(padded.start_at((i + 2) * layer.row + -layer.channels), 2 * layer.channels)
    code.clear(padded.start_at((layer.height + 1) * layer.row), layer.row)


def transpose(code: VectorCode, source: Array, layer: Layer, target: Array, *, to_channels_first: bool) -> None:
    """Copy a layer's output or gradient between [windows, channels] and [channels, windows]."""
    with code.loop(layer.outputs) as c, code.loop(layer.windows) as w:
        last, first = w * layer.stored_outputs + c, c * layer.windows + w
        if to_channels_first:
            target.store(first, source.load(last))
        else:
            target.store(last, source.load(first))


def convolve(
    code: VectorCode,
    layer: Layer,
    processor: Processor,
    inputs: Array,
    weights: Array,
    place: tuple[Array, int],
    marks: Array,
) -> None:
    """Compute one layer of one image: its output, at a place with so many numbers a row, and the positions."""
    # Some channels at a time for all windows: their weights are in the cache while the image passes by. What is left
    # has fewer vectors, and code of its own.
    step = processor.vectors * processor.lanes
    whole = layer.stored_outputs // step * step
    if whole:
        with code.loop(whole, step) as channel:
            convolve_channels(
                code,
                layer,
                processor.tile,
                inputs,
                weights,
                place,
                marks,
                channel,
                split_channels(step, processor.lanes),
            )
    if whole < layer.stored_outputs:
        parts = split_channels(layer.stored_outputs - whole, processor.lanes)
        convolve_channels(code, layer, processor.tile, inputs, weights, place, marks, code.number(whole), parts)


def convolve_channels(
    code: VectorCode,
    layer: Layer,
    tile: int,
    inputs: Array,
    weights: Array,
    place: tuple[Array, int],
    marks: Array,
    channel: Value,
    parts: Sequence[tuple[int, int]],
) -> None:
    """Compute some channels of one layer, from `channel` on, in vectors that start and end as `parts` has them."""
    weights = weights.start_at(channel)
    output, output_row = place[0].start_at(channel), place[1]
    marks = marks.start_at(channel)
    # A weight that is loaded serves all windows of a tile; an odd last window of a row is computed alone.
    tiles, rest = divmod(layer.columns, tile)

    def compute(i: Value, j: Value, count: int) -> None:
        corner = inputs.start_at(i * (2 * layer.row) + j * (2 * layer.channels))
        sums = sum_windows(code, layer, corner, weights, count, parts)
        for number in range(count):
            window = j + number
            for (start, lanes), four in zip(parts, sums[number], strict=True):
                value, position = pool(code, four, lanes)
                output.store(i * output_row + window * layer.stored_outputs + start, value)
                marks.store((i * layer.columns + window) * layer.stored_outputs + start, position)

    with code.loop(layer.rows) as i:
        if tiles:
            with code.loop(tiles * tile, tile) as j:
                compute(i, j, tile)
        if rest:
            compute(i, code.number(tiles * tile), rest)


def sum_windows(
    code: VectorCode, layer: Layer, corner: Array, weights: Array, count: int, parts: Sequence[tuple[int, int]]
) -> list[list[list[Value]]]:
    """Sum the products of neighbouring windows, for each of them, each vector of channels and each position."""
    bias = layer.taps * layer.stored_outputs
    # the pixel of each position of each window, from the corner of the first
    pixels = [
        d * layer.row + (2 * number + e) * layer.channels for number in range(count) for d in (0, 1) for e in (0, 1)
    ]
    sums = [weights.load(start + bias, lanes) for _ in pixels for start, lanes in parts]

    def add(sums: list[Value], source: Array, tap: Value | int, factors: Array, factor: Value | int) -> list[Value]:
        own = [factors.load(factor + start, lanes) for start, lanes in parts]
        inputs = [source.load(tap + pixel) for pixel in pixels]
        terms = [(code.spread(value, lanes), w) for value in inputs for w, (_, lanes) in zip(own, parts, strict=True)]
        return [code.multiply_add(value, w, total) for (value, w), total in zip(terms, sums, strict=True)]

    # Few channels: all products are written out, and a pixel that several positions read is loaded once. Many: a loop
    # whose totals stay in registers, written out four times, since a step of one product would mostly count.
    line = 3 * layer.channels  # weights of one row of the kernel, whose inputs are neighbours too
    if layer.channels <= NARROW:
        for u in range(3):
            for t in range(line):
                sums = add(sums, corner, u * layer.row + t, weights, (u * line + t) * layer.stored_outputs)
    else:
        totals = code.variables(sums)
        with code.loop(3) as row:
            source, factors = corner.start_at(row * layer.row), weights.start_at(row * (line * layer.stored_outputs))
            with code.loop(line, 4) as tap:
                sums = list(totals)
                for k in range(4):
                    sums = add(sums, source, tap + k, factors, (tap + k) * layer.stored_outputs)
                totals.set(sums)
        sums = list(totals)
    by_pixel = [sums[k : k + len(parts)] for k in range(0, len(sums), len(parts))]
    return [
        [[by_pixel[4 * number + position][part] for position in range(4)] for part in range(len(parts))]
        for number in range(count)
    ]


def pool(code: VectorCode, sums: Sequence[Value], lanes: int) -> tuple[Value, Value]:
    """Compute the maximum of four and of 0, and which it is; as torch does, what is not a number stays."""
    best, position = sums[0], code.fill(0, lanes, INT)
    for number, value in enumerate(sums[1:], start=1):
        is_better = code.compare(">", value, best) | code.compare("uno", value, value)
        best = code.select(is_better, value, best)
        position = code.select(is_better, code.fill(number, lanes, INT), position)
    zero = code.fill(0.0, lanes)
    is_dead = code.compare("<=", best, zero)
    position = code.select(is_dead, code.fill(DEAD, lanes, INT), position)
    return code.select(is_dead, zero, best), position.convert(vector(lanes, BYTE))


def spread_gradient(
    code: VectorCode,
    layer: Layer,
    processor: Processor,
    inputs: Array,
    marks: Array,
    gradient: tuple[Array, int],
    sums: Array,
    bias_sums: Array,
) -> None:
    """Add one image's gradient of a first layer of few channels, vectors of output channels at once."""
    # A window's gradient goes to one position, another one in each lane. So it is split into four vectors that are 0
    # but for the lanes of their position, and each is multiplied with the pixels of its position.
    source, source_row = gradient
    taps = [(u, v, k) for u in range(3) for v in range(3) for k in range(layer.channels)]
    for start, lanes in split_channels(layer.stored_outputs, processor.lanes):
        for first in range(0, len(taps), processor.sums):
            own = taps[first : first + processor.sums]
            places = [((u * 3 + v) * layer.channels + k) * layer.stored_outputs + start for u, v, k in own]
            # as many sums at a time as there are registers
            totals = code.variables([sums.load(place, lanes) for place in places])
            bias = code.variables([bias_sums.load(start, lanes)])
            with code.loop(layer.rows) as i, code.loop(layer.columns) as j:
                corner = inputs.start_at(i * (2 * layer.row) + j * (2 * layer.channels))
                value = source.load(i * source_row + j * layer.stored_outputs + start, lanes)
                mark = marks.load((i * layer.columns + j) * layer.stored_outputs + start, lanes)
                positions = mark.convert(vector(lanes, INT))
                zero = code.fill(0.0, lanes)
                parts = []
                for position in range(4):
                    is_it = code.compare("==", positions, code.fill(position, lanes, INT))
                    parts.append(code.select(is_it, value, zero))
                if not first:
                    dead = code.compare("==", positions, code.fill(DEAD, lanes, INT))
                    bias.set([total + code.select(dead, zero, value) for total in bias])
                new = list(totals)
                for number, (u, v, k) in enumerate(own):
                    for position, part in enumerate(parts):
                        pixel = (u + position // 2) * layer.row + (v + position % 2) * layer.channels + k
                        new[number] = code.multiply_add(code.spread(corner.load(pixel), lanes), part, new[number])
                totals.set(new)
            for place, total in zip(places, totals, strict=True):
                sums.store(place, total)
            bias_sums.store(start, *bias)


def collect_gradient(
    code: VectorCode,
    layer: Layer,
    processor: Processor,
    inputs: Array,
    marks: Array,
    gradient: tuple[Array, int],
    sums: Array,
    bias_sums: Array,
    weights: Array,
    target: Array | None,
    lists: Array,
) -> None:
    """Add one image's gradient of a layer, and write that of its input, one output channel after the other.

    The windows of a channel that pass a gradient are listed first: a branch for each would often be predicted wrongly.
    """
    source, source_row = gradient
    offsets = lists.start_at(layer.windows, INT)
    with code.loop(layer.outputs) as c:
        state = code.variables([code.number(0), bias_sums.load(c)])
        with code.loop(layer.rows) as i, code.loop(layer.columns) as j:
            count, total = state
            value = source.load(i * source_row + j * layer.stored_outputs + c)
            mark = marks.load((i * layer.columns + j) * layer.stored_outputs + c)
            position = mark.convert(OFFSET)
            offset = (i * 2 + (position >> 1)) * layer.row + (j * 2 + (position & 1)) * layer.channels
            # written in any case, and written over where it does not count
            lists.store(count, value)
            offsets.store(count, offset.convert(INT))
            is_alive = code.compare("!=", position, code.number(DEAD))
            state.set([count + is_alive.convert(OFFSET), total + code.select(is_alive, value, code.fill(0.0))])
        count, total = state
        bias_sums.store(c, total)
        own_sums, own_weights = sums.start_at(c * layer.taps), weights.start_at(c * layer.taps)
        for start, step, lanes in loop_parts(layer.channels, processor.lanes):
            with code.loop(step, lanes) as inside:
                add_windows(
                    code, layer, lanes, count, inside + start, inputs, own_sums, own_weights, target, lists, offsets
                )


def loop_parts(channels: int, lanes: int) -> Iterator[tuple[int, int, int]]:
    """Yield the start, the length and the vectors' length of the loops that cover all channels."""
    whole = channels // lanes * lanes
    if whole:
        yield 0, whole, lanes
    if channels > whole:
        yield whole, channels - whole, GROUP


def add_windows(
    code: VectorCode,
    layer: Layer,
    lanes: int,
    count: Value,
    channel: Value,
    inputs: Array,
    sums: Array,
    weights: Array,
    target: Array | None,
    values: Array,
    offsets: Array,
) -> None:
    """Add the listed windows of one output channel, for a vector of input channels."""
    taps = [(u * layer.row + v * layer.channels, (u * 3 + v) * layer.channels) for u in range(3) for v in range(3)]
    # Of one output channel a window's gradient is one number g. It adds g x to the weights' gradient and g w to the
    # input's, both at the position that was the maximum, over a vector of input channels: no product is wasted.
    own_weights = [weights.load(channel + tap, lanes) for _, tap in taps] if target is not None else []
    totals = code.variables([sums.load(channel + tap, lanes) for _, tap in taps])
    with code.loop(count) as number:
        value = code.spread(values.load(number), lanes)
        place = offsets.load(number).convert(OFFSET) + channel
        new = []
        for k, ((pixel, _), total) in enumerate(zip(taps, totals, strict=True)):
            new.append(code.multiply_add(value, inputs.load(place + pixel, lanes), total))
            if target is not None:
                old = target.load(place + pixel, lanes)
                target.store(place + pixel, code.multiply_add(value, own_weights[k], old))
        totals.set(new)
    for (_, tap), total in zip(taps, totals, strict=True):
        sums.store(channel + tap, total)

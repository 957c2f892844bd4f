"""The forward pass of one layer: convolution, bias, 2x2 max pooling and ReLU at once (see convolution_kernels.py)."""

from collections.abc import Sequence

from memscore.models.convolution_sizes import FEW_CHANNELS, Layer, Processor, split_channels
from memscore.models.vector_code import BYTE, INT, Array, Value, VectorCode, vector

DEAD = 4  # the byte of a window in which ReLU made a 0; the others are the position, 2 d + e


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
    if layer.channels <= FEW_CHANNELS:
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
    # A comparison with what is not a number is false, so it has a test of its own ("uno"): it wins and is kept.
    best, position = sums[0], code.fill(0, lanes, INT)
    for number, value in enumerate(sums[1:], start=1):
        is_better = code.compare(">", value, best) | code.compare("uno", value, value)
        best = code.select(is_better, value, best)
        position = code.select(is_better, code.fill(number, lanes, INT), position)
    zero = code.fill(0.0, lanes)
    is_dead = code.compare("<=", best, zero)
    position = code.select(is_dead, code.fill(DEAD, lanes, INT), position)
    return code.select(is_dead, zero, best), position.convert(vector(lanes, BYTE))

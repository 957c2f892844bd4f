"""The backward pass of one layer: gradients of the weights, the biases and the input (see convolution_kernels.py)."""

from memscore.models.convolution_forward import DEAD
from memscore.models.convolution_sizes import Layer, Processor, loop_parts, split_channels
from memscore.models.vector_code import INT, OFFSET, Array, Value, VectorCode, vector


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
                # In each lane three of the four parts are 0. Products with them are still faster than a branch for
                # each lane.
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

"""Copies between the order of numbers that torch has and the order that the compiled convolutions read."""

from collections.abc import Sequence

from memscore.models.convolution_sizes import GROUP, Layer
from memscore.models.vector_code import Array, Value, VectorCode


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

"""The sizes of a layer of the compiled convolutions, and the vectors that its channels are split into."""

from collections.abc import Iterator
from dataclasses import dataclass

FEW_CHANNELS = 4  # channels up to which a first layer's images are stored without padding
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


def loop_parts(channels: int, lanes: int) -> Iterator[tuple[int, int, int]]:
    """Yield the start, the length and the vectors' length of the loops that cover all channels."""
    whole = channels // lanes * lanes
    if whole:
        yield 0, whole, lanes
    if channels > whole:
        yield whole, channels - whole, GROUP

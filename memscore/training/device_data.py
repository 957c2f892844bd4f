"""Images on one device, normalised once, in the architecture's fastest layout."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

EVALUATION_BATCH = 1024
"""Images of an evaluation pass on a GPU or through linear layers; see evaluation.choose_evaluation_batch."""
ALIGNMENT = 32
"""A model's part of a tensor is padded to a multiple of this many numbers. Data that starts on a cache line gives the
same bits at any address; and torch's elementwise loops take 32 float32 numbers at a time and round the remainder
differently."""


def round_up_to_alignment(size: int) -> int:
    """Round up to the next multiple of ALIGNMENT."""
    return -(-size // ALIGNMENT) * ALIGNMENT


@dataclass(frozen=True, kw_only=True, eq=False)
class DeviceImages:
    """N normalised float32 images on one device.

    Attributes:
        pixels: [N, D padded to a multiple of 32] if flat, else [N, H, W, C] (channels last).
        shape: (C, H, W) of one image.
        flat: whether a stack of fully connected networks reads them.
        black: [C], the value of a black pixel after normalisation; crops are padded with it.
        white: [C], the value of a white pixel; a pixel's whole range is white - black.
    """

    pixels: Tensor
    shape: tuple[int, int, int]
    flat: bool
    black: Tensor
    white: Tensor

    def __len__(self) -> int:
        return len(self.pixels)

    def take(self, rows: Tensor) -> Tensor:
        """Return the images of these rows, [B, C, H, W]; channels last unless flat."""
        pixels = self.pixels.index_select(0, rows)
        if self.flat:
            return pixels[:, : int(np.prod(self.shape))].view(-1, *self.shape)
        return pixels.permute(0, 3, 1, 2)


def to_device(
    images: np.ndarray, mean: tuple[float, ...], std: tuple[float, ...], device: torch.device, *, flat: bool
) -> DeviceImages:
    """Copy uint8 images [N, C, H, W] to the device and normalise them there, (x / 255 - mean) / std."""
    n, channels, height, width = images.shape
    # 255 is a tensor on the device, because a GPU would multiply by the reciprocal of a Python number.
    scale, offset, white_level = (
        torch.tensor(values, dtype=torch.float32, device=device).view(1, -1, 1, 1) for values in (std, mean, [255])
    )
    size = channels * height * width
    # Flat rows are padded with zeros, so that every row, and so every batch of a stack, starts on a cache line.
    layout = (n, round_up_to_alignment(size)) if flat else (n, height, width, channels)
    pixels = torch.zeros(layout, dtype=torch.float32, device=device)
    for start in range(0, n, 8192):  # no second float copy of the whole data set
        # Sent as bytes and normalised on the device: one thread takes seconds for what a GPU does at once. np.array
        # copies, because torch warns about arrays that are read-only.
        part = torch.from_numpy(np.array(images[start : start + 8192])).to(device)
        part = (part.float() / white_level - offset) / scale
        if flat:
            pixels[start : start + 8192, :size] = part.flatten(1)
        else:
            pixels[start : start + 8192] = part.permute(0, 2, 3, 1)
    black, white = ((shade / scale).flatten() for shade in (-offset, 1 - offset))
    return DeviceImages(pixels=pixels, shape=(channels, height, width), flat=flat, black=black, white=white)

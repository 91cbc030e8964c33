"""Photos much larger than those trained on, seen from farther away: halved before the network, detail put back after.

Things are as large then as they were in training, whatever the camera. What the halvings lost comes back as from a
pyramid's band (`model.pyramid.raised`).
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..data import pictures
from ..model.pyramid import by_strips, halvings, raised, strip

Network = Callable[[Tensor], Tensor]


def from_afar(batch: Tensor, network: Network, times: int) -> Tensor:
    """(B, C, H, W) in [-1, 1] -> (B, C', H, W) in [-1, 1], by way of images that are halved so many times."""
    height, width = batch.shape[2:]
    right, bottom = -width % 2**times, -height % 2**times
    batch = batch.float().contiguous()  # quicker a channel after the other where few are computed with
    copies = halvings(F.pad(batch, (0, right, 0, bottom), "reflect") if right or bottom else batch, times)
    return brought_back(network(copies[-1]), copies)[:, :, :height, :width].clamp_(-1, 1)


def brought_back(made: Tensor, copies: list[Tensor]) -> Tensor:
    """What was made of the smallest, as large as the largest and with its detail."""
    for image, half in zip(copies[-2::-1], copies[:0:-1], strict=True):
        made = raised(made.to(image.device), None, image, half)
    return made


def levels_from_afar(pixels: np.ndarray, network: Network, times: int) -> np.ndarray:
    """The same of levels on a CPU, (B, H, W, C) uint8 or uint16 -> (B, H, W, C'), halved once at least. Nothing but
    levels is held at full size, and all that is done at it is done to a few rows at a time."""
    height, width = pixels.shape[1:3]
    right, bottom = -width % 2**times, -height % 2**times
    if right or bottom:
        pixels = np.pad(pixels, ((0, 0), (0, bottom), (0, right), (0, 0)), "reflect")
    count, rows, columns, channels = pixels.shape
    half = torch.empty(count, channels, rows // 2, columns // 2)

    def halve(top: int, bottom: int) -> None:
        half[:, :, top // 2 : bottom // 2] = F.avg_pool2d(floats(pixels[:, top:bottom]), 2)

    by_strips(halve, rows, columns, half.device)
    copies = halvings(half, times - 1)
    made = brought_back(network(copies[-1]), copies)
    out = np.empty((count, rows, columns, made.shape[1]), pixels.dtype)

    def put(top: int, bottom: int) -> None:
        first, last = max(0, top // 2 - 1), bottom // 2 + 1  # and one around for the interpolation
        image = floats(pixels[:, 2 * first : 2 * last])
        shown = strip(made[:, :, first:last], None, image, half[:, :, first:last], hue=False)
        out[:, top:bottom] = pictures.to_pixels(shown[:, :, top - 2 * first : bottom - 2 * first], pixels.dtype)

    by_strips(put, rows, columns, half.device)
    return out[:, :height, :width]


def floats(pixels: np.ndarray) -> Tensor:
    """(B, H, W, C) -> (B, C, H, W) in [-1, 1], a channel after the other."""
    return pictures.to_tensor(pixels).contiguous()

"""Less flicker in videos: averages over time where the input stands still, and nowhere else.

A generator turns sensor noise into flicker, and makes it larger: instance norm lifts what is faint, and
textures jump to another place. So the input is averaged over time before the network, and its output after it,
pixel by pixel, with as much weight on the past as nothing moved: the motion-adaptive recursive filter of
Dubois and Sabri (1984, "Noise reduction in image sequences using motion-compensated temporal filtering"),
here without motion compensation. What moves, fades, or comes after a cut is shown as it is.

Causal, a frame at a time, a few small pools a frame; nothing waits for the host.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

LENGTH = 6.0
"""Frames that an average reaches back: at 6, noise moves a tenth as much from frame to frame."""
SCALES = (1, 3, 9)
"""Sides of the squares (pixels) in which change is looked for, each averaged with its 8 neighbours."""
FLOORS = (1 / 127.5, 0.7 / 127.5, 0.4 / 127.5)
"""Change at these scales that compression alone makes, in [-1, 1]: 1, 0.7 and 0.4 of 255."""
TILE = 16
"""Side of the tiles (pixels) in which noise and shifts are measured."""
LOUDEST = 20 / 127.5
"""Standard deviation of the loudest noise there is, in [-1, 1]; more is texture that moves."""
STILL, MOVED = 2.5, 4.0
"""Change in multiples of noise: up to the first it is all noise, from the second on none of it."""
CUT_SHARE, CUT_JUMP = 0.6, 0.3
"""A cut (or a moving camera): so much of the picture changed, or so much more than a frame ago."""
MARGIN = 8
"""Pixels around a movement in which the network's output is taken to move as well."""


@dataclass(frozen=True)
class Average:
    """A mean over time, pixel by pixel: `mean` (1, C, H, W), and of how many frames, `count` (1, 1, H, W)."""

    mean: Tensor
    count: Tensor


def start(frame: Tensor) -> Average:
    """The average of one frame."""
    return Average(frame, torch.ones_like(frame[:, :1]))


def add(average: Average, frame: Tensor, still: Tensor) -> Average:
    """The average with one frame more. `still` (1, 1, H, W): 1 keeps the past of a pixel, 0 forgets it."""
    past = average.count.clamp(max=LENGTH - 1) * still
    weight = 1 / (past + 1)
    return Average(average.mean.lerp(frame, weight), past + 1)


def noise(difference: Tensor) -> Tensor:
    """Variance, a scalar, of the noise in the difference (1, C, H, W) between a frame and an average.

    That of white noise that would explain the finest detail (Immerkaer 1996, "Fast noise variance estimation"),
    in the tile in the middle of all.
    """
    x = F.pad(difference, (1, 1, 1, 1), "replicate")
    x = (x[:, :, :-2] + x[:, :, 2:]).sub_(x[:, :, 1:-1], alpha=2)
    x = (x[..., :-2] + x[..., 2:]).sub_(x[..., 1:-1], alpha=2)
    return (means(x.square_()).mean(1) / 36).median().clamp(max=LOUDEST**2)


def change(difference: Tensor, variance: Tensor) -> Tensor:
    """How much changed, in multiples of what noise of this variance does. (1, C, H, W) -> (1, 1, H, W).

    The most of three scales: a moving edge is seen in the smallest, a slow fade of one level only in the
    largest, where noise has cancelled itself.
    """
    height, width = difference.shape[2:]
    most = torch.zeros_like(difference[:, :1])
    for side, floor in zip(SCALES, FLOORS, strict=True):
        local = around(means(difference, side))
        expected = variance / (3 * side) ** 2 + floor**2
        found = local.square().mean(1, keepdim=True) / expected
        most = torch.maximum(most, enlarge(found, side, height, width))
    return most.sqrt()


def shift(difference: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """How much moved by a fraction of a pixel, in multiples of noise. (1, C, H, W) twice -> (1, 1, H, W).

    Fine texture that moves slowly looks like noise, but its difference goes along with its gradient: what a
    shift of each tile explains (Lucas and Kanade 1981), against what it would explain of noise (chi squared, 2).
    """
    height, width = mean.shape[2:]
    padded = F.pad(mean, (1, 1, 1, 1), "replicate")
    right = padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]  # over two pixels: twice the gradient
    down = padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]
    pairs = ((right, right), (right, down), (down, down), (right, difference), (down, difference))
    product = torch.empty_like(difference)
    xx, xy, yy, xd, yd = (means(torch.mul(x, y, out=product)).sum(1, keepdim=True) for x, y in pairs)
    xx, yy = xx + (2 * FLOORS[-1]) ** 2, yy + (2 * FLOORS[-1]) ** 2  # a flat tile explains nothing
    explained = (xd**2 * yy - 2 * xd * yd * xy + yd**2 * xx) / (xx * yy - xy**2)
    expected = 2 * (variance + (3 * FLOORS[0]) ** 2) / TILE**2
    return enlarge(explained / expected, TILE, height, width).clamp(min=0).sqrt()


def stillness(changed: Tensor) -> Tensor:
    """1 where a change is noise, 0 where it is movement, a ramp between. (1, 1, H, W) -> (1, 1, H, W)."""
    return ((MOVED - changed) / (MOVED - STILL)).clamp(0, 1)


def shrink(still: Tensor, margin: int = MARGIN) -> Tensor:
    """Take `margin` pixels from the edges of what is still, softly. (1, 1, H, W) -> (1, 1, H, W)."""
    height, width = still.shape[2:]
    side = min(4, height, width)
    reach = 2 * (margin // side) + 1
    moved = F.max_pool2d(1 - still, side, ceil_mode=True)
    moved = F.max_pool2d(moved, reach, stride=1, padding=reach // 2)
    return 1 - enlarge(moved, side, height, width)


def means(image: Tensor, side: int = TILE) -> Tensor:
    """Means of squares of `side` pixels. (B, C, H, W) -> (B, C, H / side, W / side), rounded up."""
    return image if side == 1 else F.avg_pool2d(image, side, ceil_mode=True, count_include_pad=False)


def around(image: Tensor) -> Tensor:
    """Means of each pixel and its neighbours, 8 or as many as there are. (B, C, H, W) -> (B, C, H, W)."""
    return sums(image) / sums(torch.ones_like(image[:1, :1]))


def sums(image: Tensor) -> Tensor:
    """Of 3x3 pixels, 0 outside. By slices, which take a seventh of the time of a pool of stride 1 on the CPU."""
    x = F.pad(image, (1, 1, 1, 1))
    x = (x[..., :-2] + x[..., 1:-1]).add_(x[..., 2:])
    return (x[:, :, :-2] + x[:, :, 1:-1]).add_(x[:, :, 2:])


def enlarge(squares: Tensor, side: int, height: int, width: int) -> Tensor:
    """Squares of `side` pixels to pixels, in between linearly."""
    if side == 1:
        return squares
    return F.interpolate(squares, scale_factor=side, mode="bilinear")[:, :, :height, :width]


class Steady:
    """Steadies one video. For each frame in turn:

        calm, still = steady.before(frame)
        shown = steady.after(network(calm), still)

    Frames are (1, C, H, W) in [-1, 1]; `still` (1, 1, H, W) in [0, 1] says where the past counts, and is all 0
    for the first frame after a cut: that is then shown as the network alone would.
    """

    def __init__(self) -> None:
        self.seen: Average | None = None
        self.made: Average | None = None
        self.share: Tensor | float = 1.0
        """Of the picture that changed, a frame ago."""

    def before(self, frame: Tensor) -> tuple[Tensor, Tensor]:
        """What to give the network, and where it stands still."""
        if self.seen is None or self.seen.mean.shape != frame.shape:
            self.seen = start(frame)
            return frame, torch.zeros_like(frame[:, :1])
        difference = frame - self.seen.mean
        variance = noise(difference)
        changed = torch.maximum(change(difference, variance), shift(difference, self.seen.mean, variance))
        still = stillness(changed)
        share = 1 - still.mean()
        cut = (share > CUT_SHARE) | (share > self.share + CUT_JUMP)
        self.share = share
        still = torch.where(cut, 0.0, still)
        self.seen = add(self.seen, frame, still)
        return self.seen.mean, shrink(still)

    def after(self, frame: Tensor, still: Tensor) -> Tensor:
        """What to show of what the network made."""
        if self.made is None or self.made.mean.shape != frame.shape:
            self.made = start(frame)
        else:
            self.made = add(self.made, frame, still)
        return self.made.mean

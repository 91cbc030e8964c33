"""Lamps go out by day. What is white in a photo taken in the dark is light, and what it falls on cannot be seen there.

Drawn on as the rest is, lamps are red, purple or black blots by day. So where a photo of the dark gets lighter, what is
white has no hue, and lamps get the colours around them: what is small, a bulb or a lit window, and what has no edge, a
glare. What is large and ends at an edge is a lit wall, and stays white. In a photo that is not dark, a fog full of
light, that is so of what is white and gets dark while the photo gets lighter. So it is with guided pyramids of two
levels and more, in use alone: nothing is learned of it.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from .guided import DARKER, double, neighbourhood, ramp, variance

WHITE = 0.7, 1.0
"""How light, in a range from -1 to 1, a place is from which on it begins to be white, and where it is."""
NIGHT = -0.3, 0.0
"""How light a photo is on the whole up to which it was taken in the dark, and from which on it was not."""
DARK = 0.3, 0.8
"""How much darker, of a range of 2, what is white gets, from which on that alone begins to make it a lamp, and does."""
SMALL = 3
"""How far from its middle, in pixels of the small image, what is small reaches at most."""
SHARP = 0.05
"""The variance of 3x3 pixels of the small image from which on they count as an edge."""
AROUND = 2
"""How far around a lamp, in such pixels, it is as bright as it is."""
REACHES = (1, 3, 9, 27)
"""How far away, in squares of 4x4 such pixels, colours are looked for: as near as there are any."""


def put_out(colours: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
    """`colours` (B, n, h, w), made of `image` (B, k, h, w), without its lamps; and where these were, (B, 1, h, w)."""
    light, level = image.mean(1, keepdim=True), image.mean((1, 2, 3), keepdim=True)
    lighter = ((colours.mean((1, 2, 3), keepdim=True) - level) / DARKER).clamp(0, 1)
    of_light = torch.maximum(1 - ramp(level, *NIGHT), ramp(light - colours.mean(1, keepdim=True), *DARK))
    white = lighter * of_light * ramp(light, *WHITE)
    border = F.max_pool2d(white, 3, 1, 1) + F.max_pool2d(-white, 3, 1, 1)
    edge = filled(variance(light), border)
    lamp = spread(white - large(white) * edge / (SHARP + edge))
    colours = torch.lerp(colours, colours.mean(1, keepdim=True), spread(white))
    return torch.lerp(colours, filled(colours, 1 - lamp), lamp), lamp


def large(x: Tensor) -> Tensor:
    """(B, 1, h, w) without what is small (a morphological opening)."""
    side = 2 * SMALL + 1
    return F.max_pool2d(-F.max_pool2d(-x, side, 1, SMALL), side, 1, SMALL)


def spread(x: Tensor) -> Tensor:
    return neighbourhood(F.max_pool2d(x, 2 * AROUND + 1, 1, AROUND), AROUND)


def filled(colours: Tensor, known: Tensor) -> Tensor:
    """`colours` (B, n, h, w), everywhere as they are around, as far as they are `known`, (B, 1, h, w) in [0, 1]; 0
    where nothing is known far and wide."""
    coarse = F.avg_pool2d(torch.cat([known * colours, known], 1), 4)
    around = torch.stack([neighbourhood(coarse, reach) / reach for reach in REACHES]).sum(0)
    return double(double(around[:, :-1] / around[:, -1:].clamp(min=1e-6)))

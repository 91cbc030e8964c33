"""A small translation brought to the size of its photo, with the photo's detail."""

import torch
from torch import Tensor
from torch.nn import functional as F

RADIUS = 4
"""Windows of 9x9 pixels of the small image."""
NOISE = (4 / 127.5) ** 2
"""Variance below which a window says little of its own: 4 of 255."""
STEEPEST = 2.0


def with_detail(photo: Tensor, small: Tensor, translated: Tensor) -> Tensor:
    """`translated` (B, C', h, w), made from `small` (B, C, h, w), at the size of `photo` (B, C, H, W).

    What `photo` has beyond `small` is added as strongly as the translation shows contrast at that place: by the
    slope of the local linear regression of `translated` on `small`. That is the guided filter's coefficient
    (He, Sun and Tang 2010; at low resolution and enlarged: He and Sun 2015), but where the guided filter shows
    the fitted line alone, here the translation itself is kept, with whatever it invented.
    """
    if small.shape[1] != translated.shape[1]:
        photo, small = photo.mean(1, keepdim=True), small.mean(1, keepdim=True)
    slopes = slope(small, translated)
    enlarged = []
    for channel in range(translated.shape[1]):  # one at a time: large photos are large
        guide = slice(channel, channel + 1) if photo.shape[1] > 1 else slice(0, 1)
        detail = photo[:, guide] - resize(small[:, guide], photo.shape[2:])
        detail *= F.interpolate(slopes[:, channel : channel + 1], photo.shape[2:], mode="bilinear")
        enlarged.append(detail.add_(resize(translated[:, channel : channel + 1], photo.shape[2:])))
    return torch.cat(enlarged, 1).clamp_(-1, 1)


def slope(x: Tensor, y: Tensor) -> Tensor:
    """Of the regression of `y` on `x` in the window around each pixel, (B, C, H, W); in windows that show
    hardly more than noise, that of the whole image."""
    mean_x, mean_y = window(x), window(y)
    variance = (window(x * x) - mean_x * mean_x).clamp_(min=0)
    covariance = window(x * y) - mean_x * mean_y
    overall = covariance.mean((2, 3), keepdim=True) / (variance.mean((2, 3), keepdim=True) + 1e-8)
    local = (covariance + NOISE * overall) / (variance + NOISE)
    return window(local).clamp_(-STEEPEST, STEEPEST)


def window(x: Tensor) -> Tensor:
    """The mean around each pixel; at the border, of what there is."""
    return F.avg_pool2d(x, 2 * RADIUS + 1, 1, RADIUS, count_include_pad=False)


def resize(x: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    """Bicubic, antialiased."""
    return F.interpolate(x, tuple(size), mode="bicubic", antialias=True)

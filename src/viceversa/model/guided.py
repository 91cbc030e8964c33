"""Colours that follow a photo's edges: the guided filter (He et al., ECCV 2010), and what is not to follow them.

Where a neighbourhood of the small photo varies, what was drawn becomes the affine function of the photo's colours that
comes nearest to it. Light changes over whole walls and skies then, and an edge lies where the photo has one, light to
dark or dark to light. What was drawn right beside an edge, where beads and glows are, counts for little (`trusted`): a
sky behind a tower gets as dark as it is farther off. Where nothing is, in a clear sky or a black night, colours change
only gradually: no hill is invented there.

In a picture that gets darker, where much is on every side, in the middle of a facade or a street, colours get as light
as was drawn: there windows and lamps may come on (`lit`). By day none has to: nothing is drawn beside what is there.
(Where the photo was halved but once, the small copy has more to say: what was drawn where the photo is dark and even
stays, a sea that was black, and light comes on in a picture that gets lighter, too, as snow does.)
"""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

REACH, EVEN = 3, 0.01
"""Of the guided filter: a neighbourhood's pixels to each side, of half the small image, for the photo itself and for
each time it is halved (the more often that is, the larger is what is seen at a time); and the variance, in a range of
2, below which a neighbourhood counts as even, and has no slope."""
EDGE, BESIDE, SIDES, LEAST = 0.003, 3, 0.1, 0.01
"""The variance of 3x3 pixels of half the small image from which on they count as an edge; how far beside it colours are
trusted less; the variance of a neighbourhood from which on it shows both sides; and how much each counts at least."""
NEAR = 2
"""How many pixels of the small image to each side light that comes on follows the photo's edges."""
BUSY, MIDST, DARKER = 0.005, 2, 0.2
"""The variance of 3x3 pixels of half the small image, over the square of their light, from which on they count as busy;
how far around, in such pixels, all have to be so; and by how much, of a range of 2, a picture has to get darker for all
its lamps to come on."""
DARK, LIGHT = -0.6, -0.2
"""How light a place of the photo is, in a range from -1 to 1, up to which it may be anything when it is even, and from
which on it is one thing: a sky, a lake, a wall."""
HUE = 3.0
"""How many times lighter a colour gets before it gets whiter."""
BLACK, DIM = 0.1, 0.3
"""Of a range of 2: what is added to both sides of a proportion of light, since near black there is noise alone; and how
light it has to be that colours follow its logarithm: in what is darker lie the blocks of compression."""


def logarithmic(x: Tensor, black: float) -> Tensor:
    """[-1, 1] -> [-1, 1], by the logarithm of light; where that is less than `black`, of a range of 2, by light itself
    (the inverse hyperbolic sine, as in Lupton, Gunn and Szalay 1999)."""
    return ((x + 1) / black).asinh() * (2 / math.asinh(2 / black)) - 1


def guided(colours: Tensor, image: Tensor, levels: int, log_light: bool = False) -> Tensor:
    """`colours` (B, n, h, w), made to follow the edges of `image` (B, 1 or 3, h, w; of others, their mean is taken), or
    of the logarithm of its light, where that is a photo that was halved `levels` times.

    An affine function of those replaces them, another in each neighbourhood; where that is even, their mean around it
    replaces them, or, where a photo that was halved but once is dark, they stay. The coefficients are found at half the
    size (He and Sun 2015, "Fast guided filter").
    """
    by = logarithmic(image, DIM) if log_light else image
    if by.shape[1] not in (1, 3):
        by = by.mean(1, keepdim=True)
    few, guide, light = F.avg_pool2d(colours, 2), F.avg_pool2d(by, 2), F.avg_pool2d(image, 2)
    around, trust = partial(neighbourhood, reach=REACH * (1 + levels)), trusted(guide)
    total = around(trust)

    def mean(x: Tensor) -> Tensor:
        return around(trust * x) / total

    slopes, rest, covariance = fitted(guide, few, mean)
    # A neighbourhood up to an edge knows nothing of what lies behind: those that show both sides have the say.
    spread = covariance.diagonal(dim1=1, dim2=2).mean(-1)[:, None]
    say = spread / (SIDES + spread) + LEAST
    slopes, rest = (double(around(say * x) / around(say)) for x in (slopes.flatten(1, 2), rest))
    led = (slopes.unflatten(1, (by.shape[1], -1)) * by[:, :, None]).sum(1) + rest
    midst = double(busy(light))
    if levels > 1:
        darker = (light.mean((1, 2, 3), keepdim=True) - few.mean((1, 2, 3), keepdim=True)) / DARKER
        return lit(led, lamps(colours.mean(1, keepdim=True), by), midst * darker.clamp(0, 1))
    varied = double(around((around(guide * guide) - around(guide).square()).mean(1, keepdim=True)))
    dark = 1 - ramp(image.mean(1, keepdim=True), DARK, LIGHT)
    return torch.lerp(lit(led, colours, midst), colours, dark * EVEN / (EVEN + varied))


def lamps(drawn: Tensor, guide: Tensor) -> Tensor:
    """The light (B, 1, h, w) that was drawn, made to follow the edges of how light `guide` (B, 1 or 3, h, w) is that
    lie within a few pixels: it fills a window's panes, and hangs in no tree."""
    around, light = partial(neighbourhood, reach=NEAR), guide.mean(1, keepdim=True)
    slopes, rest, _ = fitted(light, drawn, around)
    return around(slopes.squeeze(2)) * light + around(rest)


def fitted(guide: Tensor, drawn: Tensor, mean: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """The affine function of `guide` (B, k, h, w) that comes nearest to `drawn` (B, n, h, w) in each neighbourhood, by
    the least squares: its slopes (B, k, n, h, w), what is added to them (B, n, h, w), and the covariance of the guide.
    """
    of_guide, of_drawn = mean(guide), mean(drawn)
    covariance = products(guide, guide, mean) - of_guide[:, :, None] * of_guide[:, None]
    slopes = solved(covariance, products(guide, drawn, mean) - of_guide[:, :, None] * of_drawn[:, None])
    return slopes, of_drawn - (slopes * of_guide[:, :, None]).sum(1), covariance


def trusted(guide: Tensor) -> Tensor:
    """(B, n, h, w) -> (B, 1, h, w), at most 1 + LEAST: how much what was drawn in a place counts around it."""
    edge = F.max_pool2d(variance(guide).mean(1, keepdim=True), 2 * BESIDE + 1, 1, BESIDE)
    return EDGE / (EDGE + edge) + LEAST


def variance(x: Tensor) -> Tensor:
    """Of the 3x3 pixels around each."""
    mean = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
    return (F.avg_pool2d(x * x, 3, 1, 1, count_include_pad=False) - mean * mean).clamp(min=0)


def busy(guide: Tensor) -> Tensor:
    """(B, n, h, w) -> (B, 1, h, w) in [0, 1): how much is to be seen on every side. It is next to nothing along an edge
    between two even places, such as a roof and the sky, however strong that edge is."""
    light = guide.mean(1, keepdim=True).clamp(min=-1) + 1 + BLACK  # while training, fakes may be below -1
    proportion = variance(light) / F.avg_pool2d(light, 3, 1, 1, count_include_pad=False).square()
    least = -F.max_pool2d(-proportion, 2 * MIDST + 1, 1, MIDST)
    return F.avg_pool2d(least / (least + BUSY), 2 * MIDST + 1, 1, MIDST, count_include_pad=False)


def lit(colours: Tensor, drawn: Tensor, share: Tensor) -> Tensor:
    """`colours` (B, n, h, w), made as light as `drawn` by a share (B, 1, h, w): in their own hue, and where that does
    not suffice by white, as lamps are in photographs."""
    own = (colours.mean(1, keepdim=True) + 1 + BLACK).clamp(min=BLACK)
    wanted = torch.lerp(own, drawn.mean(1, keepdim=True) + 1 + BLACK, share)
    times = (wanted / own).clamp(max=HUE)
    return (colours + 1 + BLACK) * times + (wanted - own * times) - 1 - BLACK


def products(x: Tensor, y: Tensor, mean: Callable[[Tensor], Tensor]) -> Tensor:
    """(B, k, h, w), (B, n, h, w) -> (B, k, n, h, w), the mean over each neighbourhood of each product."""
    means: Tensor = mean((x[:, :, None] * y[:, None]).flatten(1, 2)).unflatten(1, (x.shape[1], y.shape[1]))
    return means


def ramp(x: Tensor, begins: float, ends: float) -> Tensor:
    """0 up to where it begins, 1 from where it ends on."""
    return ((x - begins) / (ends - begins)).clamp(0, 1)


def neighbourhood(x: Tensor, reach: int) -> Tensor:
    """The mean of what is around each place, so far to each side; at the border, of what there is."""
    x = F.avg_pool2d(x, (2 * reach + 1, 1), 1, (reach, 0), count_include_pad=False)
    return F.avg_pool2d(x, (1, 2 * reach + 1), 1, (0, reach), count_include_pad=False)


def solved(covariance: Tensor, right: Tensor) -> Tensor:
    """(covariance + EVEN)^-1 right, where these are (B, k, k, h, w), k 1 or 3, and (B, k, n, h, w); by the adjugate,
    which every kind of exported file can hold."""
    if covariance.shape[1] == 1:
        return right / (covariance + EVEN)
    (a, b, c), (_, d, e), (_, _, f) = (row.unbind(1) for row in covariance.unbind(1))
    a, d, f = a + EVEN, d + EVEN, f + EVEN
    adjugate = [
        [d * f - e * e, c * e - b * f, b * e - c * d],
        [c * e - b * f, a * f - c * c, b * c - a * e],
        [b * e - c * d, b * c - a * e, a * d - b * b],
    ]
    determinant = a * adjugate[0][0] + b * adjugate[0][1] + c * adjugate[0][2]
    inverse = torch.stack([torch.stack(row, 1) for row in adjugate], 1) / determinant[:, None, None]
    return (inverse[:, :, :, None] * right[:, None]).sum(2)


def double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear")

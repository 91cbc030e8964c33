"""How light is spread. By night most is black and little is bright; what a generator draws lies in between.

Discriminators that see squares of a picture, and augmented ones at that, say how a lamp or a sky looks, not how rare
light is. So what gets darker is made steeper: its light, in [0, 1], is raised to a power, 2 where nothing is left of
the photo's light and 1 where all is, and half of what that takes away on the whole (of its logarithm) is given back.
Black gets blacker, glows shrink, and lamps stand out. What gets lighter is a negative of that: shadows are few by day,
and open. Then all gets farther from the mean of its picture by one factor, that of the contrast of the domain.

It is so with pyramids of two levels and more, in use alone: nothing is learned of it.
"""

from torch import Tensor

LEAST = 1e-3
"""How light a picture is counted at least."""


def tone(colours: Tensor, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What is to be done to the light of `colours`, (B, n, h, w), made of `image`, (B, k, h, w), each in [-1, 1]:
    whether to that of the negative, 0 or 1; the power and the factor; and the mean that comes of it, (B, 1, 1, 1) each.
    """
    before, light = (1 + image.mean((1, 2, 3), keepdim=True)) / 2, ((1 + colours) / 2).clamp(0, 1)
    negative = (light.mean((1, 2, 3), keepdim=True) > before).to(light.dtype)
    light, before = (light - negative).abs(), (before - negative).abs()
    level = light.mean((1, 2, 3), keepdim=True)
    power = 1 + (1 - level / before.clamp(min=LEAST)).clamp(min=0)
    steep = steeper(light, power).mean((1, 2, 3), keepdim=True)
    factor = (level / steep.clamp(min=LEAST)).clamp(min=1).sqrt()
    return negative, power, factor, factor * steep


def steeper(light: Tensor, power: Tensor) -> Tensor:
    """(B, n, h, w) in [0, 1], each colour as its mean with that of all: raised alone, colours become neon, raised
    together, lamps are pale."""
    return light * ((light + light.mean(1, keepdim=True)) / 2) ** (power - 1)


def toned(x: Tensor, negative: Tensor, power: Tensor, factor: Tensor, level: Tensor, contrast: Tensor) -> Tensor:
    """(B, n, h, w) in [-1, 1] -> the same, with its light so changed, and `contrast` times as far from its mean."""
    light = (((1 + x) / 2).clamp_(0, 1) - negative).abs_()
    light = factor * steeper(light, power)
    light = (level + contrast * (light - level)).clamp_(0, 1)
    return (light - negative).abs_().mul_(2).sub_(1)

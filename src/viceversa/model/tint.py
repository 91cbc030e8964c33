"""What holds the colours of fakes, on the whole, to those of the real images. Not in the paper."""

from itertools import combinations

import torch
from torch import Tensor, nn

from ..distributed import mean

RATE, FAR = 0.02, 0.1
"""How much the newest image counts for the mean of the latest; and how far, of a range of 2, is too far."""
SLOWLY, MOST = 0.01, 2.0
"""How much it counts for contrast; and how many times fakes get the contrast that they were drawn with, at most."""


class Tint(nn.Module):
    """Fakes and reals of a domain, (B, C, H, W) in [-1, 1] -> a loss from 0 to 1: how far the `moments` of their
    colours, over the latest fakes, are from those over the latest reals.

    Instance norm takes from a PatchGAN what a picture is like on the whole, and augmentation from the frozen
    features: that fakes are all too blue is seen by neither. One fake may be as blue as it likes, if others are less.
    Contrast is counted alone (`count`), for what is made with it in use (`contrast`): pushed to more of it, a network
    draws fogs of light beside dark streets. What was counted is in buffers, so that it is saved.
    """

    fakes: Tensor
    reals: Tensor
    light: Tensor

    def __init__(self, channels: int):
        super().__init__()
        count = channels + channels * (channels - 1) // 2
        self.register_buffer("fakes", torch.zeros(count))
        self.register_buffer("reals", torch.zeros(count))
        self.register_buffer("light", torch.zeros(2, 3))

    def forward(self, fake: Tensor, real: Tensor) -> Tensor:
        new = moments(fake.to(self.fakes.dtype))
        with torch.no_grad():
            self.fakes.lerp_(mean(new.detach()), RATE)  # both begin at nothing, and are as far behind
            self.reals.lerp_(mean(moments(real.to(self.reals.dtype))), RATE)
            off = ((self.fakes - self.reals) / FAR).clamp(-1, 1)
        return (off.abs() + off * (new - new.detach())).mean()  # the distance; its gradient is the newest's

    @torch.no_grad()
    def count(self, fake: Tensor, real: Tensor) -> None:
        """For contrast: light, its square, and 1, which tells how much was counted so far."""
        lights = (x.to(self.light.dtype).mean(1) for x in (fake, real))
        new = torch.stack([torch.stack([torch.ones_like(x), x, x * x]).mean((1, 2, 3)) for x in lights])
        self.light.lerp_(mean(new), SLOWLY)

    def contrast(self) -> Tensor:
        """How many times that of the latest fakes the contrast of the latest reals is, a scalar from 1 to MOST: the
        deviation of light over all pixels of all. What has more keeps it."""
        counted, light, square = self.light.unbind(1)
        fake, real = (square / counted - (light / counted).square()).clamp(min=1e-6).sqrt().unbind()
        return (real / fake).clamp(1, MOST)


def moments(x: Tensor) -> Tensor:
    """(B, C, H, W) -> each channel's mean, and the deviation within an image of each two channels' difference: how
    colourful it is. Of three channels six numbers, of one its mean."""
    pairs = combinations(x.unbind(1), 2)
    deviations = [((one - other).var((1, 2)) + 1e-6).sqrt().mean() for one, other in pairs]  # gray has a slope, too
    return torch.stack([*x.mean((0, 2, 3)), *deviations])

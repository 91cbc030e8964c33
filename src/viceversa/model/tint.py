"""What holds the colours of fakes, on the whole, to those of the real images. Not in the paper."""

from itertools import combinations

import torch
from torch import Tensor, nn

from ..distributed import mean

RATE, FAR = 0.02, 0.1
"""How much the newest image counts for the mean of the latest; and how far, of a range of 2, is too far."""
MOST = 2.0
"""How many times fakes get the contrast that they were drawn with, at most."""


class Tint(nn.Module):
    """Fakes and reals of a domain, (B, C, H, W) in [-1, 1] -> a loss from 0 to 1: how far the `moments` of their
    colours, over the latest fakes, are from those over the latest reals.

    Instance norm takes from a PatchGAN what a picture is like on the whole, and augmentation from the frozen
    features: that fakes are all too blue is seen by neither. One fake may be as blue as it likes, if others are less.
    Contrast is counted alone, for what is made with it in use (`contrast`): pushed to more of it, a network draws fogs
    of light beside dark streets. What was counted is in buffers, so that it is saved.
    """

    fakes: Tensor
    reals: Tensor
    contrasts: Tensor

    def __init__(self, channels: int):
        super().__init__()
        count = channels + channels * (channels - 1) // 2
        self.register_buffer("fakes", torch.zeros(count))
        self.register_buffer("reals", torch.zeros(count))
        self.register_buffer("contrasts", torch.zeros(2))

    def forward(self, fake: Tensor, real: Tensor) -> Tensor:
        new = moments(fake.to(self.fakes.dtype))
        with torch.no_grad():
            self.fakes.lerp_(mean(new.detach()), RATE)  # both begin at nothing, and are as far behind
            self.reals.lerp_(mean(moments(real.to(self.reals.dtype))), RATE)
            self.contrasts.lerp_(mean(torch.stack([contrast(x.to(self.contrasts.dtype)) for x in (fake, real)])), RATE)
            off = ((self.fakes - self.reals) / FAR).clamp(-1, 1)
        return (off.abs() + off * (new - new.detach())).mean()  # the distance; its gradient is the newest's

    def contrast(self) -> Tensor:
        """How many times that of the latest fakes the contrast of the latest reals is: a scalar, 1 / MOST to MOST."""
        fake, real = self.contrasts.unbind()
        return (real / fake.clamp(min=1e-3)).clamp(1 / MOST, MOST)


def contrast(x: Tensor) -> Tensor:
    """(B, C, H, W) -> the deviation of light within an image, the mean over all."""
    return x.mean(1).std((1, 2), correction=0).mean()


def moments(x: Tensor) -> Tensor:
    """(B, C, H, W) -> each channel's mean, and the deviation within an image of each two channels' difference: how
    colourful it is. Of three channels six numbers, of one its mean."""
    pairs = combinations(x.unbind(1), 2)
    deviations = [((one - other).var((1, 2)) + 1e-6).sqrt().mean() for one, other in pairs]  # gray has a slope, too
    return torch.stack([*x.mean((0, 2, 3)), *deviations])

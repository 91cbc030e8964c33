"""The high-resolution generator: it translates a small copy, and carries the photo's own detail over.

After LPTN (Liang et al., CVPR 2021) and MCT (Song et al., ECCV 2022): the image is halved `levels` times, and
what each halving loses, a band of a Laplacian pyramid, is kept. The paper's residual generator translates the
small image; beside its colours it gives a gain for each band, in (0, 2), by which the photo's own detail is
multiplied before it is put back. So every pixel stays where it was, and a large image costs what a small one does.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class PyramidGenerator(nn.Module):
    """(B, C_in, H, W) in [-1, 1] -> (B, C_out, H, W) in [-1, 1]; H and W divisible by 4 * 2 ** levels.

    `spec`: the `networks.Generator` that says what this is. `small`: the residual generator of the small image,
    whose output, unbounded, has C_out * (1 + levels) channels. `seen`: (B, SEEN, h, w), what a frozen network
    sees in the whole picture (`Frozen.see`), where spec.sees.
    """

    def __init__(self, spec: Any, small: Any):
        super().__init__()
        self.spec, self.small = spec, small

    @property
    def parts(self) -> tuple[nn.Sequential, nn.Sequential, nn.Sequential]:
        return self.small.parts  # type: ignore[no-any-return]

    def forward(self, x: Tensor, seen: Tensor | None = None) -> Tensor:
        image, bands = split(x.to(torch.promote_types(x.dtype, torch.float32)), self.spec.levels)
        colours, gains = self.translated(image, seen)
        out = join(colours, gains, bands)
        return out if self.training else out.clamp(-1, 1)

    def translated(self, image: Tensor, seen: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        """The small image -> its colours, in [-1, 1], and the gain of each band, finest first, in (0, 2)."""
        out = self.small(image.to(self.small.dtype), seen)
        first, *gains = out.to(torch.promote_types(out.dtype, torch.float32)).split(self.spec.channels_out, 1)
        return first.tanh(), [1 + gain.tanh() for gain in gains]


def split(x: Tensor, levels: int) -> tuple[Tensor, list[Tensor]]:
    """The small image, (B, C, H / 2**levels, W / 2**levels), and the bands, finest first."""
    bands = []
    for _ in range(levels):
        half = F.avg_pool2d(x, 2)
        bands.append(x - double(half))
        x = half
    return x, bands


def join(image: Tensor, gains: list[Tensor], bands: list[Tensor]) -> Tensor:
    """The small image doubled and each band, times its gain, added; coarsest first."""
    for gain, band in zip(reversed(gains), reversed(bands), strict=True):
        if band.shape[1] != gain.shape[1]:  # between colour and gray
            band = band.mean(1, keepdim=True).expand(-1, gain.shape[1], -1, -1)
        image = double(image) + F.interpolate(gain, band.shape[2:], mode="bilinear") * band
    return image


def double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear")

"""The discriminator on frozen features (Sauer et al. 2021, "Projected GANs converge faster"), beside the PatchGAN."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..device import wide
from .frozen import CHANNELS, SHORT, Frozen, looked_at

WIDTH = 64
"""Channels of the mixed maps."""


class Projected(nn.Module):
    """Judges pictures by the maps of a frozen network, mixed by convolutions that stay random (section 3.2).

    `mix`: maps of strides 4 to 32 -> as many maps of WIDTH channels, each knowing of the coarser ones;
    `forward`: such maps -> a map of scores each, no sigmoid. Only the heads are trained.
    """

    def __init__(self, random: torch.Generator):
        super().__init__()
        for n, channels in enumerate(CHANNELS):
            across = torch.randn(WIDTH, channels, 1, 1, generator=random) / channels**0.5
            down = torch.randn(WIDTH, WIDTH, 3, 3, generator=random) / (9 * WIDTH) ** 0.5
            self.register_buffer(f"across{n}", across)
            self.register_buffer(f"down{n}", down)
        self.heads = nn.ModuleList(Head(strides, random) for strides in (2, 2, 1, 1))

    def mix(self, maps: Sequence[Tensor]) -> list[Tensor]:
        mixed: list[Tensor] = []
        for n in reversed(range(len(maps))):
            level = F.conv2d(maps[n], self.get_buffer(f"across{n}"))
            if mixed:  # two of equal variance are added
                coarser = F.interpolate(mixed[0], level.shape[2:], mode="bilinear")
                level = (level + coarser.to(level.dtype)) * 0.5**0.5
            mixed.insert(0, F.conv2d(level, self.get_buffer(f"down{n}"), padding=1))
        return mixed

    def forward(self, mixed: Sequence[Tensor]) -> list[Tensor]:
        return [head(level) for head, level in zip(self.heads, mixed, strict=True)]


class Head(nn.Module):
    """(B, WIDTH, H, W) -> (B, 1, H', W'): three convolutions of spectral norm 1."""

    def __init__(self, stride: int, random: torch.Generator):
        super().__init__()
        self.first = SpectralConv(WIDTH, WIDTH, 3, stride, random)
        self.second = SpectralConv(WIDTH, WIDTH, 3, 1, random)
        self.last = SpectralConv(WIDTH, 1, 1, 1, random)

    def forward(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(self.first(x), 0.2)
        return self.last(F.leaky_relu(self.second(x), 0.2))  # type: ignore[no-any-return]


class SpectralConv(nn.Module):
    """A convolution whose weight is divided by its largest singular value (Miyato et al. 2018).

    One step of power iteration a pass. PyTorch's own spectral_norm draws from the global random state and
    hides the weight behind a property, which neither resumes nor compiles whole.
    """

    left: Tensor

    def __init__(self, channels_in: int, channels_out: int, kernel: int, stride: int, random: torch.Generator):
        super().__init__()
        self.stride, self.pad = stride, kernel // 2
        shape = channels_out, channels_in, kernel, kernel
        self.weight = nn.Parameter(torch.randn(shape, generator=random) / (channels_in * kernel**2) ** 0.5)
        self.bias = nn.Parameter(torch.zeros(channels_out))
        self.register_buffer("left", F.normalize(torch.randn(channels_out, generator=random), dim=0))

    def forward(self, x: Tensor) -> Tensor:
        matrix = self.weight.flatten(1)
        with torch.no_grad():
            right = F.normalize(matrix.t().mv(self.left), dim=0)
            left = F.normalize(matrix.mv(right), dim=0)
            self.left.copy_(left)
        largest = left.clone().dot(matrix.mv(right))
        return F.conv2d(x, self.weight / largest, self.bias, self.stride, self.pad)


def maps(frozen: Frozen, pictures: Sequence[Tensor], chances: Sequence[Tensor]) -> list[list[Tensor]]:
    """The frozen network's maps of batches of pictures, augmented: (B, 1 or 3, H, W) each, and its (B, 8) draws."""
    side = min(pictures[0].shape[2:])
    short = min(SHORT, max(64, -(-side // 32) * 32))
    small = [augment(looked_at(wide(x), short), u) for x, u in zip(pictures, chances, strict=True)]
    together = frozen(torch.cat(small))
    return [list(one) for one in zip(*(level.split([len(x) for x in small]) for level in together), strict=True)]


def augment(x: Tensor, u: Tensor) -> Tensor:
    """DiffAugment (Zhao et al. 2020): colour, shift by up to an eighth, a quarter cut out. (B, 3, H, W) -> same.

    `u`: (B, 8), uniform in [0, 1), of which the last is not for this. Real and fake pictures alike go through it, so
    that a discriminator cannot learn few pictures by heart, and generators do not learn it.
    """
    height, width = x.shape[2:]
    brightness, saturation, contrast, down, right, top, left, _ = u.to(x.dtype)[:, :, None, None, None].unbind(1)
    x = x + (brightness - 0.5)
    gray = x.mean(1, keepdim=True)
    x = gray + (x - gray) * (2 * saturation)
    level = x.mean((1, 2, 3), keepdim=True)
    x = level + (x - level) * (contrast + 0.5)

    line, column = torch.arange(height, device=x.device), torch.arange(width, device=x.device)
    by_y, by_x = height // 8, width // 8
    rows = line + (down * (2 * by_y + 1)).long().view(-1, 1)
    columns = column + (right * (2 * by_x + 1)).long().view(-1, 1)
    padded = F.pad(x, (by_x, by_x, by_y, by_y))
    image = torch.arange(len(x), device=x.device).view(-1, 1, 1)
    x = padded.permute(0, 2, 3, 1)[image, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)

    from_top, from_left = (top * height).view(-1, 1) - height / 4, (left * width).view(-1, 1) - width / 4
    cut_y = (line >= from_top) & (line < from_top + height / 2)
    cut_x = (column >= from_left) & (column < from_left + width / 2)
    return x * ~(cut_y[:, None, :, None] & cut_x[:, None, None, :])

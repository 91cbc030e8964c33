"""A frozen classification network: what the second discriminator judges (`projected`) and what a generator sees.

EfficientNet-Lite0 (Tan and Le 2019; without squeeze-and-excitation and with ReLU6, as Google published it for
phones), trained on ImageNet, as far as stride 32: 3.0 M parameters in assets/lite0.safetensors, Apache-2.0 (NOTICE).
Batch norms are folded into the convolutions. It is not trained, not saved with a model, and counts as no one's.
"""

from functools import lru_cache
from importlib.resources import as_file, files

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from ..device import wide

BLOCKS = (  # kernel, stride, channels in, channels out, expansion
    (3, 1, 32, 16, 1),
    (3, 2, 16, 24, 6), (3, 1, 24, 24, 6),
    (5, 2, 24, 40, 6), (5, 1, 40, 40, 6),
    (3, 2, 40, 80, 6), (3, 1, 80, 80, 6), (3, 1, 80, 80, 6),
    (5, 1, 80, 112, 6), (5, 1, 112, 112, 6), (5, 1, 112, 112, 6),
    (5, 2, 112, 192, 6), (5, 1, 192, 192, 6), (5, 1, 192, 192, 6), (5, 1, 192, 192, 6),
    (3, 1, 192, 320, 6),
)  # fmt: skip
STAGES = (3, 5, 11, 16)
"""The blocks after which the maps of strides 4, 8, 16 and 32 are taken."""
CHANNELS = (24, 40, 112, 320)
SEEN = sum(CHANNELS[1:])
"""Channels of what a generator sees: the maps of strides 8, 16 and 32."""
SHORT, LONGEST = 160, 2560
"""Short side, in pixels, at which a picture is looked at; and the long one at most: what is longer than sixteen
times the other is looked at as if it were sixteen times, since it would grow beyond all memory."""


class Conv(nn.Module):
    """A convolution with weights that are never trained nor saved, and TensorFlow's padding (odd: at the end)."""

    weight: Tensor
    bias: Tensor

    def __init__(self, channels_in: int, channels_out: int, kernel: int, stride: int = 1, groups: int = 1):
        super().__init__()
        self.stride, self.groups = stride, groups
        before = (kernel - stride) // 2
        self.pad = (before, kernel - stride - before) * 2
        self.register_buffer(
            "weight", torch.empty(channels_out, channels_in // groups, kernel, kernel), persistent=False
        )
        self.register_buffer("bias", torch.empty(channels_out), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.pad[0] == self.pad[1]:
            return F.conv2d(x, self.weight, self.bias, self.stride, self.pad[0], groups=self.groups)
        return F.conv2d(F.pad(x, self.pad), self.weight, self.bias, self.stride, groups=self.groups)


class Block(nn.Module):
    """Mobile inverted bottleneck: widen (1x1), filter each channel, narrow (1x1); added to the input where it fits."""

    def __init__(self, kernel: int, stride: int, channels_in: int, channels_out: int, expansion: int):
        super().__init__()
        inner = channels_in * expansion
        self.expand = Conv(channels_in, inner, 1) if expansion > 1 else None
        self.depthwise = Conv(inner, inner, kernel, stride, groups=inner)
        self.project = Conv(inner, channels_out, 1)
        self.residual = stride == 1 and channels_in == channels_out

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.expand is None else F.relu6(self.expand(x))
        y = self.project(F.relu6(self.depthwise(y)))
        return x + y if self.residual else y  # type: ignore[no-any-return]


class Frozen(nn.Module):
    """(B, 3, H, W) in [-1, 1], H and W multiples of 32 -> maps of strides 4, 8, 16, 32 with CHANNELS channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Conv(3, 32, 3, 2)
        blocks = [Block(*shape) for shape in BLOCKS]
        self.stages = nn.ModuleList(
            nn.Sequential(*blocks[first:last]) for first, last in zip((0, *STAGES), STAGES, strict=False)
        )
        with as_file(files("viceversa") / "assets" / "lite0.safetensors") as path:
            weights = load_file(path)
        for name, buffer in self.named_buffers():
            buffer.copy_(weights[name])
        self.eval()

    def forward(self, x: Tensor) -> list[Tensor]:
        x = F.relu6(self.stem(x))
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps

    def __deepcopy__(self, memo: object) -> "Frozen":
        return self  # it never changes

    @torch.no_grad()
    def see(self, *pictures: Tensor) -> list[Tensor]:
        """What is where in each batch of whole pictures, for a generator that sees.

        (B, 1 or 3, H, W) in [-1, 1] -> (B, SEEN, h, w), each with a short side of 20: the maps of strides 8, 16
        and 32, of a mean square of 1 each, brought to the size of the first. No gradient passes.
        """
        small = [looked_at(picture) for picture in pictures]
        if all(x.shape[2:] == small[0].shape[2:] for x in small):
            return list(self.seen(torch.cat(small)).split([len(x) for x in small]))
        return [self.seen(x) for x in small]

    def seen(self, x: Tensor) -> Tensor:
        maps = [wide(level) for level in self(x)[1:]]
        maps = [level * level.square().mean((1, 2, 3), keepdim=True).add(1e-6).rsqrt() for level in maps]
        size = maps[0].shape[2:]
        return torch.cat([maps[0], *(F.interpolate(level, size, mode="bilinear") for level in maps[1:])], 1)


class Seeing(nn.Module):
    """A generator that sees, together with what it sees by: takes pictures alone, (B, C, H, W), like any other."""

    def __init__(self, generator: nn.Module, frozen: Frozen):
        super().__init__()
        self.generator, self.frozen = generator, frozen
        self.spec = generator.spec

    def forward(self, x: Tensor) -> Tensor:
        return self.generator(x, self.frozen.see(x)[0])  # type: ignore[no-any-return]


@lru_cache(maxsize=4)
def shared(device: torch.device) -> Frozen:
    """The one frozen network of this process on a device, for all models that are used there."""
    return Frozen().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def looked_at(x: Tensor, short: int = SHORT) -> Tensor:
    """(B, 1 or 3, H, W) -> (B, 3, h, w): colour, the short side `short`, the long one the nearest multiple of 32."""
    height, width = x.shape[2:]
    least = min(height, width)
    size = tuple(min((2 * side * (short // 32) + least) // (2 * least) * 32, LONGEST) for side in (height, width))
    if x.shape[1] == 1:
        x = x.expand(-1, 3, -1, -1)
    if not torch.compiler.is_exporting() and size == (height, width):  # an exported file would take no such size else
        return x
    small = F.interpolate(wide(x), size, mode="bilinear", antialias=True, align_corners=False)  # no bf16 on CPUs
    return small.to(x.dtype)

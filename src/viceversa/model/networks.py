"""The generators and discriminators of the paper (appendix 7.2), and how they are initialised.

Parameters bear the names of the authors' PyTorch implementation, so that its state dicts load as they are.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import accumulate, chain, pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ..device import wide
from .frozen import SEEN
from .pyramid import PyramidGenerator

Norm = Literal["instance", "instance-affine", "batch"]


@dataclass(frozen=True, kw_only=True)
class Generator:
    """What a generator is, in plain values: written into model files, and enough to build it again."""

    kind: Literal["resnet", "unet", "pyramid"] = "resnet"
    channels_in: int = 3
    channels_out: int = 3
    width: int = 64
    """Channels after the first convolution."""
    blocks: int = 9
    """Residual blocks (resnet, pyramid)."""
    halvings: int = 8
    """How often a U-Net halves its input: 7 for U-Net 128, 8 for U-Net 256."""
    upsample: Literal["transposed", "nearest"] = "transposed"
    norm: Norm = "instance"
    antialias: bool = False
    """Blurred down- and upsampling, as in CUT's CycleGAN (Zhang 2019)."""
    levels: int = 0
    """How often a pyramid halves the image before it is translated."""
    guided: bool = False
    """Do a pyramid's colours follow the edges of the photo (`guided`)?"""
    log_light: bool = False
    """Does a pyramid look at the logarithm of light (`guided.logarithmic`)?"""
    recolours: bool = False
    """Does a pyramid add what it draws to the photo in other colours, instead of drawing all colours anew?"""
    sees: bool = False
    """Is it told by a frozen network what it looks at? Then `forward` also takes what `Frozen.see` gives."""

    def build(self, recompute: bool = False) -> "ResnetGenerator | UnetGenerator | PyramidGenerator":
        """The network, with PyTorch's own random weights (`initialise` draws the paper's).

        `recompute`: activations are computed again in the backward pass instead of being kept.
        """
        if self.kind == "pyramid":
            channels = self.channels_out * (1 + self.levels) + self.recolours
            small = replace(self, kind="resnet", levels=0, guided=False, recolours=False, log_light=False,
                            channels_out=channels)  # fmt: skip
            return PyramidGenerator(self, ResnetGenerator(small, recompute, inside=True))
        return ResnetGenerator(self, recompute) if self.kind == "resnet" else UnetGenerator(self, recompute)

    @property
    def multiple(self) -> int:
        """Height and width of an input must be multiples of this."""
        return int(2**self.halvings if self.kind == "unet" else 4 * 2**self.levels)

    @property
    def smallest(self) -> int:
        """The smallest side that the network's reflection pads take."""
        return int(2**self.halvings if self.kind == "unet" else 8 * 2**self.levels)


class InstanceNorm(nn.Module):
    """Each channel of each image to mean 0 and variance 1 (Ulyanov et al. 2016); (B, C, H, W) -> same.

    Statistics are taken in float32 or better whatever the input, by the textbook formula, which compiles into
    one pass and keeps the channels-last layout. PyTorch's own kernel would be quicker where nothing is compiled,
    but its gradient of channels-last images is wrong by percents on the CPU (seen in 2.13, in float64).
    """

    def __init__(self, channels: int, affine: bool = False, eps: float = 1e-5):
        super().__init__()
        self.channels, self.eps = channels, eps
        self.weight = nn.Parameter(torch.ones(channels)) if affine else None
        self.bias = nn.Parameter(torch.zeros(channels)) if affine else None

    def forward(self, x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(wide(x), dim=(2, 3), keepdim=True, correction=0)
        out = (x - mean) * torch.rsqrt(variance + self.eps)
        if self.weight is not None and self.bias is not None:
            out = out * self.weight.view(-1, 1, 1) + self.bias.view(-1, 1, 1)
        return out.to(x.dtype)


def norm_layer(kind: Norm, channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels) if kind == "batch" else InstanceNorm(channels, kind == "instance-affine")


class Blur(nn.Module):
    """Blur and halve, or double and blur: the anti-aliased resampling of CUT (Zhang 2019).

    (B, C, H, W) -> (B, C, H/2, W/2) with the kernel [1 2 1], or (B, C, 2H, 2W) with [1 3 3 1].
    """

    filt: Tensor

    def __init__(self, channels: int, up: bool):
        super().__init__()
        self.up = up
        row = torch.tensor([1.0, 3.0, 3.0, 1.0] if up else [1.0, 2.0, 1.0])
        kernel = row[:, None] * row[None, :] / row.sum() ** 2 * (4 if up else 1)
        self.register_buffer("filt", kernel.expand(channels, 1, -1, -1).clone())

    def forward(self, x: Tensor) -> Tensor:
        filt = self.filt.to(x.dtype)
        if not self.up:
            return F.conv2d(F.pad(x, (1, 1, 1, 1), "reflect"), filt, stride=2, groups=x.shape[1])
        x = F.pad(x, (1, 1, 1, 1), "replicate")
        return F.conv_transpose2d(x, filt, stride=2, padding=2, groups=x.shape[1])[:, :, 1:, 1:][:, :, :-1, :-1]


class ReflectionPad(nn.Module):
    """(B, C, H, W) -> (B, C, H + 2 n, W + 2 n), mirrored at the edges; H, W > n. As PyTorch's own, but for its gradient
    where that is compiled or on a GPU, which adds in one order and keeps the channels-last layout. Theirs goes through
    transposes then, which cost an eighth of a residual block, and which g++ 12 gets wrong in bf16 (seen in 2.13:
    gradients of 1e25, at 32x32 pixels and 128 channels).
    """

    def __init__(self, n: int):
        super().__init__()
        self.n = n

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() and x.requires_grad:
            return Reflection.apply(x, self.n)  # type: ignore[no-any-return,no-untyped-call]
        return F.pad(x, (self.n,) * 4, "reflect")


class Reflection(torch.autograd.Function):
    """What `ReflectionPad` does."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, n: int) -> Tensor:
        ctx.n = n
        ctx.save_for_backward(x)
        return F.pad(x, (n,) * 4, "reflect")

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (out,), n = gradients, ctx.n
        if out.device.type == "cpu" and not torch.compiler.is_compiling():  # quicker then
            like = ctx.saved_tensors[0].to(out.dtype)  # autocast may have padded it in float32
            return torch.ops.aten.reflection_pad2d_backward(out, like, (n,) * 4), None
        for dim in (2, 3):
            size = out.shape[dim] - 2 * n
            mirrored = [out.narrow(dim, start, n).flip(dim) for start in (0, n + size)]
            places = (1, size - n - 1), (size - n - 1, 1)  # zeros before and after
            edges = [F.pad(x, place if dim == 3 else (0, 0, *place)) for x, place in zip(mirrored, places, strict=True)]
            out = out.narrow(dim, n, size) + edges[0] + edges[1]
        return out, None


class Residual(nn.Module):
    """R256: x + (reflect, conv 3x3, norm, ReLU, reflect, conv 3x3, norm), no ReLU after the sum."""

    def __init__(self, channels: int, norm: Norm = "instance"):
        super().__init__()
        self.conv_block = nn.Sequential(
            ReflectionPad(1), nn.Conv2d(channels, channels, 3), norm_layer(norm, channels), nn.ReLU(),
            ReflectionPad(1), nn.Conv2d(channels, channels, 3), norm_layer(norm, channels),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv_block(x)  # type: ignore[no-any-return]


def conv7(channels_in: int, channels_out: int) -> list[nn.Module]:
    return [ReflectionPad(3), nn.Conv2d(channels_in, channels_out, 7)]


def down(g: Generator, channels_in: int, channels_out: int) -> list[nn.Module]:
    stride = 1 if g.antialias else 2
    layers = [nn.Conv2d(channels_in, channels_out, 3, stride, 1), norm_layer(g.norm, channels_out), nn.ReLU()]
    return [*layers, Blur(channels_out, up=False)] if g.antialias else layers


def up(g: Generator, channels_in: int, channels_out: int) -> list[nn.Module]:
    after = [norm_layer(g.norm, channels_out), nn.ReLU()]
    if g.antialias:
        return [Blur(channels_in, up=True), nn.Conv2d(channels_in, channels_out, 3, 1, 1), *after]
    if g.upsample == "nearest":  # no checkerboard (Odena et al. 2016)
        double = nn.Upsample(scale_factor=2, mode="nearest")
        return [double, ReflectionPad(1), nn.Conv2d(channels_in, channels_out, 3), *after]
    return [nn.ConvTranspose2d(channels_in, channels_out, 3, 2, 1, output_padding=1), *after]


def through(part: nn.Module, x: Tensor, recompute: bool) -> Tensor:
    """part(x). With `recompute` only x is kept for the backward pass, which computes the rest again."""
    if recompute and torch.is_grad_enabled():
        return checkpoint(part, x, use_reentrant=False, preserve_rng_state=False)  # type: ignore[no-any-return]
    return part(x)  # type: ignore[no-any-return]


class ResnetGenerator(nn.Module):
    """c7s1-64, d128, d256, R256 x 9, u128, u64, c7s1-3 (appendix 7.2).

    (B, C_in, H, W) in [-1, 1] -> (B, C_out, H, W) in [-1, 1]; H and W divisible by 4. `inside` a pyramid its output is
    unbounded, for the pyramid to make its own of, and on its way up each size is given what was there on the way down:
    what is small and what has edges then stays where it is, to the pixel.
    """

    def __init__(self, g: Generator, recompute: bool = False, inside: bool = False):
        super().__init__()
        w = g.width
        self.spec, self.recompute = g, recompute
        ways: list[list[nn.Module]] = [
            [*conv7(g.channels_in, w), norm_layer(g.norm, w), nn.ReLU()], down(g, w, 2 * w), down(g, 2 * w, 4 * w),
            [Residual(4 * w, g.norm) for _ in range(g.blocks)],
            up(g, 4 * w, 2 * w), up(g, 2 * w, w), [*conv7(w, g.channels_out), *([] if inside else [nn.Tanh()])],
        ]  # fmt: skip
        self.model = nn.Sequential(*chain.from_iterable(ways))
        self.seeing = nn.Conv2d(SEEN, 4 * w, 1) if g.sees else None
        # The same layers by role, in lists so that they are not registered (and named) twice.
        ends = [0, *accumulate(len(way) for way in ways)]
        if not inside:
            ends = [0, ends[3], ends[4], ends[7]]  # the way down in one piece, the blocks, the way up in one
        pieces: list[Any] = [self.model[i:j] for i, j in pairwise(ends)]
        middle = len(pieces) // 2
        self.encoder, self.blocks, self.decoder = pieces[:middle], [*pieces[middle]], pieces[middle + 1 :]

    @property
    def parts(self) -> Iterator[nn.Module]:
        """What to compile: pieces, so that equal blocks are compiled once."""
        return chain(self.encoder, self.blocks, self.decoder)

    @property
    def dtype(self) -> torch.dtype:
        """What its convolutions compute in, but for autocast."""
        return next(self.parameters()).dtype

    def forward(self, x: Tensor, seen: Tensor | None = None) -> Tensor:
        """`seen`: (B, SEEN, h, w), what `Frozen.see` makes of the whole picture, where spec.sees."""
        *before, x = accumulate(self.encoder, lambda x, part: part(x), initial=x)
        if self.seeing is not None:
            assert seen is not None, "this generator has to be told what it looks at: Frozen.see"
            told = self.seeing(seen.to(self.dtype))
            x = x + F.interpolate(told, x.shape[2:], mode="bilinear").to(x.dtype)
        for block in self.blocks:
            x = through(block, x, self.recompute)
        for part, same_size in zip(self.decoder[:-1], reversed(before[1:]), strict=True):
            x = part(x) + same_size
        return self.decoder[-1](x)  # type: ignore[no-any-return]


class Skip(nn.Module):
    """One level of a U-Net: down, whatever lies inside, up, and the input beside the result.

    (B, C, H, W) -> (B, C + outer, H, W), H and W divisible by 2.
    """

    def __init__(self, outer: int, inner: int, inside: "Skip | None", norm: Norm):
        super().__init__()
        inner_norm = [norm_layer(norm, inner), inside] if inside is not None else []
        doubled = inner if inside is None else 2 * inner
        self.model = nn.Sequential(
            nn.LeakyReLU(0.2), nn.Conv2d(outer, inner, 4, 2, 1), *inner_norm,
            nn.ReLU(), nn.ConvTranspose2d(doubled, outer, 4, 2, 1), norm_layer(norm, outer),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.model(x)], 1)


class UnetGenerator(nn.Module):
    """The U-Net of pix2pix (Isola et al. 2017, appendix 6.1), which halves its input 7 or 8 times.

    (B, C_in, H, W) in [-1, 1] -> (B, C_out, H, W) in [-1, 1]; H and W divisible by 2 ** halvings.
    """

    def __init__(self, g: Generator, recompute: bool = False):
        super().__init__()
        self.spec, self.recompute = g, recompute
        inside: Skip | None = None
        widths = [g.width * min(2**level, 8) for level in range(g.halvings)]
        for outer, inner in reversed(list(zip(widths[:-1], widths[1:], strict=True))):
            inside = Skip(outer, inner, inside, g.norm)
        assert inside is not None
        self.model = nn.Module()  # the authors' names have one "model." more
        self.model.model = nn.Sequential(
            nn.Conv2d(g.channels_in, g.width, 4, 2, 1), inside,
            nn.ReLU(), nn.ConvTranspose2d(2 * g.width, g.channels_out, 4, 2, 1), nn.Tanh(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return through(self.model.model, x, self.recompute)  # type: ignore[arg-type]


class PatchDiscriminator(nn.Module):
    """C64-C128-C256-C512, then one channel (appendix 7.2): 70x70 PatchGAN with 3 layers.

    (B, C, H, W) -> (B, 1, H', W') scores of patches, no sigmoid; 30x30 scores of a 256x256 image. Instance norm takes
    from it how light a picture is and of what colour; without (`normed` false; not in the paper) it judges that, too.
    """

    def __init__(self, channels: int = 3, width: int = 64, layers: int = 3, normed: bool = True):
        super().__init__()
        self.normed = normed
        widths = [width * min(2**n, 8) for n in range(layers + 1)]
        middle: list[nn.Module] = []
        for n, (before, after) in enumerate(zip(widths[:-1], widths[1:], strict=True), start=1):
            stride = 1 if n == layers else 2
            norm = [InstanceNorm(after)] if normed else []
            middle += [nn.Conv2d(before, after, 4, stride, 1), *norm, nn.LeakyReLU(0.2)]
        self.model = nn.Sequential(
            nn.Conv2d(channels, width, 4, 2, 1), nn.LeakyReLU(0.2), *middle,
            nn.Conv2d(widths[-1], 1, 4, 1, 1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)  # type: ignore[no-any-return]


class PixelDiscriminator(nn.Module):
    """1x1 PatchGAN (Isola et al. 2017): judges every pixel by its colour alone. (B, C, H, W) -> (B, 1, H, W)."""

    def __init__(self, channels: int = 3, width: int = 64, normed: bool = True):
        super().__init__()
        self.normed = normed
        norm = [InstanceNorm(2 * width)] if normed else []
        self.net = nn.Sequential(
            nn.Conv2d(channels, width, 1), nn.LeakyReLU(0.2),
            nn.Conv2d(width, 2 * width, 1), *norm, nn.LeakyReLU(0.2),
            nn.Conv2d(2 * width, 1, 1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)  # type: ignore[no-any-return]


def initialise(network: nn.Module, random: torch.Generator) -> None:
    """N(0, 0.02) on every convolution's weight, biases 0 (section 4, "Training details"), in place. Where no norm
    enlarges them again, signals would fade from layer to layer: there as wide as keeps them (He et al. 2015)."""
    fades = isinstance(network, PatchDiscriminator | PixelDiscriminator) and not network.normed
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            if fades:
                nn.init.kaiming_normal_(layer.weight, a=0.2, generator=random)
            else:
                nn.init.normal_(layer.weight, 0.0, 0.02, generator=random)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def count(network: nn.Module) -> int:
    """Number of parameters."""
    return sum(p.numel() for p in network.parameters())


def smallest_patch(layers: int) -> int:
    """The smallest side of an image that a PatchGAN of so many layers can score."""
    return int(3 * 2**layers)  # so many halvings, and two convolutions that take one off each


def describe(network: Any) -> str:
    """A line for people: kind, width, blocks, parameters."""
    g: Generator = network.spec
    blocks = f"{g.blocks} block{'s' * (g.blocks != 1)}"
    what = {
        "resnet": f"ResNet, {blocks}",
        "unet": f"U-Net {2**g.halvings}",
        "pyramid": f"pyramid of {g.levels} level{'s' * (g.levels != 1)}, {blocks}",
    }[g.kind]
    what += ", recolours" * g.recolours + ", guided by edges" * g.guided + ", log light" * g.log_light
    what += ", sees" * g.sees
    return f"{what}, width {g.width}, {count(network) / 1e6:.1f} M parameters"

"""Large images by tiles, equal to the whole.

An instance norm takes its statistics over the whole image: tiles that took their own would each get a colour
of their own. So the image goes through the generator stretch by stretch, and each stretch tile by tile:

1.  The chain of layers is cut where an activation is small enough to be kept for the whole image (`cut`):
    behind the convolutions at half and quarter resolution. Those at full resolution, 64 numbers a pixel, are
    not kept but computed again each time they are needed, which is 3% of the arithmetic.
2.  A tile of a stretch's output is computed from the kept activation before it, read with a margin
    (`tiles`). The layers pad it as they would pad an image; what that spoils lies within the margin, and is
    cut away.
3.  While tiles are written, the moments of the kept activation are gathered, for the norm that opens the next
    stretch. A norm in the middle of a stretch, behind an activation that is not kept, takes a pass over the
    tiles of its own (`compute`).
4.  A residual block keeps what it was given and adds its result to that (`add_block`).

With the paper's generator no more than 48 numbers a pixel are kept at a time: for 24 megapixels in bf16 that
is 2.3 GB, where the whole at once takes 7.5 GB; and, since tiles fit into caches, it takes no longer.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from itertools import islice, pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import BadInput
from ..model.networks import Blur, Generator, InstanceNorm, Residual
from .norms import BLOCK, Moments, normalise

TILE = 1 << 22
"""Numbers in the widest activation of a tile: 8 MB in bf16, for which a CPU's caches are of use."""

WORKING = 40 * TILE
"""Bytes that a tile takes on its way: measured, ten activations in float32."""


@dataclass(frozen=True)
class Plan:
    """What is kept of an image on its way through the network, and how it is computed."""

    most: float
    """Activations of at most so many numbers per pixel of the image are kept; infinite: all of them."""
    kept: torch.dtype
    """The format of what is kept. float16 will do for arithmetic in float32."""
    arithmetic: torch.dtype


@dataclass
class Kept:
    """An activation of the whole image, (1, C, H, W), and the moments of its channels."""

    values: Tensor
    moments: Moments


Layer = Callable[[Tensor], Tensor]
"""A module, or an instance norm whose statistics are known."""


def choose(
    network: Any, height: int, width: int, arithmetic: torch.dtype, device: torch.device, budget: float
) -> Plan | None:
    """How an image goes through a generator in `budget` bytes: by a plan, or (None) whole.

    Raises BadInput where it does not fit in any way.
    """
    need = whole_bytes(network.spec, height, width, arithmetic, device)
    if need <= budget:
        return None
    if network.spec.kind == "resnet":
        halved = torch.float16 if arithmetic == torch.float32 else arithmetic
        for kept in dict.fromkeys((arithmetic, halved)):
            for most in (math.inf, network.spec.width / 2):
                plan = Plan(most, kept, arithmetic)
                need = tiled_bytes(network.model, height, width, plan)
                if need <= budget:
                    return plan
    if budget < WORKING:
        raise BadInput(
            f"the network takes {amount(WORKING)} even for the smallest image, and may take {amount(budget)}: raise "
            "--memory"
        )
    name = {"resnet": "", "unet": "U-Net", "pyramid": "pyramid"}[network.spec.kind]
    how = f"(a {name} cannot go by tiles)" if name else "even by tiles"
    raise BadInput(
        f"an image of {width}x{height} takes {amount(need)} {how}, and the network may take {amount(budget)}: "
        "raise --memory, or use --size"
    )


def amount(size: float) -> str:
    """Bytes for people."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def whole_bytes(spec: Generator, height: int, width: int, arithmetic: torch.dtype, device: torch.device) -> float:
    """What one image takes beside the weights: measured, mostly the two widest activations."""
    if spec.kind == "pyramid":  # the image, the result and its bands in strips; the network sees little of it
        small = whole_bytes(replace(spec, kind="resnet"), height, width, arithmetic, device) - WORKING
        small *= 1.6  # what is kept for the way up, one width whole and two at half the size: reckoned, not measured
        return WORKING + small * 0.25**spec.levels + 11 * spec.channels_out * height * width
    widths = 1.7 if spec.kind == "unet" else 5.7 if spec.antialias else 2.5
    textbook = 1 if device.type == "cpu" else 3  # elsewhere norms make several activations in float32
    return WORKING + widths * spec.width * height * width * arithmetic.itemsize * textbook


def tiled_bytes(model: nn.Sequential, height: int, width: int, plan: Plan) -> float:
    """What one image takes beside the weights by `plan`: itself, what is kept at a time, and a tile."""
    numbers = iter(numbers_per_pixel(model))
    before = peak = Fraction(0)
    for stretch in cut(model, plan.most):
        *_, after = islice(numbers, len(stretch))
        if isinstance(stretch[0], Residual):
            peak = max(peak, 3 * after)
        elif any(reach(layer) for layer in stretch):
            peak = max(peak, before + after)
        before = after
    first = next(layer for layer in model if isinstance(layer, nn.Conv2d))
    image = first.in_channels * plan.arithmetic.itemsize
    return WORKING + height * width * (image + float(peak) * plan.kept.itemsize)


@torch.no_grad()
def translate(network: Any, image: Tensor, seen: Tensor | None = None, *, plan: Plan) -> Tensor:
    """`network(image)`, (1, C, H, W) -> (1, C', H, W) in `plan.kept`, of a ResnetGenerator.

    H and W are divisible by 4, and the convolutions' weights are in `plan.arithmetic`.
    """
    x = Kept(image, Moments())
    for stretch in cut(network.model, plan.most):
        if isinstance(stretch[0], Residual):
            if seen is not None:
                tell(x.values, network.seeing(seen.to(plan.arithmetic)))
                seen = None
            x = add_block(x, stretch[0], plan)
        else:
            x = compute(x, stretch, plan)
    return x.values


def tell(x: Tensor, told: Tensor) -> None:
    """Add what a generator that sees is told, in the place of `x`; a few channels at a time, since `x` is large."""
    for some, more in zip(x.split(16, 1), told.split(16, 1), strict=True):
        some += F.interpolate(more, x.shape[2:], mode="bilinear")


def cut(model: nn.Sequential, most: float) -> list[list[nn.Module]]:
    """Cut a chain into stretches, behind each convolution or blur that gives at most `most` numbers a pixel.

    Other layers give nothing that would be worth keeping. A residual block is a stretch by itself.
    """
    stretches: list[list[nn.Module]] = [[]]
    for layer, numbers in zip(model, numbers_per_pixel(model), strict=True):
        if isinstance(layer, Residual):
            stretches += [[layer], []]
            continue
        stretches[-1].append(layer)
        doubles = isinstance(layer, Blur) and layer.up
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | Blur) and numbers <= most and not doubles:
            stretches.append([])
    return [stretch for stretch in stretches if stretch]


def compute(x: Kept, stretch: list[nn.Module], plan: Plan) -> Kept:
    """Run a stretch of layers on `x`; in place where each number depends on one number alone."""
    layers: list[Layer] = []
    for layer in stretch:
        if isinstance(layer, InstanceNorm):
            mean, variance = (gather(x.values, layers, plan) if layers else x.moments).read()
            layers.append(partial(normalise, layer, mean=mean, variance=variance))
        else:
            layers.append(layer)
    out = x.values if all(reach(layer) == 0 for layer in layers) else None
    moments = Moments()
    for rows, columns, tile in tiles(x.values, layers, plan):
        if out is None:
            shape = (1, tile.shape[1], *(int(side / scale(layers)) for side in x.values.shape[2:]))
            out = torch.empty(shape, dtype=plan.kept, device=tile.device, memory_format=torch.channels_last)
        moments.add(tile)
        out[:, :, rows, columns] = tile
    assert out is not None
    return Kept(out, moments)


def gather(x: Tensor, layers: list[Layer], plan: Plan) -> Moments:
    """The moments of what `layers` make of `x`, without keeping that."""
    moments = Moments()
    for _, _, tile in tiles(x, layers, plan):
        moments.add(tile)
    return moments


def add_block(x: Kept, block: Residual, plan: Plan) -> Kept:
    """x + block's convolutions of x, in the place of `x`."""
    inside = x
    for stretch in cut(block.conv_block, math.inf):
        inside = compute(inside, stretch, plan)
    x.values += inside.values
    return Kept(x.values, Moments())


def tiles(x: Tensor, layers: list[Layer], plan: Plan) -> Iterator[tuple[slice, slice, Tensor]]:
    """What `layers` make of `x`, tile by tile, each with the rows and columns where it belongs."""
    step, margin = scale(layers), spoilt(layers)
    widest = max(numbers_per_pixel(layers, x.shape[1]), default=x.shape[1])
    side = math.isqrt(int(TILE / widest)) / step
    for rows in spans(x.shape[2] / step, side):
        above, inner_rows = read_span(rows, step, margin, x.shape[2])
        for columns in spans(x.shape[3] / step, side):
            left, inner_columns = read_span(columns, step, margin, x.shape[3])
            tile = x[:, :, above, left].to(plan.arithmetic).contiguous(memory_format=torch.channels_last)
            for layer in layers:
                tile = layer(tile)
            tile = tile[:, :, inner_rows, inner_columns]
            yield rows, columns, tile.contiguous(memory_format=torch.channels_last)


def read_span(written: slice, step: Fraction, margin: int, length: int) -> tuple[slice, slice]:
    """Which rows of the input a span of output rows is computed from, and where it then lies in the result."""
    start = max(0, int(written.start * step) - margin)
    stop = min(length, int(written.stop * step) + margin)
    offset = written.start - int(start / step)
    return slice(start, stop), slice(offset, offset + written.stop - written.start)


def spans(length: Fraction | int, side: Fraction | int) -> list[slice]:
    """Cut `length` pixels into spans of about `side`, which begin at multiples of BLOCK."""
    count = math.ceil(length / max(side, BLOCK))
    edges = sorted({int(length * n / count) // BLOCK * BLOCK for n in range(count)})
    return [slice(a, b) for a, b in pairwise([*edges, int(length)])]


def scale(layers: Iterable[Layer]) -> Fraction:
    """How many pixels of the input one pixel of the output stands for, along a side."""
    return math.prod((stride(layer) for layer in layers), start=Fraction(1))


def spoilt(layers: Iterable[Layer]) -> int:
    """How far into a tile its artificial edges reach, in pixels of the input (whole ones of the output, too)."""
    far, step = Fraction(0), Fraction(1)
    for layer in layers:
        far += reach(layer) * step
        step *= stride(layer)
    whole = max(Fraction(1), step)
    return int(math.ceil(far / whole) * whole)


def numbers_per_pixel(layers: Iterable[Layer], channels: int = 0) -> list[Fraction]:
    """What each layer gives, in numbers per pixel of the input, which has so many channels."""
    numbers, step = [], Fraction(1)
    for layer in layers:
        channels = getattr(layer, "out_channels", channels)
        step *= stride(layer)
        numbers.append(channels / step**2)
    return numbers


def stride(layer: Layer) -> Fraction:
    match layer:
        case nn.Conv2d():
            return Fraction(layer.stride[0])
        case nn.ConvTranspose2d():
            return Fraction(1, layer.stride[0])
        case Blur():
            return Fraction(1, 2) if layer.up else Fraction(2)
        case nn.Upsample():
            return Fraction(1, 2)
    return Fraction(1)


def reach(layer: Layer) -> int:
    """How many pixels of its input a layer looks to each side."""
    match layer:
        case nn.Conv2d():
            return layer.kernel_size[0] // 2
        case nn.ConvTranspose2d() | Blur():
            return 1
    return 0

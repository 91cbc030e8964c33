"""A generator made ready for use: weights in the number format of the chip, and a norm that is quick.

Without gradients an instance norm is two passes: its statistics, then batch norm's arithmetic with them.
PyTorch has quick CPU kernels for both, which keep the channels-last layout. For a 256x256 image through the
paper's generator, one core, bf16: 114 ms, against 374 ms with the textbook formula (927 ms in fp32).
`torch.compile` then wins little more on a CPU (105 ms).
"""

import copy
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..device import wide
from ..model.networks import Generator, InstanceNorm

BLOCK = 128
"""Side of the squares that the CPU kernel sums up at once. It adds in plain float32: over such a square the
variance is right to 1e-5, over a megapixel only to 1e-3. Squares are put together in float64, so that it does
not matter in which order they come: tiles that begin at multiples of this have the statistics of the whole
image bit for bit, and so the same result. (In bf16 any difference, however small, turns some roundings the
other way, and after 20 layers the noise of all roundings is another: two such results are 48 dB apart.)"""


class Moments:
    """Mean and variance of each channel, gathered part by part (Chan, Golub and LeVeque 1979)."""

    def __init__(self) -> None:
        self.count = 0
        self.mean: Tensor | float = 0.0
        self.squares: Tensor | float = 0.0  # summed squared distances from the mean

    def add(self, x: Tensor) -> Self:
        """Take in every pixel of `x`, (1, C, H, W); gives itself back."""
        for square in (square for rows in x.split(BLOCK, 2) for square in rows.split(BLOCK, 3)):
            count = square.shape[2] * square.shape[3]
            mean, variance = (moment.to(precise(x.device)) for moment in _sum_up(square))
            distance, total = mean - self.mean, self.count + count
            self.mean = self.mean + distance * (count / total)
            self.squares = self.squares + variance * count + distance**2 * (self.count * count / total)
            self.count = total
        return self

    def read(self) -> tuple[Tensor, Tensor]:
        """Mean and (biased) variance, (C,) each, in float64 (see `precise`)."""
        assert isinstance(self.mean, Tensor) and isinstance(self.squares, Tensor), "nothing was added"
        return self.mean, self.squares / self.count


def normalise(norm: InstanceNorm, x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """`norm` of one image or a tile of it, (1, C, H, W), by the statistics given: (C,) each."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    mean, variance = mean.to(dtype), variance.to(dtype)
    return F.batch_norm(x, mean, variance, norm.weight, norm.bias, training=False, eps=norm.eps)


class QuickNorm(InstanceNorm):
    """An instance norm of a network that is in use: the same, quick on the CPU."""

    def __init__(self, norm: InstanceNorm):
        super().__init__(norm.channels, eps=norm.eps)
        self.weight, self.bias = copy.deepcopy(norm.weight), copy.deepcopy(norm.bias)

    def forward(self, x: Tensor) -> Tensor:
        normalised = [normalise(self, image, *Moments().add(image).read()) for image in x.split(1)]
        return normalised[0] if len(x) == 1 else torch.cat(normalised)


class RunningNorm(QuickNorm):
    """The same for the frames of one film: by the running mean of their statistics, so that they do not flicker.

    One frame at a time, (1, C, H, W); `weight_of_new`, a scalar, is what the newest counts: 1 forgets the others.
    """

    def __init__(self, norm: InstanceNorm):
        super().__init__(norm)
        self.weight_of_new: Tensor | float = 1.0
        self.kept: tuple[Tensor, ...] = ()

    def forward(self, x: Tensor) -> Tensor:
        new = Moments().add(x).read()
        kept = self.kept or new
        self.kept = tuple(old + (now - old) * self.weight_of_new for old, now in zip(kept, new, strict=True))
        return normalise(self, x, *self.kept)


def prepared(network: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """A copy of `network` for inference: on `device`, channels-last, convolutions in `dtype`, norms in fp32."""
    # What deepcopy finds here it takes for copied already: wherever the network holds a norm, its copy holds this.
    norms = (layer for layer in network.modules() if isinstance(layer, InstanceNorm) and device.type == "cpu")
    network = copy.deepcopy(network, {id(norm): QuickNorm(norm) for norm in norms})
    network = network.eval().requires_grad_(False)
    network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            layer.to(dtype)
    return network


def pad(batch: Tensor, spec: Generator) -> Tensor:
    """Extend (B, C, H, W) at the bottom and the right to what the network takes: by reflection, and images
    smaller than its own reflection pads by repetition first."""
    height, width = batch.shape[2:]
    if height < spec.smallest or width < spec.smallest:
        batch = F.pad(batch, (0, max(0, spec.smallest - width), 0, max(0, spec.smallest - height)), "replicate")
    right, bottom = -batch.shape[3] % spec.multiple, -batch.shape[2] % spec.multiple
    return F.pad(batch, (0, right, 0, bottom), "reflect") if right or bottom else batch


def precise(device: torch.device) -> torch.dtype:
    """The format in which statistics are put together: Apple's GPUs have no float64."""
    return torch.float32 if device.type == "mps" else torch.float64


def _sum_up(x: Tensor) -> tuple[Tensor, Tensor]:
    if x.device.type == "cpu" and x.dtype != torch.float64:
        # Statistics come in the format of the buffers: of bf16 images, too, they must be float32.
        buffer = torch.zeros(x.shape[1])
        return torch.batch_norm_update_stats(x.contiguous(memory_format=torch.channels_last), buffer, buffer, 0.0)
    variance, mean = torch.var_mean(wide(x), (0, 2, 3), correction=0)
    return mean, variance

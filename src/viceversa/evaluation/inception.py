"""The Inception v3 network that FID is measured with: TensorFlow's of 2015-12-05, as pytorch-fid ported it.

It differs from the published Inception v3 (Szegedy et al. 2016) and from torchvision's in its weights, in
average pools that leave out the padding, and in the max pool of the last block. Each convolution here holds
its batch norm folded in, which is the same function up to rounding, and faster.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import BadInput

SIZE = 299
FEATURES = 2048
BATCH_NORM_EPS = 1e-3

Pool = Callable[[Tensor], Tensor]


def average_pool(x: Tensor) -> Tensor:
    """TensorFlow's average pool: what lies outside the image is not counted."""
    return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)


def max_pool(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 3, 1, 1)


def halve(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 3, 2)


class Conv(nn.Module):
    """Convolution, batch norm (folded into weight and bias), ReLU."""

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int | tuple[int, int],
        stride: int = 1,
        padding: int | tuple[int, int] = 0,
    ):
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, kernel, stride, padding)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(x), inplace=True)


class BlockA(nn.Module):
    """35 x 35: 1x1, 5x5, double 3x3 and pooled branches. (B, C, H, W) -> (B, 224 + pooled, H, W)."""

    def __init__(self, channels: int, pooled: int):
        super().__init__()
        self.branch1x1 = Conv(channels, 64, 1)
        self.branch5x5_1 = Conv(channels, 48, 1)
        self.branch5x5_2 = Conv(48, 64, 5, padding=2)
        self.branch3x3dbl_1 = Conv(channels, 64, 1)
        self.branch3x3dbl_2 = Conv(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = Conv(96, 96, 3, padding=1)
        self.branch_pool = Conv(channels, pooled, 1)

    def forward(self, x: Tensor) -> Tensor:
        five = self.branch5x5_2(self.branch5x5_1(x))
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch1x1(x), five, double, self.branch_pool(average_pool(x))], 1)


class BlockB(nn.Module):
    """35 x 35 to 17 x 17: (B, 288, H, W) -> (B, 768, H/2, W/2)."""

    def __init__(self) -> None:
        super().__init__()
        self.branch3x3 = Conv(288, 384, 3, stride=2)
        self.branch3x3dbl_1 = Conv(288, 64, 1)
        self.branch3x3dbl_2 = Conv(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = Conv(96, 96, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), double, halve(x)], 1)


class BlockC(nn.Module):
    """17 x 17: 7x7 convolutions as 1x7 and 7x1. (B, 768, H, W) -> (B, 768, H, W)."""

    def __init__(self, inner: int):
        super().__init__()
        self.branch1x1 = Conv(768, 192, 1)
        self.branch7x7_1 = Conv(768, inner, 1)
        self.branch7x7_2 = Conv(inner, inner, (1, 7), padding=(0, 3))
        self.branch7x7_3 = Conv(inner, 192, (7, 1), padding=(3, 0))
        self.branch7x7dbl_1 = Conv(768, inner, 1)
        self.branch7x7dbl_2 = Conv(inner, inner, (7, 1), padding=(3, 0))
        self.branch7x7dbl_3 = Conv(inner, inner, (1, 7), padding=(0, 3))
        self.branch7x7dbl_4 = Conv(inner, inner, (7, 1), padding=(3, 0))
        self.branch7x7dbl_5 = Conv(inner, 192, (1, 7), padding=(0, 3))
        self.branch_pool = Conv(768, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        seven = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return torch.cat([self.branch1x1(x), seven, double, self.branch_pool(average_pool(x))], 1)


class BlockD(nn.Module):
    """17 x 17 to 8 x 8: (B, 768, H, W) -> (B, 1280, H/2, W/2)."""

    def __init__(self) -> None:
        super().__init__()
        self.branch3x3_1 = Conv(768, 192, 1)
        self.branch3x3_2 = Conv(192, 320, 3, stride=2)
        self.branch7x7x3_1 = Conv(768, 192, 1)
        self.branch7x7x3_2 = Conv(192, 192, (1, 7), padding=(0, 3))
        self.branch7x7x3_3 = Conv(192, 192, (7, 1), padding=(3, 0))
        self.branch7x7x3_4 = Conv(192, 192, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        three = self.branch3x3_2(self.branch3x3_1(x))
        seven = self.branch7x7x3_2(self.branch7x7x3_1(x))
        seven = self.branch7x7x3_4(self.branch7x7x3_3(seven))
        return torch.cat([three, seven, halve(x)], 1)


class BlockE(nn.Module):
    """8 x 8: 3x3 convolutions split into 1x3 and 3x1 side by side. (B, C, H, W) -> (B, 2048, H, W)."""

    def __init__(self, channels: int, pool: Pool):
        super().__init__()
        self.pool = pool
        self.branch1x1 = Conv(channels, 320, 1)
        self.branch3x3_1 = Conv(channels, 384, 1)
        self.branch3x3_2a = Conv(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3_2b = Conv(384, 384, (3, 1), padding=(1, 0))
        self.branch3x3dbl_1 = Conv(channels, 448, 1)
        self.branch3x3dbl_2 = Conv(448, 384, 3, padding=1)
        self.branch3x3dbl_3a = Conv(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3dbl_3b = Conv(384, 384, (3, 1), padding=(1, 0))
        self.branch_pool = Conv(channels, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        three = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        return torch.cat([
            self.branch1x1(x), self.branch3x3_2a(three), self.branch3x3_2b(three),
            self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double), self.branch_pool(self.pool(x)),
        ], 1)  # fmt: skip


class Inception(nn.Module):
    """(B, 3, 299, 299) in [-1, 1] -> (B, 2048): the features before the classifier, averaged over the image."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Conv(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = Conv(32, 32, 3)
        self.Conv2d_2b_3x3 = Conv(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1 = Conv(64, 80, 1)
        self.Conv2d_4a_3x3 = Conv(80, 192, 3)
        self.Mixed_5b = BlockA(192, pooled=32)
        self.Mixed_5c = BlockA(256, pooled=64)
        self.Mixed_5d = BlockA(288, pooled=64)
        self.Mixed_6a = BlockB()
        self.Mixed_6b = BlockC(128)
        self.Mixed_6c = BlockC(160)
        self.Mixed_6d = BlockC(160)
        self.Mixed_6e = BlockC(192)
        self.Mixed_7a = BlockD()
        self.Mixed_7b = BlockE(1280, average_pool)
        # A max pool in the last block alone: probably a slip of 2015, and part of every FID since.
        self.Mixed_7c = BlockE(2048, max_pool)

    def forward(self, x: Tensor) -> Tensor:
        x = halve(self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x))))
        x = halve(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x)))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))
        return x.mean((2, 3))


def from_state(state: Mapping[str, Tensor]) -> Inception:
    """The network with the weights of pytorch-fid's file; raises BadInput unless all of them are there and fit.

    The classifier (`fc`) and the counters of training steps are not needed.
    """
    with torch.device("meta"):  # no memory, and above all no random numbers, for weights to be replaced
        network = Inception()
    names = [name.removesuffix(".conv.weight") for name in network.state_dict() if name.endswith(".weight")]
    parts = ("conv.weight", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var")
    needed = {f"{name}.{part}" for name in names for part in parts}
    found = {name for name in state if not name.startswith("fc.") and not name.endswith(".num_batches_tracked")}
    if needed != found:
        raise BadInput(
            f"these are not the weights of pytorch-fid's Inception: {len(needed - found)} missing "
            f"({first(needed - found)}), {len(found - needed)} unknown ({first(found - needed)})"
        )
    folded: dict[str, Tensor] = {}
    try:
        for name in names:
            weight, gamma, beta, mean, variance = (state[f"{name}.{part}"].double() for part in parts)
            scale = gamma / torch.sqrt(variance + BATCH_NORM_EPS)
            folded[f"{name}.conv.weight"] = (weight * scale[:, None, None, None]).float()
            folded[f"{name}.conv.bias"] = (beta - mean * scale).float()
        network.load_state_dict(folded, assign=True)
    except RuntimeError as error:
        raise BadInput(f"these are not the weights of pytorch-fid's Inception: {error}") from None
    return network.eval().requires_grad_(False)


def first(names: set[str]) -> str:
    return min(names, default="none")

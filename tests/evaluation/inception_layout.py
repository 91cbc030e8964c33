"""A weight file laid out as pytorch-fid's, and a straightforward forward pass: independent of our network.

Written from the layout of the published file, layer by layer, with batch norm as a step of its own.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

A = {"branch1x1": (64, 1), "branch5x5_1": (48, 1), "branch5x5_2": (48, 64, 5), "branch3x3dbl_1": (64, 1),
     "branch3x3dbl_2": (64, 96, 3), "branch3x3dbl_3": (96, 96, 3)}  # fmt: skip
E_BLOCK = {"branch1x1": (320, 1), "branch3x3_1": (384, 1), "branch3x3_2a": (384, 384, (1, 3)),
     "branch3x3_2b": (384, 384, (3, 1)), "branch3x3dbl_1": (448, 1), "branch3x3dbl_2": (448, 384, 3),
     "branch3x3dbl_3a": (384, 384, (1, 3)), "branch3x3dbl_3b": (384, 384, (3, 1)), "branch_pool": (192, 1)}  # fmt: skip


def c_block(inner: int) -> dict:
    along, down = (1, 7), (7, 1)
    return {
        "branch1x1": (192, 1), "branch7x7_1": (inner, 1), "branch7x7_2": (inner, inner, along),
        "branch7x7_3": (inner, 192, down), "branch7x7dbl_1": (inner, 1), "branch7x7dbl_2": (inner, inner, down),
        "branch7x7dbl_3": (inner, inner, along), "branch7x7dbl_4": (inner, inner, down),
        "branch7x7dbl_5": (inner, 192, along), "branch_pool": (192, 1),
    }  # fmt: skip


STEM = {"Conv2d_1a_3x3": (3, 32, 3), "Conv2d_2a_3x3": (32, 32, 3), "Conv2d_2b_3x3": (32, 64, 3),
        "Conv2d_3b_1x1": (64, 80, 1), "Conv2d_4a_3x3": (80, 192, 3)}  # fmt: skip
BLOCKS = {
    "Mixed_5b": (192, A | {"branch_pool": (32, 1)}),
    "Mixed_5c": (256, A | {"branch_pool": (64, 1)}),
    "Mixed_5d": (288, A | {"branch_pool": (64, 1)}),
    "Mixed_6a": (288, {"branch3x3": (384, 3), "branch3x3dbl_1": (64, 1), "branch3x3dbl_2": (64, 96, 3),
                       "branch3x3dbl_3": (96, 96, 3)}),
    "Mixed_6b": (768, c_block(128)), "Mixed_6c": (768, c_block(160)), "Mixed_6d": (768, c_block(160)),
    "Mixed_6e": (768, c_block(192)),
    "Mixed_7a": (768, {"branch3x3_1": (192, 1), "branch3x3_2": (192, 320, 3), "branch7x7x3_1": (192, 1),
                       "branch7x7x3_2": (192, 192, (1, 7)), "branch7x7x3_3": (192, 192, (7, 1)),
                       "branch7x7x3_4": (192, 192, 3)}),
    "Mixed_7b": (1280, E_BLOCK), "Mixed_7c": (2048, E_BLOCK),
}  # fmt: skip


def layers() -> dict[str, tuple[int, int, tuple[int, int]]]:
    """Name -> channels in, channels out, kernel."""
    found = dict(STEM)
    for block, (channels, inner) in BLOCKS.items():
        for name, shape in inner.items():
            found[f"{block}.{name}"] = shape if len(shape) == 3 else (channels, *shape)
    square = lambda k: k if isinstance(k, tuple) else (k, k)  # noqa: E731
    return {name: (a, b, square(k)) for name, (a, b, k) in found.items()}


def random_weights(seed: int = 0) -> dict[str, Tensor]:
    """A whole state dict: every batch norm non-trivial, activations neither vanishing nor growing."""
    random = torch.Generator().manual_seed(seed)
    state = {}
    for name, (channels_in, channels_out, kernel) in layers().items():
        fan = channels_in * kernel[0] * kernel[1]
        state[f"{name}.conv.weight"] = (
            torch.randn(channels_out, channels_in, *kernel, generator=random) * (2 / fan) ** 0.5
        )
        for part, low, high in (("weight", 0.7, 1.3), ("bias", -0.2, 0.3), ("running_mean", -0.2, 0.2),
                                ("running_var", 0.5, 1.5)):  # fmt: skip
            state[f"{name}.bn.{part}"] = torch.empty(channels_out).uniform_(low, high, generator=random)
        state[f"{name}.bn.num_batches_tracked"] = torch.tensor(0)
    return state | {"fc.weight": torch.zeros(1008, 2048), "fc.bias": torch.zeros(1008)}


def forward(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """(B, 3, 299, 299) in [-1, 1] -> (B, 2048), as pytorch-fid computes it."""

    def conv(x: Tensor, name: str, stride: int = 1, padding: int | tuple[int, int] = 0) -> Tensor:
        s = {part: state[f"{name}.bn.{part}"] for part in ("running_mean", "running_var", "weight", "bias")}
        x = F.conv2d(x, state[f"{name}.conv.weight"], None, stride, padding)
        return F.relu(F.batch_norm(x, *s.values(), training=False, eps=0.001))

    def mean(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)

    x = conv(x, "Conv2d_1a_3x3", 2)
    x = conv(conv(x, "Conv2d_2a_3x3"), "Conv2d_2b_3x3", padding=1)
    x = conv(F.max_pool2d(x, 3, 2), "Conv2d_3b_1x1")
    x = F.max_pool2d(conv(x, "Conv2d_4a_3x3"), 3, 2)
    for n in ("Mixed_5b.", "Mixed_5c.", "Mixed_5d."):
        five = conv(conv(x, n + "branch5x5_1"), n + "branch5x5_2", padding=2)
        double = conv(conv(x, n + "branch3x3dbl_1"), n + "branch3x3dbl_2", padding=1)
        double = conv(double, n + "branch3x3dbl_3", padding=1)
        x = torch.cat([conv(x, n + "branch1x1"), five, double, conv(mean(x), n + "branch_pool")], 1)
    n = "Mixed_6a."
    double = conv(conv(x, n + "branch3x3dbl_1"), n + "branch3x3dbl_2", padding=1)
    x = torch.cat([conv(x, n + "branch3x3", 2), conv(double, n + "branch3x3dbl_3", 2), F.max_pool2d(x, 3, 2)], 1)
    along, down = (0, 3), (3, 0)
    for n in ("Mixed_6b.", "Mixed_6c.", "Mixed_6d.", "Mixed_6e."):
        seven = conv(conv(x, n + "branch7x7_1"), n + "branch7x7_2", padding=along)
        seven = conv(seven, n + "branch7x7_3", padding=down)
        double = conv(conv(x, n + "branch7x7dbl_1"), n + "branch7x7dbl_2", padding=down)
        double = conv(conv(double, n + "branch7x7dbl_3", padding=along), n + "branch7x7dbl_4", padding=down)
        double = conv(double, n + "branch7x7dbl_5", padding=along)
        x = torch.cat([conv(x, n + "branch1x1"), seven, double, conv(mean(x), n + "branch_pool")], 1)
    n = "Mixed_7a."
    three = conv(conv(x, n + "branch3x3_1"), n + "branch3x3_2", 2)
    seven = conv(conv(x, n + "branch7x7x3_1"), n + "branch7x7x3_2", padding=along)
    seven = conv(conv(seven, n + "branch7x7x3_3", padding=down), n + "branch7x7x3_4", 2)
    x = torch.cat([three, seven, F.max_pool2d(x, 3, 2)], 1)
    for n, pool in (("Mixed_7b.", mean), ("Mixed_7c.", lambda x: F.max_pool2d(x, 3, 1, 1))):
        three = conv(x, n + "branch3x3_1")
        double = conv(conv(x, n + "branch3x3dbl_1"), n + "branch3x3dbl_2", padding=1)
        x = torch.cat([
            conv(x, n + "branch1x1"),
            conv(three, n + "branch3x3_2a", padding=(0, 1)), conv(three, n + "branch3x3_2b", padding=(1, 0)),
            conv(double, n + "branch3x3dbl_3a", padding=(0, 1)), conv(double, n + "branch3x3dbl_3b", padding=(1, 0)),
            conv(pool(x), n + "branch_pool"),
        ], 1)  # fmt: skip
    return F.adaptive_avg_pool2d(x, 1).flatten(1)

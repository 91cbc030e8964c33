"""The photo in the other domain's colours, for a pyramid to add to what it draws. Not in the paper."""

import torch
from torch import Tensor, nn

FARTHEST = 0.96
"""From gray, of a range of 2: from what is whiter or blacker than that, nothing that is drawn would lead back."""


class Recolour(nn.Module):
    """Photos (B, C_in, H, W) in [-1, 1] -> (B, C_out, H, W), unbounded: what tanh makes the recoloured photo of.

    One affine map for all pixels. It begins as the one that gives the photos of a domain the mean and the covariance
    of the other's colours (`begin`), and is learned from there. It is no convolution, so that it stays in float32:
    nights are dark, and have to be made many times lighter.
    """

    def __init__(self, channels_in: int, channels_out: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels_out, channels_in))
        self.bias = nn.Parameter(torch.zeros(channels_out))

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
        colours = (weight[:, :, None, None] * x[:, None]).sum(2) + bias[:, None, None]
        return colours.clamp(-FARTHEST, FARTHEST).atanh()

    @torch.no_grad()
    def begin(self, source: Tensor, target: Tensor) -> None:
        """As what turns the colours of `source`, (C_in, N), into those of `target`, (C_out, M)."""
        matrix, offset = transfer(source.cpu(), target.cpu())  # float64, which some GPUs lack
        self.weight.copy_(matrix)
        self.bias.copy_(offset)


def transfer(source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """The (C_out, C_in) and (C_out,) of the affine map that gives the colours (C_in, N) of `source` mean and covariance
    of `target`, (C_out, M), and changes them least (Pitié and Kokaram 2007, "The linear Monge-Kantorovitch
    linear colour mapping"). Between gray and colours: through how light they are.
    """
    if len(source) == len(target):
        root = root_of(covariance(source))
        back = torch.linalg.inv(root)
        matrix = back @ root_of(root @ covariance(target) @ root) @ back
    else:
        deviation = source.double().mean(0).std()
        matrix = target.double().std(1)[:, None].expand(-1, len(source)) / (len(source) * deviation.clamp(min=1e-3))
    offset = target.double().mean(1) - matrix @ source.double().mean(1)
    return matrix.to(source.dtype), offset.to(source.dtype)


def covariance(colours: Tensor) -> Tensor:
    """(C, N) -> (C, C), and a trace of noise, so that images of one colour have one."""
    found = torch.cov(colours.double()).reshape(len(colours), len(colours))
    return found + 1e-6 * torch.eye(len(colours), dtype=found.dtype, device=found.device)


def root_of(matrix: Tensor) -> Tensor:
    """The square root of a symmetric matrix without negative eigenvalues, but for rounding."""
    values, vectors = torch.linalg.eigh(matrix)
    root: Tensor = vectors @ values.clamp(min=0).sqrt().diag() @ vectors.mT
    return root

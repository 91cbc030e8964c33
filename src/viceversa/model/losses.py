"""The losses of section 3, as pure functions: tensors in, a scalar tensor out."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ..device import wide


def least_squares(scores: Tensor, real: bool) -> Tensor:
    """Mean of (D(x) - 1)^2 for real, D(x)^2 for fake (section 4, "Training details"; Mao et al. 2017)."""
    scores = wide(scores)
    return ((scores - 1) ** 2 if real else scores**2).mean()


def log_likelihood(scores: Tensor, real: bool) -> Tensor:
    """Binary cross-entropy on logits: -log D for real, -log(1 - D) for fake (equation 1)."""
    scores = wide(scores)
    return F.binary_cross_entropy_with_logits(scores, torch.full_like(scores, float(real)))


def hinge(real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """max(0, 1 - D) for real and max(0, 1 + D) for fake, the mean over maps of scores (Sauer et al. 2021)."""
    losses = [F.relu(1 - wide(r)).mean() + F.relu(1 + wide(f)).mean() for r, f in zip(real, fake, strict=True)]
    return torch.stack(losses).mean()


def hinge_generator(fake: Sequence[Tensor]) -> Tensor:
    """-D, the mean over maps of scores."""
    return torch.stack([-wide(scores).mean() for scores in fake]).mean()


def l1(x: Tensor, y: Tensor) -> Tensor:
    """Mean |x - y|: the cycle loss (equation 2) and the identity loss (section 5.2)."""
    return (wide(x) - wide(y)).abs().mean()

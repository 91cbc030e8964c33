"""Measures: of two sets of feature vectors, of one image against another; and the scores of a run on its way.

One path for `--score` while training and for `viceversa evaluate`: both bring the test images to the same pixels,
translate them with the same prepared networks, round to the bits of a written file, and compare with the same rulers;
so both give one number.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..data.pictures import luminance, to_pixels, to_tensor
from ..errors import BadInput
from ..model.file import Model
from ..model.frozen import looked_at, shared
from ..translation.translator import Translator, telling_of_memory
from .features import Features, Vectors, full_precision, load_features

ROWS = 4096
"""Vectors whose kernel values are held at a time: memory stays at ROWS x ROWS numbers, however many images."""

# Of two sets: float64 arrays (N, D) and (M, D); N and M may differ.


def kid(x: Vectors, y: Vectors) -> float:
    """Unbiased squared MMD under the cubic polynomial kernel, over all pairs (Bińkowski et al. 2018; unbiased
    as in Gretton et al. 2012, Lemma 6).

    About 0 for two samples of one distribution (it may be slightly negative). At least 2 vectors each.
    """
    n, m = len(x), len(y)
    within_x = (kernel_sum(x, x) - kernel(np.einsum("nd,nd->n", x, x), x.shape[1]).sum()) / (n * (n - 1))
    within_y = (kernel_sum(y, y) - kernel(np.einsum("md,md->m", y, y), y.shape[1]).sum()) / (m * (m - 1))
    return float(within_x + within_y - 2 * kernel_sum(x, y) / (n * m))


def kid_subsets(
    x: Vectors, y: Vectors, subsets: int = 100, size: int | None = None, seed: int = 0
) -> tuple[float, float]:
    """Mean and standard deviation of KID over random subsets of `size` vectors of each, without replacement.

    By default 1000, as is usual, but at most half of the smaller set: subsets of all vectors would all be
    the same and vary by nothing. Draws from its own generator: the global random state stays as it was.
    """
    size = min(1000, max(2, min(len(x), len(y)) // 2)) if size is None else size
    random = np.random.default_rng(seed)
    values = [
        kid(x[random.choice(len(x), size, replace=False)], y[random.choice(len(y), size, replace=False)])
        for _ in range(subsets)
    ]
    return float(np.mean(values)), float(np.std(values))


def frechet(x: Vectors, y: Vectors) -> float:
    """|mean_x - mean_y|^2 + tr(C_x + C_y - 2 (C_x C_y)^(1/2)), exact for singular covariances too.

    With C_x = A^T A and C_y = B^T B the trace of the root is the sum of the singular values of A B^T: no root
    of a (nearly) singular product is taken and nothing is added to the diagonal. At least 2 vectors each.
    """
    a = triangle(x - x.mean(0)) / np.sqrt(len(x) - 1)
    b = triangle(y - y.mean(0)) / np.sqrt(len(y) - 1)
    means = np.sum((x.mean(0) - y.mean(0)) ** 2)
    root = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    return float(means + np.sum(a**2) + np.sum(b**2) - 2 * root)


def spread(x: Vectors) -> float:
    """Mean Euclidean distance between two different vectors of one set: near 0 when all are alike."""
    squares = np.einsum("nd,nd->n", x, x)
    total = 0.0
    for start in range(0, len(x), ROWS):
        rows = slice(start, start + ROWS)
        squared = squares[rows, None] + squares - 2 * x[rows] @ x.T
        # the distance of a vector to itself is 0, whatever rounding leaves of it
        squared[np.arange(len(squared)), np.arange(start, start + len(squared))] = 0
        total += np.sqrt(np.maximum(squared, 0)).sum()
    return total / (len(x) * (len(x) - 1))


def kernel(products: Vectors, size: int) -> Vectors:
    """(x . y / D + 1)^3 of scalar products."""
    return (products / size + 1) ** 3


def kernel_sum(x: Vectors, y: Vectors) -> float:
    """Sum of the kernel over all pairs, block by block."""
    return sum(
        float(kernel(x[i : i + ROWS] @ y[j : j + ROWS].T, x.shape[1]).sum())
        for i in range(0, len(x), ROWS)
        for j in range(0, len(y), ROWS)
    )


def triangle(centred: Vectors) -> Vectors:
    """R (at most D, D) with R^T R = X^T X, by QR of a block after another: X is never squared or copied."""
    r: Vectors = centred[:0]
    for start in range(0, len(centred), ROWS):
        r = np.linalg.qr(np.concatenate([r, centred[start : start + ROWS]]), mode="r")  # type: ignore[assignment]
    return r


# Of one image against another: float (B, C, H, W) in [-1, 1], colour or gray.


def psnr(x: Tensor, y: Tensor) -> float:
    """Peak signal-to-noise ratio in dB; infinite for equal images."""
    error = float((x.double() - y.double()).square().mean())
    return 10 * math.log10(4 / error) if error else math.inf


SSIM_WINDOW = 11
"""SSIM needs images of at least this side."""


def ssim(x: Tensor, y: Tensor) -> Tensor:
    """SSIM (Wang et al. 2004, equation 13), each channel for itself. -> (B,)"""
    mean_x, mean_y, variance_x, variance_y, covariance = local_moments(x.double(), y.double())
    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
    likeness = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    return (likeness / ((mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2))).mean((1, 2, 3))


def structure_kept(x: Tensor, y: Tensor, device: torch.device) -> dict[str, float]:
    """Does `y`, whatever its colours, show what `x` shows, where `x` shows it? (1, C, H, W) each, of one size.

    "self_similarity" tells of meaning, 0 for the same picture, lower is better: how far the cosines between all
    places of a picture, by the maps of a frozen classification network at stride 16 (EfficientNet-Lite0, 224 px),
    are from those of the other, as a mean square. (Tumanyan et al. 2022, "Splice", do so with keys of DINO-ViT.)
    "edges" tells of places, 1 for the same picture, higher is better: the share of the edges of either that run the
    same way in both. "structure" is the structure term of SSIM, see there.

    Calibrated at 256 px on photos of cities (tests/evaluation/test_structure.py): the same picture is nearest, then
    another gamma, a shift of 2 px, a blur of 8 px, another picture.
    """
    maps = [similarities(picture, device) for picture in (x, y)]
    return {
        "self_similarity": float((maps[0] - maps[1]).square().mean()),
        "edges": edges(x, y),
        "structure": float(structure(x, y)),
    }


@torch.inference_mode()
def similarities(x: Tensor, device: torch.device) -> Tensor:
    """Cosines between all places of each picture: (B, C, H, W) -> (B, N, N), N of about 200."""
    with full_precision(device):
        places = shared(device)(looked_at(x.float().to(device), 224))[2].flatten(2)
    places = F.normalize(places, dim=1)
    return (places.transpose(1, 2) @ places).cpu()


def edges(x: Tensor, y: Tensor, short: int = 96) -> float:
    """The share of the edges of either picture that run the same way in both: 0 to 1; without any, 1.

    Gradients of the luminance at a short side of `short` px, each divided by its length and the picture's mean
    length (Haber and Modersitzki 2006, normalised gradient fields), so that contrast and brightness do not count;
    nor does it count which side is the lighter one, as by night lamps and windows turn that round.
    """
    fields = []
    for picture in (x, y):
        light = luminance(picture.double())
        factor = min(1.0, short / min(light.shape[2:]))
        light = F.interpolate(light, [max(3, round(side * factor)) for side in light.shape[2:]], mode="area")
        along = light[..., 1:-1, 2:] - light[..., 1:-1, :-2]
        down = light[..., 2:, 1:-1] - light[..., :-2, 1:-1]
        squared = along.square() + down.square()
        mean = squared.sqrt().mean() + 1e-3  # an eighth of a step of 8 bits: noise is no edge
        fields.append(torch.cat([along, down]) / torch.sqrt(squared + mean**2))
    agree = (fields[0] * fields[1]).sum(0).square().sum()
    either = torch.maximum(*(field.square().sum(0) for field in fields)).square().sum()
    return float(agree / either) if either > 0 else 1.0


def structure(x: Tensor, y: Tensor) -> Tensor:
    """How much of the structure of `x` is in `y`: the structure term of SSIM (Wang et al. 2004, equation 10).

    The correlation of the two luminances within a Gaussian window (11 pixels, sigma 1.5), averaged over the
    image: 1 where every edge lies where it lay, about 0 where nothing does, negative where light and dark are
    swapped. Brightness and contrast may change freely, as between day and night. (B, C, H, W) -> (B,).
    """
    *_, variance_x, variance_y, covariance = local_moments(luminance(x.double()), luminance(y.double()))
    small = (0.03 * 2) ** 2 / 2  # C3 for the range -1 to 1: flat places, such as a black sky, count as kept
    return ((covariance + small) / (torch.sqrt(variance_x * variance_y) + small)).mean((1, 2, 3))


def local_moments(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    """Means, variances and covariance in a Gaussian window (11 pixels, sigma 1.5) around each pixel; beyond the edge
    images are mirrored."""
    row = torch.exp(-(torch.arange(-5.0, 6.0, dtype=x.dtype, device=x.device) ** 2) / (2 * 1.5**2))
    row = row / row.sum()

    def window(z: Tensor) -> Tensor:
        z = F.pad(z, (5, 5, 5, 5), "reflect" if min(z.shape[-2:]) > 5 else "replicate")
        channels = z.shape[1]
        z = F.conv2d(z, row.view(1, 1, 1, 11).expand(channels, -1, -1, -1), groups=channels)
        return F.conv2d(z, row.view(1, 1, 11, 1).expand(channels, -1, -1, -1), groups=channels)

    mean_x, mean_y = window(x), window(y)
    variances = ((window(z * z) - mean**2).clamp_min(0) for z, mean in ((x, mean_x), (y, mean_y)))
    return mean_x, mean_y, *variances, window(x * y) - mean_x * mean_y


# Of a run


Kind = Literal["kid", "frechet"]
DISTANCES: dict[Kind, Callable[[Vectors, Vectors], float]] = {"kid": kid, "frechet": frechet}


def translated(translator: Translator, to: str, image: np.ndarray, name: str) -> np.ndarray:
    """(H, W, C) uint8 or uint16 -> the same size and depth, as a written file would hold it. BadInput names an image
    that fails."""
    y = precisely(translator, to, image)
    if not torch.isfinite(y).all():
        raise BadInput(f"{name}: the model makes no finite numbers of it; the model is broken")
    pixels: np.ndarray = to_pixels(y, image.dtype)[0]
    return pixels


@telling_of_memory()
def precisely(translator: Translator, to: str, image: np.ndarray) -> Tensor:
    """(H, W, C) uint8 or uint16 -> (1, C', H, W) in [-1, 1], not rounded: as `translate` does, but without TF32."""
    direction = translator.model.direction(to)
    dtype = translator.precise if image.dtype == np.uint16 else translator.dtype
    with full_precision(translator.device):
        return translator.tensor(to_tensor(image), direction, translator.how(direction, None, 1.0), dtype)


class Scorer:
    """Scores generators on the same test images again and again; the real images are looked at once.

    Draws no random numbers, and works on copies of the networks: training goes on as if it had not been.
    """

    def __init__(
        self, images_a: Sequence[np.ndarray], images_b: Sequence[np.ndarray], features: str, kind: Kind,
        device: torch.device, dtype: torch.dtype,
    ):  # fmt: skip
        """Images are (H, W, C), as `data.load_test` gives them. Raises BadInput for fewer than two of a domain."""
        if min(len(images_a), len(images_b)) < 2:
            raise BadInput(
                f"--score {kind} compares sets: it needs at least two test images of each domain, not "
                f"{len(images_a)} and {len(images_b)}"
            )
        self.kind: Kind = kind
        self.features: Features = load_features(features, device=device)
        self.device, self.precision = str(device), "auto" if dtype == torch.bfloat16 else "fp32"
        self.images = {"a": images_a, "b": images_b}
        self.real = {domain: self.features(images) for domain, images in self.images.items()}

    def score(self, ab: nn.Module, ba: nn.Module) -> dict[str, Any]:
        """{"kind", "features", "a", "b", "mean"}: "a" compares ba's translations with the real images of a.

        Lower is better.
        """
        translator = Translator(Model({"ab": ab, "ba": ba}, ("a", "b")), device=self.device, precision=self.precision)
        a, b = (self.distance(translator, source, target) for source, target in ("ba", "ab"))
        return {"kind": self.kind, "features": self.features.name, "a": a, "b": b, "mean": (a + b) / 2}

    def distance(self, translator: Translator, source: str, target: str) -> float:
        images = enumerate(self.images[source])
        fakes = (translated(translator, target, image, f"test image {n} of {source}") for n, image in images)
        return DISTANCES[self.kind](self.features(fakes), self.real[target])

"""Distances between two sets of feature vectors: KID (Binkowski et al. 2018) and Frechet (Heusel et al. 2017).

Pure functions of float64 arrays (N, D) and (M, D); N and M may differ.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

ROWS = 4096
"""Vectors whose kernel values are held at a time: memory stays at ROWS x ROWS numbers, however many images."""


def kid(x: Array, y: Array) -> float:
    """Unbiased squared MMD under the cubic polynomial kernel, over all pairs (equation 4 and appendix A.2).

    About 0 for two samples of one distribution (it may be slightly negative). At least 2 vectors each.
    """
    n, m = len(x), len(y)
    within_x = (kernel_sum(x, x) - kernel(np.einsum("nd,nd->n", x, x), x.shape[1]).sum()) / (n * (n - 1))
    within_y = (kernel_sum(y, y) - kernel(np.einsum("md,md->m", y, y), y.shape[1]).sum()) / (m * (m - 1))
    return float(within_x + within_y - 2 * kernel_sum(x, y) / (n * m))


def kid_subsets(x: Array, y: Array, subsets: int = 100, size: int | None = None, seed: int = 0) -> tuple[float, float]:
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


def frechet(x: Array, y: Array) -> float:
    """|mean_x - mean_y|^2 + tr(C_x + C_y - 2 (C_x C_y)^(1/2)), exact for singular covariances too.

    With C_x = A^T A and C_y = B^T B the trace of the root is the sum of the singular values of A B^T: no root
    of a (nearly) singular product is taken and nothing is added to the diagonal. At least 2 vectors each.
    """
    a = triangle(x - x.mean(0)) / np.sqrt(len(x) - 1)
    b = triangle(y - y.mean(0)) / np.sqrt(len(y) - 1)
    means = np.sum((x.mean(0) - y.mean(0)) ** 2)
    root = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    return float(means + np.sum(a**2) + np.sum(b**2) - 2 * root)


def spread(x: Array) -> float:
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


def kernel(products: Array, size: int) -> Array:
    """(x . y / D + 1)^3 of scalar products."""
    return (products / size + 1) ** 3


def kernel_sum(x: Array, y: Array) -> float:
    """Sum of the kernel over all pairs, block by block."""
    return sum(
        float(kernel(x[i : i + ROWS] @ y[j : j + ROWS].T, x.shape[1]).sum())
        for i in range(0, len(x), ROWS)
        for j in range(0, len(y), ROWS)
    )


def triangle(centred: Array) -> Array:
    """R (at most D, D) with R^T R = X^T X, by QR of a block after another: X is never squared or copied."""
    r: Array = centred[:0]
    for start in range(0, len(centred), ROWS):
        r = np.linalg.qr(np.concatenate([r, centred[start : start + ROWS]]), mode="r")  # type: ignore[assignment]
    return r

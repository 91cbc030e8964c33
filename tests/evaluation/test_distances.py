"""Distances against slow, independent computations in float64."""

import numpy as np
import pytest
from scipy import linalg

from viceversa.evaluation import scores as distances
from viceversa.evaluation.scores import frechet, kid, kid_subsets, spread


def sample(n: int, size: int, seed: int, shift: float = 0.0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.normal(size=(n, size)) @ random.normal(size=(size, size)) / np.sqrt(size) + shift


def kid_by_loops(x: np.ndarray, y: np.ndarray) -> float:
    """The unbiased estimator, pair by pair."""
    k = lambda a, b: (float(a @ b) / len(a) + 1) ** 3  # noqa: E731
    n, m = len(x), len(y)
    xx = sum(k(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    yy = sum(k(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return xx + yy - 2 * sum(k(a, b) for a in x for b in y) / (n * m)


def frechet_by_eigenvalues(x: np.ndarray, y: np.ndarray) -> float:
    """tr (C_x C_y)^(1/2) as the trace of (C_x^(1/2) C_y C_x^(1/2))^(1/2), symmetric at every step."""
    cx, cy = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    values, vectors = linalg.eigh(cx)
    half = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    root = np.sqrt(np.maximum(linalg.eigvalsh(half @ cy @ half), 0)).sum()
    return float(np.sum((x.mean(0) - y.mean(0)) ** 2) + np.trace(cx) + np.trace(cy) - 2 * root)


@pytest.mark.parametrize(("n", "m"), [(20, 20), (12, 31), (2, 3)])
def test_kid(n: int, m: int) -> None:
    x, y = sample(n, 7, 1), sample(m, 7, 2, shift=0.5)
    assert kid(x, y) == pytest.approx(kid_by_loops(x, y), rel=1e-9)


def test_kid_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = sample(23, 7, 1), sample(31, 7, 2, shift=0.5)
    whole = kid(x, y), frechet(x, y), spread(x)
    monkeypatch.setattr(distances, "ROWS", 5)
    assert (kid(x, y), frechet(x, y), spread(x)) == pytest.approx(whole, rel=1e-10)


def test_kid_is_unbiased() -> None:
    """Two samples of one distribution: 0 on average, below as often as above."""
    random = np.random.default_rng(0)
    values = [kid(random.normal(size=(8, 4)), random.normal(size=(13, 4))) for _ in range(2000)]
    assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(len(values))
    assert 0.2 < np.mean(np.array(values) < 0) < 0.8


def test_kid_subsets_vary_and_leave_the_random_state_alone() -> None:
    x, y = sample(60, 7, 1), sample(80, 7, 2, shift=0.5)
    np.random.seed(1)
    before = np.random.get_state()[1].copy()
    mean, std = kid_subsets(x, y)
    assert (np.random.get_state()[1] == before).all()
    assert kid_subsets(x, y) == (mean, std)
    assert kid_subsets(x, y, seed=1) != (mean, std)
    assert mean == pytest.approx(kid(x, y), abs=3 * std)
    assert 0 < std < abs(mean)
    assert kid_subsets(x, y, subsets=3, size=60)[0] != mean


@pytest.mark.parametrize(("n", "m"), [(500, 400), (9, 30), (9, 5), (2, 2)])
def test_frechet(n: int, m: int) -> None:
    """More vectors than dimensions, fewer (singular covariances), unequal counts."""
    x, y = sample(n, 20, 1), sample(m, 20, 2, shift=0.3)
    assert frechet(x, y) == pytest.approx(frechet_by_eigenvalues(x, y), rel=1e-6)
    assert frechet(y, x) == pytest.approx(frechet(x, y), rel=1e-12)


def test_frechet_is_exact_where_the_truth_is_known() -> None:
    x = sample(9, 20, 1)
    assert frechet(x, x) == pytest.approx(0, abs=1e-12)
    assert frechet(x, x + 0.5) == pytest.approx(20 * 0.25, rel=1e-12)
    centre = x.mean(0)  # all deviations twice as long: tr(C + 4 C - 2 (4 C^2)^(1/2)) = tr C
    assert frechet(x, centre + 2 * (x - centre)) == pytest.approx(np.trace(np.cov(x, rowvar=False)), rel=1e-12)


def test_frechet_where_scipys_root_is_off() -> None:
    """The field's formula on singular covariances is what it is compared with: near, not equal (trap)."""
    x, y = sample(30, 64, 1), sample(40, 64, 2)
    cx, cy = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    usual = np.sum((x.mean(0) - y.mean(0)) ** 2) + np.trace(cx + cy - 2 * linalg.sqrtm(cx @ cy).real)
    assert frechet(x, y) == pytest.approx(usual, rel=1e-3)


def test_spread() -> None:
    x = sample(11, 5, 3)
    pairs = [np.linalg.norm(a - b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j]
    assert spread(x) == pytest.approx(np.mean(pairs), rel=1e-9)
    assert spread(np.ones((4, 5))) == 0

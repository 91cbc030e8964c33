"""Look at every picture of a data set once: what it is, its colours, its fingerprint."""

import functools
import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms

from ..data import pictures as images
from ..data.pictures import BadImage
from . import likeness

SMALL = 256
"""Pictures are brought to this before their fingerprint is taken."""
FLAT = 4.0
"""A picture whose gray values deviate by less than this (of 255) shows nothing that could be recognised."""
UNITS = np.array([100 / 255, 1.0, 1.0])
"""A step of Pillow's 8-bit L*, a* and b* in CIELAB's own units."""


@dataclass(frozen=True)
class Look:
    """What is known of one picture once it was decoded."""

    path: Path
    width: int
    height: int
    format: str
    sixteen: bool
    """16 bit a channel."""
    gray: bool
    alpha: bool
    flat: bool
    """Nearly one colour, such as a black night."""
    content: bytes
    """Digest of the pixels: the same for exact copies, whatever their format."""
    print: np.ndarray
    """(256,) bool, see likeness.py."""
    colours: np.ndarray
    """(3, 256): how often each value of L*, a*, b* occurs, of 4096 points."""

    @property
    def short(self) -> int:
        return min(self.width, self.height)

    @property
    def aspect(self) -> float:
        return self.width / self.height


def look(path: Path) -> Look:
    """Decode and measure. Raises BadImage."""
    picture = images.read(path, None)
    pixels = picture.pixels
    height, width, channels = pixels.shape
    eight = pixels if pixels.dtype == np.uint8 else (pixels >> 8).astype(np.uint8)
    whole = Image.fromarray(eight[..., 0] if channels == 1 else eight)
    small = whole.copy()
    small.thumbnail((SMALL, SMALL), Image.Resampling.BOX)
    return Look(
        path=path,
        width=width,
        height=height,
        format=picture.format,
        sixteen=pixels.dtype == np.uint16,
        gray=channels == 1,
        alpha=picture.alpha is not None,
        flat=bool(np.asarray(small.convert("L"), np.float32).std() < FLAT),
        content=hashlib.blake2b(str(pixels.shape).encode() + pixels.tobytes(), digest_size=16).digest(),
        print=likeness.fingerprint(small),
        colours=lab_histogram(small.convert("RGB")),
    )


def look_at_all(paths: Sequence[Path], update: Callable[[int], None]) -> list[Look | BadImage]:
    """Each picture, or why it cannot be read, in order; decoded by threads. `update` is told how many are done."""

    def attempt(path: Path) -> Look | BadImage:
        try:
            return look(path)
        except BadImage as broken:
            return broken

    seen = []
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool, closing(pool.map(attempt, paths)) as coming:  # type: ignore[type-var]
        for each in coming:
            seen.append(each)
            update(len(seen))
    return seen


@functools.cache
def to_lab() -> ImageCms.ImageCmsTransform:
    return ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")


def lab_histogram(image: Image.Image) -> np.ndarray:
    """(3, 256) counts of L*, a*, b*, over 64 x 64 points whatever the picture's size."""
    lab = ImageCms.applyTransform(image.resize((64, 64), Image.Resampling.BOX), to_lab())
    assert lab is not None
    values = np.asarray(lab).reshape(-1, 3) ^ np.array([0, 128, 128], np.uint8)  # a* and b* are signed
    return np.stack([np.bincount(channel, minlength=256) for channel in values.T])


def colour_distance(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(N, 3, 256), (M, 3, 256) -> (3,): how far apart two sets are in L*, a* and b*, in CIELAB's units.

    The 1-Wasserstein distance of the pooled histograms: how far colours must be moved on average.
    """
    shares = [counts.sum(0) / counts.sum((0, 2))[:, None] for counts in (some, others)]
    moved: np.ndarray = np.abs(shares[0].cumsum(1) - shares[1].cumsum(1)).sum(1) * UNITS
    return moved


def mean_colour(counts: np.ndarray) -> np.ndarray:
    """(N, 3, 256) -> (3,): mean L* (0 black, 100 white), a* (green to red), b* (blue to yellow)."""
    pooled = counts.sum(0)
    offsets = np.array([0, 128, 128])
    means: np.ndarray = (pooled @ np.arange(256) / pooled.sum(1) - offsets) * UNITS
    return means


def thumbnail(path: Path, side: int) -> Image.Image:
    """RGB, the long side at most `side`."""
    pixels = images.read(path, 3).pixels
    image = Image.fromarray(pixels if pixels.dtype == np.uint8 else (pixels >> 8).astype(np.uint8))
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return image

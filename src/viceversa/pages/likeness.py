"""Which pictures show the same: exact copies, near copies, the same scene, by a perceptual hash.

The hash is pHash (Zauner 2010) of 256 bits, by the library ImageHash: the signs of the lowest frequencies of
the gray picture. Pictures that have nothing in common differ in about 128 bits, the nearest of some hundred
unrelated ones in 80 to 100; a recompressed copy in under 10.
"""

import numpy as np
from PIL import Image

from ..errors import BadInput

SIDE = 16
BITS = SIDE * SIDE
NEAR = 16
"""Bits that a near copy may differ in: resized, recompressed, slightly cropped, the next frame of a camera."""
SCENE = 64
"""Bits that pictures of the same scene differ in at most: another hour, somebody walks by."""
ROWS = 1024
"""Rows of the table of distances that are made at a time: 40 MB for 10,000 pictures."""


def fingerprint(image: Image.Image) -> np.ndarray:
    """(256,) bool. Raises BadInput where the library is not installed."""
    try:
        import imagehash
    except ImportError:
        raise BadInput("looking for copies needs ImageHash: pip install 'viceversa[evaluate]'") from None
    return np.asarray(imagehash.phash(image, hash_size=SIDE).hash, bool).ravel()


def distances(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Bits in which they differ: (N, 256) and (M, 256) bool -> (N, M), exact.

    As one product of matrices of +1 and -1, which is how 10,000 pictures take a second.
    """
    signs = [np.where(bits, np.float32(1), np.float32(-1)) for bits in (some, others)]
    return (BITS - signs[0] @ signs[1].T) / 2


def groups(prints: np.ndarray, most: int) -> np.ndarray:
    """(N, 256) -> (N,): for each picture, the first one that it is like, itself where there is none.

    Every group lies within `most` bits of its first picture, so that likeness does not creep along a chain.
    """
    first = np.full(len(prints), -1)
    for start in range(0, len(prints), ROWS):
        for row, apart in enumerate(distances(prints[start : start + ROWS], prints), start):
            if first[row] < 0:
                first[(apart <= most) & (first < 0)] = row
    return first


def nearest(some: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each of `some`, the nearest of `others`: its index and how many bits it differs in."""
    blocks = [distances(some[start : start + ROWS], others) for start in range(0, len(some), ROWS)]
    found = [(block.argmin(1), block.min(1)) for block in blocks]
    return np.concatenate([at for at, _ in found]), np.concatenate([apart for _, apart in found])

"""Look at every picture of two folders once, before training, and tell in numbers what is there.

Which pictures show the same is told by pHash (Zauner 2010) of 256 bits: the signs of the lowest frequencies of the
gray picture. Pictures that have nothing in common differ in about 128 bits, the nearest of some hundred unrelated
ones in 80 to 100; a recompressed copy in under 10.
"""

import functools
import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageCms

from ..data import pictures
from ..data.folders import Sources, find_sources
from ..data.pictures import BadImage
from ..data.store import notes_of
from ..errors import BadInput
from ..terminal import followed, progress_bar
from ..threads import ordered

SMALL = 256
"""Pictures are brought to this before their fingerprint is taken."""
FLAT = 4.0
"""A picture whose gray values deviate by less than this (of 255) shows nothing that could be recognised."""
SIDE = 16
BITS = SIDE * SIDE
NEAR = 16
"""Bits that a near copy may differ in: resized, recompressed, slightly cropped, the next frame of a camera."""
SCENE = 64
"""Bits that pictures of the same scene differ in at most: another hour, somebody walks by."""
ROWS = 1024
"""Rows of the table of distances that are made at a time: 40 MB for 10,000 pictures."""
UNITS = np.array([100 / 255, 1.0, 1.0])
"""A step of Pillow's 8-bit L*, a* and b* in CIELAB's own units."""


# One picture


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
    flat: bool
    """Nearly one colour, such as a black night."""
    content: bytes
    """Digest of the pixels: the same for exact copies, whatever their format."""
    print: np.ndarray
    """(256,) bool, see `fingerprint`."""
    colours: np.ndarray
    """(3, 256): how often each value of L*, a*, b* occurs, of 4096 points."""
    notes: tuple[str, ...]
    """What is changed or left out of it where it is trained on, in words."""

    @functools.cached_property
    def real(self) -> str:
        """The path of the file itself, whatever links lead there."""
        return os.path.realpath(self.path)

    @property
    def short(self) -> int:
        return min(self.width, self.height)

    @property
    def aspect(self) -> float:
        return self.width / self.height


def look(path: Path) -> Look:
    """Decode and measure. Raises BadImage."""
    picture = pictures.read(path, None)
    pixels = pictures.on_white(picture)
    height, width, channels = pixels.shape
    small = pictures.to_pil(pixels)
    small.thumbnail((SMALL, SMALL), Image.Resampling.BOX)
    return Look(
        path=path,
        width=width,
        height=height,
        format=picture.format,
        sixteen=pixels.dtype == np.uint16,
        gray=channels == 1,
        flat=bool(np.asarray(small.convert("L"), np.float32).std() < FLAT),
        content=hashlib.blake2b(str(pixels.shape).encode() + pixels.tobytes(), digest_size=16).digest(),
        print=fingerprint(small),
        colours=lab_histogram(small.convert("RGB")),
        notes=notes_of(picture),
    )


def fingerprint(image: Image.Image) -> np.ndarray:
    """pHash: which of the 16 x 16 lowest frequencies of the gray picture lie above their median. (256,) bool."""
    side = 4 * SIDE
    gray = np.asarray(image.convert("L").resize((side, side), Image.Resampling.LANCZOS), np.float64)
    cosines = np.cos(np.pi / side * np.outer(np.arange(SIDE), np.arange(side) + 0.5))
    lowest = cosines @ gray @ cosines.T  # of the discrete cosine transform
    return (lowest > np.median(lowest)).ravel()


@functools.cache
def to_lab() -> ImageCms.ImageCmsTransform:
    return ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")


def lab_histogram(image: Image.Image) -> np.ndarray:
    """(3, 256) counts of L*, a*, b*, over 64 x 64 points whatever the picture's size."""
    lab = ImageCms.applyTransform(image.resize((64, 64), Image.Resampling.BOX), to_lab())
    assert lab is not None
    values = np.asarray(lab).reshape(-1, 3) ^ np.array([0, 128, 128], np.uint8)  # a* and b* are signed
    return np.stack([np.bincount(channel, minlength=256) for channel in values.T]).astype(np.uint16)


# All of them


@dataclass(frozen=True)
class Folder:
    """The pictures of one domain that are to be trained on, or tested with."""

    domain: str
    part: Literal["training", "test"]
    looks: list[Look]
    broken: list[BadImage]

    @property
    def name(self) -> str:
        return f"{self.domain}, {self.part}"

    @property
    def count(self) -> int:
        return len(self.looks) + len(self.broken)

    @property
    def sizes(self) -> str:
        """640x480, or the smallest to the largest by their pixels."""
        sizes = sorted({(look.width, look.height) for look in self.looks}, key=lambda size: size[0] * size[1])
        shown = [f"{width}x{height}" for width, height in (sizes[0], sizes[-1])] if sizes else ["–"]
        return " to ".join(dict.fromkeys(shown))

    @property
    def formats(self) -> str:
        counted = Counter(look.format for look in self.looks).most_common()
        return ", ".join(f"{name} {number}" if len(counted) > 1 else name for name, number in counted) or "–"

    def median(self, measure: Literal["short", "aspect"]) -> float:
        """Of the short sides, or of width / height."""
        return median(float(getattr(look, measure)) for look in self.looks)


@dataclass(frozen=True)
class Copies:
    """Pictures that are the same: to the pixel, or nearly."""

    kind: Literal["exact", "near"]
    members: list[tuple[Folder, Look]]

    @property
    def domains(self) -> set[str]:
        return {folder.domain for folder, _ in self.members}

    def repeats(self, folder: Folder) -> int:
        """How many of `folder`'s pictures in this group repeat another one of it."""
        return max(0, sum(member is folder for member, _ in self.members) - 1)


@dataclass(frozen=True)
class Known:
    """How much of a domain's test set was in training: counts of test pictures, each including the last."""

    domain: str
    total: int
    scenes: int
    """Of a scene that is trained on."""
    near: int
    shared: list[Look]
    """Files that are trained on themselves."""
    twice: list[tuple[Look, Look]]
    """Test picture, and the one in training that is the same to the pixel, in another file."""
    pairs: list[tuple[Look, Look, int]]
    """Test picture, the nearest one in training, and the bits in which they differ; the nearest first. No flat ones."""

    @property
    def exact(self) -> int:
        return len(self.shared) + len(self.twice)


@dataclass(frozen=True)
class Colours:
    """How far apart the domains are, and for comparison two halves of the same domain. (3,): L*, a*, b*."""

    apart: np.ndarray
    halves: np.ndarray
    means: tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Findings:
    """All that was found, before it is judged."""

    folders: list[Folder]
    """Training of both domains, then their test pictures where there are any."""
    copies: list[Copies]
    scenes: dict[str, int]
    """About how many different scenes each domain's training pictures show."""
    known: list[Known]
    shared: list[Look]
    """Files that are given for both domains, since one folder lies inside the other, or two lists name them."""
    colours: Colours
    warnings: list[str]

    @property
    def training(self) -> list[Folder]:
        """Of the first domain, then the second; neither is empty."""
        return [folder for folder in self.folders if folder.part == "training"]

    @functools.cached_property
    def within(self) -> str:
        """The folder in which all images lie."""
        return os.path.commonpath({os.path.abspath(look.path.parent) for f in self.folders for look in f.looks})

    def short(self, *paths: Path) -> str:
        """Paths from there on; at most three."""
        named = [os.path.relpath(os.path.abspath(path), self.within) for path in paths[:3]]
        return " = ".join(named) + (f" and {len(paths) - 3} more" if len(paths) > 3 else "")


def examine(a: str, b: str | None = None, test_a: str | None = None, test_b: str | None = None) -> Findings:
    """Decode and compare all images of two domains, or of a folder with trainA and trainB.

    Raises BadInput for missing or empty folders, for one image only, and where none can be read.
    """
    sources = find_sources(a, b, test_a, test_b, hold_out=0)
    for paths, name in zip((sources.a, sources.b), sources.names, strict=True):
        if len(paths) < 2:
            raise BadInput(f"{paths[0].parent} holds one image of {name}: a domain needs many, some hundred at best")
    folders = look_at(sources)
    for folder in folders[:2]:
        if not folder.looks:
            raise BadInput(f"none of the {folder.count} images of {folder.domain} can be read: {folder.broken[0]}")
    return compare(folders, sources.warnings)


def look_at(sources: Sources) -> list[Folder]:
    """Training of both domains, then test where there is any."""

    def attempt(job: tuple[Folder, Path]) -> tuple[list[Any], Look | BadImage]:
        folder, path = job
        try:
            return folder.looks, look(path)
        except BadImage as broken:
            return folder.broken, broken

    folders = [Folder(name, "training", [], []) for name in sources.names]
    folders += [Folder(name, "test", [], []) for name in sources.names]
    paths = (sources.a, sources.b, sources.test_a, sources.test_b)
    jobs = [(folder, path) for folder, mine in zip(folders, paths, strict=True) for path in mine]
    for kept, one in followed("looking at images", len(jobs), ordered(attempt, jobs)):
        kept.append(one)
    return [folder for folder in folders if folder.count]


def compare(folders: Sequence[Folder], warnings: Sequence[str]) -> Findings:
    """Compare everything with everything, under a bar of its own."""
    training = [folder for folder in folders if folder.part == "training"]
    tests = [folder for folder in folders if folder.part == "test"]
    total = sum(len(folder.looks) for folder in (*folders, *training))
    done = 0
    with progress_bar("comparing images", total) as update:

        def step(count: int) -> None:
            nonlocal done
            done += count
            update(done)

        found = Findings(
            folders=list(folders),
            copies=find_copies(folders, step),
            scenes={folder.domain: count_scenes(folder.looks, step) for folder in training},
            known=[find_known(test, train) for test in tests for train in training if test.domain == train.domain],
            shared=find_shared(folders, training[0].domain),
            colours=find_colours(training[0].looks, training[1].looks),
            warnings=list(warnings),
        )
        update(total)  # flat ones and exact copies are not compared
    return found


def find_shared(folders: Sequence[Folder], domain: str) -> list[Look]:
    """Files of a domain, by their real paths, that are the other's too."""
    others = {look.real for folder in folders if folder.domain != domain for look in folder.looks}
    return [look for folder in folders if folder.domain == domain for look in folder.looks if look.real in others]


def find_copies(folders: Sequence[Folder], step: Callable[[int], None]) -> list[Copies]:
    """Groups of exact copies, then of near ones, the largest first. One of each exact group stands for it. A file that
    is in several folders is no copy of itself: it counts in the first."""
    first: dict[str, Folder] = {}
    everything = [(f, look) for f in folders for look in f.looks if first.setdefault(look.real, f) is f]
    exact = grouped(everything, [look.content for _, look in everything])
    single = [group[0] for group in exact if not group[0][1].flat]
    near = grouped(single, list(groups(prints(look for _, look in single), NEAR, step)))
    found = [Copies("exact", group) for group in exact] + [Copies("near", group) for group in near]
    return sorted((c for c in found if len(c.members) > 1), key=lambda c: (c.kind, -len(c.members)))


def grouped(members: Sequence[tuple[Folder, Look]], labels: Sequence[object]) -> list[list[tuple[Folder, Look]]]:
    found = defaultdict(list)
    for member, label in zip(members, labels, strict=True):
        found[label].append(member)
    return list(found.values())


def count_scenes(looks: Sequence[Look], step: Callable[[int], None]) -> int:
    return len(set(groups(prints(look for look in looks if not look.flat), SCENE, step)))


def find_known(test: Folder, train: Folder) -> Known:
    contents = {look.content: look for look in train.looks}
    files = {look.real for look in train.looks}
    same = [look for look in test.looks if look.content in contents]
    shared = [look for look in same if look.real in files]
    twice = [(look, contents[look.content]) for look in same if look.real not in files]
    flat = sum(look.flat for look in same)
    some, others = ([look for look in folder.looks if not look.flat] for folder in (test, train))
    if not some or not others:
        return Known(test.domain, len(test.looks), flat, flat, shared, twice, [])
    at, bits = nearest(prints(some), prints(others))
    order = np.argsort(bits, kind="stable")
    pairs = [(some[n], others[at[n]], int(bits[n])) for n in order if bits[n] <= SCENE]
    near = sum(apart <= NEAR for _, _, apart in pairs)
    return Known(test.domain, len(test.looks), len(pairs) + flat, near + flat, shared, twice, pairs)


# Fingerprints


def prints(looks: Iterable[Look]) -> np.ndarray:
    """(N, 256) bool."""
    return np.array([look.print for look in looks], bool).reshape(-1, BITS)


def distances(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Bits in which they differ: (N, 256) and (M, 256) bool -> (N, M), exact.

    As one product of matrices of +1 and -1, which is how 10,000 pictures take a second.
    """
    signs = [np.where(bits, np.float32(1), np.float32(-1)) for bits in (some, others)]
    return (BITS - signs[0] @ signs[1].T) / 2


def groups(found: np.ndarray, most: int, step: Callable[[int], None] = lambda count: None) -> np.ndarray:
    """(N, 256) -> (N,): for each picture, the first one that it is like, itself where there is none.

    Every group lies within `most` bits of its first picture, so that likeness does not creep along a chain; and a
    picture is compared with the first ones of groups only, so that many near-equal pictures take no longer than as
    many as there are groups.
    """
    first = np.arange(len(found))
    heads = np.empty(0, int)
    for start in range(0, len(found), ROWS):
        block = np.arange(start, min(start + ROWS, len(found)))
        if len(heads):
            like = distances(found[block], found[heads]) <= most
            known = like.any(1)
            first[block[known]] = heads[like[known].argmax(1)]
            block = block[~known]
        like = distances(found[block], found[block]) <= most
        free = np.ones(len(block), bool)
        for n, row in enumerate(like):
            if free[n]:
                first[block[row & free]] = block[n]
                free &= ~row
        heads = np.concatenate([heads, block[first[block] == block]])
        step(min(ROWS, len(found) - start))
    return first


def nearest(some: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each of `some`, the nearest of `others`: its index and how many bits it differs in."""
    blocks = [distances(some[start : start + ROWS], others) for start in range(0, len(some), ROWS)]
    found = [(block.argmin(1), block.min(1)) for block in blocks]
    return np.concatenate([at for at, _ in found]), np.concatenate([apart for _, apart in found])


# Colours


def find_colours(a: Sequence[Look], b: Sequence[Look]) -> Colours:
    sets = [np.stack([look.colours for look in looks]) for looks in (a, b)]
    halves = [colour_distance(counts[::2], counts[1::2]) for counts in sets if len(counts) > 1]
    return Colours(
        apart=colour_distance(*sets),
        halves=np.max(halves, axis=0) if halves else np.zeros(3),
        means=(mean_colour(sets[0]), mean_colour(sets[1])),
    )


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
    means: np.ndarray = (pooled @ np.arange(256) / pooled.sum(1) - np.array([0, 128, 128])) * UNITS
    return means

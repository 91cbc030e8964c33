"""What two folders of pictures (and their test pictures) hold, in numbers: counts, copies, scenes, colours."""

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Literal

import numpy as np

from ..data.pictures import BadImage
from . import likeness
from .inspection import Look, colour_distance, mean_colour


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

    @property
    def short(self) -> float:
        """The median short side."""
        return median(look.short for look in self.looks)

    @property
    def aspect(self) -> float:
        """The median of width / height."""
        return median(look.aspect for look in self.looks)


@dataclass(frozen=True)
class Copies:
    """Pictures that are the same: to the pixel, or nearly."""

    kind: Literal["exact", "near"]
    members: list[tuple[Folder, Look]]

    @property
    def domains(self) -> set[str]:
        return {folder.domain for folder, _ in self.members}

    @property
    def parts(self) -> set[str]:
        return {folder.part for folder, _ in self.members}


@dataclass(frozen=True)
class Known:
    """How much of a domain's test set was in training: counts of test pictures, each including the last."""

    domain: str
    total: int
    scenes: int
    """Of a scene that is trained on."""
    near: int
    exact: int
    pairs: list[tuple[Look, Look, int]]
    """Test picture, the nearest one in training, and the bits in which they differ; the nearest first."""


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
    colours: Colours
    warnings: list[str]

    @property
    def training(self) -> list[Folder]:
        """Of the first domain, then the second; neither is empty."""
        return [folder for folder in self.folders if folder.part == "training"]

    def short(self, *paths: Path) -> str:
        """Paths from the folder on in which all images lie; at most three."""
        within = os.path.commonpath([look.path.absolute().parent for f in self.folders for look in f.looks])
        names = [os.path.relpath(path.absolute(), within) for path in paths[:3]]
        return " = ".join(names) + (f" and {len(paths) - 3} more" if len(paths) > 3 else "")


def find(folders: Sequence[Folder], warnings: Sequence[str] = ()) -> Findings:
    """Compare everything with everything. Takes about a second for 10,000 pictures."""
    training = [folder for folder in folders if folder.part == "training"]
    tests = [folder for folder in folders if folder.part == "test"]
    return Findings(
        folders=list(folders),
        copies=find_copies(folders),
        scenes={folder.domain: count_scenes(folder.looks) for folder in training},
        known=[find_known(test, train) for test in tests for train in training if test.domain == train.domain],
        colours=find_colours(training[0].looks, training[1].looks),
        warnings=list(warnings),
    )


def find_copies(folders: Sequence[Folder]) -> list[Copies]:
    """Groups of exact copies, then of near ones, the largest first. One of each exact group stands for it."""
    everything = [(folder, look) for folder in folders for look in folder.looks]
    exact = grouped(everything, [look.content for _, look in everything])
    single = [group[0] for group in exact if not group[0][1].flat]
    labels = likeness.groups(prints(look for _, look in single), likeness.NEAR)
    near = grouped(single, list(labels))
    found = [Copies("exact", group) for group in exact] + [Copies("near", group) for group in near]
    return sorted((c for c in found if len(c.members) > 1), key=lambda c: (c.kind, -len(c.members)))


def grouped(members: Sequence[tuple[Folder, Look]], labels: Sequence[object]) -> list[list[tuple[Folder, Look]]]:
    groups = defaultdict(list)
    for member, label in zip(members, labels, strict=True):
        groups[label].append(member)
    return list(groups.values())


def prints(looks: Iterable[Look]) -> np.ndarray:
    """(N, 256) bool."""
    return np.array([look.print for look in looks], bool).reshape(-1, likeness.BITS)


def count_scenes(looks: Sequence[Look]) -> int:
    some = [look for look in looks if not look.flat]
    return len(set(likeness.groups(prints(some), likeness.SCENE)))


def find_known(test: Folder, train: Folder) -> Known:
    contents = {look.content for look in train.looks}
    exact = sum(look.content in contents for look in test.looks)
    some, others = ([look for look in folder.looks if not look.flat] for folder in (test, train))
    if not some or not others:
        return Known(test.domain, len(test.looks), exact, exact, exact, [])
    at, bits = likeness.nearest(prints(some), prints(others))
    order = np.argsort(bits, kind="stable")
    pairs = [(some[n], others[at[n]], int(bits[n])) for n in order if bits[n] <= likeness.SCENE]
    near = sum(apart <= likeness.NEAR for _, _, apart in pairs)
    return Known(test.domain, len(test.looks), max(len(pairs), exact), max(near, exact), exact, pairs)


def find_colours(a: Sequence[Look], b: Sequence[Look]) -> Colours:
    sets = [np.stack([look.colours for look in looks]) for looks in (a, b)]
    halves = [colour_distance(counts[::2], counts[1::2]) for counts in sets if len(counts) > 1]
    return Colours(
        apart=colour_distance(*sets),
        halves=np.max(halves, axis=0) if halves else np.zeros(3),
        means=(mean_colour(sets[0]), mean_colour(sets[1])),
    )

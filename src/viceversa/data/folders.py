"""Which files are trained on, which are kept for the progress pictures, and what the two domains are called."""

import hashlib
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ..errors import BadInput
from . import pictures as images

T = TypeVar("T")
NOT_IN_FILE_NAMES = re.compile(r'[\\/:*?"<>|\x00-\x1f]')


@dataclass(frozen=True)
class Sources:
    """The images of both domains, sorted, none of them opened yet."""

    a: list[Path]
    b: list[Path]
    test_a: list[Path]
    test_b: list[Path]
    names: tuple[str, str]
    held_out: bool
    """Were test images taken out of `a` or `b`, for want of any of their own?"""
    warnings: list[str]


def find_sources(
    a: str,
    b: str | None = None,
    test_a: str | None = None,
    test_b: str | None = None,
    names: tuple[str, str] | None = None,
    hold_out: int = 4,
) -> Sources:
    """Find all images. `a` alone is a folder with trainA and trainB and, if there, testA and testB.

    Without test images, `hold_out` of the domain's own, evenly spread, are left out of training: at most half
    of them, and if there is only one, it serves for both. Raises BadInput.
    """
    if b is None:
        a, b, test_a, test_b = _inside(Path(a), test_a, test_b)
    found_a, found_b = images.find(a), images.find(b)
    names = _default_names(a, b) if names is None else _checked(names)
    both = _shared(found_a, found_b)
    if both == len(found_a) == len(found_b):
        raise BadInput(f"{a} and {b} hold the same images: give one folder for each domain")
    warnings = [f"of the images, {both} {is_or_are(both)} in both {names[0]} and {names[1]}"] if both else []
    train, tests = [], []
    for found, test, name in zip((found_a, found_b), (test_a, test_b), names, strict=True):
        if test is not None:
            train.append(found)
            tests.append(images.find(test))
            if known := _shared(tests[-1], found):
                warnings.append(f"of the test images of {name}, {known} {is_or_are(known)} trained on too")
        elif len(found) == 1:
            train.append(found)
            tests.append(found)
            warnings.append(f"{name} has one image only: it is trained on and shown in the progress pictures")
        else:
            kept = spread(found, min(hold_out, len(found) // 2))
            train.append([path for path in found if path not in kept])
            tests.append(kept)
    return Sources(train[0], train[1], tests[0], tests[1], names, test_a is None or test_b is None, warnings)


def is_or_are(count: int) -> str:
    return "is" if count == 1 else "are"


def spread(items: Sequence[T], count: int) -> list[T]:
    """`count` of the items (or all, if there are fewer), evenly spread from the first to the last."""
    count = min(count, len(items))
    return [items[(2 * n + 1) * len(items) // (2 * count)] for n in range(count)]


def _inside(root: Path, test_a: str | None, test_b: str | None) -> tuple[str, str, str | None, str | None]:
    if not root.exists():
        raise BadInput(f"{root}: no such folder")
    for name in ("trainA", "trainB"):
        if not (root / name).is_dir():
            raise BadInput(f"{root}: has no folder {name}; give two folders, or one with trainA and trainB")

    def there(name: str) -> str | None:
        return str(root / name) if (root / name).is_dir() else None

    return str(root / "trainA"), str(root / "trainB"), test_a or there("testA"), test_b or there("testB")


def _default_names(a: str, b: str) -> tuple[str, str]:
    """Those of the folders: the last that a glob names in full, and for a text file its own name."""
    first, second = _name(a), _name(b)
    usable = all(map(_usable, (first, second))) and first.casefold() != second.casefold()
    return (first, second) if usable and (first, second) != ("trainA", "trainB") else ("a", "b")


def _name(source: str) -> str:
    path = Path(source)
    if path.is_file():
        return path.resolve().parent.name if path.suffix.lower() in images.SUFFIXES else path.stem
    while not path.exists():
        path = path.parent
    return path.resolve().name


def _checked(names: tuple[str, str]) -> tuple[str, str]:
    for name in names:
        if not _usable(name):
            raise BadInput(f"--names: {name!r} cannot be part of a file name; use letters, digits, - and _")
    if names[0].casefold() == names[1].casefold():
        raise BadInput(f"--names: both domains are called {names[0]}; give two names")
    return names


def _usable(name: str) -> bool:
    """Can it be part of a file name on every system?"""
    return 0 < len(name) <= 64 and name == name.strip(" .-") and not NOT_IN_FILE_NAMES.search(name)


def _shared(first: list[Path], second: list[Path]) -> int:
    """How many of `first` have the content of one in `second`. Only files of equal size are read."""
    sizes: dict[int, list[Path]] = defaultdict(list)
    for path in second:
        sizes[path.stat().st_size].append(path)
    digests: dict[int, set[bytes]] = {}
    count = 0
    for path in first:
        size = path.stat().st_size
        if size in sizes:
            if size not in digests:
                digests[size] = {_digest(other) for other in sizes[size]}
            count += _digest(path) in digests[size]
    return count


def _digest(path: Path) -> bytes:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "blake2b").digest()

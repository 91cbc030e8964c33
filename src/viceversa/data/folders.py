"""Which files a name means; which are trained on, which are kept for the progress pictures; the domains' names."""

import filecmp
import hashlib
import os
import re
import unicodedata
from collections import Counter, defaultdict, deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from glob import glob, has_magic
from pathlib import Path
from typing import TypeVar

from ..errors import BadInput
from ..terminal import words
from . import pictures

T = TypeVar("T")
PICTURES = pictures.SUFFIXES
NOT_IN_NAMES = re.compile('[\\\\/:*?"<>|\\x00-\\x1f\\ud800-\\udfff]')
"""On some system; the last of these stand for bytes that are no letters."""
LONGEST_NAME = 120
"""Bytes of a domain's name: those of two, and some more, are the name of a file."""
BESIDE = ("compare", "round-trip")
NOT_THERE = "no such file or folder"
APPLE_DOUBLE = "._"
"""What files begin with that hold what Apple's system knows of another."""
LABELS = frozenset(("mask", "masks", "label", "labels", "annotations", "segmentationclass", "segmentationobject"))
"""Folders in a labelled set, the pictures in which say what is where."""
TOLD = 5
"""Endings that are told apart where files are left out."""
LOOKED_AT, PIECE, WHOLE = 2_000, 1 << 12, 1 << 30
"""Files of which it is found out whether they are in the other folder too; bytes of a piece of one, and bytes of
all files that are read whole for it: a start must not read a million pictures."""


@dataclass(frozen=True)
class Found:
    """The files that a name means."""

    source: str
    paths: list[Path]
    """In the order of their names, or of the list; none of them opened yet."""
    root: Path | None
    """The folder below which they lie. None for those of a list, which may lie anywhere."""
    left_out: Counter[str]
    """How many were left out, by what they are: files of other kinds by their ending."""

    def name(self, path: Path) -> str:
        """What an image is called below the source, wherever that lies now, in one Unicode form, which file systems may
        change: deep/one.png."""
        below = os.path.relpath(path, Path(self.source).parent if self.root is None else self.root)
        return unicodedata.normalize("NFC", below.replace(os.sep, "/"))

    def place(self, path: Path) -> Path:
        """Where a result belongs in an output folder: the tree is kept."""
        return Path(path.name) if self.root is None else path.relative_to(self.root)

    def is_label(self, path: Path) -> bool:
        """Does it lie in a folder of labels, other than the source itself?"""
        return not LABELS.isdisjoint(part.lower() for part in self.place(path).parent.parts)


def find(source: str | Path, kinds: Iterable[str] = PICTURES) -> Found:
    """The files with an ending of `kinds` that `source` means: a folder with all below it, a glob, a file, a list.

    Hidden files (which are counted where they are called pictures) and folders are left out, and what translate wrote
    beside a picture (--compare, --round-trip). Links to folders are followed, each real folder once. A list is a text
    file with a path a line, relative to its own folder, or #. Raises BadInput when there are none, in a line that says
    why.
    """
    path, kinds = Path(source), frozenset(kinds)
    left_out: Counter[str] = Counter()

    def chosen(paths: Iterable[Path]) -> Iterator[Path]:
        for each in paths:
            if each.suffix.lower() in kinds:
                yield each
            elif not each.name.startswith("."):
                left_out[each.suffix.lower()] += 1

    if os.path.isdir(path):
        root, found = path, _without_others(sorted(chosen(_walk(path, left_out))), left_out)
        empty = "no images in this folder" if left_out or any(path.iterdir()) else "an empty folder"
    elif os.path.isfile(path) and path.suffix.lower() in kinds:
        root, found, empty = path.parent, [path], ""
    elif os.path.isfile(path) and path.suffix.lower() in pictures.NEEDED:
        raise BadInput(f"{source}: to read {path.suffix} needs {pictures.NEEDED[path.suffix.lower()]}")
    elif os.path.isfile(path):
        root, found, empty = None, _listed(path, kinds), "no paths in this text file"
    else:
        root = _root(str(source))
        found = _without_others(sorted(chosen(_matches(str(source), left_out))), left_out)
        empty = "no images match" if has_magic(str(source)) else NOT_THERE
    if not found:
        others = f" but {_by_ending(left_out)}" if left_out else ""
        endings = "" if empty == NOT_THERE and not others else f" (endings that are read: {' '.join(sorted(kinds))})"
        raise BadInput(f"{source}: {empty}{others}{endings}")
    return Found(str(source), found, root, left_out)


def _without_others(paths: list[Path], left_out: Counter[str]) -> list[Path]:
    """Without NAME.compare.jpg and NAME.round-trip.jpg, where NAME lies beside them."""
    there = {(path.parent, path.stem) for path in paths}
    own = []
    for path in paths:
        name, _, kind = path.stem.rpartition(".")
        if kind in BESIDE and (path.parent, name) in there:
            left_out["pictures that --compare or --round-trip wrote"] += 1
        else:
            own.append(path)
    return own


def remarks(found: Found) -> list[str]:
    """What is to be said of files of other kinds, and of pictures that may be none."""
    lines = []
    if found.left_out:
        lines.append(f"{found.source}: files of other kinds are left out: {_by_ending(found.left_out)}")
    if count := sum(map(found.is_label, found.paths)):
        lie, are = ("lies", "is") if count == 1 else ("lie", "are")
        parts = {part for path in found.paths for part in found.place(path).parent.parts}
        called = ", ".join(sorted(part for part in parts if part.lower() in LABELS)[:TOLD])
        lines.append(
            f"{found.source}: {words(count, 'picture')} that {lie} in folders of labels ({called}) {are} taken "
            "for images like the others: if that is wrong, give the folders of the images alone"
        )
    return lines


def _by_ending(left_out: Counter[str]) -> str:
    ranked = sorted(left_out.items(), key=lambda item: (-item[1], item[0]))
    told = [
        f"{count:,} {ending or 'without an ending'}"
        + (f" (these need {pictures.NEEDED[ending]})" if ending in pictures.NEEDED else "")
        for ending, count in ranked[:TOLD]
    ]
    more = sum(count for _, count in ranked[TOLD:])
    return ", ".join(told + [f"{more:,} others"] * (more > 0))


def lies_inside(path: str | Path, source: str | Path) -> bool:
    """Would `find` of `source`, a folder or a glob, come to what is written into the folder `path`, or below it?"""
    if os.path.isdir(source):
        root = Path(source)
        wanted: tuple[str, ...] = ("**",)
    elif has_magic(str(source)) and not os.path.exists(source):
        root = _root(str(source))
        wanted = Path(source).parts[len(root.parts) : -1]
    else:
        return False
    try:
        below = Path(os.path.realpath(path)).relative_to(os.path.realpath(root)).parts
    except ValueError:
        return False
    return "**" in (*wanted, Path(source).name) or (len(below) <= len(wanted) and all(map(fnmatch, below, wanted)))


def _walk(folder: Path, left_out: Counter[str]) -> Iterator[Path]:
    """Each real folder once, so that circles end; under its own name rather than that of a link to it."""

    def unreadable(error: OSError) -> None:
        left_out[f"folder that cannot be read ({error.filename})"] += 1

    seen, todo = set(), deque([folder])
    while todo:
        for here, folders, files in os.walk(todo.popleft(), onerror=unreadable):
            real = os.path.realpath(here)
            if real in seen:
                folders.clear()
                continue
            seen.add(real)
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            todo.extend(Path(here, name) for name in folders if os.path.islink(os.path.join(here, name)))
            for name in files:
                if not name.startswith("."):
                    yield Path(here, name)
                elif Path(name).suffix.lower() in PICTURES and not name.startswith(APPLE_DOUBLE):
                    left_out["hidden pictures"] += 1


def _matches(pattern: str, left_out: Counter[str]) -> Iterator[Path]:
    """The files that a glob means, those of each real folder once, under its own name rather than that of a link.

    `**` goes the way of a folder: Python's own goes round circles of links, twice as long with each."""
    root, wanted = _root(pattern), Path(pattern).parts
    if "**" in wanted:
        wanted = wanted[len(root.parts) :]
        files = _walk(root, left_out) if root.is_dir() else ()
        yield from (file for file in files if _fits(file.relative_to(root).parts, wanted))
        return
    names = [name for name in glob(pattern) if not os.path.isdir(name)]
    real = {parent: os.path.realpath(parent) for parent in {os.path.dirname(name) for name in names}}
    parents: dict[str, str] = {}
    for parent in sorted(real, key=lambda parent: (os.path.abspath(parent) != real[parent], parent)):
        parents.setdefault(real[parent], parent)
    chosen = set(parents.values())
    yield from (Path(name) for name in names if os.path.dirname(name) in chosen)


def _fits(parts: Sequence[str], wanted: Sequence[str]) -> bool:
    """Do the parts of a path fit those of a glob, of which ** stands for any number of parts?"""
    if not wanted:
        return not parts
    if wanted[0] == "**":
        return any(_fits(parts[n:], wanted[1:]) for n in range(len(parts) + 1))
    return bool(parts) and fnmatch(parts[0], wanted[0]) and _fits(parts[1:], wanted[1:])


def _root(pattern: str) -> Path:
    """The folders of a glob before its first wildcard."""
    parts = Path(pattern).parts
    return Path(*parts[: next((n for n, part in enumerate(parts) if has_magic(part)), len(parts) - 1)])


def _listed(file: Path, kinds: Iterable[str]) -> list[Path]:
    """Names in a list may be in any encoding, as file names are; and begin with #, where there is such a file."""
    with open(file, "rb") as opened:
        if b"\0" in opened.read(PIECE):
            endings = " ".join(sorted(kinds))
            raise BadInput(f"{file}: neither an image by its ending ({endings}) nor a text file of paths")
    text = os.fsdecode(file.read_bytes().removeprefix(b"\xef\xbb\xbf"))
    lines = [line for line in map(str.strip, text.splitlines()) if line]
    paths = [file.parent / line for line in lines if line[0] != "#" or os.path.isfile(file.parent / line)]
    for path in paths:
        if not os.path.isfile(path):
            raise BadInput(f"{file}: lists {path}, which is no file")
    return paths


@dataclass(frozen=True)
class Sources:
    """The images of both domains, none of them opened yet, in the order of their names, or of a list."""

    a: list[Path]
    b: list[Path]
    test_a: list[Path]
    test_b: list[Path]
    names: tuple[str, str]
    kept_out: dict[str, list[str]]
    """By domain, "a" and "b": what those are called below the source that were taken out of training to serve as tests,
    now or before the domain had tests of its own."""
    warnings: list[str]


def find_sources(
    a: str,
    b: str | None = None,
    test_a: str | None = None,
    test_b: str | None = None,
    names: tuple[str, str] | None = None,
    hold_out: int = 4,
    out: Path | None = None,
    kept_out: Mapping[str, Collection[str]] | None = None,
) -> Sources:
    """Find all images. `a` alone is a folder with trainA and trainB and, if there, testA and testB.

    Without test images, `hold_out` of the domain's own, evenly spread, are left out of training: at most half
    of them, and if there is only one, it serves for both. Who was `kept_out` of training once (`Sources.kept_out`)
    stays out, also when other images are there now, or tests have come of their own. `out`: where the run's own
    pictures are to lie, which must be outside. Raises BadInput.
    """
    if b is None:
        a, b, test_a, test_b = _inside(Path(a), test_a, test_b)
    for source in filter(None, (a, b, test_a, test_b)):
        if out is not None and lies_inside(out, source):
            raise BadInput(
                f"--out {out} lies inside {source}, where its pictures would be taken for data: name a folder outside"
            )
    both_found = find(a), find(b)
    found_a, found_b = (found.paths for found in both_found)
    names = _default_names(a, b) if names is None else checked_names(names)
    both, looked_at = _shared(found_a, found_b)
    if both == looked_at and len(found_a) == len(found_b):
        raise BadInput(f"{a} and {b} hold the same images: give one folder for each domain")
    warnings = [line for found in both_found for line in remarks(found)]
    if both:
        counted = f"at least {both} are" if looked_at < len(found_a) else f"{both} {is_or_are(both)}"
        warnings.append(f"of the images, {counted} in both {names[0]} and {names[1]}")
    parts = [
        _divided(found, test, name, (kept_out or {}).get(side, ()), hold_out)
        for side, found, test, name in zip("ab", both_found, (test_a, test_b), names, strict=True)
    ]
    (a_train, a_tests, a_kept, a_said), (b_train, b_tests, b_kept, b_said) = parts
    kept = {"a": a_kept, "b": b_kept}
    return Sources(a_train, b_train, a_tests, b_tests, names, kept, [*warnings, *a_said, *b_said])


def _divided(
    found: Found, test: str | None, domain: str, before: Collection[str], hold_out: int
) -> tuple[list[Path], list[Path], list[str], list[str]]:
    """Of a domain the images to train on, those to test with, what those kept out are called, and warnings."""
    out = _known(found, before)
    if test is None:
        distinct = [*dict.fromkeys(found.paths)]  # a list may name an image twice
        tests = [path for path in distinct if path in out] or spread(distinct, min(hold_out, len(distinct) // 2))
        if len(distinct) == 1:
            line = f"{domain} has one image only: it is trained on and shown in the progress pictures"
            return found.paths, distinct, [], [line]
        out = frozenset(tests)
        train = [path for path in found.paths if path not in out]
        return train, tests, [found.name(path) for path in tests], []
    own = find(test)
    train = [path for path in found.paths if path not in out]
    warnings = remarks(own)
    if before:
        warnings.append(
            f"{words(len(own.paths), 'test image')} of {domain} came later and are used from here on; the {len(out)} "
            "that were kept out of training stay out of it"
        )
    if known := _shared(own.paths, train)[0]:
        warnings.append(f"of the test images of {domain}, {known} {is_or_are(known)} trained on too")
    return train, own.paths, sorted(before), warnings


def _known(found: Found, names: Collection[str]) -> frozenset[Path]:
    """The images of these names below the source (older runs kept those of the files alone); none, if it is all."""
    if not names:
        return frozenset()
    known = frozenset(path for path in found.paths if found.name(path) in names)
    known = known or frozenset(path for path in found.paths if path.name in names)
    return known if known < frozenset(found.paths) else frozenset()


def is_or_are(count: int) -> str:
    return "is" if count == 1 else "are"


def spread(items: Sequence[T], count: int) -> list[T]:
    """`count` of the items (or all, if there are fewer), evenly spread: the middle one of each of as many parts."""
    count = min(count, len(items))
    return [items[(2 * n + 1) * len(items) // (2 * count)] for n in range(count)]


def _inside(root: Path, test_a: str | None, test_b: str | None) -> tuple[str, str, str | None, str | None]:
    if not os.path.exists(root):
        raise BadInput(f"{root}: no such folder")
    for name in ("trainA", "trainB"):
        if not os.path.isdir(root / name):
            raise BadInput(f"{root}: has no folder {name}; give two folders, or one with trainA and trainB")

    def there(name: str) -> str | None:
        return str(root / name) if (root / name).is_dir() else None

    return str(root / "trainA"), str(root / "trainB"), test_a or there("testA"), test_b or there("testB")


def _default_names(a: str, b: str) -> tuple[str, str]:
    """Those of the folders: the last that a glob names in full, and for a text file its own name."""
    first, second = (unicodedata.normalize("NFC", _name(source)) for source in (a, b))
    usable = all(map(_usable, (first, second))) and first.casefold() != second.casefold()
    return (first, second) if usable and (first, second) != ("trainA", "trainB") else ("a", "b")


def _name(source: str) -> str:
    path = Path(source)
    if os.path.isfile(path):
        return path.resolve().parent.name if path.suffix.lower() in pictures.SUFFIXES else path.stem
    while not os.path.exists(path):
        path = path.parent
    return path.resolve().name


def checked_names(names: tuple[str, str]) -> tuple[str, str]:
    """The names of two domains, in one Unicode form. Raises BadInput for such as cannot be."""
    first, second = (unicodedata.normalize("NFC", name) for name in names)
    for name in (first, second):
        if not _usable(name):
            raise BadInput(f"--names: {name!r} cannot be part of a file name; use letters, digits, - and _")
    if first.casefold() == second.casefold():
        raise BadInput(f"--names: both domains are called {first}; give two names")
    return first, second


def _usable(name: str) -> bool:
    """Can it be part of a file's name on every system?"""
    fits = 0 < len(name.encode(errors="replace")) <= LONGEST_NAME and name == name.strip(" .-")
    return fits and not NOT_IN_NAMES.search(name)


def _shared(first: list[Path], second: list[Path]) -> tuple[int, int]:
    """How many of `first` have the content of one in `second`, and of how many that was found out.

    Nothing is read of files that have a size of their own. Of others three small pieces, and the whole only
    where these are the same, up to WHOLE bytes in all; of a million alike in size, LOOKED_AT.
    """
    sizes = {path: _size(path) for path in {*first, *second}}
    there = {sizes[path] for path in second} - {0}
    alike = [path for path in first if sizes[path] in there]
    looked_at = spread(alike, LOOKED_AT)
    wanted = {sizes[path] for path in looked_at}
    known: dict[bytes, list[Path]] = defaultdict(list)
    for path in spread([path for path in second if sizes[path] in wanted], LOOKED_AT):
        known[pieces_of(path, sizes[path])].append(path)
    count, room = 0, WHOLE
    for path in looked_at:
        size = sizes[path]
        for other in known.get(pieces_of(path, size), ()):
            room -= 2 * size
            if size <= 3 * PIECE or room < 0 or _same(path, other):
                count += 1
                break
    return count, len(first) - len(alike) + len(looked_at)


def _size(path: Path) -> int:
    """0 for a link whose file is gone: who reads it tells of it."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def pieces_of(path: Path, size: int) -> bytes:
    """A file's size, and a digest of its beginning, middle and end, or of all of a small one; its name, where it cannot
    be read."""
    pieces = []
    try:
        with open(path, "rb") as file:
            for place in (0, size // 2, size - PIECE) if size > 3 * PIECE else (0,):
                file.seek(place)
                pieces.append(file.read(PIECE if size > 3 * PIECE else size))
    except OSError:  # who reads it tells of it
        return os.fsencode(path)
    return b"%d %s" % (size, hashlib.blake2b(b"".join(pieces)).digest())


def _same(one: Path, other: Path) -> bool:
    with suppress(OSError):
        return os.path.samefile(one, other) or filecmp.cmp(one, other, shallow=False)
    return False

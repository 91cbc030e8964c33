"""What is to be translated, and what the results are called: all that can go wrong before the work starts."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from glob import glob, has_magic
from pathlib import Path

from ..config import Translate
from ..data import pictures as images
from ..data.folders import find as find_images
from ..errors import BadInput
from . import movie
from .video import WRITTEN, is_video, result_name

STDIO = Path("-")
"""Standard input as a source, standard output as a target."""
FORMATS = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP", "tiff": "TIFF", "bmp": "BMP"}
SUFFIXES = {".jpg": "JPEG", ".jpeg": "JPEG", ".tif": "TIFF", ".gif": "GIF"} | {f".{f}": F for f, F in FORMATS.items()}
READ = images.SUFFIXES | movie.SUFFIXES


@dataclass(frozen=True)
class Job:
    """One file to translate."""

    source: Path
    target: Path
    is_video: bool = False
    format: str | None = None
    """Pillow's name, where another than the source's was asked for."""
    compare: bool = False
    round_trip: bool = False

    @property
    def compared(self) -> Path:
        return beside(self.target, "compare")

    @property
    def returned(self) -> Path:
        return beside(self.target, "round-trip")

    @property
    def targets(self) -> list[Path]:
        """All that is written. A job is done when all of it is there."""
        extras = [self.compared] * self.compare + [self.returned] * (self.round_trip and not self.is_video)
        return [self.target, *extras]

    def is_done(self) -> bool:
        return self.target != STDIO and all(target.exists() for target in self.targets)


def beside(target: Path, what: str) -> Path:
    return target.with_name(f"{target.stem}.{what}{target.suffix}")


def plan(t: Translate) -> list[Job]:
    """The jobs of a command, in order. Raises BadInput for inputs and outputs that cannot be meant."""
    if not t.inputs:
        raise BadInput("nothing to translate: give images, folders, quoted globs, videos, or - for standard input")
    if not 1 <= t.quality <= 100:
        raise BadInput(f"--quality {t.quality}: choose from 1 to 100")
    # A file that is given twice is one input.
    found = dict({pair[0].resolve(): pair for given in t.inputs for pair in find(given, t.out)}.values())
    to_file = t.out == STDIO or is_file_name(t.out)
    if to_file and len(found) > 1:
        raise BadInput(f"--out {t.out}: {len(found)} inputs cannot go to one place; name a folder")
    if STDIO in found and not to_file:
        raise BadInput("- (standard input) has no name to keep: give --out FILE, or --out - for standard output")
    jobs = [to_one(t, *found)] if to_file else [to_folder(t, *pair) for pair in found.items()]
    check(jobs, t.out.parent if to_file else t.out)
    return jobs


def to_one(t: Translate, source: Path) -> Job:
    """The job of the only input, where --out says what its result is called."""
    film = source != STDIO and is_film(source)
    if t.out == STDIO:
        if film or t.compare or t.round_trip:
            raise BadInput("--out -: standard output takes one image; name a file or a folder")
        return Job(source, STDIO, format=FORMATS.get(t.format or ""))
    asked = SUFFIXES.get(t.out.suffix.lower())
    if not film and asked is None:
        raise BadInput(f"--out {t.out}: that is no name for an image ({' '.join(SUFFIXES)})")
    if not film and t.format is not None and FORMATS[t.format] != asked:
        raise BadInput(f"--out {t.out} and --format {t.format} contradict each other: leave one out")
    return Job(source, t.out, film, None if film else asked, t.compare, t.round_trip)


def to_folder(t: Translate, source: Path, relative: Path) -> Job:
    """The job of one of many inputs: its result has its name and its place in the tree."""
    if is_film(source):
        if t.round_trip:
            raise BadInput(f"--round-trip is for images, and {source} is a video: translate it apart")
        target = t.out / relative.with_name(result_name(source))
        return Job(source, target, True, None, t.compare, t.round_trip)
    format = FORMATS.get(t.format or "")
    if format is not None and SUFFIXES.get(relative.suffix.lower()) != format:
        relative = relative.with_suffix(f".{t.format}")
    return Job(source, t.out / relative, False, format, t.compare, t.round_trip)


def is_film(source: Path) -> bool:
    try:
        return is_video(source)
    except Exception:  # a GIF or WebP so broken that Pillow stumbles: read as an image, it is told of
        return False


def check(jobs: list[Job], folder: Path) -> None:
    """Raise BadInput where results would land on each other, on an input, or nowhere."""
    writers: dict[Path, Path] = {}
    sources = {job.source.resolve() for job in jobs if job.source != STDIO}
    for job in jobs:
        for target in job.targets if job.target != STDIO else ():
            if target in writers:
                raise BadInput(f"{writers[target]} and {job.source} would both be written to {target}: "
                               "translate them one after the other, with another --out each")  # fmt: skip
            if target.resolve() in sources:
                raise BadInput(f"{target} is an input, and would be overwritten: name another --out")
            writers[target] = job.source
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not there.is_dir():
        raise BadInput(f"--out {folder}: {there} is a file; name another folder")


def find(given: str, out: Path) -> Iterator[tuple[Path, Path]]:
    """The files that an input means, and where each belongs in the output folder: the tree below it is kept."""
    path = Path(given)
    if path == STDIO:
        yield STDIO, Path("stdin")
    elif path.is_dir():
        if out != STDIO and out.resolve().is_relative_to(path.resolve()):
            raise BadInput(f"--out {out} is inside the input folder {path}, where it would be read the next time: "
                           "name a folder outside")  # fmt: skip
        yield from ((file, file.relative_to(path)) for file in non_empty(path, files_below(path)))
    elif path.is_file() and path.suffix.lower() in READ:
        yield path, Path(path.name)
    elif path.is_file():
        yield from ((file, Path(file.name)) for file in find_images(path).paths)
    else:
        root = root_of(given)
        matches = (Path(name) for name in sorted(glob(given, recursive=True)))
        files = (file for file in matches if file.suffix.lower() in READ and file.is_file())
        yield from ((file, file.relative_to(root)) for file in non_empty(path, files))


def files_below(folder: Path) -> Iterator[Path]:
    for here, folders, names in os.walk(folder, followlinks=False):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        files = (Path(here, name) for name in sorted(names) if not name.startswith("."))
        yield from (file for file in files if file.suffix.lower() in READ)


def non_empty(given: Path, files: Iterable[Path]) -> list[Path]:
    found = list(files)
    if not found:
        empty = "nothing matches" if has_magic(str(given)) else "no such file or folder"
        what = "no images or videos in this folder" if given.is_dir() else empty
        raise BadInput(f"{given}: {what} (endings that are read: {' '.join(sorted(READ))})")
    return found


def root_of(pattern: str) -> Path:
    """The folders of a glob before its first wildcard."""
    parts = Path(pattern).parts
    return Path(*parts[: next((n for n, part in enumerate(parts) if has_magic(part)), len(parts) - 1)])


def is_file_name(out: Path) -> bool:
    return out.suffix.lower() in SUFFIXES.keys() | WRITTEN and not out.is_dir()

"""Pictures on their way: decoders, network and encoders work at once, in threads; of one, of ten thousand.

The network is not compiled: with the quick norms of `norms` that wins 5 to 8% on a CPU, which 20 to 40 seconds of
compiling eat up in anything but a night's work.
"""

import io
import math
import os
import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, groupby, islice
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image

from ..config import Translate
from ..data import pictures, statistics
from ..data.pictures import Picture
from ..device import is_out_of_memory, threads_for_cores
from ..errors import BadInput, Failed
from ..files import DISK_FULL
from ..model.file import Model
from ..threads import ordered
from .translator import OUT_OF_MEMORY, Network, Translator

STDIO = Path("-")
"""Standard input as a source, standard output as a target."""
WORKERS = min(16, os.cpu_count() or 1)
"""Threads that decode, and threads that encode."""
BATCH = 1 << 22
"""Pixels that a GPU is given at once, of images of one size."""
SMALL = 1 << 18
"""Pixels up to which a CPU translates a picture with one core, and others with the other cores. As quick on a quiet
machine as all cores on one picture after the other, and several times as quick on a busy one, where cores that
share a picture wait for each other; decoders and encoders alone keep this one busy."""
TURNED = (
    "turned upright by EXIF, and labels were not: turn those that were made for the picture as it is stored, or turn "
    "the pictures upright first"
)


@dataclass(frozen=True)
class Job:
    """One file to translate."""

    source: Path
    target: Path
    kind: Literal["picture", "film", "change", "copy"] = "picture"
    """change: a photo to a film of how it changes; copy: a label, which stays as it is."""
    format: str | None = None
    """Pillow's name, where another than the source's was asked for."""
    compare: bool = False
    round_trip: bool = False
    keep: bool = False
    """Leave what of it is there already."""

    @property
    def targets(self) -> list[Path]:
        """All that is written. A job is done when all of it is there."""
        others = ["compare"] * self.compare + ["round-trip"] * self.round_trip
        return [self.target, *(beside(self.target, what) for what in others)]

    def writes(self, path: Path) -> bool:
        """Is this one of its targets to be written?"""
        return path == STDIO or not (self.keep and os.path.exists(path))

    def is_done(self) -> bool:
        return self.target != STDIO and all(map(os.path.exists, self.targets))


def beside(target: Path, what: str) -> Path:
    return target.with_name(f"{target.stem}.{what}{target.suffix}")


@dataclass(frozen=True)
class Work:
    """A job on its way: what was read, what is to be written, or why it failed; and what is to be said of it."""

    job: Job
    pages: tuple[Picture, ...] = ()
    """One, but for a stack, as microscopes and scanners write them."""
    results: tuple[tuple[Path, list[Picture]], ...] = ()
    error: str | None = None
    notes: tuple[str, ...] = ()
    data: bytes | None = None
    """The file, where somebody else has fetched it."""


def reading(t: Translate, model: Model) -> Callable[[Work], Work]:
    """How a picture is read for this model; it is said where it is unlike those of training."""
    direction = model.direction(t.to)
    source, target = model.ends(direction)
    known = model.info.get("statistics", {})
    unlike = partial(statistics.remark, statistics=known, domain=source, other=target)
    channels = model.spec(direction).channels_in
    return partial(guarded, partial(read_one, channels=channels, unlike=unlike, labels=t.with_labels))


def applying(t: Translate, translator: Translator) -> Callable[[list[Work]], list[Work]]:
    """How pictures of one size are translated."""
    direction = translator.model.direction(t.to)
    source, target = translator.model.ends(direction)
    there = partial(translator, to=target, size=t.size, strength=t.strength)
    return partial(translate_batch, there=there, back=partial(translator, to=source, size=t.size))


def translate_pictures(t: Translate, translator: Translator, todo: list[Job]) -> Iterator[Work]:
    """Read, translate and write, each in threads of its own; in the order of the jobs."""
    direction = translator.model.direction(t.to)
    read, apply = reading(t, translator.model), applying(t, translator)
    write = partial(guarded, partial(write_one, quality=t.quality))
    with ExitStack() as stack:
        works = (Work(job) for job in todo)
        opened = stack.enter_context(closing(ordered(read, works, workers=WORKERS, weigh=weigh_file)))
        if translator.device.type == "cpu":
            network = translator.network(direction, translator.dtype)
            translated = stack.enter_context(closing(on_cores(opened, apply, network)))
        else:
            translated = (work for batch in batches(opened, BATCH) for work in apply(batch))
        yield from stack.enter_context(closing(ordered(write, translated, workers=WORKERS, weigh=weigh_results)))


def on_cores(
    opened: Iterable[Work], apply: Callable[[list[Work]], list[Work]], network: Network
) -> Generator[Work, None, None]:
    """Small pictures side by side, a core each; large ones one by one, with all cores."""
    before, cores = torch.get_num_threads(), threads_for_cores()
    crew = partial(ordered, workers=min(cores, network.at_once(SMALL)), initializer=partial(torch.set_num_threads, 1))
    try:
        for small, group in groupby(opened, lambda work: area(work) <= SMALL):
            yield from chain.from_iterable((crew if small else map)(apply, ([work] for work in group)))
    finally:
        torch.set_num_threads(before)  # threads to come take the number that was set last, in whatever thread


def guarded(function: Callable[[Work], Work], work: Work) -> Work:
    """Go on with work that has not failed; what is wrong with one file is its error, and no other's."""
    if work.error is not None:
        return work
    try:
        return function(work)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            raise Failed(f"cannot write {work.job.target}: {error.strerror}") from None
        return failed(work, error)


def failed(work: Work, error: Exception) -> Work:
    """What nobody has foreseen is told as what it is: our fault."""
    lines = str(error).strip().splitlines() or [""]
    if isinstance(error, BadInput | Failed | OSError):
        reason = str(error) or type(error).__name__
    elif is_out_of_memory(error):
        reason = OUT_OF_MEMORY
    else:
        reason = f"a fault of viceversa, please report it ({type(error).__name__}: {lines[0]})"
    return Work(work.job, error=reason if str(work.job.source) in reason else f"{work.job.source}: {reason}")


def weigh_file(work: Work) -> int:
    """Bytes of a picture once it is decoded; 0 for what cannot be decoded, which is told when it is."""
    with suppress(Exception):
        if work.job.source != STDIO:
            head = pictures.header(work.job.source)
            return head.height * head.width * 4 * np.dtype(head.dtype).itemsize
    return 0


def read_one(work: Work, channels: int, unlike: Callable[[np.ndarray], str], labels: bool) -> Work:
    source = work.data or (sys.stdin.buffer.read() if work.job.source == STDIO else work.job.source)
    pages = pictures.read_all(source, channels=1 if channels == 1 else 3)
    check_sides(work.job, pages[0])
    of_pages = dict.fromkeys(note for page in pages for note in page.notes)
    said = (unlike(pages[0].pixels), TURNED if labels and is_turned(source) else "")
    return replace(work, data=None, pages=tuple(pages), notes=(*of_pages, *filter(None, said)))


def check_sides(job: Job, picture: Picture) -> None:
    """Raise BadInput where a result would be too large for its format: rather now than after the work, each time."""
    format = job.format or picture.format
    longest = pictures.LONGEST_SIDE.get(format, math.inf)
    height, width = picture.pixels.shape[:2]
    if max(height, width) > longest:
        path, wide, instead = job.target, width, ""
    elif job.compare and 2 * width > longest:
        path, wide, instead = beside(job.target, "compare"), 2 * width, ", or leave out --compare"
    else:
        return
    raise BadInput(f"{path}: {format} holds at most {longest} pixels a side, not {wide}x{height}; choose PNG, as by "
                   f"--format png{instead}")  # fmt: skip


def is_turned(source: Path | bytes) -> bool:
    """Is this picture stored otherwise than upright, by its EXIF?"""
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    with suppress(Exception), pictures.own_limits(), Image.open(file) as image:  # what Pillow does not read has none
        return image.getexif().get(pictures.ORIENTATION, 1) in range(2, 9)
    return False


def batches(works: Iterable[Work], pixels: int) -> Iterator[list[Work]]:
    """Neighbours of one size and depth together, up to so many pixels; stacks and what has failed, alone."""
    for pages, group in groupby(works, lambda work: [(page.pixels.shape, page.pixels.dtype) for page in work.pages]):
        together = max(1, pixels // math.prod(pages[0][0][:2])) if len(pages) == 1 else 1
        while batch := list(islice(group, together)):
            yield batch


def area(work: Work) -> int:
    """Pixels of its largest page."""
    return max((page.pixels[..., 0].size for page in work.pages), default=0)


Way = Callable[[np.ndarray], np.ndarray]
"""Arrays (H, W, C) or (N, H, W, C) to the other domain."""


def translate_batch(batch: list[Work], there: Way, back: Way) -> list[Work]:
    """Run the network on pictures of one size, or on the pages of one stack."""
    if batch[0].error is not None:
        return batch
    pages = [page.pixels for work in batch for page in work.pages]
    try:
        translated = list(there(np.stack(pages))) if len(batch) > 1 else list(map(there, pages))
        returned = list(map(back, translated)) if batch[0].job.round_trip else translated
        if len(batch) == 1:
            return [results(batch[0], translated, returned)]
        return [results(work, [after], [again]) for work, after, again in zip(batch, translated, returned, strict=True)]
    except Exception as error:
        if len(batch) == 1:
            return [failed(batch[0], error)]
    # Out here nothing holds what the attempt had got.
    return [result for work in batch for result in translate_batch([work], there, back)]


def results(work: Work, translated: list[np.ndarray], returned: list[np.ndarray]) -> Work:
    """What is to be written of a picture, or of a stack's pages: the translation, and what else was asked for."""
    job, format = work.job, work.job.format or work.pages[0].format

    def written(shown: Iterable[np.ndarray], twice: bool = False) -> list[Picture]:
        return [
            replace(
                page, pixels=pixels, format=format,
                alpha=np.concatenate([page.alpha] * 2, 1) if twice and page.alpha is not None else page.alpha,
            )
            for page, pixels in zip(work.pages, shown, strict=True)
        ]  # fmt: skip

    outputs = [(job.target, written(translated))]
    if job.compare:
        before = (page.pixels for page in work.pages)
        outputs.append((beside(job.target, "compare"), written(map(side_by_side, before, translated), twice=True)))
    if job.round_trip:
        outputs.append((beside(job.target, "round-trip"), written(returned)))
    return replace(work, pages=(), results=tuple(output for output in outputs if job.writes(output[0])))


def side_by_side(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Before at the left, after at the right: (H, W, 1 or 3) each -> (H, 2 W, 1 or 3)."""
    channels = max(before.shape[2], after.shape[2])
    return np.concatenate([np.broadcast_to(half, (*half.shape[:2], channels)) for half in (before, after)], 1)


def weigh_results(work: Work) -> int:
    return sum(page.pixels.nbytes for _, pages in work.results for page in pages)


def write_one(work: Work, quality: int) -> Work:
    notes = [write(path, pages, quality) for path, pages in work.results]
    return Work(work.job, notes=work.notes + (notes[0] if notes else ()))  # what lies beside is the same again


def write(path: Path, pages: list[Picture], quality: int) -> tuple[str, ...]:
    """To its file, or to standard output; tells what the format could not hold."""
    if path != STDIO:
        return pictures.write(path, pages, quality)
    data, notes = pictures.encoded(pages, quality)
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
    return notes

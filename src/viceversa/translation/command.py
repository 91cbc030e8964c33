"""`viceversa translate`: one image or ten thousand, and films. Decoders, network and encoders work at once.

First it is planned, which finds all that can go wrong before the work starts; then it is done, and what goes wrong
with one file ends no other's work.

The network is not compiled: with the quick norms of `inference` that wins 5 to 8% on a CPU, which 20 to 40
seconds of compiling eat up in anything but a night's work.
"""

import errno
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, groupby, repeat, takewhile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..config import Translate
from ..data import folders
from ..data import pictures as images
from ..data.pictures import Picture
from ..errors import BadInput, Failed, Interrupted
from ..terminal import Update, progress_bar
from ..threads import ordered
from . import films
from .films import Frame
from .translator import Network, Translator, load

STDIO = Path("-")
"""Standard input as a source, standard output as a target."""
FORMATS = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP", "tiff": "TIFF", "bmp": "BMP"}
SUFFIXES = {".jpg": "JPEG", ".jpeg": "JPEG", ".tif": "TIFF", ".gif": "GIF"} | {f".{f}": F for f, F in FORMATS.items()}
READ = images.SUFFIXES | films.FILMS
WORKERS = min(16, os.cpu_count() or 1)
"""Threads that decode, and threads that encode."""
BATCH = 1 << 22
"""Pixels that a GPU is given at once, of images of one size."""
SMALL = 1 << 18
"""Pixels up to which a CPU translates a picture with one core, and others with the other cores. As quick on a quiet
machine as all cores on one picture after the other, and several times as quick on a busy one, where cores that
share a picture wait for each other; decoders and encoders alone keep this one busy."""
TOLD = 10
"""Failures that are told one by one."""
DISK_FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)


@dataclass(frozen=True)
class Job:
    """One file to translate."""

    source: Path
    target: Path
    is_film: bool = False
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
        return [self.target, *[self.compared] * self.compare, *[self.returned] * self.round_trip]

    def is_done(self) -> bool:
        return self.target != STDIO and all(target.exists() for target in self.targets)


def beside(target: Path, what: str) -> Path:
    return target.with_name(f"{target.stem}.{what}{target.suffix}")


@dataclass(frozen=True)
class Work:
    """A job on its way: what was read, what is to be written, or why it failed."""

    job: Job
    picture: Picture | None = None
    results: tuple[tuple[Path, Picture], ...] = ()
    error: str | None = None


def command_translate(t: Translate) -> int:
    """Translate what is not there yet, and tell of what failed. Raises BadInput, Failed and Interrupted."""
    planned = plan(t)
    translator = load(t.model, epoch=t.epoch, device=t.device, precision=t.precision, memory=t.memory)
    there = translator.model.direction(t.to)
    if t.round_trip:
        translator.model.direction(translator.domains[there == "ba"])  # which must be there
    todo = [job for job in planned if t.overwrite or not job.is_done()]
    finished: list[Work] = []
    try:
        for work in translate(t, translator, todo):
            finished.append(work)
    except (KeyboardInterrupt, SystemExit) as stop:  # SIGTERM comes as SystemExit (terminal.ending_on_sigterm)
        number = signal.SIGINT if isinstance(stop, KeyboardInterrupt) else signal.SIGTERM
        done = f"interrupted: {len(finished)} of {len(todo)} done"
        raise Interrupted(number, f"{done}; the same command goes on from there") from None
    report(t, len(planned) - len(todo), finished)
    return 0


def plan(t: Translate) -> list[Job]:
    """The jobs of a command, in order. Raises BadInput for inputs and outputs that cannot be meant."""
    if not t.inputs:
        raise BadInput("nothing to translate: give images, folders, quoted globs, videos, or - for standard input")
    if not 1 <= t.quality <= 100:
        raise BadInput(f"--quality {t.quality}: choose from 1 to 100")
    found = [pair for given in t.inputs for pair in find(given, t.out)]
    to_file = t.out == STDIO or (t.out.suffix.lower() in SUFFIXES.keys() | films.WRITTEN and not os.path.isdir(t.out))
    if not to_file:
        jobs = [to_folder(t, *pair) for pair in found]
    elif len({os.path.realpath(source) for source, _ in found}) > 1:
        raise BadInput(f"--out {t.out}: {len(found)} inputs cannot go to one place; name a folder")
    else:
        jobs = [to_one(t, found[0][0])]
    jobs = check(jobs)
    if t.out != STDIO:
        try_out(t.out.parent if to_file else t.out)
    return jobs


def find(given: str, out: Path) -> Iterator[tuple[Path, Path]]:
    """The files that an input means, and where each belongs in the output folder: the tree below it is kept."""
    if given == str(STDIO):
        if out.suffix.lower() not in SUFFIXES and out != STDIO:
            raise BadInput("- (standard input) has no name to keep: give --out FILE, or --out - for standard output")
        yield STDIO, Path("stdin")
        return
    if out != STDIO and folders.lies_inside(out, given):
        raise BadInput(f"--out {out} is inside the input folder {given}, where it would be read the next time: "
                       "name a folder outside")  # fmt: skip
    found = folders.find(given, READ)
    if line := folders.left_out_line(found):
        print(line, file=sys.stderr)
    yield from ((path, found.place(path)) for path in found.paths)


def to_one(t: Translate, source: Path) -> Job:
    """The job of the only input, where --out says what its result is called."""
    film = source != STDIO and films.is_film(source)
    if t.out == STDIO:
        if film or t.compare or t.round_trip:
            raise BadInput("--out -: standard output takes one image; name a file or a folder")
        return Job(source, STDIO, format=FORMATS.get(t.format or ""))
    asked = SUFFIXES.get(t.out.suffix.lower())
    if not film and asked is None:
        raise BadInput(f"--out {t.out}: that is no name for an image ({' '.join(SUFFIXES)})")
    if not film and t.format is not None and FORMATS[t.format] != asked:
        raise BadInput(f"--out {t.out} and --format {t.format} contradict each other: leave one out")
    return Job(source, t.out, film, None if film else asked, t.compare, t.round_trip and not film)


def to_folder(t: Translate, source: Path, relative: Path) -> Job:
    """The job of one of many inputs: its result has its name and its place in the tree."""
    if films.is_film(source):
        if t.round_trip:
            raise BadInput(f"--round-trip is for images, and {source} is a video: translate it apart")
        return Job(source, t.out / relative.with_name(films.result_name(source)), True, compare=t.compare)
    format = FORMATS.get(t.format or "")
    if format is not None and SUFFIXES.get(relative.suffix.lower()) != format:
        relative = relative.with_suffix(f".{t.format}")
    return Job(source, t.out / relative, False, format, t.compare, t.round_trip)


def check(jobs: list[Job]) -> list[Job]:
    """Each job once. Raises BadInput where results would land on each other, or on an input."""
    writers: dict[Path, Job] = {}
    sources = {os.path.realpath(job.source) for job in jobs if job.source != STDIO}
    for job in jobs:
        for target in job.targets if job.target != STDIO else ():
            other = writers.setdefault(target, job)
            if os.path.realpath(other.source) != os.path.realpath(job.source) or other.target != job.target:
                raise BadInput(f"{other.source} and {job.source} would both be written to {target}: "
                               "translate them one after the other, with another --out each")  # fmt: skip
            if os.path.realpath(target) in sources:
                raise BadInput(f"{target} is an input, and would be overwritten: name another --out")
    return list({job.target: job for job in jobs}.values())


def try_out(folder: Path) -> None:
    """Raise BadInput where nothing can be written: rather now than after the work."""
    made = []
    try:
        for place in reversed([folder, *folder.parents]):
            if not os.path.isdir(place):
                place.mkdir()
                made.append(place)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as wrong:
        raise BadInput(f"--out {folder}: cannot be written to ({wrong.strerror}); name another folder") from None
    finally:
        for place in reversed(made):
            with suppress(OSError):
                place.rmdir()


def translate(t: Translate, translator: Translator, todo: list[Job]) -> Iterator[Work]:
    """Do the jobs, pictures first; yields each when it is done or has failed."""
    pictures = [job for job in todo if not job.is_film]
    if pictures:
        with progress_bar("translating", len(pictures)) as update:
            for done, work in enumerate(translate_pictures(t, translator, pictures), 1):
                update(done)
                yield work
    for job in todo:
        if job.is_film:
            with progress_bar(job.source.name) as update:
                yield guarded(partial(do_film, t, translator, update), Work(job))


def translate_pictures(t: Translate, translator: Translator, todo: list[Job]) -> Iterator[Work]:
    """Read, translate and write, each in threads of its own; in the order of the jobs."""
    direction = translator.model.direction(t.to)
    channels = translator.channels(direction)
    there = partial(translator, to=t.to, size=t.size)
    back = partial(translator, to=translator.domains[direction == "ba"], size=t.size)
    apply = partial(translate_batch, there=there, back=back)
    read = partial(guarded, partial(read_one, channels=channels))
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
    cores = torch.get_num_threads()
    crew = partial(ordered, workers=min(cores, network.at_once(SMALL)), initializer=partial(torch.set_num_threads, 1))
    try:
        for small, group in groupby(opened, lambda work: area(work) <= SMALL):
            yield from chain.from_iterable((crew if small else map)(apply, ([work] for work in group)))
    finally:
        torch.set_num_threads(cores)  # threads to come take the number that was set last, in whatever thread


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
    reason = str(error) or type(error).__name__
    if not isinstance(error, BadInput | Failed | OSError | MemoryError):
        lines = str(error).strip().splitlines() or [""]
        reason = f"a fault of viceversa, please report it ({type(error).__name__}: {lines[0]})"
    return Work(work.job, error=reason if str(work.job.source) in reason else f"{work.job.source}: {reason}")


def weigh_file(work: Work) -> int:
    """Bytes of a picture once it is decoded; 0 for what cannot be decoded, which is told when it is."""
    with suppress(Exception):
        if work.job.source != STDIO:
            head = images.header(work.job.source)
            return head.height * head.width * 4 * np.dtype(head.dtype).itemsize
    return 0


def read_one(work: Work, channels: int) -> Work:
    source = sys.stdin.buffer.read() if work.job.source == STDIO else work.job.source
    return replace(work, picture=images.read(source, channels=1 if channels == 1 else 3))


def batches(works: Iterable[Work], pixels: int) -> Iterator[list[Work]]:
    """Neighbours of one size and depth together, up to so many pixels; what has failed, alone."""
    batch: list[Work] = []
    for work in works:
        if batch and not (alike(batch[0], work) and (len(batch) + 1) * area(work) <= pixels):
            yield batch
            batch = []
        batch.append(work)
    if batch:
        yield batch


def alike(one: Work, other: Work) -> bool:
    if one.picture is None or other.picture is None:
        return False
    a, b = one.picture.pixels, other.picture.pixels
    return a.shape == b.shape and a.dtype == b.dtype


def area(work: Work) -> int:
    return 0 if work.picture is None else work.picture.pixels[..., 0].size


Way = Callable[[np.ndarray], np.ndarray]
"""Arrays (N, H, W, C) to the other domain."""


def translate_batch(batch: list[Work], there: Way, back: Way) -> list[Work]:
    """Run the network on pictures of one size."""
    if batch[0].error is not None:
        return batch
    pixels = np.stack([work.picture.pixels for work in batch if work.picture is not None])
    try:
        translated = there(pixels)
        returned = back(translated) if batch[0].job.round_trip else translated
    except Exception as error:
        if len(batch) == 1:
            return [failed(batch[0], error)]
        return [result for work in batch for result in translate_batch([work], there, back)]
    return [results(work, after, again) for work, after, again in zip(batch, translated, returned, strict=True)]


def results(work: Work, translated: np.ndarray, returned: np.ndarray) -> Work:
    """What is to be written of a picture: its translation, and what else was asked for."""
    before = work.picture
    assert before is not None
    job, format = work.job, work.job.format or before.format
    written = [(job.target, replace(before, pixels=translated, format=format))]
    if job.compare:
        both = side_by_side(before.pixels, translated)
        alpha = None if before.alpha is None else np.concatenate([before.alpha, before.alpha], 1)
        written.append((job.compared, replace(before, pixels=both, alpha=alpha, format=format)))
    if job.round_trip:
        written.append((job.returned, replace(before, pixels=returned, format=format)))
    return replace(work, picture=None, results=tuple(written))


def side_by_side(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Before at the left, after at the right: (H, W, 1 or 3) each -> (H, 2 W, 1 or 3)."""
    channels = max(before.shape[2], after.shape[2])
    return np.concatenate([np.broadcast_to(half, (*half.shape[:2], channels)) for half in (before, after)], 1)


def weigh_results(work: Work) -> int:
    return sum(picture.pixels.nbytes for _, picture in work.results)


def write_one(work: Work, quality: int) -> Work:
    for path, picture in work.results:
        if path == STDIO:
            sys.stdout.buffer.write(images.encode(picture, quality))
            sys.stdout.buffer.flush()
        else:
            images.write(path, picture, quality)
    return Work(work.job)


def do_film(t: Translate, translator: Translator, update: Update, work: Work) -> Work:
    notes = translate_film(
        translator, work.job.source, work.job.target, to=t.to, codec=t.codec, quality=t.quality, steady=t.steady,
        size=t.size, compare=t.compare, on_progress=update,
    )  # fmt: skip
    for note in notes:
        print(note, file=sys.stderr)
    return work


def translate_film(
    translator: Translator,
    source: Path,
    target: Path,
    *,
    to: str | None = None,
    codec: str = "h264",
    quality: int = 80,
    steady: bool = True,
    size: int | None = None,
    compare: bool = False,
    on_progress: Update | None = None,
) -> list[str]:
    """Translate a film, a GIF or a WebP into what the ending of `target` says. An existing target is replaced.

    The times of the frames, the orientation and the sound are kept. `compare` also writes before and after
    side by side, as NAME.compare.mp4. `on_progress(done, total)` is called after each frame; the total is None
    where the file does not say. Returns what a person should know of the result, a line each.

    Raises BadInput before anything is written and Failed from then on. What was done until then, or until an
    interruption, is NAME.partial.mp4, and plays.
    """
    if target.suffix.lower() not in films.WRITTEN:
        raise BadInput(f"{target}: videos are written as {' '.join(sorted(films.WRITTEN))}")
    if not 1 <= quality <= 100:
        raise BadInput(f"--quality {quality}: choose from 1 to 100")
    translate = translator.frames(to, size=size, steady=steady)
    with ExitStack() as stack:
        clip = stack.enter_context(films.read(source))
        end: Any = object()
        decoded = stack.enter_context(closing(ordered(lambda _: next(clip.frames, end), repeat(None), workers=1)))
        pairs = (
            (item, replace(item, pixels=translate(item.pixels))) if isinstance(item, Frame) else item
            for item in takewhile(lambda item: item is not end, decoded)
        )
        begun: list[Any] = []  # packets of sound, and the first frame, which tells the size
        while not begun or not isinstance(begun[-1], tuple):
            begun.append(next(pairs, None))
            if begun[-1] is None:
                raise BadInput(f"{source}: {'no frame can be decoded' if clip.damaged else 'holds no frames'}")
        outputs: list[tuple[Path, Callable[[Pair], Frame]]] = [(target, lambda pair: pair[1])]
        if compare:
            outputs.append((beside(target, "compare"), both))
        writers = []
        for path, view in outputs:
            shape = view(begun[-1]).pixels.shape[:2]
            writers.append((stack.enter_context(films.open_writer(path, clip, shape, codec, quality)), view))
        write = partial(write_item, writers)
        done = 0
        for is_frame in stack.enter_context(closing(ordered(write, chain(begun, pairs), workers=1))):
            done += is_frame
            if is_frame and on_progress is not None:
                on_progress(done, clip.total)
    damage = [f"{clip.damaged} damaged packets of {source} were left out"] if clip.damaged else []
    return clip.notes + damage + writers[0][0].notes


Pair = tuple[Frame, Frame]
"""A frame as it was and as it was translated."""


def both(pair: Pair) -> Frame:
    was, now = pair
    alpha = None if was.alpha is None else np.concatenate([was.alpha, was.alpha], axis=1)
    return replace(now, pixels=side_by_side(was.pixels, now.pixels), alpha=alpha)


def write_item(writers: list[tuple[films.Writer, Callable[[Pair], Frame]]], item: Any) -> bool:
    """Write a frame (True) or a packet of sound (False)."""
    for writer, view in writers:
        if isinstance(item, tuple):
            writer.write(view(item))
        else:
            writer.sound(item)
    return isinstance(item, tuple)


def report(t: Translate, there_already: int, finished: list[Work]) -> None:
    """Say what was done; raise what failed."""
    errors = [work for work in finished if work.error is not None]
    if len(errors) == 1 and len(finished) == 1 and not there_already:
        raise BadInput(errors[0].error)
    if t.out != STDIO:
        kept = f"; {there_already} were there already (--overwrite does them again)" if there_already else ""
        print(f"translated {len(finished) - len(errors)} to {t.out}{kept}", file=sys.stderr)
    if errors:
        for work in errors[:TOLD]:
            print(f"  {work.error}", file=sys.stderr)
        names = ", ".join(work.job.source.name for work in errors[:TOLD])
        more = f" and {len(errors) - TOLD} more" if len(errors) > TOLD else ""
        raise Failed(f"{len(errors)} of {len(finished)} failed: {names}{more}")

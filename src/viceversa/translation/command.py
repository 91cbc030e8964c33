"""`viceversa translate`: one image or ten thousand, and films. Decoders, network and encoders work at once.

First it is planned, which finds all that can go wrong before the work starts; then it is done, and what goes wrong
with one file ends no other's work.

The network is not compiled: with the quick norms of `inference` that wins 5 to 8% on a CPU, which 20 to 40
seconds of compiling eat up in anything but a night's work.
"""

import errno
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from itertools import chain, groupby, repeat, takewhile
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image

from ..config import Translate
from ..data import folders, statistics
from ..data import pictures as images
from ..data.pictures import Picture
from ..data.sixteen import to_8_bit
from ..device import threads_for_cores
from ..errors import BadInput, Failed, Interrupted
from ..files import replacing
from ..model.file import Model
from ..terminal import Update, ending_on_sigterm, progress_bar, words
from ..threads import ordered
from . import films
from .films import Clip, Frame
from .translator import Network, Translator, load

STDIO = Path("-")
"""Standard input as a source, standard output as a target."""
FORMATS = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP", "tiff": "TIFF", "bmp": "BMP"}
"""What --format may be, and Pillow's names."""
SUFFIXES = {end: name for name in images.WRITTEN for end in images.ENDINGS[name].split()}
"""Endings that say how an image is written."""
STAND_INS = {".dib": ".bmp", ".dcm": ".tif", ".dicom": ".tif"} | dict.fromkeys((".heic", ".heif", ".hif"), ".jpg")
"""Endings of what is read but not written, and what is written instead; .png for others."""
READ = images.SUFFIXES | films.FILMS
MASKS = frozenset(("mask", "masks", "label", "labels", "annotations", "segmentationclass", "segmentationobject"))
"""Folders in a labelled set, the pictures in which say what is where: they are never translated."""
WORKERS = min(16, os.cpu_count() or 1)
"""Threads that decode, and threads that encode."""
BATCH = 1 << 22
"""Pixels that a GPU is given at once, of images of one size."""
SMALL = 1 << 18
"""Pixels up to which a CPU translates a picture with one core, and others with the other cores. As quick on a quiet
machine as all cores on one picture after the other, and several times as quick on a busy one, where cores that
share a picture wait for each other; decoders and encoders alone keep this one busy."""
TOLD = 10
"""Failures, and notes, that are told one by one."""
LOOK = 1.0
"""Seconds between two looks at what has arrived."""
RATE, BEFORE, AFTER = 25, 0.5, 1.5
"""Of a photo's film: frames a second, and seconds for which its beginning and its end stand still."""
LARGEST_FILM, LARGEST_ANIMATION = 1920, 800
"""Long side of a photo's film, and of its GIF or WebP."""
DISK_FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)


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
        return self.target != STDIO and all(map(os.path.exists, self.targets))


def say(line: str) -> None:
    """On standard error: standard output may be an image."""
    print(line, file=sys.stderr, flush=True)


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


def command_translate(t: Translate) -> int:
    """Translate what is not there yet, and tell of what failed. Raises BadInput, Failed and Interrupted."""
    check_wishes(t)
    planned, lines = ([], []) if t.watch else plan(t)
    translator = load(t.model, epoch=t.epoch, device=t.device, precision=t.precision, memory=t.memory)
    there = translator.model.direction(t.to)
    if t.round_trip:
        translator.model.direction(translator.domains[there == "ba"])  # which must be there
    if t.watch:
        return watch(t, translator)
    for line in lines:
        say(line)
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


def watch(t: Translate, translator: Translator) -> int:
    """Translate what is there and what arrives, until Ctrl-C. A file is taken when it is as it was a look before;
    one that failed is tried again when it has changed."""
    try_out(t.out)
    say(f"watching {', '.join(t.inputs)}: what arrives is translated to {t.out}; Ctrl-C ends it")
    before: dict[Path, tuple[int, int]] = {}
    tried: dict[Path, tuple[int, int]] = {}
    told: set[str] = set()
    done = 0
    with suppress(KeyboardInterrupt, SystemExit), ending_on_sigterm():
        while True:
            try:
                jobs, lines = plan(t)
            except BadInput as nothing:  # there yet, it may be
                jobs, lines = [], [str(nothing)]
            for line in lines:
                if line not in told:
                    say(line)
            told.update(lines)
            now = {job.source: stamp for job in jobs if not job.is_done() and (stamp := stamp_of(job.source))}
            ready = [job for job in jobs if job.source in now and now[job.source] == before.get(job.source)]
            ready = [job for job in ready if now[job.source] != tried.get(job.source)]
            before = now
            if ready:
                tried |= {job.source: now[job.source] for job in ready}
                finished = []
                for work in translate(t, translator, ready):
                    finished.append(work)
                    done += work.error is None
                tell(t, 0, finished)
            time.sleep(LOOK)
    say(f"no longer watching; {done} translated to {t.out}")
    return 0


def stamp_of(path: Path) -> tuple[int, int] | None:
    """Size and time of the last change; None for what has gone, and for what is still empty."""
    with suppress(OSError):
        status = path.stat()
        return (status.st_size, status.st_mtime_ns) if status.st_size else None
    return None


def check_wishes(t: Translate) -> None:
    """Raise BadInput for what cannot be meant, whatever lies where."""
    if not t.inputs:
        raise BadInput("nothing to translate: give images, folders, quoted globs, videos, or - for standard input")
    if t.with_labels and t.format is not None:
        raise BadInput(f"--format {t.format} would change the names that labels go by: leave it out with --with-labels")
    if t.watch and is_file(t.out):
        raise BadInput(f"--watch: name a folder to write to, not {t.out}")


def is_file(out: Path) -> bool:
    """Does --out name one file, rather than a folder?"""
    return out == STDIO or (out.suffix.lower() in SUFFIXES.keys() | films.WRITTEN and not os.path.isdir(out))


def plan(t: Translate) -> tuple[list[Job], list[str]]:
    """The jobs of a command, in order, and what is to be said of them. Raises BadInput for inputs and outputs that
    cannot be."""
    lines: list[str] = []
    found = [each for given in t.inputs for each in find(given, t, lines)]
    to_file = is_file(t.out)
    if not to_file:
        jobs = [to_folder(t, *each) for each in found]
    elif len({os.path.realpath(source) for source, _, _ in found}) > 1:
        raise BadInput(f"--out {t.out}: {len(found)} inputs cannot go to one place; name a folder")
    else:
        jobs = [to_one(t, found[0][0])]
    jobs = check(jobs)
    if not to_file and t.format is None:
        endings = Counter((job.source.suffix.lower(), job.target.suffix) for job in jobs if job.kind != "copy")
        lines += [
            f"{words(count, 'file')} of a kind that is not written: {old} becomes {new}"
            for (old, new), count in sorted(endings.items())
            if new.lower() != old
        ]
    if t.out != STDIO:
        try_out(t.out.parent if to_file else t.out)
    return jobs, lines


def find(given: str, t: Translate, lines: list[str]) -> Iterator[tuple[Path, Path, bool]]:
    """The files that an input means, where each belongs in the output folder - the tree below it is kept -, and
    whether it is a label, to be copied."""
    if given == str(STDIO):
        if t.out.suffix.lower() not in SUFFIXES and t.out != STDIO:
            raise BadInput("- (standard input) has no name to keep: give --out FILE, or --out - for standard output")
        yield STDIO, Path("stdin"), False
        return
    if t.out != STDIO and folders.lies_inside(t.out, given):
        raise BadInput(f"--out {t.out} is inside the input folder {given}, where it would be read the next time: "
                       "name a folder outside")  # fmt: skip
    found = folders.find(given, READ)
    labels = t.with_labels and os.path.isdir(given)
    if not labels and (line := folders.left_out_line(found)):
        lines.append(line)
    for path in found.paths:
        place = found.place(path)
        yield path, place, labels and not MASKS.isdisjoint(part.lower() for part in place.parent.parts)
    if labels and found.left_out:
        with suppress(BadInput):  # only folders that cannot be read
            others = folders.find(given, found.left_out)
            yield from ((path, others.place(path), True) for path in others.paths)


def to_one(t: Translate, source: Path) -> Job:
    """The job of the only input, where --out says what its result is called."""
    film = source != STDIO and films.is_film(source)
    if t.out == STDIO:
        if film or t.compare or t.round_trip:
            raise BadInput("--out -: standard output takes one image; name a file or a folder")
        return Job(source, STDIO, format=FORMATS.get(t.format or ""))
    ending = t.out.suffix.lower()
    asked = SUFFIXES.get(ending)
    change = asked is None or (ending in films.ANIMATIONS and t.seconds is not None)
    if film or (change and ending in films.WRITTEN):
        if t.round_trip:
            raise BadInput(f"--round-trip is for images, and {source if film else t.out} is a video: leave it out")
        if ending not in films.WRITTEN:
            raise BadInput(
                f"--out {t.out}: {source} is a video; videos are written as {' '.join(sorted(films.WRITTEN))}"
            )
        return Job(source, t.out, "film" if film else "change", None, t.compare)
    if asked is None:
        raise BadInput(f"--out {t.out}: that is no name for an image ({' '.join(SUFFIXES)})")
    if t.seconds is not None:
        raise BadInput(f"--seconds {t.seconds:g} is for a film of the change: name one, such as -o evening.mp4")
    if t.format is not None and FORMATS[t.format] != asked:
        raise BadInput(f"--out {t.out} and --format {t.format} contradict each other: leave one out")
    return Job(source, t.out, "picture", asked, t.compare, t.round_trip)


def to_folder(t: Translate, source: Path, relative: Path, label: bool = False) -> Job:
    """The job of one of many inputs: its result has its name and its place in the tree."""
    if label:
        return Job(source, t.out / relative, "copy")
    if t.seconds is not None:
        raise BadInput(f"--seconds {t.seconds:g} is for one photo and its film: name it, such as -o evening.mp4")
    if films.is_film(source):
        if t.round_trip:
            raise BadInput(f"--round-trip is for images, and {source} is a video: translate it apart")
        return Job(source, t.out / relative.with_name(films.result_name(source)), "film", compare=t.compare)
    format = FORMATS.get(t.format or "")
    ending = relative.suffix.lower()
    if format is not None and SUFFIXES.get(ending) != format:
        relative = relative.with_suffix(f".{t.format}")
    elif ending not in SUFFIXES:
        relative = relative.with_suffix(STAND_INS.get(ending, ".png"))
        format = SUFFIXES[relative.suffix]
    return Job(source, t.out / relative, "picture", format, t.compare, t.round_trip)


def check(jobs: list[Job]) -> list[Job]:
    """Each job once. Raises BadInput where results would land on each other, or on an input."""
    writers: dict[Path, Job] = {}
    sources = {os.path.realpath(job.source) for job in jobs if job.source != STDIO}
    for job in jobs:
        for target in job.targets if job.target != STDIO else ():
            other = writers.setdefault(target, job)
            if other.target != job.target or os.path.realpath(other.source) != os.path.realpath(job.source):
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
    pictures = [job for job in todo if job.kind == "picture"]
    if pictures:
        with progress_bar("translating", len(pictures)) as update:
            for done, work in enumerate(translate_pictures(t, translator, pictures), 1):
                update(done)
                yield work
    for job in todo:
        if job.kind in ("film", "change"):
            with progress_bar(job.source.name) as update:
                yield guarded(partial(do_film, t, translator, update), Work(job))
    yield from (guarded(copy, Work(job)) for job in todo if job.kind == "copy")


def reading(t: Translate, model: Model) -> Callable[[Work], Work]:
    """How a picture is read for this model; it is said where it is unlike those of training."""
    direction = model.direction(t.to)
    source, target = model.domains if direction == "ab" else model.domains[::-1]
    known = model.info.get("statistics", {})
    unlike = partial(statistics.remark, statistics=known, domain=source, other=target)
    return partial(guarded, partial(read_one, channels=model.spec(direction).channels_in, unlike=unlike))


def applying(t: Translate, translator: Translator) -> Callable[[list[Work]], list[Work]]:
    """How pictures of one size are translated."""
    direction = translator.model.direction(t.to)
    source, target = translator.domains if direction == "ab" else translator.domains[::-1]
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


def read_one(work: Work, channels: int, unlike: Callable[[np.ndarray], str]) -> Work:
    source = work.data or (sys.stdin.buffer.read() if work.job.source == STDIO else work.job.source)
    pages = images.read_all(source, channels=1 if channels == 1 else 3)
    notes = (*pages[0].notes, *filter(None, [unlike(pages[0].pixels)]))
    return replace(work, data=None, pages=tuple(pages), notes=notes)


def batches(works: Iterable[Work], pixels: int) -> Iterator[list[Work]]:
    """Neighbours of one size and depth together, up to so many pixels; stacks and what has failed, alone."""
    batch: list[Work] = []
    for work in works:
        if batch and not (alike(batch[0], work) and (len(batch) + 1) * area(work) <= pixels):
            yield batch
            batch = []
        batch.append(work)
    if batch:
        yield batch


def alike(one: Work, other: Work) -> bool:
    if len(one.pages) != 1 or len(other.pages) != 1:
        return False
    a, b = one.pages[0].pixels, other.pages[0].pixels
    return a.shape == b.shape and a.dtype == b.dtype


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
    except Exception as error:
        if len(batch) == 1:
            return [failed(batch[0], error)]
        return [result for work in batch for result in translate_batch([work], there, back)]
    if len(batch) == 1:
        return [results(batch[0], translated, returned)]
    return [results(work, [after], [again]) for work, after, again in zip(batch, translated, returned, strict=True)]


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
        outputs.append((job.compared, written(map(side_by_side, before, translated), twice=True)))
    if job.round_trip:
        outputs.append((job.returned, written(returned)))
    return replace(work, pages=(), results=tuple(outputs))


def side_by_side(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Before at the left, after at the right: (H, W, 1 or 3) each -> (H, 2 W, 1 or 3)."""
    channels = max(before.shape[2], after.shape[2])
    return np.concatenate([np.broadcast_to(half, (*half.shape[:2], channels)) for half in (before, after)], 1)


def weigh_results(work: Work) -> int:
    return sum(page.pixels.nbytes for _, pages in work.results for page in pages)


def write_one(work: Work, quality: int) -> Work:
    notes: tuple[str, ...] = ()
    for path, pages in work.results:
        if path == STDIO:
            sys.stdout.buffer.write(images.encode(pages, quality))
            sys.stdout.buffer.flush()
        else:
            notes = images.write(path, pages, quality)
    return Work(work.job, notes=work.notes + notes)


def copy(work: Work) -> Work:
    with replacing(work.job.target) as temporary:
        shutil.copy2(work.job.source, temporary)
    return work


def do_film(t: Translate, translator: Translator, update: Update, work: Work) -> Work:
    source, target = work.job.source, work.job.target
    options: dict[str, Any] = {"to": t.to, "size": t.size, "strength": t.strength, "codec": t.codec,
                               "quality": t.quality, "compare": t.compare, "on_progress": update}  # fmt: skip
    if work.job.kind == "film":
        notes = translate_film(translator, source, target, steady=t.steady, **options)
    else:
        notes = show_change(translator, source, target, seconds=4.0 if t.seconds is None else t.seconds, **options)
    for note in notes:
        say(note)
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
    strength: float = 1.0,
    compare: bool = False,
    on_progress: Update | None = None,
) -> list[str]:
    """Translate a film or an animation into what the ending of `target` says. An existing target is replaced.

    The times of the frames, the orientation and the sound are kept. `compare` also writes before and after
    side by side, as NAME.compare.mp4. `on_progress(done, total)` is called after each frame; the total is None
    where the file does not say. Returns what a person should know of the result, a line each.

    Raises BadInput before anything is written and Failed from then on. What was done until then, or until an
    interruption, is NAME.partial.mp4, and plays.
    """
    translate = translator.frames(to, size=size, steady=steady, strength=strength)
    with films.read(source) as clip:
        notes = write_film(clip, translate, target, codec, quality, compare, on_progress)
    damage = [f"{clip.damaged} damaged packets of {source} were left out"] if clip.damaged else []
    return clip.notes + damage + notes


def show_change(
    translator: Translator,
    source: Path,
    target: Path,
    *,
    to: str | None = None,
    seconds: float = 4.0,
    codec: str = "h264",
    quality: int = 80,
    size: int | None = None,
    strength: float = 1.0,
    compare: bool = False,
    on_progress: Update | None = None,
) -> list[str]:
    """A film of how a photo changes: it stands still for a moment, changes in so many seconds, and stands still.

    From the photo to its translation, linearly in steps of its levels, slowly at first and at the end. The rest is
    as for `translate_film`.
    """
    direction = translator.model.direction(to)
    picture = images.read(source, 3)
    before = images.on_white(picture)
    given = before if translator.channels(direction) == 3 else images.read(source, 1).pixels
    after = np.broadcast_to(translator(given, to, size=size, strength=strength), before.shape)
    moving = target.suffix.lower() in films.ANIMATIONS
    first, last = (shrunk(pixels, LARGEST_ANIMATION if moving else LARGEST_FILM) for pixels in (before, after))
    rate = RATE // 2 if moving else RATE
    still, change, end = (round(rate * part) for part in (BEFORE, seconds, AFTER))
    part = np.clip((np.arange(still + change + end) - still) / max(1, change), 0, 1)
    parts = iter(part * part * (3 - 2 * part))
    length = Fraction(1, rate)
    frames = (Frame(first, n * length, length) for n in range(still + change + end))
    clip = Clip(frames=frames, total=still + change + end, rate=Fraction(rate), clock=length)
    levels, way = first.astype(np.float32), last.astype(np.float32) - first

    def mixed(_: np.ndarray) -> np.ndarray:
        return np.asarray((levels + np.float32(next(parts)) * way).round().astype(np.uint8))

    notes = write_film(clip, mixed, target, codec, quality, compare, on_progress)
    (height, width), (high, wide) = before.shape[:2], first.shape[:2]
    return notes + ([f"{target}: {width}x{height} became {wide}x{high}"] if (high, wide) != (height, width) else [])


def shrunk(pixels: np.ndarray, side: int) -> np.ndarray:
    """(H, W, 3) uint8 or uint16 -> uint8, the long side at most `side`."""
    image = Image.fromarray(to_8_bit(np.ascontiguousarray(pixels)))
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return np.asarray(image)


def write_film(
    clip: Clip, translate: Way, target: Path, codec: str, quality: int, compare: bool, on_progress: Update | None
) -> list[str]:
    """Translate and write the frames of a clip, and its sound; returns the writer's notes."""
    if target.suffix.lower() not in films.WRITTEN:
        raise BadInput(f"{target}: videos are written as {' '.join(sorted(films.WRITTEN))}")
    if not 1 <= quality <= 100:
        raise BadInput(f"--quality {quality}: choose from 1 to 100")
    with ExitStack() as stack:
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
                raise BadInput(f"{clip.source}: {'no frame can be decoded' if clip.damaged else 'holds no frames'}")
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
    return writers[0][0].notes


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
    tell(t, there_already, finished)
    if errors:
        names = ", ".join(work.job.source.name for work in errors[:TOLD])
        more = f" and {len(errors) - TOLD} more" if len(errors) > TOLD else ""
        raise Failed(f"{len(errors)} of {len(finished)} failed: {names}{more}")


def tell(t: Translate, there_already: int, finished: list[Work]) -> None:
    """Say what was done, what was left out or changed, and the first that failed."""
    errors = [work.error for work in finished if work.error is not None]
    copied = sum(work.job.kind == "copy" and work.error is None for work in finished)
    if t.out != STDIO:
        labels = f" and copied {words(copied, 'label')}" if copied else ""
        kept = f"; {there_already} were there already (--overwrite does them again)" if there_already else ""
        say(f"translated {len(finished) - len(errors) - copied}{labels} to {t.out}{kept}")
    for lines in (images.told((work.job.source, work.notes) for work in finished), errors):
        for line in lines[:TOLD]:
            say(f"  {line}")
        if len(lines) > TOLD:
            say(f"  and {len(lines) - TOLD} more of this kind")

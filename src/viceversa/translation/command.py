"""`viceversa translate`: one image or ten thousand, and videos. Decoders, network and encoders work at once.

The network is not compiled: with the quick norms of `inference` that wins 5 to 8% on a CPU, which 20 to 40
seconds of compiling eat up in anything but a night's work.
"""

import errno
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, groupby
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import torch

from ..config import Translate
from ..data import pictures as images
from ..data.pictures import Picture
from ..errors import BadInput, Failed, Interrupted
from ..terminal import progress_bar
from . import jobs
from .jobs import STDIO, Job
from .translator import Translator, load
from .video import translate_video

WORKERS = min(16, os.cpu_count() or 1)
"""Threads that decode, and threads that encode."""
HELD = 1 << 28
"""Bytes of pictures that may wait for the network, and as many for the encoders."""
BATCH = 1 << 22
"""Pixels that a GPU is given at once, of images of one size."""
SMALL = 1 << 18
"""Pixels up to which a CPU translates a picture with one core, and others with the other cores. As quick on a quiet
machine as all cores on one picture after the other, and several times as quick on a busy one, where cores that
share a picture wait for each other; decoders and encoders alone keep this one busy."""
TOLD = 10
"""Failures that are told one by one."""
DISK_FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)

T = TypeVar("T")
R = TypeVar("R")


class Way(Protocol):
    """Arrays (N, H, W, C) to the other domain."""

    def __call__(self, pixels: np.ndarray) -> np.ndarray: ...


@dataclass(frozen=True)
class Work:
    """A job on its way: what was read, what is to be written, or why it failed."""

    job: Job
    picture: Picture | None = None
    results: tuple[tuple[Path, Picture], ...] = ()
    error: str | None = None


def command_translate(t: Translate) -> int:
    """Translate what is not there yet, and tell of what failed. Raises BadInput, Failed and Interrupted."""
    planned = jobs.plan(t)
    translator = load(t.model, device=t.device, precision=t.precision, memory=t.memory)
    there = translator.direction(t.to)
    if t.round_trip:
        translator.direction(translator.domains[there == "ba"])  # which must be there
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


def translate(t: Translate, translator: Translator, todo: list[Job]) -> Iterator[Work]:
    """Do the jobs, pictures first; yields each when it is done or has failed."""
    pictures = [job for job in todo if not job.is_video]
    if pictures:
        with progress_bar("translating", len(pictures)) as update:
            for done, work in enumerate(translate_pictures(t, translator, pictures), 1):
                update(done)
                yield work
    for job in todo:
        if job.is_video:
            with progress_bar(job.source.name) as update:
                yield translate_film(t, translator, job, update)


def translate_pictures(t: Translate, translator: Translator, todo: list[Job]) -> Iterator[Work]:
    """Read, translate and write, each in threads of its own; in the order of the jobs."""
    direction = translator.direction(t.to)
    there = partial(translator, to=t.to, size=t.size)
    back = partial(translator, to=translator.domains[direction == "ba"], size=t.size)
    network = partial(translate_batch, there=there, back=back)
    read = partial(guarded, partial(read_one, channels=translator.channels(direction)))
    write = partial(guarded, partial(write_one, quality=t.quality))
    with threads(WORKERS) as readers, threads(WORKERS) as writers:
        opened = in_threads(readers, read, (Work(job) for job in todo), weigh_file, soon=False)
        if translator.device.type == "cpu":
            translated = on_cores(opened, network, translator.at_once(direction, SMALL))
        else:
            translated = (work for batch in batches(opened, BATCH) for work in network(batch))
        yield from in_threads(writers, write, translated, weigh_results, soon=True)


def on_cores(opened: Iterable[Work], network: Callable[[list[Work]], list[Work]], at_once: int) -> Iterator[Work]:
    """Small pictures side by side, a core each; large ones one by one, with all cores."""
    cores = torch.get_num_threads()
    try:
        with threads(min(cores, at_once), partial(torch.set_num_threads, 1)) as crew:
            for small, group in groupby(opened, lambda work: area(work) <= SMALL):
                alone = ([work] for work in group)
                done = in_threads(crew, network, alone, lambda _: 0, soon=True) if small else map(network, alone)
                yield from chain.from_iterable(done)
    finally:
        torch.set_num_threads(cores)  # threads to come take the number that was set last, in whatever thread


@contextmanager
def threads(count: int, initializer: Callable[[], None] | None = None) -> Iterator[ThreadPoolExecutor]:
    """A pool that, at the end, finishes what it has begun but begins nothing more."""
    pool = ThreadPoolExecutor(count, initializer=initializer)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def in_threads(
    pool: ThreadPoolExecutor, function: Callable[[T], R], items: Iterable[T], weigh: Callable[[T], int], soon: bool
) -> Iterator[R]:
    """`map(function, items)`, begun ahead: of twice as many items as there are threads, or of HELD bytes.

    `soon`: give each result as soon as it is there, instead of looking for more items first.
    """
    waiting: deque[tuple[Future[R], int]] = deque()

    def is_next_due(weight: int) -> bool:
        too_much = len(waiting) >= 2 * WORKERS or weight + sum(held for _, held in waiting) > HELD
        return bool(waiting) and (too_much or (soon and waiting[0][0].done()))

    for item in items:
        weight = weigh(item)
        while is_next_due(weight):
            yield waiting.popleft()[0].result()
        waiting.append((pool.submit(function, item), weight))
    while waiting:
        yield waiting.popleft()[0].result()


def guarded(function: Callable[[Work], Work], work: Work) -> Work:
    """Go on with work that has not failed; what is wrong with one file is its error, and no other's."""
    if work.error is not None:
        return work
    try:
        return function(work)
    except (BadInput, MemoryError) as error:
        return failed(work, error)
    except OSError as error:
        if error.errno in DISK_FULL:
            raise Failed(f"cannot write {work.job.target}: {error.strerror}") from None
        return failed(work, error)


def failed(work: Work, error: Exception) -> Work:
    reason = str(error) or type(error).__name__
    named = reason if str(work.job.source) in reason else f"{work.job.source}: {reason}"
    return Work(work.job, error=named)


def weigh_file(work: Work) -> int:
    """Bytes of a picture once it is decoded; 0 for what cannot be decoded."""
    with suppress(BadInput):
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


def translate_batch(batch: list[Work], there: Way, back: Way) -> list[Work]:
    """Run the network on pictures of one size."""
    if batch[0].picture is None:
        return batch
    pixels = np.stack([work.picture.pixels for work in batch if work.picture is not None])
    try:
        translated = there(pixels)
        returned = back(translated) if batch[0].job.round_trip else translated
    except BadInput as error:  # too large for the memory
        return [failed(work, error) for work in batch]
    return [results(work, after, again) for work, after, again in zip(batch, translated, returned, strict=True)]


def results(work: Work, translated: np.ndarray, returned: np.ndarray) -> Work:
    """What is to be written of a picture: its translation, and what else was asked for."""
    before = work.picture
    assert before is not None
    job, format = work.job, work.job.format or before.format
    written = [(job.target, replace(before, pixels=translated, format=format))]
    if job.compare:
        written.append((job.compared, side_by_side(before, written[0][1])))
    if job.round_trip:
        written.append((job.returned, replace(before, pixels=returned, format=format)))
    return replace(work, picture=None, results=tuple(written))


def side_by_side(before: Picture, after: Picture) -> Picture:
    channels = max(before.pixels.shape[2], after.pixels.shape[2])
    halves = [half.pixels.repeat(channels // half.pixels.shape[2], 2) for half in (before, after)]
    alpha = None if before.alpha is None else np.concatenate([before.alpha, before.alpha], 1)
    return replace(after, pixels=np.concatenate(halves, 1), alpha=alpha)


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


def translate_film(t: Translate, translator: Translator, job: Job, update: Callable[[int, int | None], None]) -> Work:
    try:
        notes = translate_video(
            translator, job.source, job.target, to=t.to, codec=t.codec, quality=t.quality, steady=t.steady,
            size=t.size, compare=t.compare, on_progress=update,
        )  # fmt: skip
    except (BadInput, Failed) as error:
        return failed(Work(job), error)
    for note in notes:
        print(note, file=sys.stderr)
    return Work(job)


def report(t: Translate, there_already: int, finished: list[Work]) -> None:
    """Say what was done; raise what failed."""
    errors = [work.error for work in finished if work.error is not None]
    if len(errors) == 1 and len(finished) == 1 and not there_already:
        raise BadInput(errors[0])
    if t.out != STDIO:
        kept = f"; {there_already} were there already (--overwrite does them again)" if there_already else ""
        print(f"translated {len(finished) - len(errors)} to {t.out}{kept}", file=sys.stderr)
    if errors:
        for error in errors[:TOLD]:
            print(f"  {error}", file=sys.stderr)
        names = ", ".join(work.job.source.name for work in finished if work.error is not None)
        raise Failed(f"{len(errors)} of {len(finished)} failed: {names}")

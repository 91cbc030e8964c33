"""Whose turn it is: a bounded room before the network, and the crew of threads that serves it.

On a GPU one thread takes what waits and is alike as one batch. On a CPU a batch is no quicker than its pictures
one by one, but small pictures side by side, a core each, are (benchmarks/serve.py, docs/serve.md): there the
crew has a thread a core, and a large picture waits until it has all of them.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ..device import is_out_of_memory, threads_for_cores
from ..errors import BadInput, Failed
from ..terminal import words
from ..translation.pipeline import BATCH, SMALL
from ..translation.translator import Translator
from .refusal import Refusal


class Room:
    """How much may be inside at a time, from the decoding of a picture to its answer."""

    def __init__(self, pictures: int, pixels: float):
        self.pictures, self.pixels = pictures, pixels
        self.pictures_inside = 0
        self.pixels_inside = 0
        self.pace = 0.1
        """Seconds from one answer to the next while there is work, smoothed."""

    @contextmanager
    def enter(self, pixels: int) -> Iterator[None]:
        """A place for a picture, kept for the block. Raises Refusal (503) when there is none."""
        full = self.pictures_inside >= self.pictures
        if full or (self.pictures_inside and self.pixels_inside + pixels > self.pixels):
            waiting = words(self.pictures_inside, "picture is", "pictures are")
            what = f"{waiting} waiting already, come back later"
            raise Refusal(503, what, retry_after=self.pictures_inside * self.pace)
        self.pictures_inside += 1
        self.pixels_inside += pixels
        try:
            yield
        finally:
            self.pictures_inside -= 1
            self.pixels_inside -= pixels


def pixels_at(height: int, width: int, size: int | None) -> int:
    """What the network sees of a picture, or would without a smaller `size`."""
    return round(height * width * max(1.0, (size or 0) / max(1, min(height, width))) ** 2)


@dataclass(eq=False)
class Work:
    """A picture, or a frame of a film, (H, W, C), that waits for the network."""

    translator: Translator
    image: np.ndarray
    to: str | None
    size: int | None = None
    strength: float = 1.0
    film: Callable[[np.ndarray], np.ndarray] | None = None
    """What translates the frames of its film, one after the other."""
    future: "Future[np.ndarray]" = field(default_factory=Future)

    @property
    def pixels(self) -> int:
        height, width = self.image.shape[:2]
        return pixels_at(height, width, self.size)

    def is_like(self, other: "Work") -> bool:
        """May both go through the network at once?"""
        both = [(w.translator, w.image.shape, w.image.dtype, w.to, w.size, w.strength) for w in (self, other)]
        return both[0] == both[1] and self.film is None and other.film is None


class Queue:
    """Work for the network, in the order in which it came. A work whose future is cancelled is left out."""

    def __init__(self, translators: Sequence[Translator], on_batch: Callable[[int, float], None] = lambda n, s: None):
        """`on_batch(pictures, seconds)` is called after each pass through the network."""
        self.on_batch = on_batch
        self.waiting: deque[Work] = deque()
        self.running = 0
        self.alone = False
        self.closed = False
        self.changed = threading.Condition()
        self.on_cpu = translators[0].device.type == "cpu"
        self.cores = threads_for_cores()
        crew = 1
        if self.on_cpu:  # no more at once than fit into the memory
            fit = min(t.network(way, t.dtype).at_once(SMALL) for t in translators for way in t.model.generators)
            crew = max(1, min(self.cores, fit))
        for number in range(crew):
            threading.Thread(target=self.serve, name=f"network-{number}", daemon=True).start()

    def put(self, work: Work) -> "Future[np.ndarray]":
        """Queue a work; its future gives what the translator gives. Raises Refusal (507) from it where the picture
        does not fit into the memory in any way."""
        with self.changed:
            self.waiting.append(work)
            self.changed.notify()
        return work.future

    def close(self) -> None:
        """Let the crew go, once it has done what it is doing."""
        with self.changed:
            self.closed = True
            self.changed.notify_all()

    def serve(self) -> None:
        """What each thread of the crew does until the queue is closed."""
        while batch := self.take():
            began = time.monotonic()
            try:
                results = self.through_network(batch)
            except BaseException as error:
                for work in batch:
                    work.future.set_exception(error)
            else:
                for work, result in zip(batch, results, strict=True):
                    work.future.set_result(result)
            count, batch = len(batch), []  # an idle thread holds no picture
            results = []
            with self.changed:
                self.running -= 1
                self.alone = False
                self.changed.notify_all()
            self.on_batch(count, time.monotonic() - began)

    def take(self) -> list[Work]:
        """The next work, once it may begin, with all that can go along; nothing when the queue is closed."""
        with self.changed:
            while True:
                self.changed.wait_for(lambda: self.closed or self.may_begin())
                if self.closed:
                    return []
                first = self.waiting.popleft()
                if first.future.set_running_or_notify_cancel():
                    break
            batch = [first]
            if not self.on_cpu:
                for work in [work for work in self.waiting if work.is_like(first)]:
                    if (len(batch) + 1) * first.pixels > BATCH:
                        break
                    self.waiting.remove(work)
                    if work.future.set_running_or_notify_cancel():
                        batch.append(work)
            self.running += 1
            self.alone = self.is_large(first)
            return batch

    def may_begin(self) -> bool:
        return bool(self.waiting) and not self.alone and (self.running == 0 or not self.is_large(self.waiting[0]))

    def is_large(self, work: Work) -> bool:
        return work.pixels > SMALL

    def through_network(self, batch: list[Work]) -> list[np.ndarray]:
        first = batch[0]
        if self.on_cpu:
            torch.set_num_threads(self.cores if self.is_large(first) else 1)
        if first.film is not None:
            return [first.film(first.image)]
        return translated(first.translator, [work.image for work in batch], first.to, first.size, first.strength)


def translated(
    translator: Translator, images: list[np.ndarray], to: str | None, size: int | None, strength: float
) -> list[np.ndarray]:
    """Translate images that are alike; one by one where the memory does not do for all. (The network has tried
    half of it by then, and tiles.)

    Raises Refusal (507) where it does not do for one, either.
    """
    try:
        if len(images) == 1:
            return [translator(images[0], to=to, size=size, strength=strength)]
        return list(translator(np.stack(images), to=to, size=size, strength=strength))
    except BadInput as wrong:  # directions, sizes and channels were looked at before: it is too large even for tiles
        refusal = Refusal(507, f"too large for this server: {str(wrong).split(':')[0]}")
    except (RuntimeError, MemoryError) as error:  # beside the network
        if not is_out_of_memory(error):
            raise
        refusal = Refusal(507, "the server has run out of memory for this picture: send a smaller one, or give size")
    if len(images) == 1:
        raise refusal
    # Out here nothing holds what the first attempt had got.
    return [one for image in images for one in translated(translator, [image], to, size, strength)]


class InTurn(Translator):
    """A translator whose every image waits for its turn in a queue: for films and archives, which go on beside
    the pictures of others instead of before them."""

    def __init__(self, translator: Translator, queue: Queue):
        self.__dict__.update(translator.__dict__)
        self.translator, self.queue = translator, queue

    def frames(
        self, to: str | None = None, *, size: int | None = None, strength: float = 1.0, steady: bool = True
    ) -> Callable[[np.ndarray], np.ndarray]:
        film = self.translator.frames(to, size=size, strength=strength, steady=steady)
        return lambda frame: self.queue.put(Work(self.translator, frame, to, size, film=film)).result()

    def __call__(self, image: Any, to: str | None = None, *, size: int | None = None, strength: float = 1.0) -> Any:
        """An array, as the pipeline gives: (H, W, C) or (N, H, W, C). Raises Failed."""
        if image.ndim == 4:
            return np.stack([self(one, to, size=size, strength=strength) for one in image])
        try:
            return self.queue.put(Work(self.translator, image, to, size, strength)).result()
        except Refusal as refusal:
            raise Failed(refusal.sentence) from None

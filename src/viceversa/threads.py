"""One map over threads: in order, bounded, and over as soon as nobody wants more of it."""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

WORKERS = min(8, os.cpu_count() or 1)
"""Each may hold a picture of full size, twice or thrice."""
ROOM = 1 << 28
"""Bytes that may be on their way at a time, where a job's weight is known."""


def ordered(
    task: Callable[[T], R],
    jobs: Iterable[T],
    *,
    workers: int = WORKERS,
    weigh: Callable[[T], int] | None = None,
    room: int = ROOM,
    initializer: Callable[[], None] | None = None,
) -> Generator[R, None, None]:
    """`map(task, jobs)` by threads that work a little ahead. (Forks would not survive torch's threads, and
    decoders let go of the interpreter's lock.)

    Jobs are fetched by the caller's thread, one by one as there is need, so that they may be endless or the
    results of another such map. At most four jobs a worker are begun ahead, and, where `weigh` tells the bytes
    that a job and its result take, no more than `room` bytes of them (one at least). What a task raises comes
    when it is its turn. However it ends - also by Ctrl-C, or because the caller stops - no other job is begun,
    those that are being done are waited for, and no thread is left. `initializer` runs first in each thread.
    """
    waiting: deque[tuple[Future[R], int]] = deque()
    pool = ThreadPoolExecutor(workers, initializer=initializer)
    try:
        for job in jobs:
            weight = 0 if weigh is None else weigh(job)
            while waiting and (len(waiting) >= 4 * workers or weight + sum(held for _, held in waiting) > room):
                yield waiting.popleft()[0].result()
            waiting.append((pool.submit(task, job), weight))
            if waiting[0][0].done():  # not kept until there are more jobs, which may take long to come
                yield waiting.popleft()[0].result()
        while waiting:
            yield waiting.popleft()[0].result()
    finally:
        pool.shutdown(cancel_futures=True)

"""What is printed while it works: one progress bar, and words that every command says the same way."""

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
from rich.progress import TimeRemainingColumn as TimeLeft
from rich.text import Text

T = TypeVar("T")
Say = Callable[[str], None]
"""What is told lines."""
PLAIN_EVERY = 30.0
"""Seconds between plain lines."""


def clock(seconds: float) -> str:
    """0:07, 12:33, 1:02:33."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def count(number: float) -> str:
    """12345 -> 12,345."""
    return f"{number:,.0f}"


def words(number: int, one: str, many: str | None = None) -> str:
    """1 epoch, 2 epochs, 1,200 images."""
    return f"{count(number)} {one if number == 1 else many or one + 's'}"


def say(text: str) -> None:
    """Print a line; what the terminal cannot print (names of files may be anything) stands there as an escape."""
    try:
        print(text, flush=True)
    except UnicodeEncodeError as error:
        print(text.encode(error.encoding, "backslashreplace").decode(error.encoding), flush=True)


class Update(Protocol):
    """Tell how much is done, and how much there is in all where that has become known."""

    def __call__(self, done: int, total: int | None = None) -> None: ...


@contextmanager
def progress_bar(title: str, total: int | None = None, silent: bool = False) -> Iterator[Update]:
    """Show on standard error how far some work is; yields `update(done, total=None)`.

    On a terminal a bar with rate and time left, gone when all is done; elsewhere a plain line every half
    minute, and at the end.
    """
    console = Console(stderr=True, highlight=False, markup=False, emoji=False)
    with ending_on_sigterm():
        if silent:
            yield lambda done, total=None: None
        elif is_terminal(console):
            columns = (TextColumn("{task.description}"), BarColumn(complete_style="cyan", finished_style="cyan"))
            output_too = sys.stdout.isatty()  # what was sent elsewhere stays there
            counts = (MofNCompleteColumn(), Rate(), TimeLeft(compact=True))
            with Progress(*columns, *counts, console=console, transient=True, redirect_stdout=output_too) as progress:
                task = progress.add_task(title, total=total)
                yield lambda done, total=None: progress.update(task, completed=done, total=total)
        else:
            lines = PlainProgress(title, total)
            yield lines.update
            lines.print(f", {clock(lines.seconds)}")


def followed(title: str, total: int, items: Iterable[T]) -> Iterator[T]:
    """The items, under a bar that counts those that are done with."""
    with progress_bar(title, total) as update:
        for done, item in enumerate(items, start=1):
            yield item
            update(done)


class PlainProgress:
    """How far some work is, in plain lines on standard error."""

    def __init__(self, title: str, total: int | None):
        self.title, self.done, self.total = title, 0, total
        self.began = self.printed_at = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    def update(self, done: int, total: int | None = None) -> None:
        self.done, self.total = done, total or self.total
        if time.monotonic() - self.printed_at >= PLAIN_EVERY:
            self.print(f", {self.done / self.seconds:.3g}/s")

    def print(self, end: str) -> None:
        self.printed_at = time.monotonic()
        of_total = "" if self.total is None else f" of {self.total}"
        print(f"{self.title}: {self.done}{of_total}{end}", file=sys.stderr, flush=True)


class Rate(ProgressColumn):
    """How many a second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.3g}/s" if task.speed else "", "dim")


def is_terminal(console: Console) -> bool:
    """Is somebody looking who can be shown lines that change? Not where FORCE_COLOR alone says so."""
    return console.file.isatty() and not console.is_dumb_terminal


@contextmanager
def ending_on_sigterm() -> Iterator[None]:
    """Where nobody handles SIGTERM, let it unwind as Ctrl-C does, with exit code 143: Python's default dies
    on the spot, and leaves the terminal without a cursor and temporary files on the disk."""
    in_main_thread = threading.current_thread() is threading.main_thread()  # others may not set handlers
    if not in_main_thread or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

"""What a person sees while it works: a live display on a terminal, plain lines elsewhere."""

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any, Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
from rich.progress import TimeRemainingColumn as TimeLeft
from rich.text import Text

from .panel import WIDE, State, Trend, clock, panel, plain_line, warning

PLAIN_EVERY = 30.0
"""Seconds between plain lines."""
WARNINGS_SHOWN = 3


class Display:
    """Shows a training on standard output, from `with` to its end. A silent one shows nothing.

    On a terminal, a few lines that stay in place: how far, how fast, the losses of both directions and how
    they went, and in words what goes wrong. Elsewhere a plain line for each epoch, and every half minute.
    """

    def __init__(self, title: str, names: tuple[str, str], silent: bool = False):
        self.title, self.silent = title, silent
        self.names = dict(zip("ab", names, strict=True))
        self.console = Console(highlight=False, markup=False, emoji=False)
        self.live = is_terminal(self.console) and not silent
        self.state: State | None = None
        self.printed: State | None = None
        self.trends: dict[str, Trend] = {}
        self.warnings: list[str] = []
        self.updated_at = self.printed_at = time.monotonic()
        self.stack = ExitStack()

    def __enter__(self) -> "Display":
        self.stack.enter_context(ending_on_sigterm())
        if self.live:
            errors_too = sys.stderr.isatty()  # what was sent elsewhere stays there
            self.stack.enter_context(Live(console=self.console, get_renderable=self.render, redirect_stderr=errors_too))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stack.close()
        self.print_once(self.state)

    def update(self, **fields: Any) -> None:
        """Tell where the training stands: the fields of `panel.State`. Cheap; for a few times a second."""
        before, self.state = self.state, State(**fields)
        self.updated_at = time.monotonic()
        for key, value in self.state.losses.items():
            self.trends.setdefault(key, Trend()).add(value)
        if before and before.epoch != self.state.epoch:
            self.print_once(before)
        elif self.updated_at - self.printed_at >= PLAIN_EVERY:
            self.print_once(self.state)

    def say(self, text: str) -> None:
        """A line of its own, above the display."""
        if self.live:
            self.console.print(text, soft_wrap=True)
        elif not self.silent:
            print(text, flush=True)

    def warn(self, text: str) -> None:
        """Something that goes wrong: stays on the display, below; a plain line elsewhere."""
        text = f"epoch {self.state.epoch}: {text}" if self.state else text
        self.warnings.append(text)
        if not self.live:
            self.say(f"warning: {text}")

    def print_once(self, state: State | None) -> None:
        """The plain line of a state, where plain lines are due."""
        if state is None or state is self.printed or self.live:
            return
        self.printed, self.printed_at = state, time.monotonic()
        self.say(plain_line(state, self.names))

    def render(self) -> RenderableType:
        """The live display. Between two updates the clock goes on."""
        if self.state is None:
            return Text(self.title, "bold")
        with_bars = self.console.width >= WIDE and not self.console.options.ascii_only
        since = time.monotonic() - self.updated_at
        shown = panel(self.title, self.names, self.state, since, self.trends if with_bars else {})
        warnings = [warning(text) for text in self.warnings[-WARNINGS_SHOWN:]]
        return Group(Text(), shown, Text(), *warnings)


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

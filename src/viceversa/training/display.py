"""What a person sees while it works: a live display on a terminal, plain lines elsewhere."""

import sys
import time
from contextlib import ExitStack
from types import TracebackType
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from ..terminal import PLAIN_EVERY, ending_on_sigterm, is_terminal
from .panel import WIDE, State, Trend, panel, plain_line, warning

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

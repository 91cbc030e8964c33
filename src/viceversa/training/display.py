"""What a person sees while it trains: a few lines that stay in place on a terminal, these and the newest pictures in
a notebook's cell, plain lines elsewhere."""

import base64
import io
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ..terminal import PLAIN_EVERY, clock, ending_on_sigterm, is_terminal, say

WARNINGS_SHOWN = 3
BARS = "▁▂▃▄▅▆▇█"
WIDE = 72
"""Columns that a terminal needs for the little bars."""
CELL_EVERY = 1.0
"""Seconds between two views of a notebook's cell."""


@contextmanager
def while_heard() -> Iterator[None]:
    """What is printed in here may reach nobody any more (`| head`, a terminal that was closed). That is no end of a
    training: standard error is told, once, and from then on words go nowhere."""
    try:
        yield
    except OSError as error:
        silence(sys.stdout)
        try:
            print(f"viceversa: cannot write standard output: {error.strerror}; goes on without", file=sys.stderr)
        except OSError:
            silence(sys.stderr)


def silence(stream: TextIO) -> None:
    with suppress(OSError, ValueError), open(os.devnull, "w") as nowhere:  # what is no file has no number
        os.dup2(nowhere.fileno(), stream.fileno())


def tell(text: str) -> None:
    """Say a line to whoever hears it."""
    with while_heard():
        say(text)


class Shown(Live):
    def refresh(self) -> None:
        with while_heard():
            super().refresh()


@dataclass(frozen=True, kw_only=True)
class State:
    """Where a training stands."""

    step: int
    steps: int | None
    """In all; None where the clock decides."""
    epoch: int
    epochs: int | None
    fraction: float
    """Of the work that is done, 0 to 1."""
    seconds: float
    """Of training so far."""
    seconds_left: float | None
    images_per_second: float
    learning_rate: float
    losses: Mapping[str, float]
    """By their keys ("cycle/a"); people see the names of the domains."""


@dataclass
class Trend:
    """The course of a number since the start, in fewer than `size` means over equal stretches."""

    size: int = 16
    means: list[float] = field(default_factory=list)
    stretch: int = 1
    pending: list[float] = field(default_factory=list)

    def add(self, value: float) -> None:
        self.pending.append(value)
        if len(self.pending) == self.stretch:
            self.means.append(sum(self.pending) / self.stretch)
            self.pending = []
        if len(self.means) == self.size:
            self.means = [(x + y) / 2 for x, y in zip(self.means[::2], self.means[1::2], strict=True)]
            self.stretch *= 2

    def drawn(self) -> str:
        """Little bars from the lowest to the highest; none while all are equal."""
        low, high = min(self.means, default=0.0), max(self.means, default=0.0)
        if low == high:
            return ""
        return "".join(BARS[round((mean - low) / (high - low) * (len(BARS) - 1))] for mean in self.means)


class Display:
    """Shows a training on standard output, from `with` to its end. A silent one shows nothing.

    On a terminal, a few lines that stay in place: how far, how fast, the losses of both directions and how
    they went, and in words what goes wrong. The same in a notebook's cell, with the newest pictures beneath.
    Elsewhere a plain line for each epoch, and every half minute.
    """

    def __init__(self, title: str, names: tuple[str, str], silent: bool = False, plain_every: float = PLAIN_EVERY):
        self.title, self.silent, self.plain_every = title, silent, plain_every
        self.names = dict(zip("ab", names, strict=True))
        self.console = Console(highlight=False, markup=False, emoji=False)
        self.cell = None if silent else notebook_cell()
        self.live = (is_terminal(self.console) or self.cell is not None) and not silent
        self.state: State | None = None
        self.printed: State | None = None
        self.trends: dict[str, Trend] = {}
        self.warnings: list[str] = []
        self.updated_at = self.printed_at = time.monotonic()
        self.stack = ExitStack()

    def __enter__(self) -> "Display":
        self.stack.enter_context(ending_on_sigterm())
        if self.live and self.cell is None:
            errors_too = sys.stderr.isatty()  # what was sent elsewhere stays there
            live = Shown(console=self.console, get_renderable=self.render, redirect_stderr=errors_too)
            with while_heard():
                self.stack.enter_context(live)
        return self

    def __exit__(self, *_: object) -> None:
        with while_heard():
            self.stack.close()
        if self.cell:
            self.cell.tell(self.render())
        self.print_once(self.state)

    def update(self, **fields: Any) -> None:
        """Tell where the training stands: the fields of `State`. Cheap; for a few times a second."""
        before, self.state = self.state, State(**fields)
        self.updated_at = time.monotonic()
        for key, value in self.state.losses.items():
            self.trends.setdefault(key, Trend()).add(value)
        if self.cell and (before is None or self.updated_at - self.printed_at >= CELL_EVERY):
            self.cell.tell(self.render())
            self.printed_at = self.updated_at
        if before and before.epoch != self.state.epoch:
            self.print_once(before)
        elif self.updated_at - self.printed_at >= self.plain_every:
            self.print_once(self.state)

    def say(self, text: str) -> None:
        """A line of its own, above the display."""
        if self.live and self.cell is None:
            with while_heard():
                self.console.print(text, soft_wrap=True)
        elif not self.silent:
            tell(text)

    def picture(self, still: Path) -> None:
        """The newest pictures: in a notebook they take the place of the ones before."""
        if self.cell:
            self.cell.show(still)

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
        self.say(self.plain_line(state))

    def plain_line(self, state: State) -> str:
        """All of a state in one line without control characters."""
        numbers = [
            f"epoch {state.epoch}" + (f"/{state.epochs}" if state.epochs else ""),
            f"step {state.step}" + (f"/{state.steps}" if state.steps else ""),
            f"{state.images_per_second:.3g} images/s",
        ]
        if state.seconds_left is not None:
            numbers.append(f"{clock(state.seconds_left)} left")
        parts = [", ".join(numbers)]
        for way in ("ab", "ba"):
            values = [f"{kind} {state.losses[key]:.3f}" for kind, key in loss_keys(way).items() if key in state.losses]
            parts.append(f"{self.direction(way)}: {', '.join(values)}")
        return " | ".join(parts)

    def render(self) -> RenderableType:
        """The live display. Between two updates the clock goes on."""
        state = self.state
        if state is None:
            return Text(self.title, "bold")
        since = time.monotonic() - self.updated_at
        of_epochs = f" of {state.epochs}" if state.epochs else ""
        bar = ProgressBar(total=1.0, completed=state.fraction, complete_style="cyan", finished_style="cyan")
        speed = [
            f"step {state.step:,}" + (f" of {state.steps:,}" if state.steps else ""),
            f"{state.images_per_second:.3g} images/s",
            f"{clock(state.seconds + since)} so far",
        ]
        if state.seconds_left is not None:
            speed.append(f"{clock(max(state.seconds_left - since, 0))} left")
        warnings = Table.grid(padding=(0, 1))
        for text in self.warnings[-WARNINGS_SHOWN:]:
            warnings.add_row(Text("!", "bold yellow"), Text(text, "yellow"))
        return Group(
            Text(),
            apart(Text(self.title, "bold"), Text(f"epoch {state.epoch}{of_epochs}")),
            apart(bar, Text(f"{int(100 * state.fraction):3d}%")),
            Text("   ".join(speed), "dim"),
            Text(),
            self.losses(state),
            Text(),
            *([warnings] if self.warnings else []),
        )

    def losses(self, state: State) -> Table:
        """A column for each direction, a row for each kind of loss, with its course where there is room."""
        with_bars = self.console.width >= WIDE and not self.console.options.ascii_only
        table = Table.grid(padding=(0, 2))
        table.add_column(style="dim", min_width=14)
        table.add_column(min_width=24)
        table.add_column(min_width=24)
        table.add_row("", *(Text(self.direction(way), "bold") for way in ("ab", "ba")))
        for kind, *keys in ((kind, loss_keys("ab")[kind], loss_keys("ba")[kind]) for kind in loss_keys("ab")):
            if all(key in state.losses for key in keys):
                bars = [self.trends[key].drawn() if with_bars else "" for key in keys]
                values = [f"{state.losses[key]:<7.3f}" for key in keys]
                table.add_row(kind, *(Text.assemble(v, (b, "cyan")) for v, b in zip(values, bars, strict=True)))
        table.add_row("learning rate", f"{state.learning_rate:.2g}")
        return table

    def direction(self, way: str) -> str:
        return " -> ".join(self.names[domain] for domain in way)


CELL_HTML = '<pre style="line-height: 1.3; margin: 0">{code}</pre>'


class Cell:
    """The output of a notebook's cell: lines, and pictures below them, which take their own places again and again."""

    def __init__(self, display: Any):
        self.display = display
        self.handles: dict[str, Any] = {}

    def tell(self, lines: RenderableType) -> None:
        console = Console(file=io.StringIO(), record=True, width=96, force_jupyter=False, emoji=False)
        console.print(lines)
        html = console.export_html(inline_styles=True, code_format=CELL_HTML, clear=False)
        self.put("lines", {"text/html": html, "text/plain": console.export_text()})

    def show(self, still: Path) -> None:
        data = base64.b64encode(still.read_bytes()).decode()
        self.put("still", {"text/html": f'<img src="data:image/webp;base64,{data}">', "text/plain": str(still)})

    def put(self, place: str, data: dict[str, str]) -> None:
        if place in self.handles:
            self.handles[place].update(data, raw=True)
        else:
            self.handles[place] = self.display(data, raw=True, display_id=True)


def notebook_cell() -> Cell | None:
    """The cell, where this runs in the kernel of a notebook (Jupyter, Colab). IPython is there then; it is no need."""
    if "IPython" not in sys.modules:
        return None
    from IPython import get_ipython
    from IPython.display import display

    return Cell(display) if hasattr(get_ipython(), "kernel") else None


def apart(left: RenderableType, right: Text) -> Table:
    """One line: `right` at the right margin, `left` with the room that remains."""
    line = Table.grid(expand=True, padding=(0, 1))
    line.add_column(ratio=1, no_wrap=True)
    line.add_column(justify="right", no_wrap=True)
    line.add_row(left, right)
    return line


def loss_keys(direction: str) -> dict[str, str]:
    """The losses that tell of a direction: of its fakes, its round trip, its generator and its judge."""
    source, target = direction[0], direction[1]
    return {
        "adversarial": f"adversarial/{direction}",
        "projected": f"projected/{direction}",
        "cycle": f"cycle/{source}",
        "identity": f"identity/{target}",
        "tint": f"tint/{target}",
        "discriminator": f"discriminator/{target}",
        "its projected": f"projected/{target}",
    }

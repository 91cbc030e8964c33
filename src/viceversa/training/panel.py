"""Where a training stands, laid out for people: as a panel of a few lines, and in one plain line."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ..terminal import clock

BARS = "▁▂▃▄▅▆▇█"
WIDE = 72
"""Columns that a terminal needs for the little bars."""


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


def panel(
    title: str, names: Mapping[str, str], state: State, since: float, trends: Mapping[str, Trend]
) -> RenderableType:
    """Title, epoch, bar, speed and losses. `since`: how many seconds ago that state was."""
    of_epochs = f" of {state.epochs}" if state.epochs else ""
    bar = ProgressBar(total=1.0, completed=state.fraction, complete_style="cyan", finished_style="cyan")
    speed = [
        f"step {state.step:,}" + (f" of {state.steps:,}" if state.steps else ""),
        f"{state.images_per_second:.3g} images/s",
        f"{clock(state.seconds + since)} so far",
    ]
    if state.seconds_left is not None:
        speed.append(f"{clock(max(state.seconds_left - since, 0))} left")
    return Group(
        apart(Text(title, "bold"), Text(f"epoch {state.epoch}{of_epochs}")),
        apart(bar, Text(f"{int(100 * state.fraction):3d}%")),
        Text("   ".join(speed), "dim"),
        Text(),
        losses(names, state, trends),
    )


def apart(left: RenderableType, right: Text) -> Table:
    """One line: `right` at the right margin, `left` with the room that remains."""
    line = Table.grid(expand=True, padding=(0, 1))
    line.add_column(ratio=1, no_wrap=True)
    line.add_column(justify="right", no_wrap=True)
    line.add_row(left, right)
    return line


def losses(names: Mapping[str, str], state: State, trends: Mapping[str, Trend]) -> Table:
    """A column for each direction, a row for each kind of loss, with its course where there are trends."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", min_width=14)
    table.add_column(min_width=24)
    table.add_column(min_width=24)
    table.add_row("", *(Text(direction_name(way, names), "bold") for way in ("ab", "ba")))
    for ab, ba in zip(loss_keys("ab").items(), loss_keys("ba").items(), strict=True):
        kind, keys = ab[0], (ab[1], ba[1])
        if all(key in state.losses for key in keys):
            values = [(state.losses[key], trends[key].drawn() if key in trends else "") for key in keys]
            table.add_row(kind, *(Text.assemble(f"{value:<7.3f}", (bars, "cyan")) for value, bars in values))
    table.add_row("learning rate", f"{state.learning_rate:.2g}")
    return table


def warning(text: str) -> Table:
    row = Table.grid(padding=(0, 1))
    row.add_row(Text("!", "bold yellow"), Text(text, "yellow"))
    return row


def plain_line(state: State, names: Mapping[str, str]) -> str:
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
        present = [(kind, key) for kind, key in loss_keys(way).items() if key in state.losses]
        values = ", ".join(f"{kind} {state.losses[key]:.3f}" for kind, key in present)
        parts.append(f"{direction_name(way, names)}: {values}")
    return " | ".join(parts)


def loss_keys(direction: str) -> dict[str, str]:
    """The losses that tell of a direction: of its fakes, its round trip, its generator and its judge."""
    source, target = direction[0], direction[1]
    return {
        "adversarial": f"adversarial/{direction}",
        "cycle": f"cycle/{source}",
        "identity": f"identity/{target}",
        "discriminator": f"discriminator/{target}",
    }


def direction_name(direction: str, names: Mapping[str, str]) -> str:
    return " -> ".join(names[domain] for domain in direction)

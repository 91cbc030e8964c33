"""Curves as plain SVG geometry: what a template draws, and what the page's script needs to tell values."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from .page import figures

WIDTH, HEIGHT = 480, 200
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 10, 28
MOST_POINTS = 160

Point = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Line:
    """One curve. `tone` numbers its colour; a faint one stands behind."""

    name: str
    points: Sequence[Point]
    tone: int = 0
    faint: bool = False


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Curves over the epochs. `level` is a value with a meaning, `mark` the epoch that matters."""

    title: str
    text: str
    lines: Sequence[Line]
    level: tuple[float, str] | None = None
    mark: tuple[float, str] | None = None


def finite(points: Iterable[Point]) -> list[Point]:
    return [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]


def thinned(points: Sequence[Point], most: int = MOST_POINTS) -> list[Point]:
    """Means of neighbouring points, so that no more than `most` are left; the last x stays the last."""
    each = math.ceil(len(points) / most) if points else 1
    groups = [points[i : i + each] for i in range(0, len(points), each)]
    return [(group[-1][0], sum(y for _, y in group) / len(group)) for group in groups]


def ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Round values (steps of 1, 2 or 5) that lie in [low, high]."""
    if not high > low:
        return [low]
    rough = (high - low) / about
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * m for m in (1, 2, 5, 10) if unit * m >= rough * 0.999)
    return [n * step for n in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def extent(values: Sequence[float]) -> tuple[float, float]:
    """The range to draw: from zero (or below), up to the largest value, but not for a few spikes' sake."""
    ordered = sorted(values)
    usual = ordered[int(0.97 * (len(ordered) - 1))]
    high = max(min(ordered[-1], 2 * usual) if usual > 0 else ordered[-1], 0.0)
    low = min(ordered[0], 0.0)
    return (low, high + 0.06 * (high - low)) if high > low else (low, low + 1.0)


def draw(chart: Chart) -> dict[str, Any] | None:
    """The geometry of a chart in a box of WIDTH x HEIGHT, or None when there is nothing to draw."""
    lines = [(line, thinned(finite(line.points))) for line in chart.lines]
    lines = [(line, points) for line, points in lines if points]
    if not lines:
        return None
    reach = max(x for _, points in lines for x, _ in points) or 1.0
    low, high = extent([y for _, points in lines for _, y in points] + ([chart.level[0]] if chart.level else []))

    def across(x: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * x / reach, 1)

    def down(y: float) -> float:
        return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (y - low) / (high - low), 1)

    marks = [t for t in ticks(low, high) if t <= high]
    return {
        "title": chart.title,
        "text": chart.text,
        "box": {"width": WIDTH, "height": HEIGHT, "left": LEFT, "right": WIDTH - RIGHT, "top": TOP,
                "bottom": HEIGHT - BOTTOM},
        "rows": [(down(t), label(t, marks)) for t in marks],
        "columns": [(across(t), f"{t:g}") for t in ticks(0, reach, 5) if float(t).is_integer()],
        "level": (down(chart.level[0]), chart.level[1]) if chart.level else None,
        "mark": (across(chart.mark[0]), chart.mark[1]) if chart.mark else None,
        "lines": [
            {"name": line.name, "tone": line.tone, "faint": line.faint,
             "path": path([(across(x), down(y)) for x, y in points])}
            for line, points in lines
        ],
        "values": [
            {"name": line.name, "points": [(across(x), down(y), round(x, 2), figures(y)) for x, y in points]}
            for line, points in lines
        ],
        "said": "; ".join(
            f"{line.name}: {figures(points[0][1])} at first, {figures(points[-1][1])} at the end"
            for line, points in lines
        ),
    }  # fmt: skip


def label(value: float, among: Sequence[float]) -> str:
    """The shortest number that keeps the ticks apart."""
    step = min((abs(b - a) for a, b in pairwise(among)), default=abs(value) or 1.0)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return f"{value:.{decimals}f}".replace("-", "−") if abs(value) > 1e-12 else "0"


def path(points: Sequence[Point]) -> str:
    """An SVG path; a lone point becomes a dot, by the round ends of its stroke."""
    start, *rest = points
    return f"M{start[0]} {start[1]}" + ("".join(f"L{x} {y}" for x, y in rest) or "h0")

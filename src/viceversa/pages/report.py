"""`viceversa report`: one self-contained HTML page about a run, or about several side by side.

Curves are drawn by uPlot (assets/uplot.js).
"""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .. import config
from ..errors import BadInput
from ..files import write_text
from ..model.file import by_epoch
from ..terminal import say
from ..training import progress
from ..training.runs import Run, Scored, differing, read_runs, recipe, settings
from .html import check_out, data_uri, figures, render

IMAGE_BYTES = 18_000_000
"""Room for all images of a page, in characters of base64: under 20 MB with everything else."""
LARGEST = 768
"""Longest side of a picture on the page, in pixels."""
SAME = 0.06
"""Two inputs are the same picture when they differ by less than this on average (0 to 1)."""
MOST_POINTS = 160
"""Of a curve."""

Cells = tuple[Image.Image, Image.Image, Image.Image]
"""Input, translation, round trip."""
Pictures = dict[str, list[Cells]]
"""By direction, "ab" and "ba"."""
Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """An image for the page: the bytes of a PNG, WebP or JPEG, and what it shows."""

    image: bytes
    caption: str


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the page that its caller adds: a paragraph, a table, rows of figures side by side."""

    title: str
    text: str = ""
    headers: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    figures: Sequence[Sequence[Figure]] = ()


def command_report(command: config.Report) -> int:
    say(str(write_report(command.runs, command.out)))
    return 0


def write_report(runs: Sequence[Path], out: Path | None = None, extra: Sequence[Section] = ()) -> Path:
    """Write the page and return its path: `out`, or report.html in the first run folder.

    Runs may still be training. `extra` comes first. Raises BadInput for what is no run.
    """
    if not runs:
        raise BadInput("no run folder given: viceversa report RUN [RUN...]")
    out = out or runs[0] / "report.html"
    check_out(out)
    write_text(out, page(read_runs(runs), extra))
    return out


def page(runs: Sequence[Run], extra: Sequence[Section]) -> str:
    """The HTML of one or several runs."""
    sections = [
        vars(section)
        | {"figures": [[(data_uri(figure.image), figure.caption) for figure in row] for row in section.figures]}
        for section in extra
    ]
    directions = gallery(runs, [chosen_pictures(run) for run in runs])
    taken = sum(len(uri) for section in sections for row in section["figures"] for uri, _ in row)
    taken += sum(len(uri) for direction in directions for row in direction["rows"] for uri in row["uris"])
    room = max(0, IMAGE_BYTES - taken) // len(runs)
    return render(
        "report.html.j2",
        runs=[about(run, room) for run in runs],
        directions=directions,
        caption=caption(runs),
        extra=sections,
        differing=differing(runs),
        charts=side_by_side(runs) if len(runs) > 1 else [],
    )


def about(run: Run, room: int) -> dict[str, Any]:
    """All that the template tells of one run. `room`: characters that its stills may take."""
    return {
        "run": run,
        "best": run.best,
        "player": player(run, room),
        "scores": score_chart(run, run.best) if run.best else None,
        "unlike": sum(map(len, run.rulers[:-1])),
        "charts": curves(run),
        "recipe": recipe(run),
        "settings": settings(run),
    }


# Pictures


def best_still(run: Run) -> int | None:
    """The epoch whose pictures stand for a run: its best, else its newest; None before the first."""
    epochs = [epoch for epoch, _ in run.stills]
    return run.best["epoch"] if run.best and run.best["epoch"] in epochs else max(epochs, default=None)


def chosen_pictures(run: Run) -> Pictures:
    """Those of its `best_still`."""
    epoch = best_still(run)
    return progress.cells(dict(run.stills)[epoch]) if epoch is not None else {"ab": [], "ba": []}


def caption(runs: Sequence[Run]) -> str:
    if len(runs) > 1:
        return "Pictures that were kept out of training, by each run at its best epoch, or else its newest."
    epoch, best = best_still(runs[0]), runs[0].best
    which = f"epoch {epoch}, the best" if best and best["epoch"] == epoch else f"epoch {epoch}"
    return f"Pictures that were kept out of training, as they look after {which}."


def gallery(runs: Sequence[Run], pictures: Sequence[Pictures]) -> list[dict[str, Any]]:
    """Each direction, with a row for each picture of the first run and what every run made of it."""
    directions = []
    for key, (source, target) in (("ab", runs[0].domains), ("ba", runs[0].domains[::-1])):
        rows = []
        for before, _, _ in pictures[0][key]:
            made = [made_of(before, run, cells[key]) for run, cells in zip(runs, pictures, strict=True)]
            uris = [encoded(before), *(uri for m in made if m["after"] for uri in (m["after"], m["back"]))]
            rows.append({"before": uris[0], "size": before.size, "made": made, "uris": uris})
        directions.append({"source": source, "target": target, "rows": rows})
    return directions


def made_of(before: Image.Image, run: Run, among: Sequence[Cells]) -> dict[str, Any]:
    """What a run made of a picture, which is found among its cells by its looks, whatever its size."""
    nearest = min(among, key=lambda cells: difference(before, cells[0]), default=None)
    if nearest is None or difference(before, nearest[0]) > SAME:
        return {"run": run.name, "after": None}
    same, after, back = nearest
    return {
        "run": run.name, "epoch": best_still(run), "after": encoded(after), "back": encoded(back),
        "round_trip": difference(same, back),
    }  # fmt: skip


def difference(one: Image.Image, other: Image.Image) -> float:
    """Mean absolute difference of two pictures, 0 to 1; the second is brought to the size of the first."""
    other = other.resize(one.size, Image.Resampling.BILINEAR) if other.size != one.size else other
    first, second = (np.asarray(image.convert("RGB"), np.float32) for image in (one, other))
    return float(np.abs(first - second).mean() / 255)


def encoded(image: Image.Image) -> str:
    small = image.copy()
    small.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    small.save(file, "WEBP", quality=88)
    return data_uri(file.getvalue())


def player(run: Run, room: int) -> dict[str, Any] | None:
    """The stills for the slider, thinned to `room`; where their cells lie; and which epochs' models are kept. Those of
    earlier test pictures, whose cells lie elsewhere, are left out."""
    if not run.stills:
        return None
    newest = run.stills[-1][0]
    since = max((epoch for epoch in progress.layouts(run.folder) if epoch <= newest), default=0)
    of = [still for still in run.stills if still[0] >= since]
    kept = {epoch for epoch, _ in by_epoch(run.folder / "epochs", "safetensors")}
    telling = {of[0][0], newest} | ({run.best["epoch"]} if run.best else set())
    stills = thinned(of, room, [telling | kept, telling])
    return {
        "frames": [{"epoch": e, "kept": e in kept, "src": data_uri(file.read_bytes())} for e, file in stills],
        "boxes": progress.boxes(stills[-1][1]),
        "of": len(of),
        "unlike": len(run.stills) - len(of),
    }


def thinned(stills: Sequence[tuple[int, Path]], room: int, keeps: Sequence[set[int]]) -> list[tuple[int, Path]]:
    """Every still, or every second, every third..., and those of the epochs of the first of `keeps`, else of the next:
    so that they fit.

    `room` is in characters of base64. The newest is there whatever the room.
    """
    sizes = {epoch: file.stat().st_size * 4 / 3 for epoch, file in stills}
    for keep, each in product(keeps, range(1, len(stills) + 1)):
        picked = [still for n, still in enumerate(stills) if n % each == 0 or still[0] in keep]
        if sum(sizes[epoch] for epoch, _ in picked) <= room:
            return picked
    return [stills[-1]]


# Numbers


def chart(
    title: str, text: str, lines: Sequence[tuple[str, Points]], *, faint: int = 0,
    level: tuple[float, str] | None = None, mark: tuple[float, str] | None = None,
) -> dict[str, Any] | None:  # fmt: skip
    """Curves over the epochs as report.js draws them; None when there is nothing to draw.

    The first `faint` lines are drawn thin. `level` is a value with a meaning, `mark` the epoch that matters.
    """
    drawn = [(name, tone, thinned_curve(points)) for tone, (name, points) in enumerate(lines)]
    drawn = [(name, tone, points) for name, tone, points in drawn if points]
    if not drawn:
        return None
    values = [y for _, _, points in drawn for _, y in points] + ([level[0]] if level else [])
    return {
        "title": title, "text": text, "level": level, "mark": mark, "range": extent(values),
        "names": [name for name, _, _ in drawn], "tones": [tone for _, tone, _ in drawn],
        "faint": [tone < faint for _, tone, _ in drawn],
        "curves": [[[round(x, 4) for x, _ in points], [y for _, y in points]] for _, _, points in drawn],
        "said": "; ".join(
            f"{name}: {figures(points[0][1])} at first, {figures(points[-1][1])} at the end"
            for name, _, points in drawn
        ),
    }  # fmt: skip


def thinned_curve(points: Points, most: int = MOST_POINTS) -> list[tuple[float, float]]:
    """Finite points only; means of neighbours, so that no more than `most` are left; the last x stays the last."""
    points = [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
    each = math.ceil(len(points) / most) or 1
    groups = [points[i : i + each] for i in range(0, len(points), each)]
    return [(group[-1][0], sum(y for _, y in group) / len(group)) for group in groups]


def extent(values: Sequence[float]) -> tuple[float, float]:
    """The range to draw: from zero (or below), up to the largest value, but not for a few spikes' sake."""
    ordered = sorted(values)
    usual = ordered[int(0.97 * (len(ordered) - 1))]
    high = max(min(ordered[-1], 2 * usual) if usual > 0 else ordered[-1], 0.0)
    low = min(ordered[0], 0.0)
    return (low, high + 0.06 * (high - low)) if high > low else (low, low + 1.0)


def curves(run: Run) -> list[dict[str, Any]]:
    """The kinds of losses, each for both directions or domains."""
    a, b = run.domains
    guess = 0.25 if run.settings.get("adversarial") != "log-likelihood" else math.log(2)
    kinds = [
        ("adversarial", "Adversarial", {"ab": f"{a} → {b}", "ba": f"{b} → {a}"},
         "How well the discriminators see through the translations. It rises and falls, and by itself "
         "does not say which epoch is good."),
        ("cycle", "Round trip", {"a": f"{a} → {b} → {a}", "b": f"{b} → {a} → {b}"},
         "The cycle loss, times its weight: how far there and back ends from where it began."),
        ("identity", "Identity", {"a": f"{a} left alone", "b": f"{b} left alone"},
         "What a generator changes, times its weight, in an image that is of its target domain already."),
        ("tint", "Tint", {"a": f"{b} → {a}", "b": f"{a} → {b}"},
         "How far the colours of the latest translations are from those of real images, on the whole, times its "
         "weight."),
        ("discriminator", "Discriminators", {"a": f"judge of {a}", "b": f"judge of {b}"},
         "Near zero a discriminator has won, and its generator learns little more."),
    ]  # fmt: skip
    mark = (run.epochs_at([run.best["step"]])[0], "") if run.best else None
    charts = [
        chart(
            title, text, [(name, loss_points(run, f"{kind}/{key}")) for key, name in names.items()],
            level=(guess, "cannot tell them apart") if kind == "discriminator" else None, mark=mark,
        )
        for kind, title, names, text in kinds
    ]  # fmt: skip
    return [found for found in charts if found]


def score_chart(run: Run, best: Scored) -> dict[str, Any] | None:
    a, b = run.domains
    keys = (("b", f"{a} → {b}"), ("a", f"{b} → {a}"), ("mean", "mean"))
    return chart(
        score_name(best),
        "How far the translations of the test images are, as a set, from real ones. Lower is better.",
        [(name, score_points(run, key)) for key, name in keys],
        faint=2,
        mark=(run.epochs_at([best["step"]])[0], f"epoch {best['epoch']}"),
    )


def score_name(score: Scored) -> str:
    kind = {"kid": "KID", "frechet": "Fréchet distance"}.get(score["kind"], score["kind"])
    return f"{kind} ({score['features']} features)"


def score_points(run: Run, key: str) -> Points:
    return points(run, [(score["step"], float(score[key])) for score in run.scores])


def loss_points(run: Run, key: str) -> Points:
    return points(run, [(line["step"], float(line["loss"][key])) for line in run.losses if key in line["loss"]])


def points(run: Run, values: Sequence[tuple[int, float]]) -> Points:
    """(step, value) over the epochs."""
    return [*zip(run.epochs_at([step for step, _ in values]), (value for _, value in values), strict=True)]


def side_by_side(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Mean scores, where they were made alike, and mean round trips, a curve for each run."""
    alike = {score_name(run.best) for run in runs if run.best}
    scores = [(run.name, score_points(run, "mean")) for run in runs]
    charts = [
        chart(alike.pop(), "Mean of both directions; lower is better.", scores) if len(alike) == 1 else None,
        chart("Round trip", "Cycle loss, mean of both domains, divided by its weight.",
              [(run.name, cycle_points(run)) for run in runs]),
    ]  # fmt: skip
    return [found for found in charts if found]


def cycle_points(run: Run) -> Points:
    weight = float(run.settings.get("cycle") or 1.0)
    there, back = loss_points(run, "cycle/a"), loss_points(run, "cycle/b")
    return [(x, (one + other) / 2 / weight) for (x, one), (_, other) in zip(there, back, strict=False)]

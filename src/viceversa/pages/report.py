"""`viceversa report`: one self-contained HTML page about a run, or about several side by side."""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .. import config
from ..errors import BadInput
from ..files import write_text
from ..training import progress
from ..training.metrics import Run, Scored, differing, read_runs, recipe, settings
from .curves import Chart, Line, draw
from .page import data_uri, render

IMAGE_BYTES = 18_000_000
"""Room for all images of a page, in characters of base64: under 20 MB with everything else."""
LARGEST = 768
"""Longest side of a picture on the page, in pixels."""
SAME = 0.06
"""Two inputs are the same picture when they differ by less than this on average (0 to 1)."""

Cells = tuple[Image.Image, Image.Image, Image.Image]
"""Input, translation, round trip."""
Pictures = dict[str, list[Cells]]
"""By direction, "ab" and "ba"."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """An image for the page: the bytes of a PNG, WebP or JPEG, and what it shows."""

    image: bytes
    caption: str


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the page that its caller adds: a paragraph, a table, figures side by side."""

    title: str
    text: str = ""
    headers: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    figures: Sequence[Figure] = ()


Extra = Sequence[Section]


def command_report(command: config.Report) -> int:
    print(write_report(command.runs, command.out))
    return 0


def write_report(runs: Sequence[Path], out: Path | None = None, extra: Extra | None = None) -> Path:
    """Write the page and return its path: `out`, or report.html in the first run folder.

    Runs may still be training. `extra` comes after the pictures. Raises BadInput for what is no run.
    """
    if not runs:
        raise BadInput("no run folder given: viceversa report RUN [RUN...]")
    out = out or runs[0] / "report.html"
    if out.is_dir():
        raise BadInput(f"--out {out} is a folder: name the file to write, such as {out / 'report.html'}")
    write_text(out, page(read_runs(runs), extra or ()))
    return out


def page(runs: Sequence[Run], extra: Extra = ()) -> str:
    """The HTML of one or several runs."""
    sections = [
        {**vars(section), "figures": [(data_uri(figure.image), figure.caption) for figure in section.figures]}
        for section in extra
    ]
    directions = gallery(runs, [chosen_pictures(run) for run in runs])
    taken = sum(len(uri) for section in sections for uri, _ in section["figures"])
    taken += sum(len(uri) for direction in directions for row in direction["rows"] for uri in row["uris"])
    room = max(0, IMAGE_BYTES - taken) // len(runs)
    return render(
        "report.html.j2",
        runs=[about(run, room) for run in runs],
        directions=directions,
        caption=caption(runs),
        extra=sections,
        differing=differing(runs),
        charts=drawn(side_by_side(runs)) if len(runs) > 1 else [],
    )


def about(run: Run, room: int) -> dict[str, Any]:
    """All that the template tells of one run. `room`: characters that its stills may take."""
    return {
        "run": run,
        "best": run.best,
        "player": player(run, room),
        "scores": drawn([score_chart(run, run.best)] if run.best else []),
        "charts": drawn(curves(run)),
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
    for key, (source, target) in zip(("ab", "ba"), both_ways(runs[0]), strict=True):
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
    """The stills for the slider, as they are, thinned to `room`; and where their cells lie."""
    if not run.stills:
        return None
    keep = {run.stills[0][0], run.stills[-1][0]} | ({run.best["epoch"]} if run.best else set())
    stills = thinned(run.stills, room, keep)
    return {
        "frames": [{"epoch": epoch, "src": data_uri(file.read_bytes())} for epoch, file in stills],
        "boxes": progress.boxes(stills[-1][1]),
        "of": len(run.stills),
    }


def thinned(stills: Sequence[tuple[int, Path]], room: int, keep: set[int]) -> list[tuple[int, Path]]:
    """Every still, or every second, every third..., and those of the epochs in `keep`: so that they fit.

    `room` is in characters of base64. The newest is there whatever the room.
    """
    sizes = {epoch: file.stat().st_size * 4 / 3 for epoch, file in stills}
    for each in range(1, len(stills) + 1):
        picked = [still for n, still in enumerate(stills) if n % each == 0 or still[0] in keep]
        if sum(sizes[epoch] for epoch, _ in picked) <= room:
            return picked
    return [stills[-1]]


# Numbers


def drawn(charts: Sequence[Chart]) -> list[dict[str, Any]]:
    """The charts that have something to draw, as geometry."""
    return [geometry for geometry in map(draw, charts) if geometry]


def both_ways(run: Run) -> list[tuple[str, str]]:
    a, b = run.domains
    return [(a, b), (b, a)]


def curves(run: Run) -> list[Chart]:
    """The four kinds of losses, each for both directions or domains."""
    a, b = run.domains
    ways = {"ab": f"{a} → {b}", "ba": f"{b} → {a}"}
    trips = {"a": f"{a} → {b} → {a}", "b": f"{b} → {a} → {b}"}
    return [
        loss_chart(
            run, "adversarial", ways, "Adversarial",
            "How well the discriminators see through the translations. It rises and falls, and by itself "
            "does not say which epoch is good.",
        ),
        loss_chart(
            run, "cycle", trips, "Round trip",
            "The cycle loss, times its weight: how far there and back ends from where it began.",
        ),
        loss_chart(
            run, "identity", {"a": f"{a} left alone", "b": f"{b} left alone"}, "Identity",
            "What a generator changes, times its weight, in an image that is of its target domain already.",
        ),
        loss_chart(
            run, "discriminator", {"a": f"judge of {a}", "b": f"judge of {b}"}, "Discriminators",
            "Near zero a discriminator has won, and its generator learns little more.",
        ),
    ]  # fmt: skip


def loss_chart(run: Run, kind: str, names: dict[str, str], title: str, text: str) -> Chart:
    lines = [
        Line(name=name, points=loss_points(run, f"{kind}/{key}"), tone=tone)
        for tone, (key, name) in enumerate(names.items())
    ]
    guess = 0.25 if run.settings.get("adversarial") != "log-likelihood" else math.log(2)
    level = (guess, "cannot tell them apart") if kind == "discriminator" else None
    mark = (run.best["step"] / run.epoch_steps, "") if run.best else None
    return Chart(title=title, text=text, lines=lines, level=level, mark=mark)


def score_chart(run: Run, best: Scored) -> Chart:
    a, b = run.domains
    lines = [
        Line(name=name, points=score_points(run.scores, run, key), tone=tone, faint=key != "mean")
        for key, name, tone in (("b", f"{a} → {b}", 0), ("a", f"{b} → {a}", 1), ("mean", "mean", 2))
    ]
    return Chart(
        title=score_name(best),
        text="How far the translations of the test images are, as a set, from real ones. Lower is better.",
        lines=lines,
        mark=(best["step"] / run.epoch_steps, f"epoch {best['epoch']}"),
    )


def score_name(score: Scored) -> str:
    kind = {"kid": "KID", "frechet": "Fréchet distance"}.get(score["kind"], score["kind"])
    return f"{kind} ({score['features']} features)"


def score_points(scores: Sequence[Scored], run: Run, key: str) -> list[tuple[float, float]]:
    return [(score["step"] / run.epoch_steps, float(score[key])) for score in scores]


def loss_points(run: Run, key: str) -> list[tuple[float, float]]:
    return [(line["step"] / run.epoch_steps, float(line["loss"][key])) for line in run.losses if key in line["loss"]]


def side_by_side(runs: Sequence[Run]) -> list[Chart]:
    """Mean scores, where they were made alike, and mean round trips, a curve for each run."""
    alike = {score_name(run.best) for run in runs if run.best}
    scores = [Line(name=run.name, points=score_points(run.scores, run, "mean"), tone=n) for n, run in enumerate(runs)]
    cycles = [Line(name=run.name, points=cycle_points(run), tone=n) for n, run in enumerate(runs)]
    charts = [Chart(title=name, text="Mean of both directions; lower is better.", lines=scores) for name in alike]
    text = "Cycle loss, mean of both domains, divided by its weight."
    return [*(charts if len(alike) == 1 else []), Chart(title="Round trip", text=text, lines=cycles)]


def cycle_points(run: Run) -> list[tuple[float, float]]:
    weight = float(run.settings.get("cycle") or 1.0)
    there, back = loss_points(run, "cycle/a"), loss_points(run, "cycle/b")
    return [(x, (one + other) / 2 / weight) for (x, one), (_, other) in zip(there, back, strict=False)]

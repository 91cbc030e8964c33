"""A run read back: its numbers, its pictures, and its settings in words."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from ..config import Train
from ..errors import BadInput
from ..terminal import clock, words
from .metrics import read
from .progress import stills
from .settings import flag

Scored = dict[str, Any]
USUAL: dict[str, Any] = {field.name: field.default for field in fields(Train)}


@dataclass(frozen=True, repr=False)
class Run:
    """A run as its files tell it; every list may be empty."""

    folder: Path
    name: str
    config: dict[str, Any]
    lines: list[dict[str, Any]]
    stills: list[tuple[int, Path]]
    """(epoch, file), in order."""

    def __repr__(self) -> str:
        a, b = self.domains
        return f"Run({str(self.folder)!r}, {a} <-> {b}, {words(self.epoch, 'epoch')}, {clock(self.seconds)})"

    @property
    def settings(self) -> dict[str, Any]:
        return dict(self.config.get("settings", {}))

    @property
    def domains(self) -> tuple[str, str]:
        first, second = self.config.get("domains", ("a", "b"))
        return str(first), str(second)

    @property
    def losses(self) -> list[dict[str, Any]]:
        return [line for line in self.lines if "loss" in line]

    @property
    def rulers(self) -> list[list[Scored]]:
        """All scores, those that can be compared together: others were on other test images, --score or --features."""
        found: list[list[Scored]] = []
        for line in self.lines:
            if "score" in line:
                score = {**line["score"], "epoch": line["epoch"], "step": line["step"]}
                if not found or line.get("first") or ruler(score) != ruler(found[-1][-1]):
                    found.append([])
                found[-1].append(score)
        return found

    @property
    def scores(self) -> list[Scored]:
        """One for each scored epoch, of those that the newest can be compared with: {"epoch", "step", "kind",
        "features", "a", "b", "mean"}."""
        return self.rulers[-1] if self.rulers else []

    @property
    def best(self) -> Scored | None:
        """The score with the lowest mean of both directions (KID and Frechet distance: lower is better)."""
        finite = [score for score in self.scores if math.isfinite(score["mean"])]
        return min(finite, key=lambda score: score["mean"], default=None)

    @property
    def warnings(self) -> list[tuple[str, list[int]]]:
        """What the watchdog said, each thing once, with its epochs."""
        said: dict[str, list[int]] = {}
        for line in self.lines:
            if "warning" in line:
                epochs = said.setdefault(line["warning"], [])
                if line["epoch"] not in epochs:
                    epochs.append(line["epoch"])
        return list(said.items())

    @property
    def epoch(self) -> int:
        """Epochs begun: 0 before the first number."""
        return max((line["epoch"] for line in self.lines), default=0)

    @property
    def step(self) -> int:
        return max((line["step"] for line in self.lines), default=0)

    @property
    def seconds(self) -> float:
        return max((float(line["seconds"]) for line in self.lines), default=0.0)

    @property
    def speed(self) -> float | None:
        """Images a second, the median of what was measured."""
        speeds = [line["images_per_second"] for line in self.losses if line.get("images_per_second")]
        return median(speeds) if speeds else None

    @property
    def ends(self) -> list[tuple[int, int]]:
        """(step, epoch) of the ends of epochs, and of the start."""
        ended = {line["step"]: line["epoch"] for line in self.losses if line.get("end_of_epoch")}
        return sorted({0: 0, **ended}.items())

    @property
    def epoch_steps(self) -> float:
        """Steps an epoch, from the last epoch that ended; else from what there is."""
        (step, epoch), (last, newest) = [(0, 0), *self.ends][-2:]
        return (last - step) / (newest - epoch) if newest > epoch else self.step / max(self.epoch, 1) or 1.0

    def epochs_at(self, steps: Sequence[int]) -> list[float]:
        """Epochs done after so many steps, of which an epoch has others with another batch or number of processes."""
        known, epochs = map(list[float], zip(*self.ends, strict=True))
        return list(np.interp(steps, [*known, known[-1] + self.epoch_steps], [*epochs, epochs[-1] + 1]).tolist())

    @property
    def planned(self) -> str | None:
        """How far it was to go, where it has not come so far: "200 epochs", "30 min"; None when it has."""
        minutes = self.settings.get("minutes")
        if minutes:
            return f"{minutes:g} min" if self.seconds < 0.98 * 60 * minutes else None
        epochs = self.settings.get("epochs", 0) + self.settings.get("decay_epochs", 0)
        ended = max((line["epoch"] for line in self.losses if line.get("end_of_epoch")), default=0)
        return words(epochs, "epoch") if ended < epochs else None


def ruler(score: Scored) -> tuple[str, str]:
    return score["kind"], score["features"]


def read_run(folder: Path, name: str | None = None) -> Run:
    """Raises BadInput, in one line, for a folder that is no run."""
    config = folder / "config.json"
    if not folder.is_dir():
        raise BadInput(f"{folder}: no such run folder" if not folder.exists() else f"{folder} is no run folder")
    try:
        found = json.loads(config.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput(f"{folder} is no run folder: it has no config.json (viceversa train writes one)") from None
    except ValueError:
        raise BadInput(f"{config} is not JSON: is {folder} a run folder?") from None
    if not isinstance(found, dict) or "settings" not in found:
        raise BadInput(f"{config} was not written by viceversa train: is {folder} a run folder?")
    lines = read(folder)
    return Run(folder, name or folder.resolve().name, found, lines, stills(folder))


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """Each run by the name of its folder, or by its path where two bear the same name."""
    names = [folder.resolve().name for folder in folders]
    return [
        read_run(folder, name if names.count(name) == 1 else str(folder))
        for folder, name in zip(folders, names, strict=True)
    ]


def recipe(run: Run) -> str:
    """What was trained and how, in sentences: networks, images, schedule, losses."""
    given = USUAL | run.settings
    size, crop, seed = given["size"], given["crop"], run.config.get("seed")
    networks = {
        "unet": "U-Net generators",
        "resnet": f"ResNet generators of {words(given['blocks'], 'block')}",
        "pyramid": f"Pyramid generators of {words(given['levels'], 'level')} and {words(given['blocks'], 'block')}",
    }[given["generator"]] + (", which see," if given["sees"] else "")
    patch = f" on squares of {given['patch']} px" if given["patch"] else ""
    norms = "" if given["discriminator_norm"] else ", without norms"
    judges = {
        "patch": f"patch discriminators of {words(given['discriminator_layers'], 'layer')}{patch}{norms}",
        "pixel": f"1×1 pixel discriminators{norms}",
        "none": "no others",
    }[given["discriminator"]]
    if given["projected"]:
        judges = f"discriminators on frozen features (weight {plain(given['projected'])}) and {judges}"
    tint = f", tint {plain(given['tint'])}" if given["tint"] else ""
    resized = {
        "square": f"Images were brought to {size}×{size} and cropped to {crop}×{crop} at random",
        "short": f"Images were brought to {size} on their short side and cropped to {crop}×{crop} at random",
        "none": f"Images were cropped to {crop}×{crop} at random, from their own size",
    }[given["resize"]]
    parts = [
        f"{networks} and {judges}, of width {given['width']}.",
        f"{resized}, {given['batch'] if given['batch'] > 1 else 'one'} of each domain a step.",
        f"Adam at {plain(given['learning_rate'])}, {schedule(given)}.",
        f"{given['adversarial'].capitalize()} loss; cycle {plain(given['cycle'])}, identity "
        f"{plain(given['identity'])}{tint}; a history of {words(given['history'], 'fake')}"
        + (f"; a moving average of the generators ({given['ema']:g})." if given["ema"] else "."),
        f"Seed {seed}." if seed is not None else "",
    ]
    return " ".join(part for part in parts if part)


def schedule(given: dict[str, Any]) -> str:
    epochs, decay = given["epochs"], given["decay_epochs"]
    if given["minutes"]:
        share = decay / max(epochs + decay, 1)
        return f"for {given['minutes']:g} min, the last {share:.0%} of them falling to zero"
    return (
        f"for {words(epochs, 'epoch')}, then falling to zero over {decay}" if decay else f"for {words(epochs, 'epoch')}"
    )


def settings(run: Run) -> list[dict[str, Any]]:
    """Every setting: its name, its value, and whether it is another than the default."""
    own = {"a", "b", "out", "test_a", "test_b", "names", "seed"}
    return [
        {
            "name": flag(name) if name not in ("a", "b") else name.upper(),
            "value": plain(value),
            "changed": name in USUAL and name not in own and plain(USUAL[name]) != plain(value),
        }
        for name, value in run.settings.items()
    ]


def differing(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """The settings in which runs differ, and their values, run by run."""
    names = dict.fromkeys(name for run in runs for name in run.settings if name != "out")
    rows = [(flag(name), [plain(run.settings.get(name)) for run in runs]) for name in names]
    return [(name, values) for name, values in rows if len(set(values)) > 1]


def plain(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(plain, value))
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "–"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)

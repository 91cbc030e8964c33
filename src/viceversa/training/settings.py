"""What is asked of a run against what its folder holds: RUN/config.json, and what may change on a resume."""

import json
import secrets
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ..config import Train
from ..errors import BadInput
from ..files import write_text
from ..model.networks import Generator, smallest_patch

FOLDERS = ("a", "b", "test_a", "test_b")


def check(s: Train) -> None:
    """Raise BadInput for settings that cannot be trained, before anything is read."""
    generator = generators(s)[0]
    for what, value, least in (
        ("epochs", s.epochs, 0), ("decay-epochs", s.decay_epochs, 0), ("batch", s.batch, 1), ("size", s.size, 1),
        ("width", s.width, 1), ("blocks", s.blocks, 1), ("history", s.history, 0), ("cycle", s.cycle, 0),
        ("identity", s.identity, 0), ("discriminator-layers", s.discriminator_layers, 1),
        ("score-every", s.score_every, 1), ("patience", s.patience, 0),
    ):  # fmt: skip
        if value < least:
            raise BadInput(f"--{what} {value}: must be at least {least}")
    if s.epochs + s.decay_epochs == 0:
        raise BadInput("--epochs 0 --decay-epochs 0: nothing to train; raise one of them")
    if s.minutes is not None and not 0 < s.minutes < float("inf"):
        raise BadInput(f"--minutes {s.minutes}: must be above 0")
    if not 0 < s.learning_rate < float("inf"):
        raise BadInput(f"--learning-rate {s.learning_rate}: must be above 0")
    if not 0 <= s.ema < 1:
        raise BadInput(f"--ema {s.ema}: must be from 0 (off) to below 1; 0.999 is usual")
    if s.identity and s.channels[0] != s.channels[1]:
        raise BadInput(
            f"--identity {s.identity:g} needs the same channels in both domains, not {s.channels[0]} and "
            f"{s.channels[1]}: use --identity 0"
        )
    if s.resize != "none" and s.crop > s.size:
        raise BadInput(f"--crop {s.crop} is larger than --size {s.size}: raise --size or lower --crop")
    if s.crop % generator.multiple:
        near = max(generator.multiple, s.crop // generator.multiple * generator.multiple)
        raise BadInput(
            f"--crop {s.crop}: the {s.generator} generator takes multiples of {generator.multiple}; use {near}"
        )
    least = max(generator.smallest, smallest_patch(s.discriminator_layers) if s.discriminator == "patch" else 1)
    if s.crop < least:
        raise BadInput(f"--crop {s.crop}: these networks take sides of {least} and more")


def generators(s: Train) -> tuple[Generator, Generator]:
    """What ab and ba are. A U-Net halves as often as the crop allows, 8 times at most (U-Net 256, U-Net 128)."""
    halvings = 8 if s.crop % 256 == 0 else 7
    a, b = s.channels
    ab = Generator(
        kind=s.generator, channels_in=a, channels_out=b, width=s.width, blocks=s.blocks, halvings=halvings,
        upsample=s.upsample, levels=s.levels if s.generator == "pyramid" else 0, sees=s.sees,
    )  # fmt: skip
    return ab, replace(ab, channels_in=b, channels_out=a)


def read_config(run: Path) -> dict[str, Any] | None:
    """RUN/config.json; None where no run was begun. Raises BadInput for a folder that holds something else."""
    if run.exists() and not run.is_dir():
        raise BadInput(f"--out {run} is a file: name a folder for the run")
    try:
        config: dict[str, Any] = json.loads((run / "config.json").read_text(encoding="utf-8"))
        config["settings"]["epochs"], config["seed"]
    except FileNotFoundError:
        if run.exists() and any(not p.name.startswith(".") for p in run.iterdir()):
            raise BadInput(
                f"--out {run} is no run folder (it has no config.json) and not empty: name another"
            ) from None
        return None
    except (ValueError, KeyError, TypeError):
        raise BadInput(f"--out {run}: its config.json is not one of viceversa train: name another folder") from None
    return config


def write_config(run: Path, config: dict[str, Any]) -> None:
    try:
        write_text(run / "config.json", json.dumps(config, indent=1, default=str))
    except OSError as error:
        raise BadInput(f"--out {run}: cannot write there ({error.strerror}): name another folder") from None


def merged(asked: Train, config: dict[str, Any] | None) -> Train:
    """What was asked, completed by what the run holds. Raises BadInput that names each other setting."""
    if config is None:
        seed = secrets.randbelow(2**31) if asked.seed is None else asked.seed
        return replace(asked, seed=seed)
    held = config["settings"]
    changed = []
    for name, value in plain(asked).items():
        if name in Train.CHANGEABLE or (value is None and name in ("names", "seed")):
            continue
        before = held.get(name, value)
        if value != before:
            changed.append(f"--{name.replace('_', '-')} is {value} but was {before}")
    if changed:
        raise BadInput(
            f"{asked.out} holds a run with other settings: {'; '.join(changed)}. "
            "Give the same settings to resume it, or another --out"
        )
    names = asked.names or (tuple(held["names"]) if held.get("names") else None)
    return replace(asked, seed=config["seed"], names=names)  # type: ignore[arg-type]


def plain(s: Train) -> dict[str, Any]:
    """Settings as JSON gives them back: lists for tuples, folders by their full path."""
    values = json.loads(json.dumps(asdict(s), default=str))
    for name in FOLDERS:
        if values[name] is not None:
            values[name] = str(Path(values[name]).expanduser().absolute())
    return dict(values)

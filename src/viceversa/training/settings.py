"""What was asked, against what the run folder holds: RUN/config.json, what may change midway, and the words for it."""

import json
import os
import platform
import secrets
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from .. import __version__, distributed
from ..config import OF_THIS_TIME, RECIPES, Train, held_by
from ..data.folders import Sources, checked_names
from ..data.store import Store
from ..device import describe
from ..errors import BadInput
from ..files import write_text
from ..model.networks import Generator, smallest_patch
from .images import Known

FOLDERS = ("a", "b", "test_a", "test_b")
FREE = frozenset(
    ("recipe", "start", "keep_lightness", "out", "epochs", "decay_epochs", "minutes", "score", "score_every",
     "patience", "features", "keep", "images", "device", "checkpoint_activations", "log",
     "engine", "address", "workers", *FOLDERS)
)  # fmt: skip
"""What may change midway without a word: it does not change what is trained, or how."""
TOLD = frozenset(
    ("learning_rate", "batch", "precision", "cycle", "identity", "tint", "projected", "adversarial", "guided")
)  # fmt: skip
"""What may change midway, is told, and kept in config.json. All else (networks, domains, images) may not change.
`guided` has no weights of its own."""
STAYING = ("projected", "tint")
"""What has a state of its own: its weight may change midway, but it cannot come or go."""


def check(s: Train) -> None:
    """Raise BadInput for settings that do not go together, before anything is read."""
    if s.engine != "local":
        raise BadInput(f"--engine {s.engine} is for the command line: viceversa train ... --engine {s.engine}")
    generator = generators(s)[0]
    if s.epochs + s.decay_epochs == 0:
        raise BadInput("--epochs 0 --decay-epochs 0: nothing to train; raise one of them")
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
    judged = smallest_patch(s.discriminator_layers) if s.discriminator == "patch" else 1
    least = max(generator.smallest, judged)
    if s.crop < least:
        raise BadInput(f"--crop {s.crop}: these networks take sides of {least} and more")
    if s.patch is not None and s.patch < judged:
        raise BadInput(
            f"--patch {s.patch}: a PatchGAN of {s.discriminator_layers} layers takes sides of {judged} and more"
        )
    if s.discriminator == "none" and not s.projected:
        raise BadInput(
            "--discriminator none leaves nobody to judge: use --projected 0.8, too, or --discriminator patch"
        )
    if s.sees and s.generator == "unet":
        raise BadInput("--sees: the unet generator cannot; use --no-sees, or --generator resnet or pyramid")


def without_effect(s: Train) -> list[str]:
    """Words for what is asked, by a recipe perhaps, of networks that have no such thing."""
    usual = Train(a=s.a)

    def asked(*names: str) -> str:
        return " ".join(as_flag(name, getattr(s, name)) for name in names if getattr(s, name) != getattr(usual, name))

    said = []
    if s.generator != "pyramid" and (flags := asked("levels", "guided", "log_light", "recolour")):
        said.append(f"{flags}: of a pyramid alone, so without effect on a {s.generator} generator")
    if s.generator == "unet" and (flags := asked("blocks")):
        said.append(f"{flags}: without effect on a unet generator, which has none")
    if s.discriminator == "none" and (flags := asked("patch", "discriminator_layers", "discriminator_norm")):
        said.append(f"{flags}: of a PatchGAN, so without effect with --discriminator none")
    elif s.patch is not None and s.patch >= s.crop and s.patch != RECIPES[s.recipe].get("patch"):
        said.append(f"--patch {s.patch}: no smaller than the crop of {s.crop}, so without effect")
    if s.keep_lightness and s.channels[0] == s.channels[1]:
        said.append("--keep-lightness: for --channels 1 3 alone, so without effect")
    return said


def own_ruler(s: Train) -> list[str]:
    """Words for a best epoch that is chosen by the features that are trained against."""
    if not s.projected or s.score == "none" or s.features != "lite0":
        return []
    return [
        "--features lite0: what --projected trains against, which scores better by it than it is; another ruler, "
        "--features squeezenet or a FILE.onnx, chooses better"
    ]


def generators(s: Train) -> tuple[Generator, Generator]:
    """What ab and ba are. A U-Net halves as often as the crop allows, 8 times at most (U-Net 256, U-Net 128)."""
    halvings = 8 if s.crop % 256 == 0 else 7
    a, b = s.channels
    ab = Generator(
        kind=s.generator, channels_in=a, channels_out=b, width=s.width, blocks=s.blocks, halvings=halvings,
        upsample=s.upsample, levels=s.levels if s.generator == "pyramid" else 0,
        guided=s.guided and s.generator == "pyramid", log_light=s.log_light and s.generator == "pyramid",
        recolours=s.recolour and s.generator == "pyramid", sees=s.sees,
    )  # fmt: skip
    return ab, replace(ab, channels_in=b, channels_out=a)


def read_config(run: Path) -> dict[str, Any] | None:
    """RUN/config.json; None where no run was begun. Raises BadInput for a folder that holds something else."""
    if run.exists() and not run.is_dir():
        raise BadInput(f"--out {run} is a file: name a folder for the run")
    try:
        config: dict[str, Any] = json.loads((run / "config.json").read_text(encoding="utf-8"))
        config["settings"]["epochs"], config["seed"], config["how"]["threads"]
    except (FileNotFoundError, NotADirectoryError):
        if run.exists() and any(not p.name.startswith(".") for p in run.iterdir()):
            raise BadInput(
                f"--out {run} is no run folder (it has no config.json) and not empty: name another"
            ) from None
        return None
    except OSError as error:
        raise BadInput(f"--out {run}: its config.json cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise BadInput(f"--out {run}: its config.json is not one of viceversa train: name another folder") from None
    return config


def merged(
    asked: Train, config: dict[str, Any] | None, trained: bool = True
) -> tuple[Train, dict[str, tuple[Any, Any]]]:
    """What was asked, completed by what the run holds; and what is told of as changed: (before, now) by name.

    Raises BadInput that names what differs and cannot change midway; where nothing was `trained` yet, all may.
    """
    if config is None:
        return replace(asked, seed=secrets.randbelow(2**31) if asked.seed is None else asked.seed), {}
    held = plain(Train(a=asked.a)) | config["settings"]  # older runs know fewer
    held |= {"seed": config["seed"], "names": config["domains"]}  # drawn or found, where they were not given
    names = asked.names or (config["domains"] if trained else config["settings"].get("names"))
    s = replace(
        asked,
        seed=config["seed"] if asked.seed is None else asked.seed,
        names=None if names is None else checked_names((names[0], names[1])),
    )
    if not trained:
        return s, {}
    changed = {n: (held[n], value) for n, value in plain(s).items() if n not in FREE and held[n] != value}
    refused = [n for n, (old, new) in changed.items() if n not in TOLD or (n in STAYING and not (old and new))]
    if refused:
        named = "; ".join("{} instead of {}".format(*(as_flag(n, x) for x in changed[n][::-1])) for n in refused)
        raise BadInput(
            f"{asked.out} holds a run with other settings: {named}. Networks, domains and the preparation of images "
            "cannot change midway: give the same settings to go on, or another --out"
        )
    return s, changed


def same_folders(s: Train, config: dict[str, Any] | None) -> bool:
    """Are these the folders that the run was begun with?"""
    held, now = (config or {}).get("settings", {}), plain(s)
    return all(held.get(name) == now[name] for name in FOLDERS)


def everybodys(s: Train) -> Train:
    """A seed that rank 0 drew is everybody's; any other difference is raised in all processes."""
    s = replace(s, seed=distributed.from_first(s.seed))
    distributed.must_agree("settings", {name: value for name, value in plain(s).items() if name != "device"})
    return s


def in_words(changed: dict[str, tuple[Any, Any]]) -> list[str]:
    """What the person is told of as changed from here on."""
    return [
        f"from here on {as_flag(name, new)}, it was {as_flag(name, old)}"
        if isinstance(new, bool)
        else f"from here on {flag(name)} is {new}, it was {old}"
        for name, (old, new) in changed.items()
    ]


def unused(changed: dict[str, tuple[Any, Any]]) -> list[str]:
    """Words for what a run that is finished was given all the same."""
    given = " ".join(as_flag(name, new) for name, (_, new) in changed.items())
    return [f"nothing is left to train with {given}: the run stays as it is"] if given else []


def own_settings(s: Train, config: dict[str, Any] | None) -> list[str]:
    """Words for what a run that goes on, or the one that it starts from, was begun with and nothing says otherwise,
    where it is no default."""
    subject = f"{s.out} goes on with its own settings"
    if config is None and s.start is not None and held_by(s.start):
        config, subject = read_config(Path(s.start)), f"with the settings of {s.start}"
    if config is None:
        return []
    usual, now = plain(replace(Train(a=s.a), **RECIPES.get(s.recipe, {}))), plain(s)
    parts = [
        as_flag(name, value)
        for name, value in config["settings"].items()
        if name not in OF_THIS_TIME and name in now and now[name] == value != usual[name]
    ]
    return [f"{subject}: {' '.join(parts)}"] if parts else []


def same_ruler(s: Train, config: dict[str, Any] | None) -> bool:
    """Are scores made as this run's earlier ones were?"""
    return config is None or (config["settings"]["score"], config["settings"]["features"]) == (s.score, s.features)


def flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def as_flag(name: str, value: object) -> str:
    """A setting as it is given on the command line."""
    if value is None:
        return f"no {flag(name)}"
    if isinstance(value, bool):
        return flag(name if value else f"no_{name}")
    return f"{flag(name)} {' '.join(map(str, value)) if isinstance(value, list) else value}"


def plain(s: Train) -> dict[str, Any]:
    """Settings as JSON gives them back: lists for tuples, folders by their full path."""
    values = json.loads(json.dumps(asdict(s), default=str))
    for name in FOLDERS:
        if values[name] is not None:
            values[name] = os.path.abspath(values[name])
    return dict(values)


def write_config(
    s: Train, sources: Sources, images: dict[str, list[Known]],
    stores: tuple[Store, Store], device: torch.device, how: dict[str, Any], changes: list[dict[str, Any]],
) -> None:  # fmt: skip
    """RUN/config.json: what was asked, on what, how it is computed, what changed. RUN/images.json: on which images."""
    config = {
        "settings": plain(s),
        "domains": list(sources.names),
        "seed": s.seed,
        "precision": how["precision"],
        "how": how,
        "device": describe(device),
        "versions": {"viceversa": __version__, "torch": torch.__version__, "python": platform.python_version()},
        "images": {"a": len(stores[0].paths), "b": len(stores[1].paths),
                   "test_a": len(sources.test_a), "test_b": len(sources.test_b)},
        "kept_out": sources.kept_out,
        "skipped": [*stores[0].skipped, *stores[1].skipped],
        "changes": changes,
    }  # fmt: skip
    try:
        write_text(s.out / "images.json", json.dumps(images, separators=(",", ":")))
        write_text(s.out / "config.json", json.dumps(config, indent=1, default=str))
    except OSError as error:
        raise BadInput(f"--out {s.out}: cannot write there ({error.strerror}): name another folder") from None

"""Begin with weights that are there: --start MODEL, to add pictures, to fine-tune, to go on from published weights."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from ..config import RECIPES, Train
from ..errors import BadInput
from ..model.cyclegan import CycleGAN
from ..model.file import Model, below, load_model, resolve
from ..terminal import Say
from . import checkpoint
from .settings import as_flag, generators

FLAGS = {"kind": "generator", "recolours": "recolour"}
"""What a setting of `Train` is called, where a generator's own word for it is another."""
WITHOUT_FLAG = ("norm", "antialias", "halvings")
"""What a generator can be, but no setting asks for: it comes from others' files, or from the crop."""
NETWORKS = {
    "ab": "ba", "ba": "ab", "average_ab": "average_ba", "average_ba": "average_ab",
    "disc_a": "disc_b", "disc_b": "disc_a", "proj_a": "proj_b", "proj_b": "proj_a",
}  # fmt: skip
"""What begins with weights, and the same of the other domain."""


@dataclass(frozen=True)
class Start:
    """A file with weights of the networks that the run trains."""

    file: Path
    domains: tuple[str, str]
    turned: bool
    """Is its first domain the run's second?"""
    tensors: dict[str, Tensor]
    """A model file's, or all of a checkpoint's."""
    words: list[str]
    """About newer checkpoints that are broken."""
    features: str | None
    """Those that it was trained against."""


def read_start(s: Train, names: tuple[str, str]) -> Start | None:
    """What --start names, before anything is built. Raises BadInput for what is no model, or has other generators than
    the run.
    """
    if s.start is None:
        return None
    file, model, words = newest(s.start)
    turned = model.domains == names[::-1]
    kinds = {replace(model.spec(way), channels_in=1, channels_out=1, log_light=False) for way in model.generators}
    if len(kinds) > 1:  # each way is of a run of its own
        raise BadInput(f"--start {s.start}: its two ways are different networks, a run's are alike; name another model")
    flags = lacking(s, model, turned)
    told = str(model.info.get("training", {}).get("recipe"))
    if flags and told in RECIPES and len(others := lacking(replace(s, **RECIPES[told]), model, turned)) < len(flags):
        flags = [f"--recipe {told}", *others]
    if flags:
        raise BadInput(f"--start {s.start}: it has other generators than this run; give {' '.join(flags)}")
    if differ_in_light(model):
        look = "look" if s.log_light else "do not look"
        words.append(f"one way of {file} looks at the logarithm of light, the other does not; this run's {look}")
    against = model.info.get("training", {}).get("features")
    return Start(file, model.domains, turned, load_file(file), words, against)


def differ_in_light(model: Model) -> bool:
    """Does one way look at the logarithm of light, and the other not? That has no weights of its own."""
    return len({model.spec(way).log_light for way in model.generators}) > 1


def newest(start: str) -> tuple[Path, Model, list[str]]:
    """Of a run its newest whole checkpoint, where generators and discriminators belong together; else its model."""
    words: list[str] = []
    for file in reversed(checkpoint.found(Path(start))):
        try:
            return file, load_model(file), words
        except BadInput:
            words.append(f"the checkpoint {file} is broken: what is older is used")
    try:
        file = resolve(start)
        return file, load_model(file), words
    except BadInput as wrong:
        raise BadInput("; ".join([*words, str(wrong)])) from None


def lacking(s: Train, model: Model, turned: bool) -> list[str]:
    """The flags that would make the run's generators those of the model. Raises BadInput where none would."""
    for way in model.generators:
        theirs = asdict(model.spec(way)) | ({"log_light": s.log_light} if differ_in_light(model) else {})
        ours = generators(replace(s, generator=theirs["kind"]))[(way == "ba") != turned]  # had --generator been right
        wanted = asdict(ours) | {"kind": s.generator}
        idle = ("blocks", "upsample") if theirs["kind"] == "unet" else ("halvings",)
        other = {name: value for name, value in theirs.items() if value != wanted[name] and name not in idle}
        crop = other.pop("halvings") if other.get("halvings") in (7, 8) else None  # which follow from it
        if foreign := [f"{name} {other[name]}" for name in WITHOUT_FLAG if name in other]:
            raise BadInput(f"--start {s.start}: its generators have {', '.join(foreign)}, which no setting asks for")
        flags = [as_flag(FLAGS.get(name, name), value) for name, value in other.items() if "channels" not in name]
        if len(flags) < len(other):
            into, out = theirs["channels_in"], theirs["channels_out"]
            swapped = (way == "ab") == turned
            flags.append(f"--channels {out} {into}" if swapped else f"--channels {into} {out}")
        flags += [f"--crop {2**crop}"] if crop else []
        if flags:
            return flags
    return []


def begin(start: Start, model: CycleGAN, names: tuple[str, str], say: Say) -> None:
    """Put the weights into the networks, and say which, and what starts anew."""
    a, b = names
    for line in start.words:
        say(line)
    if start.domains != names and not start.turned:
        say(f"{start.domains[0]} and {start.domains[1]} of {start.file} are taken for {a} and {b}")
    words = {"ab": f"{a} -> {b}", "ba": f"{b} -> {a}", "disc_a": f"the judge of {a}", "disc_b": f"the judge of {b}"}
    words |= {f"proj_{side}": f"{words[f'disc_{side}']} by frozen features" for side in "ab"}
    taken: list[str] = []
    left: list[str] = []
    for name, exchanged in NETWORKS.items():
        if (network := getattr(model, name, None)) is None:
            continue
        held = exchanged if start.turned else name
        # A model file holds what is shown: the mean of weights where there was one. It serves for both.
        state = below(start.tensors, held) or below(start.tensors, held.removeprefix("average_"))
        own = network.state_dict()
        older = {name: own[name] for name in own if name == "contrast"}  # which files of before 2026-12 lack
        fits = shapes(older | state) == shapes(own)  # else it is not there, or of another kind
        if fits:
            network.load_state_dict(state)
        if name in words:
            (taken if fits else left).append(words[name])
    say(f"weights of {start.file}: {', '.join(taken)}")
    say(f"begun anew: {', '.join([*left, 'optimizers, earlier fakes, the schedule'])}")


def shapes(state: dict[str, Tensor]) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in state.items()}

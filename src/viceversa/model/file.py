"""The model file: one or both generators in safetensors, and in its metadata all that is needed to use them."""

import difflib
import json
import unicodedata
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from ..errors import BadInput, Failed
from ..files import replacing
from .losses import wide
from .networks import Generator

FORMAT = 1


@dataclass
class Model:
    """Two generators (or one), the names of their domains, and what is known of their training."""

    generators: dict[str, nn.Module]
    """"ab" translates domains[0] to domains[1], "ba" back. Either may be missing."""
    domains: tuple[str, str]
    info: dict[str, Any] = field(default_factory=dict)
    """"image": {"size", "crop", "resize"}; "training": epochs, steps, seconds, ...; "scores"; "statistics":
    what the images of each domain are like, by its name (data/statistics.py)."""

    def direction(self, to: str | None = None) -> str:
        """The direction, "ab" or "ba", that leads to the domain `to`, which may be left out where there is one only.

        Raises BadInput that names the domains which the model translates to. Names are compared as they are seen:
        an accent may be a part of its letter or stand behind it.
        """
        targets = {self.domains[d == "ab"]: d for d in ("ba", "ab") if d in self.generators}
        if to is None:
            if len(targets) == 1:
                return next(iter(targets.values()))
            names = " or ".join(f"--to {name}" for name in targets)
            raise BadInput(f"which way? This model translates to either domain: {names}")
        seen = {unicodedata.normalize("NFC", name): direction for name, direction in targets.items()}
        asked = unicodedata.normalize("NFC", to)
        if asked in seen:
            return seen[asked]
        near = difflib.get_close_matches(asked, seen, 1)
        hint = f"did you mean {near[0]}?" if near else f"this model takes {' or '.join(f'--to {n}' for n in targets)}"
        raise BadInput(f"--to {to}: {hint} (its domains are {self.domains[0]} and {self.domains[1]})")

    def spec(self, direction: str) -> Generator:
        """What the generator of a direction is."""
        return self.generators[direction].spec  # type: ignore[return-value]


def save_model(path: Path, model: Model) -> None:
    """Write `model` to `path`, whole or not at all."""
    tensors = {f"{d}.{name}": value for d, g in model.generators.items() for name, value in g.state_dict().items()}
    write_tensors(path, tensors, model)


def write_tensors(
    path: Path, tensors: dict[str, torch.Tensor], model: Model, named: dict[str, str] | None = None
) -> None:
    """Write tensors, whole or not at all, of which some are the generators of `model`; a checkpoint has others, too.

    `named`: what the names of a direction's weights begin with, where it is not the direction. Raises Failed that
    names the file.
    """
    head = {
        "format": FORMAT,
        "domains": list(model.domains),
        "generators": {d: asdict(g.spec) for d, g in model.generators.items()},  # type: ignore[call-overload]
        "value_range": [-1, 1],
        **({"named": named} if named else {}),
        **model.info,
    }
    # safetensors takes neither channels-last nor shared memory.
    plain = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    try:
        with replacing(path) as temporary:
            save_file(plain, temporary, {"viceversa": json.dumps(head, sort_keys=True)})
    except (OSError, SafetensorError) as error:
        raise Failed(f"cannot write {path}: {getattr(error, 'strerror', None) or error}") from None


def load_model(path: Path) -> Model:
    """Read a model file, or the generators that a checkpoint shows.

    Raises BadInput, in one line, for anything that is not a whole one.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            if "viceversa" not in metadata:
                raise BadInput(f"{path} is a safetensors file, but not a model of viceversa (it has no such metadata)")
            head = json.loads(metadata["viceversa"])
            if head["format"] > FORMAT:
                raise BadInput(f"{path} was written by a newer viceversa (format {head['format']}): upgrade to read it")
            begins = {direction: head.get("named", {}).get(direction, direction) for direction in head["generators"]}
            tensors = {
                direction: {
                    name.removeprefix(f"{begin}."): file.get_tensor(name)
                    for name in file.keys()  # noqa: SIM118
                    if name.startswith(f"{begin}.")
                }
                for direction, begin in begins.items()
            }
    except FileNotFoundError:
        raise BadInput(f"no model file {path}") from None
    except (SafetensorError, OSError) as error:
        raise BadInput(
            f"{path} is no model, or was cut short ({error}); authors' .pth files: viceversa import"
        ) from None
    generators: dict[str, nn.Module] = {}
    for direction, spec in head["generators"].items():
        with torch.device("meta"):
            network = Generator(**spec).build()
        try:
            weights = {
                name: wide(value) if value.dtype.itemsize == 2 else value for name, value in tensors[direction].items()
            }
            network.load_state_dict(weights, assign=True)  # models that ship are in bf16
        except RuntimeError as error:
            raise BadInput(f"{path}: its weights do not fit its description: {error}") from None
        generators[direction] = network.eval().requires_grad_(False)
    info = {k: v for k, v in head.items() if k not in ("format", "domains", "generators", "value_range", "named")}
    return Model(generators, (head["domains"][0], head["domains"][1]), info)

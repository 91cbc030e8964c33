"""The model file: one or both generators in safetensors, and in its metadata all that is needed to use them.

And where one is: what a person calls a model -> the file that holds it.
"""

import difflib
import json
import os
import re
import unicodedata
import warnings
from dataclasses import asdict, dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from textwrap import shorten
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from ..config import make
from ..device import wide
from ..errors import BadInput, first_line, near_names, suggestion
from ..files import replacing
from .networks import Generator

FORMAT = 1
MODEL = "model.safetensors"
BEST = "best.safetensors"
NAME = re.compile(r"(?=.*[^. ])[^/\\\0]+")
"""Of a domain: no path, since it goes into names of files."""
OF_INFO = ("image", "training", "scores", "statistics")
"""What others of `Model.info` may look into."""
BUNDLED = Path(__file__).parents[1] / "assets" / "models"
HUB_NAME = re.compile(r"hf://(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w.-]+))?(/(?P<file>.+\.safetensors))?")


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
        names = " or ".join(f"--to {name}" for name in targets)
        if to is None:
            if len(targets) == 1:
                return next(iter(targets.values()))
            raise BadInput(f"which way? This model translates to either domain: {names}")
        if not isinstance(to, str):
            raise BadInput(f"to={to!r}: give the name of a domain, {' or '.join(targets)}")
        seen = {unicodedata.normalize("NFC", name): direction for name, direction in targets.items()}
        asked = unicodedata.normalize("NFC", to)
        if asked in seen:
            return seen[asked]
        hint = suggestion(asked, seen, f"this model takes {names}")
        raise BadInput(f"--to {to}: {hint} (its domains are {self.domains[0]} and {self.domains[1]})")

    def ends(self, direction: str) -> tuple[str, str]:
        """The domain that a direction begins at, and the one that it leads to."""
        return self.domains if direction == "ab" else self.domains[::-1]

    def keeps_lightness(self, direction: str) -> bool:
        """Does it colour gray pictures, and was it taught to leave lightness as it is?"""
        spec, told = self.spec(direction), self.info.get("image", {})
        return bool(told.get("keep_lightness")) and (spec.channels_in, spec.channels_out) == (1, 3)

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

    `named`: what the names of a direction's weights begin with, where it is not the direction.
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
    with replacing(path) as temporary:
        save_file(plain, temporary, {"viceversa": json.dumps(head, sort_keys=True)})


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
            first, second = map(str, head["domains"])
            if first == second or not NAME.fullmatch(first) or not NAME.fullmatch(second):
                raise ValueError(f"its domains {first!r} and {second!r} are no two names")
            specs = {direction: dict(spec) for direction, spec in head["generators"].items()}
            begins = {direction: head.get("named", {}).get(direction, direction) for direction in specs}
            tensors = {
                direction: {
                    name.removeprefix(f"{begin}."): file.get_tensor(name)
                    for name in file.keys()  # noqa: SIM118
                    if name.startswith(f"{begin}.")
                }
                for direction, begin in begins.items()
            }
    except BadInput:
        raise
    except FileNotFoundError:
        raise BadInput(f"no model file {path}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"{path}: its description cannot be read ({type(error).__name__}: {error})") from None
    except (SafetensorError, OSError) as error:
        raise BadInput(
            f"{path} is no model, or was cut short ({error}); authors' .pth files: viceversa import"
        ) from None
    generators: dict[str, nn.Module] = {}
    for direction, spec in specs.items():
        try:
            with torch.device("meta"):
                network = make(Generator, **spec).build()
            # Models that ship are in bf16.
            weights = {n: wide(v) if v.dtype.itemsize == 2 else v for n, v in tensors[direction].items()}
            network.load_state_dict(weights, assign=True)
        except (BadInput, TypeError) as error:  # a field or a kind of the future
            raise BadInput(f"{path} holds a generator that this viceversa does not know ({error}): upgrade") from None
        except (RuntimeError, AssertionError) as error:
            raise BadInput(f"{path}: its weights do not fit its description: {shorten(str(error), 200)}") from None
        if not all(value.isfinite().all() for value in weights.values()):
            raise BadInput(
                f"{path}: some of its weights are no numbers (NaN or infinite), as where a training went astray: take "
                "an earlier one, as a run's by --epoch"
            )
        generators[direction] = network.eval().requires_grad_(False)
    info = {k: v for k, v in head.items() if k not in ("format", "domains", "generators", "value_range", "named")}
    info = {k: v for k, v in info.items() if k not in OF_INFO or isinstance(v, dict)}
    return Model(generators, (first, second), info)


def below(tensors: dict[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    """The state dict of the module `name` in that of what holds it."""
    return {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}


def read_weights(file: Path) -> Any:
    """What a .pth or .safetensors file holds: tensors in dictionaries, plain values. Runs nothing in it."""
    if not file.is_file():
        raise BadInput(f"no file {file}")
    try:
        with safe_open(file, "pt") as opened:
            if "viceversa" in (opened.metadata() or {}):
                raise BadInput(f"{file} is a model of viceversa already: use it as it is")
            return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except SafetensorError:
        pass
    try:
        with warnings.catch_warnings(action="ignore"):  # about the version of the pickle
            return torch.load(file, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        found = re.search(r"(?:GLOBAL|Unsupported class) (\S+)", str(error))
        held = f"it wants to run {found[1]}" if found else "something else, or damaged"
        raise BadInput(
            f"{file} is not plain weights ({held}): refused, and nothing in it was run; save a state_dict()"
        ) from None
    except (
        RuntimeError, OSError, EOFError, ValueError, LookupError, AttributeError, TypeError, SafetensorError
    ) as error:  # fmt: skip
        reason = str(error).partition("\n")[0]
        raise BadInput(f"{file} is no file of PyTorch weights, or was cut short ({reason})") from None


def resolve(model: str | Path, epoch: int | None = None) -> Path:
    """The file meant by `model`: a file (a checkpoint will do), a run folder (its best epoch where one was chosen,
    or the `epoch` that is asked for), a folder of checkpoints (the newest), or hf://owner/name.

    Raises BadInput, in one line, when there is no such thing; names that come near are suggested.
    """
    if not isinstance(model, str | os.PathLike):
        raise BadInput(f"model={model!r}: give a file, a run folder, a name that `viceversa models` lists, or a run")
    path, known = Path(os.path.expanduser(model)), bundled()
    if epoch is not None and not path.is_dir():
        raise BadInput(f"--epoch {epoch} chooses a model of a run folder, which {str(model)!r} is not")
    if str(model).startswith("hf://"):
        return from_hub(str(model))
    if path.is_dir():
        try:
            return in_run(path, epoch)
        except BadInput:
            mine = epoch is not None or (path / "config.json").exists() or any(path.glob("*.safetensors"))
            if mine or str(model) not in known:
                raise
            return known[str(model)]  # the folder is one of images, most likely
    if path.suffix in (".onnx", ".pt2"):
        raise BadInput(f"{path} is for other programs, and cannot be trained through: give the model it was made from")
    if path.exists():
        return path
    if str(model) in known:
        return known[str(model)]
    near = [*near_names(str(model), known, count=2), *map(str, nearby(path))]
    ways = "give a model file, a run folder, a name that `viceversa models` lists, or hf://owner/name"
    hint = f"did you mean {' or '.join(near)}?" if near else ways
    raise BadInput(f"no model {str(model)!r}: {hint}")


def epoch_path(run: Path, epoch: int) -> Path:
    """Where the model of an epoch is kept."""
    return run / "epochs" / f"epoch_{epoch:04d}.safetensors"


def by_epoch(folder: Path, ending: str) -> list[tuple[int, Path]]:
    """The epochs of the files epoch_0001.ENDING, ..., and the files, in order."""
    found = ((re.fullmatch(rf"epoch_(\d+)\.{ending}", p.name), p) for p in folder.glob("epoch_*"))
    return sorted((int(name[1]), path) for name, path in found if name)


def in_run(run: Path, epoch: int | None = None) -> Path:
    """The model of a run folder: best.safetensors, else model.safetensors; or that of an epoch."""
    if epoch is not None:
        if epoch_path(run, epoch).is_file():
            return epoch_path(run, epoch)
        kept = ", ".join(str(number) for number, _ in by_epoch(run / "epochs", "safetensors"))
        raise BadInput(f"the model of epoch {epoch} of {run} is not kept; those kept are {kept or 'none'}")
    for name in (BEST, MODEL):
        if (run / name).is_file():
            return run / name
    checkpoints = sorted(run.glob("step_*.safetensors"))
    if checkpoints:
        return checkpoints[-1]
    if (run / "config.json").is_file():
        raise BadInput(f"the run {run} has no {MODEL} yet: it is written at the end of an epoch; train on")
    held = sorted(file.name for file in run.glob("*.safetensors"))
    hint = f"it holds {', '.join(held)}: name one of them" if held else "give a model file or a run folder"
    raise BadInput(f"{run} is no run folder (neither {BEST} nor {MODEL} is in it): {hint}")


def bundled() -> dict[str, Path]:
    """The models that come with the package, by name."""
    return {path.stem: path for path in sorted(BUNDLED.glob("*.safetensors"))}


def read_card(model: Path) -> dict[str, Any]:
    """What NAME.json beside a model file says of it; empty where there is none. Raises BadInput."""
    path = model.with_suffix(".json")
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError:
        card = None
    except OSError as error:
        raise BadInput(f"{path}: this model's card cannot be read: {error.strerror}") from None
    if not isinstance(card, dict):
        raise BadInput(f"{path}: this model's card is no JSON object: mend it, or take it away")
    return card


def nearby(path: Path) -> list[Path]:
    """Model files and run folders beside `path` and in runs/ with a name like its name; the nearest first."""
    runs = (file.parent for folder in (path.parent, Path("runs")) for file in folder.glob(f"*/{MODEL}"))
    found = [*path.parent.glob("*.safetensors"), *runs]
    named = {name: place for place in found for name in (place.name, place.stem)}
    close = difflib.get_close_matches(path.name, named, n=6)
    return list(dict.fromkeys(named[name] for name in close))[:3]


def from_hub(name: str) -> Path:
    """The file of hf://owner/name[@revision][/file.safetensors], fetched once and kept in the hub's cache.

    What is kept is used without asking again, so that a model does not change under its user; a newer one is
    had by naming its revision. Raises BadInput when it cannot be found or reached.
    """
    parts = HUB_NAME.fullmatch(name)
    if parts is None:
        ways = "hf://owner/name, hf://owner/name@revision or hf://owner/name/file.safetensors"
        raise BadInput(f"{name!r} is no name on the hub: write {ways}")
    try:
        from huggingface_hub import errors, get_hf_file_metadata, hf_hub_download, hf_hub_url
    except ImportError:
        raise BadInput(f"{name} needs huggingface_hub: pip install 'viceversa[hub]'") from None
    repo, revision, file = parts["repo"], parts["revision"], parts["file"] or MODEL
    try:
        return Path(hf_hub_download(repo, file, revision=revision, local_files_only=True))
    except errors.LocalEntryNotFoundError:
        pass
    try:
        # One question first: the download alone would try for half a minute before it says "offline".
        get_hf_file_metadata(hf_hub_url(repo, file, revision=revision))
        return Path(hf_hub_download(repo, file, revision=revision))
    except Exception as error:  # each generation of huggingface_hub has another HTTP library's errors beneath
        match error:
            case errors.RevisionNotFoundError():
                wrong = f"{repo} has no revision {revision!r}"
            case errors.EntryNotFoundError() if not isinstance(error, errors.LocalEntryNotFoundError):
                wrong = f"{repo} has no file {file}"
            case errors.RepositoryNotFoundError():
                wrong = "the hub has no such model, or it is private: log in with `hf auth login`"
            case OSError(errno=int()):
                raise  # of this machine (a full disk), not of the hub
            case _:
                wrong = f"the hub cannot be reached, and no copy is kept here ({first_line(error)})"
        raise BadInput(f"{name}: {wrong}") from None

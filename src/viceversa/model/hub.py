"""Where a model is: what a person calls it -> the file that holds it."""

import difflib
import re
from pathlib import Path

from ..errors import BadInput

MODEL = "model.safetensors"
BEST = "best.safetensors"
BUNDLED = Path(__file__).parents[1] / "assets" / "models"
HUB_NAME = re.compile(r"hf://(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w.-]+))?(/(?P<file>.+\.safetensors))?")


def resolve(model: str | Path, epoch: int | None = None) -> Path:
    """The file meant by `model`: a file (a checkpoint will do), a run folder (its best epoch where one was chosen,
    or the `epoch` that is asked for), a folder of checkpoints (the newest), or hf://owner/name.

    Raises BadInput, in one line, when there is no such thing; names that come near are suggested.
    """
    if epoch is not None and not Path(model).expanduser().is_dir():
        raise BadInput(f"--epoch {epoch} chooses a model of a run folder, which {str(model)!r} is not")
    if str(model).startswith("hf://"):
        return fetch(str(model))
    path = Path(model).expanduser()
    if path.is_dir():
        return in_run(path, epoch)
    if path.suffix in (".onnx", ".pt2"):
        raise BadInput(f"{path} is for other programs, and cannot be trained through: give the model it was made from")
    if path.exists():
        return path
    known = bundled()
    if str(model) in known:
        return known[str(model)]
    near = [*difflib.get_close_matches(str(model), known, n=2), *map(str, nearby(path))]
    ways = "give a model file, a run folder, a name that `viceversa models` lists, or hf://owner/name"
    hint = f"did you mean {' or '.join(near)}?" if near else ways
    raise BadInput(f"no model {str(model)!r}: {hint}")


def epoch_path(run: Path, epoch: int) -> Path:
    """Where the model of an epoch is kept."""
    return run / "epochs" / f"epoch_{epoch:04d}.safetensors"


def in_run(run: Path, epoch: int | None = None) -> Path:
    """The model of a run folder: best.safetensors, else model.safetensors; or that of an epoch."""
    if epoch is not None:
        if epoch_path(run, epoch).is_file():
            return epoch_path(run, epoch)
        names = (path.stem.removeprefix("epoch_") for path in (run / "epochs").glob("epoch_*.safetensors"))
        kept = ", ".join(str(number) for number in sorted(int(name) for name in names if name.isdecimal()))
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


def nearby(path: Path) -> list[Path]:
    """Model files and run folders beside `path` and in runs/ with a name like its name; the nearest first."""
    runs = (file.parent for folder in (path.parent, Path("runs")) for file in folder.glob(f"*/{MODEL}"))
    found = [*path.parent.glob("*.safetensors"), *runs]
    named = {name: place for place in found for name in (place.name, place.stem)}
    close = difflib.get_close_matches(path.name, named, n=6)
    return list(dict.fromkeys(named[name] for name in close))[:3]


def fetch(name: str) -> Path:
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


def first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)

"""`evaluate`: how good the translations of a model are, or those in a folder."""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..config import Evaluate, make
from ..data.folders import find
from ..device import choose_device, choose_dtype
from ..errors import BadInput
from ..model.file import Model, load_model
from ..model.hub import resolve
from ..terminal import progress_bar
from .comparison import Images, Pairs, Partner, Tools, compare_folders, compare_translations, find_pairs
from .features import load_features
from .perceptual import Lpips, load_lpips
from .scores import CUT, Preparation, Scorer, load_image, translation
from .table import render

__all__ = ["Evaluation", "Scorer", "command_evaluate", "evaluate"]

Source = str | Path
Follow = Callable[[str, Sequence[Path]], Iterable[Path]]

USAGE = "give MODEL and a folder of test images for each domain, or --fake FOLDER --real FOLDER"


class Evaluation(dict[str, Any]):
    """The numbers, laid out as `--json` prints them; `str` gives the table."""

    def __str__(self) -> str:
        return render(self)

    __repr__ = __str__

    def json(self) -> str:
        """One JSON object. The PSNR of equal images, which is infinite, becomes null."""
        return json.dumps(finite(self), allow_nan=False)


def evaluate(
    model: Any = None,
    a: Source | None = None,
    b: Source | None = None,
    *,
    fake: Source | None = None,
    real: Source | None = None,
    **choices: Any,
) -> Evaluation:
    """Measure a model on test images of both domains, or a folder of translations against real images.

    `model` is a file, a run, hf://owner/name, or what `load` and `train` return; or a list of these, which are
    measured side by side. `choices` are the fields of `config.Evaluate`, the flags of `viceversa evaluate`.

    For folders the result has "features", "kid", "kid_std", "frechet", "n_fake", "n_real", "prepared" (how the
    images were brought to size), "notes", and with pairs "paired": {"psnr", "ssim", "lpips", "images": {name:
    the same}}. For a model there is such an object under the name of each domain that it translates to, with
    "structure", "diversity" and "round_trip": {"l1", "lpips"} besides; for several models there are those under
    each model's name. Raises BadInput.
    """
    asked = make(Evaluate, **choices)
    models = list(model) if isinstance(model, list | tuple) else [model] if model is not None else []
    folders = [folder for folder in (a, b, fake, real) if folder is not None]
    if len(folders) != 2 or (fake is None) != (real is None) or (fake is None) != bool(models):
        raise BadInput(f"evaluate: {USAGE}")
    return measure(asked, models, folders)


def command_evaluate(choices: Evaluate) -> int:
    """Print the table, or one JSON object."""
    by_folder = choices.fake is not None and choices.real is not None
    if by_folder == bool(choices.inputs) or (not by_folder and len(choices.inputs) < 3):
        raise BadInput(f"evaluate: {USAGE}")
    folders = [choices.fake or "", choices.real or ""] if by_folder else list(choices.inputs[-2:])
    result = measure(choices, choices.inputs[:-2], folders, follow=show)
    print(result.json() if choices.json else result)
    return 0


def measure(
    choices: Evaluate, given: Sequence[Any], folders: Sequence[Source], follow: Follow = lambda _, paths: paths
) -> Evaluation:
    """Look at everything that can be wrong, then measure. `given`: models, or none to compare two folders."""
    if choices.protocol == "cut" and (choices.features, choices.resizing) != ("inception", "legacy"):
        raise BadInput("--protocol cut means --features inception --resizing legacy: leave both out")
    device = choose_device(choices.device)
    dtype = choose_dtype(choices.precision, device)
    models = named_models(given)
    fixed = CUT if choices.protocol == "cut" else None
    first, second = (find_images(folder, fixed) for folder in folders)
    pairs = find_pairs(first, second, choices.paired)
    features = load_features(choices.features, choices.resizing, device)
    wanted = pairs or any(len(model.generators) == 2 for model in models.values())
    lpips, notes = find_lpips(choices.lpips, device) if wanted else (None, [])
    tools = Tools(features, lpips, device, choices.paired, follow)
    if not models:
        return Evaluation(noted(compare_folders(tools, first, second, pairs), notes))
    if fixed is None and len({str(preparation(model)) for model in models.values()}) > 1:
        notes.append("the models want images of different sizes (see prepared): compare them by --protocol cut")
    results = {}
    for name, model in models.items():
        compared = compare_model(tools, model, dtype, (first, second), pairs, fixed or preparation(model))
        results[name] = {domain: noted(numbers, notes) for domain, numbers in compared.items()}
    return Evaluation(results if len(models) > 1 else next(iter(results.values())))


def compare_model(
    tools: Tools, model: Model, dtype: torch.dtype, folders: tuple[Images, Images], pairs: Pairs,
    how: Preparation | None,
) -> dict[str, dict[str, Any]]:  # fmt: skip
    """Each direction that the model has, under the name of the domain that it translates to."""
    names = [Path(folder.source).name for folder in folders]
    if names == [*reversed(model.domains)] and names[0] != names[1]:
        raise BadInput(f"the folders {names[0]} and {names[1]} are in the wrong order: {' then '.join(model.domains)}")
    networks = {d: translation(network, tools.device, dtype) for d, network in model.generators.items()}
    gray = {"a": False, "b": False}
    for direction, network in model.generators.items():
        spec: Any = network.spec
        gray |= {direction[0]: spec.channels_in == 1, direction[1]: spec.channels_out == 1}
    a, b = (brought_to(folder, how, gray[side]) for folder, side in zip(folders, "ab", strict=True))
    back = {partner.path: Partner(partner.name, path) for path, partner in pairs.items()}
    found = {}
    if "ab" in networks:
        found[model.domains[1]] = compare_translations(tools, networks["ab"], networks.get("ba"), a, b, pairs)
    if "ba" in networks:
        found[model.domains[0]] = compare_translations(tools, networks["ba"], networks.get("ab"), b, a, back)
    return found


def named_models(given: Sequence[Any]) -> dict[str, Model]:
    """By what the person calls them; a Model or Translator has no name but its number."""
    models: dict[str, Model] = {}
    for number, one in enumerate(given, start=1):
        if isinstance(one, Model):
            name, model = f"model {number}", one
        elif isinstance(getattr(one, "model", None), Model):  # a Translator
            name, model = f"model {number}", one.model
        else:
            place = getattr(one, "folder", one)  # a Run has a folder
            name, model = str(place), load_model(resolve(str(place)))
        if name in models:
            raise BadInput(f"{name} is given twice")
        models[name] = model
    return models


def preparation(model: Model) -> Preparation | None:
    """As the model's own test images were brought to size while it was trained; None where it does not say."""
    image = model.info.get("image")
    return Preparation(image["size"], image["crop"], image["resize"]) if image else None


def find_images(folder: Source, how: Preparation | None) -> Images:
    paths = find(folder).paths
    if len(paths) < 2:
        raise BadInput(f"{folder}: one image only; sets are compared, which takes two and better a hundred")
    return brought_to(Images(str(folder), paths, load_image, ""), how, gray=False)


def brought_to(images: Images, how: Preparation | None, gray: bool) -> Images:
    load = partial(load_image, preparation=how, channels=1 if gray else 3)
    return replace(images, load=load, how=f"{how or 'own size'}{', gray' if gray else ''}")


def find_lpips(folder: Path | None, device: torch.device) -> tuple[Lpips | None, list[str]]:
    """LPIPS, or what to say where its weights cannot be had; those of a folder that was named must be there."""
    try:
        return load_lpips(folder, device), []
    except BadInput as missing:
        if folder is not None:
            raise
        return None, [f"LPIPS is left out: {missing}"]


def noted(numbers: dict[str, Any], notes: Sequence[str]) -> dict[str, Any]:
    return numbers | {"notes": [*numbers["notes"], *notes]}


def finite(value: Any) -> Any:
    """JSON has no infinity."""
    if isinstance(value, dict):
        return {name: finite(inner) for name, inner in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def show(doing: str, paths: Sequence[Path]) -> Iterator[Path]:
    """How far it is, on standard error: the numbers alone go to standard output."""
    with progress_bar(doing, len(paths)) as update:
        for done, path in enumerate(paths, start=1):
            yield path
            update(done)

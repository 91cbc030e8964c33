"""`evaluate`: how good the translations of a model are, or those in a folder. What is compared, and the table."""

import hashlib
import io
import json
import math
import os
import shutil
import textwrap
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any, Literal, TypeVar
from zipfile import BadZipFile

import numpy as np
from rich.box import SIMPLE
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text
from torch.nn import functional as F

from ..config import Evaluate, make
from ..data import folders
from ..data.download import cache_folder, sha256
from ..data.pictures import BadImage, on_white, read, to_tensor, told
from ..data.store import as_tested, notes_of
from ..device import choose_device
from ..errors import BadInput
from ..files import replacing
from ..model.file import Model, load_model, resolve
from ..terminal import followed, say, words
from ..threads import ordered
from ..translation.translator import Translator
from .features import Features, Lpips, SqueezeNet, Vectors, load_features, load_lpips
from .scores import SSIM_WINDOW, frechet, kid, kid_subsets, precisely, psnr, spread, ssim, structure_kept, translated

T = TypeVar("T")
Source = str | Path
Follow = Callable[[str, int, Iterator[T]], Iterator[T]]
"""Iterates over so many images, and may show how far it is."""
Numbers = dict[str, Any]


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
    measured side by side. `a` alone is a folder that holds testA and testB. `choices` are the fields of
    `config.Evaluate`, the flags of `viceversa evaluate`.

    For folders the result has "features", "kid", "kid_std", "frechet", "n_fake", "n_real", "prepared" (how the
    images were brought to size), "notes", "another" (the distances of two halves of the real images), and with pairs
    "paired": {"psnr", "ssim", "lpips", "images": {name: the same}}. For a model there is such an object under the name
    of each domain that it translates to, with "self_similarity", "edges" and "structure" (see
    `scores.structure_kept`), "diversity" and "round_trip": {"l1", "lpips"} besides, and with what to compare all that
    with: "untranslated", the inputs themselves, and "another", other pictures of the target domain. For several
    models there are those under each model's name. Raises BadInput.
    """
    models = list(model) if isinstance(model, list | tuple) else [model] if model is not None else []
    return measure(make(Evaluate, **choices), models, (a, b), fake, real)


def command_evaluate(choices: Evaluate) -> int:
    """Print the table, or one JSON object."""
    models, tests = choices.inputs[:-2], choices.inputs[-2:]
    if tests and all(map(os.path.isdir, inside(tests[-1]))):
        models, tests = choices.inputs[:-1], tests[-1:]
    result = measure(choices, models, tests, choices.fake, choices.real, followed)
    say(result.json() if choices.json else str(result))
    return 0


# What is compared


@dataclass(frozen=True)
class Preparation:
    """How test images are brought to size: as in training, from a model file's `info["image"]`."""

    crop: int
    resize: Literal["square", "short", "none"]

    def __str__(self) -> str:
        return f"{self.resize} {self.crop}"


CUT = Preparation(crop=256, resize="square")
"""Of the published horse to zebra protocol (CUT): all test images at 256 x 256, no flip."""


@dataclass(frozen=True)
class Images:
    """One folder of test images, and how they are loaded."""

    source: str
    """As the person named it."""
    paths: Sequence[Path]
    preparation: Preparation | None = None
    """None: at their own size."""
    channels: Literal[1, 3] = 3
    broken: dict[Path, str] = field(default_factory=dict)
    """Those that were left out so far, and why."""
    changed: dict[Path, tuple[str, ...]] = field(default_factory=dict)
    """Of those that were read so far, what was changed or left out in reading."""

    @property
    def how(self) -> str:
        """How they are brought to size, in words."""
        return f"{self.preparation or 'own size'}{', gray' if self.channels == 1 else ''}"

    def load(self, path: Path) -> np.ndarray | None:
        """(H, W, C) uint8 or uint16; None for one that cannot be read or is too small, which is noted among the
        `broken`."""
        try:
            picture = read(path, self.channels)
            self.changed[path] = notes_of(picture)
            image, p = on_white(picture), self.preparation
            return image if p is None else as_tested(image, path, resize=p.resize, crop=p.crop)
        except BadImage as broken:
            self.broken[path] = str(broken)
            return None

    def each(self) -> Iterator[tuple[Path, np.ndarray]]:
        """Loaded by threads, ahead of what is done with them; without those that are left out.

        Raises BadInput when fewer than two are left.
        """
        good = 0
        for path, image in ordered(lambda path: (path, self.load(path)), self.paths):
            if image is not None:
                good += 1
                yield path, image
        if good < 2:
            raise BadInput(f"{self.source}: {good} of {words(len(self.paths), 'image')} can be read: {self.left_out()}")

    def left_out(self) -> str:
        """The broken ones: the first five by name, then how many more."""
        reasons = [self.broken[path] for path in self.paths if path in self.broken]
        more = f" and {len(reasons) - 5:,} more" if len(reasons) > 5 else ""
        return "; ".join(reasons[:5]) + more

    def notes(self) -> list[str]:
        """What was left out, and what was changed in reading the others."""
        count = f"{len(self.broken)} of {words(len(self.paths), 'image')}"
        out = [f"{self.source}: {count} left out: {self.left_out()}"] if self.broken else []
        return out + told((path, self.changed.get(path, ())) for path in self.paths if path not in self.broken)


@dataclass(frozen=True)
class Tools:
    """What all comparisons of one call share."""

    features: Features
    lpips: Lpips | None
    paired: bool
    """Pairs were asked for, not found out by the names: those that cannot be compared are then an error."""
    follow: Follow
    notes: list[str]
    """What is to be known of all of them."""


def measure(
    choices: Evaluate,
    given: Sequence[Any],
    tests: Sequence[Source | None],
    fake: Source | None,
    real: Source | None,
    follow: Follow = lambda doing, total, images: images,
) -> Evaluation:
    """Look at everything that can be wrong, then measure: models, by two folders of `tests`, or `fake` and `real`."""
    folders = [folder for folder in (*tests, fake, real) if folder is not None]
    if given and len(folders) == 1 and all(map(os.path.isdir, inside(folders[0]))):
        folders = [*inside(folders[0])]
    if len(folders) != 2 or (fake is None) != (real is None) or (fake is None) != bool(given):
        raise BadInput(
            "evaluate: give MODEL and a folder of test images for each domain, or one folder that holds testA and "
            "testB; or --fake FOLDER --real FOLDER"
        )
    if choices.protocol == "cut" and (choices.features, choices.resizing) != ("inception", "legacy"):
        raise BadInput("--protocol cut means --features inception --resizing legacy: leave both out")
    device = choose_device(choices.device)
    models = named_models(given, choices)
    fixed = CUT if choices.protocol == "cut" else None
    (first, notes), (second, more_notes) = (find_images(folder) for folder in folders)
    notes += more_notes
    pairs = find_pairs(first, second, choices.paired)
    features = load_features(choices.features, choices.resizing, device, choices.lpips)
    lpips = None
    if pairs or any(len(model.model.generators) == 2 for model in models.values()):
        try:
            lpips = load_lpips(choices.lpips, device)
        except BadInput as missing:
            if choices.lpips is not None:  # a folder that was named must hold it
                raise
            notes.append(f"LPIPS is left out: {missing}")
    if pairs and choices.paired is None:
        notes.append("all names are alike, so they are taken for pairs: --no-paired if that is by chance")
    tools = Tools(features, lpips, bool(choices.paired), follow, notes)
    if not models:
        first, second = (replace(images, preparation=fixed) for images in (first, second))
        return Evaluation(compare_folders(tools, first, second, pairs))
    prepared = {name: fixed or preparation(model.model) for name, model in models.items()}
    if len(set(map(str, prepared.values()))) > 1:
        notes.append("the models want images brought to different sizes: compare them by --protocol cut")
    results = {
        name: dict(compare_model(tools, model, (first, second), pairs, prepared[name]))
        for name, model in models.items()
    }
    return Evaluation(results if len(models) > 1 else next(iter(results.values())))


def inside(root: Source) -> tuple[str, str]:
    """The two folders of test images in a data set's own, as `train` takes it."""
    return os.path.join(root, "testA"), os.path.join(root, "testB")


def named_models(given: Sequence[Any], choices: Evaluate) -> dict[str, Translator]:
    """By what the person calls them; a Model or Translator has no name but its number."""
    models: dict[str, Translator] = {}
    for number, one in enumerate(given, start=1):
        held = one if isinstance(one, Model) else getattr(one, "model", None)  # of a Translator
        place = str(getattr(one, "folder", one))  # a Run has a folder
        name = f"model {number}" if isinstance(held, Model) else place
        if name in models:
            raise BadInput(f"{name} is given twice")
        model, memory = held if isinstance(held, Model) else load_model(resolve(place)), getattr(one, "memory", None)
        models[name] = Translator(model, device=choices.device, precision=choices.precision, memory=memory)
    return models


def preparation(model: Model) -> Preparation | None:
    """As the model's own test images were brought to size while it was trained; None where it does not say."""
    image = model.info.get("image")
    return Preparation(image["crop"], image["resize"]) if image else None


def find_images(folder: Source) -> tuple[Images, list[str]]:
    """The images that `folder` names, and what is to be said of its other files."""
    found = folders.find(folder)
    if len(found.paths) < 2:
        raise BadInput(f"{folder}: one image only; sets are compared, which takes two and better a hundred")
    return Images(str(folder), found.paths), folders.remarks(found)


Pairs = dict[Path, tuple[str, Path]]
"""By an image's path: the name that it shares with one in the other folder, and that one's path."""


def find_pairs(a: Images, b: Images, asked: bool | None) -> Pairs:
    """Images of the same name, endings aside; where nothing is `asked` (None), only if all names are the same.

    Raises BadInput where pairs are asked for and there are none.
    """
    if asked is False:
        return {}
    names_a, names_b = (names(images.paths) for images in (a, b))
    partners = dict(zip(names_b, b.paths, strict=True))
    if asked and not set(names_a) & set(names_b):
        raise BadInput(
            f"--paired: no image of {a.source} has the name of one of {b.source} (they begin with {names_a[0]!r} "
            f"and {names_b[0]!r}): name the pairs alike"
        )
    if not asked and set(names_a) != set(names_b):
        return {}
    named = zip(names_a, a.paths, strict=True)
    return {path: (name, partners[name]) for name, path in named if name in partners}


def names(paths: Sequence[Path]) -> list[str]:
    """Each image's path below the folder that holds them all, without its ending."""
    paths = [Path(os.path.abspath(path)) for path in paths]
    root = os.path.commonpath([path.parent for path in paths])
    names = (path.relative_to(root).with_suffix("").as_posix() for path in paths)
    return [unicodedata.normalize("NFC", name) for name in names]  # which file systems may change


# Comparisons


def compare_folders(tools: Tools, fake: Images, real: Images, pairs: Pairs) -> Numbers:
    """Images translated elsewhere against real ones."""
    found = Paired(tools, real)

    def images() -> Iterator[tuple[str, np.ndarray]]:
        for path, image in tools.follow(f"reading {fake.source}", len(fake.paths), fake.each()):
            if path in pairs:
                found.add(*pairs[path], to_tensor(image))
            yield str(path), image

    vectors = tools.features.of(images())
    truth = reference(tools.features, real)
    numbers = compare_sets(tools.features, vectors, truth) | {"prepared": fake.how, "another": in_halves(truth)}
    return numbers | found.numbers() | {"notes": remarks(numbers, tools, fake, real, found)}


def compare_model(
    tools: Tools, model: Translator, folders: tuple[Images, Images], pairs: Pairs, how: Preparation | None
) -> Iterator[tuple[str, Numbers]]:
    """Each direction that the model has, under the name of the domain that it translates to."""
    named = [Path(folder.source).name for folder in folders]
    if named == [*reversed(model.domains)] and named[0] != named[1]:
        raise BadInput(f"the folders {named[0]} and {named[1]} are in the wrong order: {' then '.join(model.domains)}")
    specs: dict[str, Any] = {direction: network.spec for direction, network in model.model.generators.items()}
    gray = {direction[0] for direction, spec in specs.items() if spec.channels_in == 1}
    gray |= {direction[1] for direction, spec in specs.items() if spec.channels_out == 1}
    a, b = (
        replace(folder, preparation=how, channels=1 if side in gray else 3, broken={})
        for folder, side in zip(folders, "ab", strict=True)
    )
    back = {partner: (name, path) for path, (name, partner) in pairs.items()}
    for direction, source, target, paired in (("ab", a, b, pairs), ("ba", b, a, back)):
        if direction in specs:
            there, home = model.domains[:: -1 if direction == "ab" else 1]
            round_trip = home if len(specs) == 2 else None
            yield there, compare_translations(tools, model, there, round_trip, source, target, paired)


def compare_translations(
    tools: Tools, model: Translator, there: str, back: str | None, source: Images, target: Images, pairs: Pairs
) -> Numbers:
    """One direction of a model, from `source` to the domain of `target`, called `there`."""
    kept: list[Numbers] = []
    elsewhere: list[Numbers] = []
    found = Paired(tools, target)
    others = (image for _ in iter(int, 1) for _, image in target.each())  # of the target, again and again

    def fakes() -> Iterator[tuple[str, np.ndarray]]:
        for path, image in tools.follow(f"translating {source.source}", len(source.paths), source.each()):
            fake = translated(model, there, image, str(path))
            x, y = to_tensor(image), to_tensor(fake)
            row: Numbers = structure_kept(x, y, model.device)
            other = F.interpolate(to_tensor(next(others)), x.shape[2:], mode="area")
            elsewhere.append(structure_kept(x, other, model.device))
            if back is not None:
                again = precisely(model, back, fake)
                row["l1"] = float((again - x).abs().mean() / 2)  # in units of 0 to 1
                row |= perceptual(tools.lpips, again, x)
            kept.append(row)
            if path in pairs:
                found.add(*pairs[path], y)
            yield str(path), fake

    vectors = tools.features.of(fakes())
    others.close()
    before, real = reference(tools.features, source), reference(tools.features, target)
    numbers = compare_sets(tools.features, vectors, real) | {"prepared": source.how}
    means = averaged(kept)
    numbers |= {measure: means.pop(measure) for measure in UNTOUCHED}
    if (of_inputs := spread(before)) > 0:
        numbers["diversity"] = spread(vectors) / of_inputs
    if means:
        numbers["round_trip"] = means
    numbers["untranslated"] = distances(before, real) | UNTOUCHED
    numbers["another"] = in_halves(real) | averaged(elsewhere)
    notes = remarks(numbers, tools, source, target, found)
    if model.model.info.get("training", {}).get("features") == tools.features.name:
        notes.insert(0, f"the model was trained against the features {tools.features.name}, and scores better by them "
                        "than it is: compare by others (--features squeezenet, inception, or a FILE.onnx)")  # fmt: skip
    return numbers | found.numbers() | {"notes": notes}


UNTOUCHED = {"self_similarity": 0.0, "edges": 1.0, "structure": 1.0}
"""The structure that an untranslated picture keeps."""


def distances(fake: Vectors, real: Vectors) -> Numbers:
    return {"kid": kid(fake, real), "frechet": frechet(fake, real)}


def in_halves(real: Vectors) -> Numbers:
    """How far apart two halves of the real images are: what no translation need be better than."""
    return distances(real[::2], real[1::2]) if len(real) > 3 else {}


def compare_sets(features: Features, fake: Vectors, real: Vectors) -> Numbers:
    """KID over all images, its standard deviation over subsets, and the Frechet distance: lower is better."""
    return {
        "features": features.name,
        **distances(fake, real),
        "kid_std": kid_subsets(fake, real)[1],
        "n_fake": len(fake),
        "n_real": len(real),
    }


def remarks(numbers: Numbers, tools: Tools, source: Images, target: Images, pairs: "Paired") -> list[str]:
    """What is to be known of the numbers: what was left out, and what they cannot tell."""
    fewest, size = min(numbers["n_fake"], numbers["n_real"]), tools.features.size
    too_few = (
        f"Frechet distance: {fewest} images are fewer than the covariance of {size} features needs; it depends on the "
        "number of images then: compare by KID"
    )  # the covariance of N vectors has rank N - 1 at most
    own = [*source.notes(), *target.notes(), *([too_few] if fewest <= size else []), *pairs.notes]
    return own + tools.notes


def perceptual(lpips: Lpips | None, x: Any, y: Any) -> dict[str, float]:
    """{"lpips"}, where the weights are at hand and the images large enough for the network."""
    return {"lpips": float(lpips(x, y))} if lpips is not None and min(x.shape[-2:]) >= SqueezeNet.SMALLEST else {}


class Paired:
    """PSNR, SSIM and LPIPS of translations against the truth, image by image, and their means."""

    def __init__(self, tools: Tools, truth: Images):
        self.tools, self.truth = tools, truth
        self.images: dict[str, dict[str, float]] = {}
        self.notes: list[str] = []

    def add(self, name: str, path: Path, fake: Any) -> None:
        """The translation of what `path` shows."""
        pixels = self.truth.load(path)
        if pixels is None:
            return
        real = to_tensor(pixels)
        if fake.shape == real.shape and min(fake.shape[-2:]) >= SSIM_WINDOW:
            row = {"psnr": psnr(fake, real), "ssim": float(ssim(fake, real))}
            self.images[name] = row | perceptual(self.tools.lpips, fake, real)
            return
        (*_, h, w), (*_, real_h, real_w) = fake.shape, real.shape
        sizes = f"{path} ({real_w}x{real_h}) and its pair ({w}x{h})"
        wrong = f"{sizes} are not of one size, at least {SSIM_WINDOW} a side"
        if self.tools.paired:
            raise BadInput(f"{wrong}: bring the pairs to one size, or leave out --paired")
        self.notes = [f"{wrong}, and so not compared as pairs (nor are others like them)"]

    def numbers(self) -> Numbers:
        rows = list(self.images.values())
        return {"paired": averaged(rows) | {"images": self.images}} if rows else {}


def averaged(rows: Sequence[Numbers]) -> Numbers:
    """The mean of each measure over the images for which there is one."""
    measures = dict.fromkeys(measure for row in rows for measure in row)
    return {measure: fmean(row[measure] for row in rows if measure in row) for measure in measures}


def reference(features: Features, images: Images) -> Vectors:
    """Features of real images, and what was changed in reading these: kept in the cache, filed under what the files
    hold (not their names) and how they are loaded, and read from there the next time.
    """
    held = [features.key, images.how, *(sha256(path) if path.is_file() else "" for path in images.paths)]
    name = hashlib.sha256("\n".join(held).encode()).hexdigest()
    kept = cache_folder() / "references" / f"{name}.npz"
    with suppress(OSError, ValueError, EOFError, KeyError, BadZipFile):  # not there, or spoilt: computed (again)
        with np.load(kept, allow_pickle=False) as file:
            vectors, changed = file["vectors"], json.loads(file["changed"].item())
        if vectors.shape == (len(images.paths), features.size):
            images.changed.update(zip(images.paths, map(tuple, changed), strict=True))
            return vectors.astype(np.float64)  # type: ignore[no-any-return]
    vectors = features.of((str(path), image) for path, image in images.each())
    if not images.broken:
        with suppress(OSError), replacing(kept) as temporary:  # a cache that cannot be written is no reason to fail
            np.savez(temporary, vectors=vectors, changed=json.dumps([images.changed[path] for path in images.paths]))
    return vectors


def finite(value: Any) -> Any:
    """JSON has no infinity."""
    if isinstance(value, dict):
        return {name: finite(inner) for name, inner in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


# The table


ROWS: tuple[tuple[str, Callable[[Mapping[str, Any]], str]], ...] = (
    ("features", lambda n: n["features"]),
    ("KID, lower is better", lambda n: f"{n['kid']:.4f}"),
    ("    over subsets", lambda n: f"± {n['kid_std']:.4f}"),
    ("Frechet distance, lower", lambda n: f"{n['frechet']:.4g}"),
    ("self-similarity apart, lower", lambda n: f"{n['self_similarity']:.4f}"),
    ("edges kept, higher", lambda n: f"{n['edges']:.3f}"),
    ("structure kept, higher", lambda n: f"{n['structure']:.3f}"),
    ("diversity, 1 as the inputs", lambda n: f"{n['diversity']:.2f}"),
    ("round trip L1, lower", lambda n: f"{n['round_trip']['l1']:.4f}"),
    ("round trip LPIPS, lower", lambda n: f"{n['round_trip']['lpips']:.4f}"),
    ("pairs: PSNR in dB, higher", lambda n: f"{n['paired']['psnr']:.2f}"),
    ("pairs: SSIM, higher", lambda n: f"{n['paired']['ssim']:.4f}"),
    ("pairs: LPIPS, lower", lambda n: f"{n['paired']['lpips']:.4f}"),
    ("images, translated and real", lambda n: f"{n['n_fake']}, {n['n_real']}"),
    ("brought to size", lambda n: n["prepared"]),
)


Column = tuple[str, Numbers]
"""A heading, and the numbers below it."""
WIDEST, NARROWEST = 120, 80
"""Columns of a terminal that are used, and that are needed."""


def render(results: Numbers) -> str:
    """A table for each direction, and the notes, as text; as wide as the terminal, where there is one."""
    measured = list(headed(results))
    text, terminal = io.StringIO(), shutil.get_terminal_size((WIDEST, 0)).columns
    console = Console(file=text, width=min(max(terminal, NARROWEST), WIDEST))
    for target in dict.fromkeys(heading[-1:] for heading, _ in measured):
        mine = [(heading, numbers) for heading, numbers in measured if heading[-1:] == target]
        others = f"others of\n{target[0].removeprefix('to ')}" if target else "real,\nin halves"
        columns = [(folded("".join(heading[:-1])) or "translated", numbers) for heading, numbers in mine]
        beside = [
            (what, numbers[name])
            for name, what in (("untranslated", "untranslated"), ("another", others))
            for _, numbers in mine
            if numbers.get(name)
        ]
        # once for all models that are compared alike
        columns += [column for n, column in enumerate(beside) if column not in beside[:n]]
        while columns:
            fit = next(n for n in range(len(columns), 0, -1) if n == 1 or fits(table(target, columns[:n]), console))
            console.print(table(target, columns[:fit]), "")
            columns = columns[fit:]
    for note in dict.fromkeys(note for _, numbers in measured for note in numbers["notes"]):
        console.print(Text(f"- {note}"))
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines()).strip("\n")


def table(target: Sequence[str], columns: Sequence[Column]) -> Table:
    made = Table(box=SIMPLE, show_edge=False, pad_edge=False, collapse_padding=True)
    made.add_column("".join(target), no_wrap=True)
    for heading, _ in columns:
        made.add_column(Text(heading), justify="right", overflow="fold")
    for name, cell in ROWS:
        cells = [shown(cell, numbers) for _, numbers in columns]
        if any(cells):
            made.add_row(name, *cells)
    return made


def fits(table: Table, console: Console) -> bool:
    """Without a cell that is broken into lines?"""
    unlimited = console.options.update(width=1 << 16)
    return Measurement.get(console, unlimited, table).maximum <= console.width


def folded(name: str) -> str:
    """In lines of 18 letters at most, broken after a / if there is one."""
    return "\n".join(textwrap.wrap(name.replace("/", "/ "), 18)).replace("/ ", "/")


def headed(results: Numbers, heading: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Numbers]]:
    """The objects of numbers, however deep, with the names of model and domain that they lie under."""
    if "n_fake" in results:
        yield heading, results
        return
    for name, inner in results.items():
        yield from headed(inner, (*heading, f"to {name}" if "n_fake" in inner else name))


def shown(cell: Callable[[Numbers], str], numbers: Numbers) -> str:
    """Empty where this was not measured."""
    try:
        return cell(numbers)
    except KeyError:
        return ""

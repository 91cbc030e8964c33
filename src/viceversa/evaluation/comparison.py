"""What `evaluate` measures: translations against real images as sets and as pairs, and what they keep."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..data.pictures import to_tensor
from ..errors import BadInput
from .distances import frechet, kid, kid_subsets, spread
from .features import Features, Pixels, Vectors
from .perceptual import SMALLEST, SSIM_WINDOW, Lpips, lpips, psnr_ssim, structure
from .scores import Translate, reference_vectors, translate_pixels

Load = Callable[[Path], Pixels]
Numbers = dict[str, Any]


class Partner(NamedTuple):
    """The image of the same name in the other folder."""

    name: str
    path: Path


Pairs = dict[Path, Partner]


@dataclass(frozen=True)
class Images:
    """One folder of test images, and how they are loaded."""

    source: str
    """As the person named it."""
    paths: Sequence[Path]
    load: Load
    how: str
    """How `load` brings them to size, in words."""


@dataclass(frozen=True)
class Tools:
    """What all comparisons of one call share."""

    features: Features
    lpips: Lpips | None
    device: torch.device
    paired: bool
    """Pairs were asked for, not found out by the names: those that cannot be compared are then an error."""
    follow: Callable[[str, Sequence[Path]], Iterable[Path]]
    """Iterates over paths, and may show how far it is."""


def compare_folders(tools: Tools, fake: Images, real: Images, pairs: Pairs) -> Numbers:
    """Images translated elsewhere against real ones."""
    paths = tools.follow(f"reading {fake.source}", fake.paths)
    vectors = tools.features.of(((str(path), path) for path in paths), fake.load)
    numbers = compare_sets(tools.features, vectors, real_vectors(tools, real)) | {"prepared": fake.how}
    found = Paired(tools)
    for path, partner in pairs.items():
        found.add(partner, to_tensor(fake.load(path)), to_tensor(real.load(partner.path)))
    return numbers | found.numbers() | {"notes": [*set_notes(numbers, tools.features), *found.notes]}


def compare_translations(
    tools: Tools, there: Translate, back: Translate | None, source: Images, target: Images, pairs: Pairs
) -> Numbers:
    """One direction of a model: `there` translates `source` to the domain of `target`, `back` the way back."""
    kept: list[Numbers] = []
    found = Paired(tools)

    def translated() -> Iterator[tuple[str, Pixels]]:
        for path in tools.follow(f"translating {source.source}", source.paths):
            image = source.load(path)
            fake = translate_pixels(there, image, str(path))
            kept.append(what_is_kept(tools, to_tensor(image), to_tensor(fake), back))
            if path in pairs:
                found.add(pairs[path], to_tensor(fake), to_tensor(target.load(pairs[path].path)))
            yield str(path), fake

    vectors = tools.features.of(translated(), lambda pixels: pixels)
    numbers = compare_sets(tools.features, vectors, real_vectors(tools, target)) | {"prepared": source.how}
    means = averaged(kept)
    numbers["structure"] = means.pop("structure")
    if (of_inputs := spread(real_vectors(tools, source))) > 0:
        numbers["diversity"] = spread(vectors) / of_inputs
    if means:
        numbers["round_trip"] = means
    return numbers | found.numbers() | {"notes": [*set_notes(numbers, tools.features), *found.notes]}


def compare_sets(features: Features, fake: Vectors, real: Vectors) -> Numbers:
    """KID over all images, its standard deviation over subsets, and the Frechet distance: lower is better."""
    return {
        "features": features.name,
        "kid": kid(fake, real),
        "kid_std": kid_subsets(fake, real)[1],
        "frechet": frechet(fake, real),
        "n_fake": len(fake),
        "n_real": len(real),
    }


def set_notes(numbers: Numbers, features: Features) -> list[str]:
    """The covariance of N vectors has rank N - 1 at most."""
    fewest = min(numbers["n_fake"], numbers["n_real"])
    if fewest > features.size:
        return []
    return [
        f"Frechet distance: {fewest} images are fewer than the covariance of {features.size} features needs; it "
        "depends on the number of images then: compare by KID"
    ]


def what_is_kept(tools: Tools, x: Tensor, y: Tensor, back: Translate | None) -> dict[str, float]:
    """Of one image `x` and its translation `y`: structure, and the round trip (L1 in units of 0 to 1, LPIPS)."""
    found = {"structure": float(structure(x, y))}
    if back is not None:
        again = back(y)
        found["l1"] = float((again - x).abs().mean() / 2)
        found |= perceptual_distance(tools, again, x)
    return found


def perceptual_distance(tools: Tools, x: Tensor, y: Tensor) -> dict[str, float]:
    """{"lpips"}, where the weights are at hand and the images large enough for the network."""
    if tools.lpips is None or min(x.shape[-2:]) < SMALLEST:
        return {}
    return {"lpips": float(lpips(tools.lpips, x, y))}


class Paired:
    """PSNR, SSIM and LPIPS of translations against the truth, image by image, and their means."""

    def __init__(self, tools: Tools):
        self.tools = tools
        self.images: dict[str, dict[str, float]] = {}
        self.notes: list[str] = []

    def add(self, partner: Partner, fake: Tensor, real: Tensor) -> None:
        if fake.shape == real.shape and min(fake.shape[-2:]) >= SSIM_WINDOW:
            psnr, ssim = psnr_ssim(fake, real)
            self.images[partner.name] = {"psnr": psnr, "ssim": ssim, **perceptual_distance(self.tools, fake, real)}
            return
        (*_, h, w), (*_, real_h, real_w) = fake.shape, real.shape
        sizes = f"{partner.path} ({real_w}x{real_h}) and its pair ({w}x{h})"
        wrong = f"{sizes} are not of one size, at least {SSIM_WINDOW} a side"
        if self.tools.paired:
            raise BadInput(f"{wrong}: bring the pairs to one size, or leave out --paired")
        self.notes = [f"{wrong}, and so not compared as pairs (nor are others like them)"]

    def numbers(self) -> Numbers:
        if not self.images:
            return {}
        return {"paired": averaged(list(self.images.values())) | {"images": self.images}}


def averaged(rows: Sequence[Numbers]) -> Numbers:
    """The mean of each measure over the images for which there is one."""
    measures = dict.fromkeys(measure for row in rows for measure in row)
    return {measure: fmean(row[measure] for row in rows if measure in row) for measure in measures}


def real_vectors(tools: Tools, images: Images) -> Vectors:
    return reference_vectors(tools.features, images.paths, images.load, images.how, tools.device)


def find_pairs(a: Images, b: Images, asked: bool) -> Pairs:
    """Images of the same name, endings aside. Without being `asked`, only where all names are the same (and
    torchmetrics is there to measure with). Raises BadInput where pairs are asked for and there are none.
    """
    names_a, names_b = (names(images.paths) for images in (a, b))
    partners = dict(zip(names_b, b.paths, strict=True))
    pairs = {
        path: Partner(name, partners[name]) for name, path in zip(names_a, a.paths, strict=True) if name in partners
    }
    if asked and not pairs:
        raise BadInput(
            f"--paired: no image of {a.source} has the name of one of {b.source} (they begin with {names_a[0]!r} "
            f"and {names_b[0]!r}): name the pairs alike"
        )
    if asked and not has_torchmetrics():
        raise BadInput("--paired: PSNR and SSIM need torchmetrics: pip install 'viceversa[evaluate]'")
    return pairs if asked or (set(names_a) == set(names_b) and has_torchmetrics()) else {}


def names(paths: Sequence[Path]) -> list[str]:
    """Each image's path below the folder that holds them all, without its ending."""
    root = os.path.commonpath([path.parent for path in paths])
    return [path.relative_to(root).with_suffix("").as_posix() for path in paths]


def has_torchmetrics() -> bool:
    return find_spec("torchmetrics") is not None

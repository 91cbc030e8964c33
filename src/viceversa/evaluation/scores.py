"""Scores of two generators on test images: one path for `--score` while training and for `viceversa evaluate`.

Both bring the test images to the same pixels (`data.load_test`), translate them with the same prepared
networks, round to 8 bit as a written file would, and compare with the same rulers; so both give one number.
"""

import hashlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..data.fetch import cache_folder, sha256
from ..data.pictures import read, to_pixels, to_tensor
from ..data.store import load_test
from ..errors import BadInput
from ..files import replacing
from ..translation.inference import prepared
from .distances import frechet, kid
from .features import Features, Pixels, Vectors, full_precision, load_features

Kind = Literal["kid", "frechet"]
DISTANCES: dict[Kind, Callable[[Vectors, Vectors], float]] = {"kid": kid, "frechet": frechet}


@dataclass(frozen=True)
class Preparation:
    """How test images are brought to size: as in training, from a model file's `info["image"]`."""

    size: int
    crop: int
    resize: Literal["square", "short", "none"]

    def __str__(self) -> str:
        return f"{self.resize} {self.crop}"


CUT = Preparation(size=256, crop=256, resize="square")
"""Of the published horse to zebra protocol (CUT): all test images at 256 x 256, no flip."""


def load_image(path: Path, preparation: Preparation | None = None, channels: Literal[1, 3] = 3) -> Pixels:
    """One test image, (H, W, C) uint8: at its own size without a preparation. Raises BadImage."""
    if preparation is None:
        return eight_bit(read(path, channels).pixels)
    p = preparation
    (image,) = load_test([path], channels=channels, size=p.size, resize=p.resize, crop=p.crop, count=1)
    return eight_bit(image)


def eight_bit(pixels: np.ndarray) -> Pixels:
    return pixels if pixels.dtype == np.uint8 else to_pixels(to_tensor(pixels))[0]


Translate = Callable[[Tensor], Tensor]
"""(1, C, H, W) in [-1, 1], any H and W -> (1, C', H, W) in [-1, 1], float32 on the CPU."""


def translation(network: nn.Module, device: torch.device, dtype: torch.dtype) -> Translate:
    """A copy of a generator made ready (as for `viceversa translate`): the original is left alone."""
    spec: Any = network.spec
    network = prepared(network, device, dtype)

    @torch.inference_mode()
    def translate(x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        x = padded(x, spec.multiple, spec.smallest)
        with full_precision(device):
            y = network(x.to(device, dtype, memory_format=torch.channels_last))
        return y[..., :height, :width].float().cpu()  # type: ignore[no-any-return]

    return translate


def translate_pixels(translate: Translate, image: Pixels, name: str) -> Pixels:
    """(H, W, C) uint8 -> the same size, as a written file would hold it. BadInput names an image that fails."""
    y = translate(to_tensor(image))
    if not torch.isfinite(y).all():
        raise BadInput(f"{name}: the model makes no finite numbers of it; the model is broken")
    pixels: Pixels = to_pixels(y)[0]
    return pixels


def padded(x: Tensor, multiple: int, smallest: int) -> Tensor:
    """Grow to the right and below to what a network takes: mirrored, or repeated where too small to mirror."""
    height, width = x.shape[-2:]
    down, right = (-(-max(side, smallest) // multiple) * multiple - side for side in (height, width))
    return F.pad(x, (0, right, 0, down), "reflect" if down < height and right < width else "replicate")


class Scorer:
    """Scores generators on the same test images again and again; the real images are looked at once.

    Draws no random numbers, and works on copies of the networks: training goes on as if it had not been.
    """

    def __init__(
        self, images_a: Sequence[np.ndarray], images_b: Sequence[np.ndarray], features: str, kind: Kind,
        device: torch.device, dtype: torch.dtype,
    ):  # fmt: skip
        """Images are (H, W, C), as `data.load_test` gives them. Raises BadInput for fewer than two of a domain."""
        if min(len(images_a), len(images_b)) < 2:
            raise BadInput(
                f"--score {kind} compares sets: it needs at least two test images of each domain, not "
                f"{len(images_a)} and {len(images_b)}"
            )
        self.kind: Kind = kind
        self.features: Features = load_features(features, device=device)
        self.device, self.dtype = device, dtype
        self.images = {"a": [eight_bit(i) for i in images_a], "b": [eight_bit(i) for i in images_b]}
        self.real = {domain: self.features(images) for domain, images in self.images.items()}

    def score(self, ab: nn.Module, ba: nn.Module) -> dict[str, Any]:
        """{"kind", "features", "a", "b", "mean"}: "a" compares ba's translations with the real images of a.

        Lower is better.
        """
        a = self.distance(ba, "b", "a")
        b = self.distance(ab, "a", "b")
        return {"kind": self.kind, "features": self.features.name, "a": a, "b": b, "mean": (a + b) / 2}

    def distance(self, network: nn.Module, source: str, target: str) -> float:
        translate = translation(network, self.device, self.dtype)
        images = enumerate(self.images[source])
        fakes = (translate_pixels(translate, image, f"test image {n} of {source}") for n, image in images)
        return DISTANCES[self.kind](self.features(fakes), self.real[target])


def reference_vectors(
    features: Features, paths: Sequence[Path], load: Callable[[Path], Pixels], how: str, device: torch.device
) -> Vectors:
    """Features of real images: kept in the cache, filed under what the files hold (not their names) and `how`
    they are loaded, and read from there the next time.
    """
    held = [features.key, how, device.type, *(sha256(path) for path in paths)]
    name = hashlib.sha256("\n".join(held).encode()).hexdigest()
    kept = cache_folder() / "references" / f"{name}.npy"
    with suppress(OSError, ValueError, EOFError):  # not there, or spoilt: computed (again)
        vectors = np.load(kept, allow_pickle=False)
        if vectors.shape == (len(paths), features.size):
            return vectors.astype(np.float64)  # type: ignore[no-any-return]
    vectors = features.of([(str(path), path) for path in paths], load)
    with suppress(OSError), replacing(kept) as temporary:  # a cache that cannot be written is no reason to fail
        np.save(temporary, vectors)
    return vectors

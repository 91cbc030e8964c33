"""`load` a model and translate with it: paths, PIL images, arrays and tensors, at their own size."""

import difflib
import re
import threading
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn
from torch.nn import functional as F

from ..data import pictures as images
from ..data import profiles
from ..data.sixteen import to_8_bit
from ..device import choose_device, choose_dtype, free, use_available_cores
from ..errors import BadInput
from ..model.file import Model, load_model, save_model
from ..model.hub import resolve
from ..model.networks import Generator
from . import tiles
from .detail import resize, with_detail
from .inference import prepared

FREE_SHARE = 0.75
"""The part of the free memory that the network may take where nothing else was said."""


class Direction(Protocol):
    """A translator to one domain. See `Translator.__call__`."""

    def __call__(self, image: Any, *, size: int | None = None) -> Any: ...


def load(model: Any, *, device: str = "auto", precision: str = "auto", memory: str | int | None = None) -> "Translator":
    """The translator of a model: a file, a run folder, hf://owner/name, what `train` returned, or a `Model`.

    `memory`, such as "4GB", is what the network may take; larger images go by tiles. Raises BadInput.
    """
    if not isinstance(model, Model):
        model = load_model(resolve(getattr(model, "folder", model)))
    return Translator(model, device=device, precision=precision, memory=memory)


class Translator:
    """Translates images between the two domains of a model. May be called by several threads at once."""

    def __init__(self, model: Model, *, device: str = "auto", precision: str = "auto", memory: str | int | None = None):
        self.model = model
        self.device = choose_device(device)
        self.dtype = choose_dtype(precision, self.device)
        self.precise = torch.float32 if precision == "auto" else self.dtype
        """For images of 16 bit: of their values bf16 would leave 8."""
        self.memory = bytes_of(memory) if isinstance(memory, str) else memory
        self.networks: dict[tuple[str, torch.dtype], nn.Module] = {}
        self.lock = threading.Lock()
        if self.device.type == "cpu":
            use_available_cores()

    @property
    def domains(self) -> tuple[str, str]:
        return self.model.domains

    def to(self, domain: str) -> Direction:
        """The same, with the domain chosen. Raises BadInput for one that the model does not translate to."""
        self.direction(domain)
        return partial(self, to=domain)

    def save(self, path: str | Path) -> None:
        """Write the model file."""
        save_model(Path(path), self.model)

    def __call__(self, image: Any, to: str | None = None, *, size: int | None = None) -> Any:
        """Translate `image` to the domain `to`, which may be left out where the model has one direction only.

        A path or a PIL image gives a PIL image, with its transparency; a uint8 or uint16 array (H, W, C) or
        (N, H, W, C) such an array; a float tensor (B, C, H, W) in [-1, 1] such a tensor, on its device.
        Images are translated at their own size; or, with `size`, with the short side at that, and brought back
        to their own size with their own detail (see `detail.with_detail`). Raises BadInput.
        """
        direction = self.direction(to)
        if size is not None and size < 1:
            raise BadInput(f"--size {size}: give the short side in pixels, such as 256")
        match image:
            case str() | Path():
                picture = images.read(Path(image), self.channels(direction))
                return to_pil(self.array(picture.pixels, direction, size), picture.alpha)
            case Image.Image():
                pixels, alpha = from_pil(image, self.channels(direction))
                return to_pil(self.array(pixels, direction, size), alpha)
            case np.ndarray():
                return self.array(image, direction, size)
            case Tensor():
                return self.tensor(image, direction, size)
        raise BadInput(f"cannot translate a {type(image).__name__}: give a path, a PIL image, an array or a tensor")

    def array(self, pixels: np.ndarray, direction: str, size: int | None) -> np.ndarray:
        """(H, W, C) or (N, H, W, C), uint8 or uint16 -> the same, of the other domain."""
        if pixels.dtype not in (np.uint8, np.uint16) or pixels.ndim not in (3, 4) or not pixels.size:
            shape = "x".join(map(str, pixels.shape))
            raise BadInput(
                f"cannot translate an array {shape} of {pixels.dtype}: give uint8 (or uint16) as (H, W, C) or "
                "(N, H, W, C)"
            )
        self.check_channels(pixels.shape[-1], direction)
        dtype = self.precise if pixels.dtype == np.uint16 else self.dtype
        # With a `size`, the photo's detail is wanted in full; else nothing larger than need be is held.
        batch = images.to_tensor(pixels).to(self.device, dtype if size is None else torch.float32)
        translated = self.run(batch, direction, dtype, size)
        out = images.to_pixels(translated, pixels.dtype)
        return out if pixels.ndim == 4 else out[0]

    def tensor(self, batch: Tensor, direction: str, size: int | None) -> Tensor:
        """(B, C, H, W) in [-1, 1] -> the same, of the other domain."""
        if not batch.is_floating_point() or batch.ndim != 4 or not batch.numel():
            shape = "x".join(map(str, batch.shape))
            raise BadInput(f"cannot translate a tensor {shape} of {batch.dtype}: give floats (B, C, H, W) in [-1, 1]")
        self.check_channels(batch.shape[1], direction)
        return self.run(batch.to(self.device), direction, self.dtype, size).to(batch.device, batch.dtype)

    @torch.no_grad()
    def run(self, batch: Tensor, direction: str, dtype: torch.dtype, size: int | None) -> Tensor:
        """(B, C, H, W) -> (B, C', H, W), by way of a smaller (or larger) image where `size` says so."""
        height, width = batch.shape[2:]
        if size is None:
            return self.fitted(batch, direction, dtype)
        factor = size / min(height, width)
        small = resize(batch.float(), (max(1, round(height * factor)), max(1, round(width * factor))))
        translated = self.fitted(small, direction, dtype)
        if factor >= 1:
            return resize(translated.float(), (height, width))
        return with_detail(batch.float(), small, translated.float())

    def fitted(self, batch: Tensor, direction: str, dtype: torch.dtype) -> Tensor:
        """(B, C, H, W) -> (B, C', H, W): padded to what the network takes, whole or by tiles, cut back."""
        height, width = batch.shape[2:]
        network = self.network(direction, dtype)
        padded = pad(batch, network.spec).to(dtype, memory_format=torch.channels_last)
        rows, columns = padded.shape[2:]
        plan = tiles.choose(network, rows, columns, dtype, self.device, self.budget)
        translate = network if plan is None else partial(tiles.translate, network.model, plan=plan)
        # By tiles, and on a CPU, a batch is no quicker than its images one by one.
        single = plan is not None or self.device.type == "cpu"
        together = 1 if single else self.at_once(direction, rows * columns)
        return torch.cat([translate(images) for images in padded.split(together)])[:, :, :height, :width]

    @property
    def budget(self) -> float:
        """Bytes that the network may take now."""
        return self.memory or FREE_SHARE * free(self.device)

    def at_once(self, direction: str, pixels: int) -> int:
        """How many images of so many pixels fit into the memory together; at least 1."""
        one = tiles.whole_bytes(self.spec(direction), 1, pixels, self.dtype, self.device)
        return max(1, int(self.budget // one))

    def network(self, direction: str, dtype: torch.dtype) -> Any:
        """The generator of a direction, ready for use; made when it is first asked for."""
        with self.lock:
            if (direction, dtype) not in self.networks:
                generator = self.model.generators[direction]
                self.networks[direction, dtype] = prepared(generator, self.device, dtype)
            return self.networks[direction, dtype]

    def direction(self, to: str | None) -> str:
        """ "ab" or "ba". Raises BadInput that names the domains which the model translates to."""
        targets = {
            domain: d for d, domain in zip(("ba", "ab"), self.domains, strict=True) if d in self.model.generators
        }
        if to in targets:
            return targets[to]
        if to is None and len(targets) == 1:
            return next(iter(targets.values()))
        names = " or ".join(f"--to {name}" for name in targets)
        if to is None:
            raise BadInput(f"which way? This model translates to either domain: {names}")
        near = difflib.get_close_matches(to, targets, 1)
        hint = f"did you mean {near[0]}?" if near else f"this model takes {names}"
        raise BadInput(f"--to {to}: {hint} (its domains are {self.domains[0]} and {self.domains[1]})")

    def spec(self, direction: str) -> Generator:
        return self.model.generators[direction].spec  # type: ignore[return-value]

    def channels(self, direction: str) -> Any:
        """1 or 3: what the network takes, and what pictures are converted to."""
        return self.spec(direction).channels_in

    def check_channels(self, given: int, direction: str) -> None:
        """Arrays and tensors are taken as they are; pictures are converted."""
        wanted = self.channels(direction)
        if given != wanted:
            raise BadInput(f"this model takes {wanted} channel{'s' * (wanted != 1)}, not {given}")


def pad(batch: Tensor, spec: Generator) -> Tensor:
    """Extend (B, C, H, W) at the bottom and the right to what the network takes: by reflection, and images
    smaller than its own reflection pads by repetition first."""
    height, width = batch.shape[2:]
    if height < spec.smallest or width < spec.smallest:
        batch = F.pad(batch, (0, max(0, spec.smallest - width), 0, max(0, spec.smallest - height)), "replicate")
    right, bottom = -batch.shape[3] % spec.multiple, -batch.shape[2] % spec.multiple
    return F.pad(batch, (0, right, 0, bottom), "reflect") if right or bottom else batch


def from_pil(image: Image.Image, channels: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Pixels (H, W, channels), upright and in sRGB, and alpha (H, W) where there is any."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16)[..., None].repeat(channels, 2), None
    if image.mode in ("I", "F"):
        raise BadInput(f"cannot translate a PIL image of mode {image.mode} (32 bits a channel): convert it to RGB")
    alpha = np.asarray(image.convert("RGBA").getchannel("A")) if image.has_transparency_data else None
    profile = image.info.get("icc_profile")
    image = image if image.mode == "CMYK" else image.convert("RGB" if channels == 3 else "L")
    pixels = np.asarray(profiles.to_srgb(image, profile)[0].convert("RGB" if channels == 3 else "L"))
    return pixels.reshape(*pixels.shape[:2], channels), alpha


def to_pil(pixels: np.ndarray, alpha: np.ndarray | None) -> Image.Image:
    """(H, W, 1 or 3) and alpha (H, W), if any, as an image of 8 bit: Pillow has no colour of 16."""
    image = Image.fromarray(to_8_bit(pixels).squeeze(2) if pixels.shape[2] == 1 else to_8_bit(pixels))
    if alpha is not None:
        image.putalpha(Image.fromarray(to_8_bit(alpha)))
    return image


def bytes_of(text: str) -> int:
    """ "4GB" -> 4,000,000,000; KiB, MiB, GiB and TiB are of 1024. Raises BadInput."""
    units = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
    units |= {f"{letter}I": 2 ** (10 * power) for power, letter in enumerate("KMGT", 1)}
    parts = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?I?)B?\s*", text.upper())
    if parts is None or parts[2] not in units or float(parts[1]) == 0:
        raise BadInput(f"--memory {text}: give an amount such as 4GB or 500MB")
    return int(float(parts[1]) * units[parts[2]])

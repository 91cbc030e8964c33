"""`load` a model and translate with it: paths, PIL images, arrays and tensors, at their own size."""

import copy
import math
import os
import re
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Protocol, get_type_hints

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn

from ..config import LARGEST_SIZE, Translate, checked
from ..data import pictures
from ..device import choose_device, choose_dtype, free, is_out_of_memory, on_available_cores
from ..errors import BadInput, Failed
from ..model.file import Model, load_model, resolve, save_model
from ..model.frozen import Seeing, shared
from ..model.networks import Generator, InstanceNorm
from . import tiles
from .afar import from_afar, levels_from_afar
from .detail import resize, with_detail
from .norms import RunningNorm, pad, prepared
from .steady import LENGTH, Steady

CUT = 0.45
"""Change of what is seen that is a cut: measured, a pan by an eighth of the picture makes 0.2 to 0.3, noise and a
darkening by a third 0.03, other photographs 0.8."""
OVERSHOOT = 1.5
"""The largest value of a tensor that may be taken for one in [-1, 1]: other networks, and resizing, go beyond 1."""
FREE_SHARE = 0.75
"""The part of the free memory that the network may take where nothing else was said."""
ASKED = get_type_hints(Translate, include_extras=True)
"""What may be asked for, as by the command."""
ROUNDED = "16 bits, rounded to the 8 of a PIL image: give an array to keep them"
OUT_OF_MEMORY = "out of memory: close what else uses it, or use --size, or a smaller one"


@contextmanager
def telling_of_memory() -> Iterator[None]:
    """Out of memory beside the network, where pictures are held in full, becomes Failed."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise Failed(OUT_OF_MEMORY) from None


class Direction(Protocol):
    """A translator to one domain. See `Translator.__call__`."""

    def __call__(self, image: Any, *, size: int | None = None, strength: float = 1.0) -> Any: ...


def load(
    model: Any, *, epoch: int | None = None, device: str = "auto", precision: str = "auto",
    memory: str | int | None = None,
) -> "Translator":  # fmt: skip
    """The translator of a model: a file, a run folder, hf://owner/name, what `train` returned, or a `Model`.

    `epoch`: of a run, instead of its best or last. `precision`: auto is bf16 where the chip has it (for tensors, too,
    of whose values that leaves 8 bits: say fp32), fp32 elsewhere and for images of 16 bit. `memory`, such as "4GB", is
    what the network may take; larger images go by tiles. Raises BadInput.
    """
    if not isinstance(model, Model):
        model = load_model(resolve(getattr(model, "folder", model), epoch))
    return Translator(model, device=device, precision=precision, memory=memory)


class Network:
    """A copy of a generator, ready for use: takes images of any size, whole or by tiles."""

    def __init__(self, generator: nn.Module, device: torch.device, dtype: torch.dtype, memory: float | None = None):
        """`memory`: bytes that it may take; None: a part of what is free at the time."""
        blind = generator.generator if isinstance(generator, Seeing) else generator  # this one sees by itself
        self.network: Any = prepared(blind, device, dtype)
        self.spec: Generator = self.network.spec  # type: ignore[assignment]
        self.device, self.dtype, self.memory = device, dtype, memory
        # A pyramid's own arithmetic is in float32, for the detail that it carries over.
        self.takes = torch.float32 if self.spec.kind == "pyramid" else dtype

    @torch.no_grad()
    def __call__(self, batch: Tensor, seen: Tensor | None = None) -> Tensor:
        """(B, C, H, W) in [-1, 1] -> (B, C', H, W), on the device. Raises BadInput for what is too large.

        `seen`: what a generator that sees is told, `see(batch)` if nothing else is given. Where the device's memory
        does not suffice against all reckoning, it is tried once more with half of it, which may mean by tiles.
        """
        batch = batch.to(self.device)
        for share in (1.0, 0.5):
            try:
                return self.within(share * self.budget, batch, seen)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            # Out here nothing holds what the attempt had got.
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
        raise BadInput(f"out of memory at an image of {batch.shape[3]}x{batch.shape[2]}: close what else uses "
                       f"{self.device}, say how much there is by --memory, or use --size")  # fmt: skip

    def within(self, budget: float, batch: Tensor, seen: Tensor | None) -> Tensor:
        """The same, in so many bytes."""
        height, width = batch.shape[2:]
        if self.spec.sees and seen is None:
            seen = self.see(batch)
        padded = pad(batch, self.spec).to(self.takes, memory_format=torch.channels_last)
        rows, columns = padded.shape[2:]
        plan = tiles.choose(self.network, rows, columns, self.dtype, self.device, budget)
        translate = self.network if plan is None else partial(tiles.translate, self.network, plan=plan)
        # By tiles, and on a CPU, a batch is no quicker than its images one by one.
        single = plan is not None or self.device.type == "cpu"
        together = 1 if single else self.at_once(rows * columns, budget)
        groups = [group.split(together) for group in (padded, seen) if group is not None]
        return torch.cat([translate(*part) for part in zip(*groups, strict=True)])[:, :, :height, :width]

    def see(self, batch: Tensor) -> Tensor:
        """What the frozen network sees in whole pictures, (B, C, H, W) -> (B, SEEN, h, w)."""
        return shared(self.device).see(batch.float())[0]

    @property
    def budget(self) -> float:
        """Bytes that it may take now."""
        return self.memory or FREE_SHARE * free(self.device)

    def at_once(self, pixels: int, budget: float | None = None) -> int:
        """How many images of so many pixels fit into the memory together; at least 1."""
        one = tiles.whole_bytes(self.spec, 1, pixels, self.dtype, self.device)
        return max(1, int((budget or self.budget) // one))


class FilmNetwork(Network):
    """A network that sees, for the frames of one film, in turn and one at a time: what it sees, and the statistics
    of its norms, are running means over the frames, which flicker less. A cut, or another size, begins anew."""

    def __init__(self, network: Network):
        vars(self).update(vars(network))
        norms = [layer for layer in network.network.modules() if isinstance(layer, InstanceNorm)]
        self.norms = [RunningNorm(norm) for norm in norms]
        # The weights are the same; only the norms are its own.
        same: dict[int, Any] = {id(x): x for x in chain(network.network.parameters(), network.network.buffers())}
        same |= {id(norm): running for norm, running in zip(norms, self.norms, strict=True)}
        self.network = copy.deepcopy(network.network, same)
        self.seen: Tensor | None = None
        self.count = torch.zeros((), device=self.device)

    def __call__(self, batch: Tensor, seen: Tensor | None = None) -> Tensor:
        now = self.see(batch.to(self.device)) if seen is None else seen
        before = now if self.seen is None or self.seen.shape != now.shape else self.seen
        same = before is not now
        change = (now - before).square().mean() / (now.square().mean() + before.square().mean())
        past = self.count.clamp(max=LENGTH - 1) * (change < CUT) * same
        weight = 1 / (past + 1)
        self.count, self.seen = past + 1, before + (now - before) * weight
        for norm in self.norms:
            norm.weight_of_new = weight
        return super().__call__(batch, self.seen)


class Translator:
    """Translates images between the two domains of a model. May be called by several threads at once.

    Can be pickled and copied deeply, as programs with several processes do; the networks are made ready again there.
    """

    def __init__(self, model: Model, *, device: str = "auto", precision: str = "auto", memory: str | int | None = None):
        self.model = model
        self.device = choose_device(device)
        self.dtype = choose_dtype(precision, self.device)
        """By trained models, bf16 is 0.1 to 0.5 of 255 from float32 on average and 11 at most, without bands: over a
        smooth sky as many levels, and 0.04 (pyramid) to 0.37 (residual) of a level of grain."""
        self.precise = torch.float32 if precision == "auto" else self.dtype
        """For images of 16 bit: of their values bf16 would leave 8."""
        self.memory = bytes_of(memory) if isinstance(memory, str) else memory
        self.networks: dict[tuple[str, torch.dtype], Network] = {}
        self.lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("networks", "lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, networks={}, lock=threading.Lock())

    def __repr__(self) -> str:
        """<Translator day <-> night, pyramid, on cpu>"""
        arrow = {"ab": "->", "ba": "<-"}.get("".join(self.model.generators), "<->")
        kinds = " and ".join(dict.fromkeys(self.model.spec(direction).kind for direction in self.model.generators))
        return f"<Translator {self.domains[0]} {arrow} {self.domains[1]}, {kinds}, on {self.device}>"

    @property
    def domains(self) -> tuple[str, str]:
        return self.model.domains

    def to(self, domain: str) -> Direction:
        """The same, with the domain chosen. Raises BadInput for one that the model does not translate to."""
        self.model.direction(domain)
        return partial(self, to=domain)

    def save(self, path: str | Path) -> None:
        """Write the model file."""
        save_model(Path(path), self.model)

    @telling_of_memory()
    def __call__(self, image: Any, to: str | None = None, *, size: int | None = None, strength: float = 1.0) -> Any:
        """Translate `image` to the domain `to`, which may be left out where the model has one direction only.

        A path or a PIL image gives a PIL image, with its transparency (of what was changed or left out in reading, one
        warning tells); a uint8 or uint16 array (H, W, C) or (N, H, W, C), or (H, W) of gray, such an array; a float
        tensor (B, C, H, W) in [-1, 1] such a tensor, on its device.
        Images are translated at their own size, photos much larger than a pyramid or a generator that sees was trained
        on by way of their halves (`How.near`); or, with `size`, with the short side at that, and brought back to their
        own size with their own detail (see `detail.with_detail`). `strength`: how much of the way, from 0, the image
        as it is, to 1, linearly in its levels. Raises BadInput; and Failed where memory runs out beside the network.
        """
        direction = self.model.direction(to)
        how = self.how(direction, size, strength)
        match image:
            case str() | Path():
                if os.path.isdir(image):
                    raise BadInput(f"{image}: a folder, and one image is translated at a time: give each, or use "
                                   f"`viceversa translate MODEL {image}`")  # fmt: skip
                picture = pictures.read(Path(image), self.channels(direction))
                warn(str(image), picture.pixels, picture.notes)
                return pictures.to_pil(self.array(picture.pixels, direction, how), picture.alpha)
            case Image.Image():
                pixels, alpha = from_pil(image, self.channels(direction))
                warn(f"PIL image of mode {image.mode}", pixels)
                return pictures.to_pil(self.array(pixels, direction, how), alpha)
            case np.ndarray():
                return self.array(image, direction, how)
            case Tensor():
                return self.tensor(image, direction, how)
        raise BadInput(f"cannot translate a {type(image).__name__}: give a path, a PIL image, an array or a tensor")

    def frames(
        self, to: str | None = None, *, size: int | None = None, strength: float = 1.0, steady: bool = True
    ) -> Callable[[np.ndarray], np.ndarray]:
        """A function for the frames of one film in turn, (H, W, 3) uint8 -> (H, W, C'); `steady`: less flicker."""
        direction = self.model.direction(to)
        channels = self.channels(direction)
        average = Steady() if steady else None
        how = self.how(direction, size, strength)
        network = self.network(direction, self.dtype)
        if steady and network.spec.sees:
            network = FilmNetwork(network)

        @telling_of_memory()
        @torch.inference_mode()
        def translate(frame: np.ndarray) -> np.ndarray:
            frame = pictures.to_channels(frame, channels)
            if average is None:
                return self(frame, to, size=size, strength=strength)  # type: ignore[no-any-return]
            calm, still = average.before(pictures.to_tensor(frame).to(self.device).contiguous())
            made = average.after(how(calm, network).float(), still)
            return np.asarray(pictures.to_pixels(made)[0])

        return translate

    def array(self, pixels: np.ndarray, direction: str, how: "How") -> np.ndarray:
        """(H, W, C) or (N, H, W, C), uint8 or uint16 -> the same, of the other domain; (H, W) is gray."""
        pixels = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
        if pixels.dtype not in (np.uint8, np.uint16) or pixels.ndim not in (2, 3, 4) or not pixels.size:
            shape = "x".join(map(str, pixels.shape))
            raise BadInput(
                f"cannot translate an array {shape} of {pixels.dtype}: give uint8 (or uint16) as (H, W, C) or "
                "(N, H, W, C), or gray as (H, W)"
            )
        if pixels.ndim == 2:
            made = self.array(pixels[..., None], direction, how)
            return made[..., 0] if made.shape[2] == 1 else made
        self.check_channels(pixels.shape[-1], direction)
        network = self.network(direction, self.precise if pixels.dtype == np.uint16 else self.dtype)
        # Where more than the network is to see the photo it is wanted in full; else nothing larger is held.
        plain = not how.keep_lightness and how.size is None and how.strength == 1
        times = how.times_halved(*pixels.shape[-3:-1])
        if plain and times and self.device.type == "cpu":
            with torch.no_grad(), on_available_cores():
                out = levels_from_afar(pixels.reshape(-1, *pixels.shape[-3:]), network, times)
                return out if pixels.ndim == 4 else out[0]
        batch = pictures.to_tensor(pixels).to(self.device, network.takes if plain else torch.float32)
        out = pictures.to_pixels(how(batch, network), pixels.dtype)
        return out if pixels.ndim == 4 else out[0]

    def tensor(self, batch: Tensor, direction: str, how: "How", dtype: torch.dtype | None = None) -> Tensor:
        """(B, C, H, W) in [-1, 1] -> the same, of the other domain. `dtype`: which the network computes in."""
        if not batch.is_floating_point() or batch.ndim != 4 or not batch.numel():
            shape = "x".join(map(str, batch.shape))
            raise BadInput(f"cannot translate a tensor {shape} of {batch.dtype}: give floats (B, C, H, W) in [-1, 1]")
        self.check_channels(batch.shape[1], direction)
        largest = float(batch.detach().abs().max())
        if math.isnan(largest):
            raise BadInput("cannot translate a tensor that holds NaN: put numbers in [-1, 1] in its place")
        if largest > OVERSHOOT:
            raise BadInput(f"cannot translate a tensor with values up to {largest:.4g}: bring them to [-1, 1], as by "
                           "x / 127.5 - 1 from 0 to 255")  # fmt: skip
        network = self.network(direction, dtype or self.dtype)
        return how(batch.to(self.device), network).to(batch.device, batch.dtype)

    def how(self, direction: str, size: int | None, strength: float) -> "How":
        """What the model file says of this direction, and what is asked for."""
        spec, trained = self.model.spec(direction), self.model.info.get("image", {})
        whole = (spec.kind == "pyramid" or spec.sees) and trained.get("resize") in ("short", "square")
        near = trained.get("size") if whole else None
        return How(self.model.keeps_lightness(direction), size, strength, near)

    def network(self, direction: str, dtype: torch.dtype) -> Network:
        """The generator of a direction, ready for use; made when it is first asked for."""
        with self.lock:
            if (direction, dtype) not in self.networks:
                generator = self.model.generators[direction]
                self.networks[direction, dtype] = Network(generator, self.device, dtype, self.memory)
            return self.networks[direction, dtype]

    def channels(self, direction: str) -> Any:
        """1 or 3: what the network takes, and what pictures are converted to."""
        return self.model.spec(direction).channels_in

    def check_channels(self, given: int, direction: str) -> None:
        """Arrays and tensors are taken as they are; pictures are converted."""
        wanted = self.channels(direction)
        if given != wanted:
            how = {(1, 3): "; repeat it three times, or", (4, 3): "; leave alpha out, or"}.get((given, wanted), ";")
            raise BadInput(
                f"this model takes {wanted} channel{'s' * (wanted != 1)}, not {given}{how} give a PIL image or a file, "
                "which are converted"
            )


@dataclass(frozen=True)
class How:
    """What is done around the network."""

    keep_lightness: bool = False
    """Does it colour gray pictures, and was it taught to leave lightness as it is?"""
    size: int | None = None
    strength: float = 1.0
    near: int | None = None
    """The short side of the photos that a pyramid, or any generator that sees, was trained on. One of twice that or
    more it is shown from farther away (`afar`)."""

    def __post_init__(self) -> None:
        for name in ("size", "strength"):
            checked(name, getattr(self, name), ASKED[name])

    @property
    def halved_from(self) -> int | None:
        """The short side from which on photos are halved, which whoever runs the network by itself has to know."""
        return 2 * self.near if self.near else None

    def times_halved(self, *sides: int) -> int:
        """How often, until the short side is less than twice `near`."""
        return int(math.log2(max(1, min(sides) / self.near))) if self.near else 0

    @torch.no_grad()
    def __call__(self, batch: Tensor, network: Network) -> Tensor:
        """(B, C, H, W) -> (B, C', H, W)."""
        with on_available_cores():
            made = self.sized(batch, network)
            if self.strength < 1:
                own = batch.float().expand_as(made) if made.shape[1] == 3 else pictures.luminance(batch.float())
                made = own.lerp(made.float(), self.strength)
            return with_lightness(made.float(), batch.float()) if self.keep_lightness else made

    def sized(self, batch: Tensor, network: Network) -> Tensor:
        """By way of a smaller (or larger) image where `size` says so."""
        if self.size is None:
            times = self.times_halved(*batch.shape[2:])
            return from_afar(batch, network, times) if times else network(batch)
        height, width = batch.shape[2:]
        factor = self.size / min(height, width)
        high, wide = (max(1, round(side * factor)) for side in (height, width))
        if factor > 1 and max(high, wide) > LARGEST_SIZE:
            raise BadInput(f"--size {self.size} would make {wide}x{high} pixels of {width}x{height}, and a side has "
                           f"{LARGEST_SIZE:,} at most: give a smaller one, or leave it out")  # fmt: skip
        small = resize(batch.float(), (high, wide))
        made = network(small).float()
        return resize(made, (height, width)) if factor >= 1 else with_detail(batch.float(), small, made)


def with_lightness(colour: Tensor, gray: Tensor) -> Tensor:
    """`colour` (B, 3, H, W) with the lightness L of CIELAB that `gray` (B, 1, H, W) has; both sRGB in [-1, 1].

    Lightness depends on luminance alone: linear light is scaled to that of `gray`, which keeps hue and saturation,
    and mixed with gray where sRGB has no colour so light.
    """
    light, luminance = linear(colour), linear(gray)
    own = (light * light.new_tensor([0.2126, 0.7152, 0.0722]).view(1, 3, 1, 1)).sum(1, keepdim=True)
    apart = (light - own) * (luminance / own.clamp(min=1e-3))  # of luminance 0, so that the sum has the one wanted
    room = (1 - luminance) / apart.amax(1, keepdim=True).clamp(min=1e-6)
    light = (luminance + apart * room.clamp(max=1)).clamp(0, 1)
    return torch.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055) * 2 - 1


def linear(x: Tensor) -> Tensor:
    """sRGB in [-1, 1] -> linear light in [0, 1] (IEC 61966-2-1)."""
    x = ((x + 1) / 2).clamp(0, 1)
    return torch.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)


def from_pil(image: Image.Image, channels: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Pixels (H, W, channels), upright and in sRGB, and alpha (H, W) where there is any."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16)[..., None].repeat(channels, 2), None
    if image.mode in ("I", "F"):
        raise BadInput(f"cannot translate a PIL image of mode {image.mode} (32 bits a channel): scale it to a uint16 "
                       "array (H, W, C)")  # fmt: skip
    pixels, alpha, _ = pictures.decode_8(image)
    return pictures.to_channels(pixels, channels), alpha


def warn(what: str, pixels: np.ndarray, notes: Sequence[str] = ()) -> None:
    """Tell who called a `Translator`, in one line, what was changed or left out of a picture, and what will be."""
    if said := [*notes, *[ROUNDED] * (pixels.dtype == np.uint16)]:
        warnings.warn(f"{what}: {'; '.join(said)}", stacklevel=4)


def bytes_of(text: str) -> int:
    """ "4GB" -> 4,000,000,000; KiB, MiB, GiB and TiB are of 1024. Raises BadInput, also where a unit was forgotten."""
    units = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
    units |= {f"{letter}I": 2 ** (10 * power) for power, letter in enumerate("KMGT", 1)}
    parts = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?I?)B?\s*", text.upper())
    if parts is None or parts[2] not in units or float(parts[1]) * units[parts[2]] < 1e6:
        raise BadInput(f"--memory {text}: give an amount such as 4GB or 500MB")
    return int(float(parts[1]) * units[parts[2]])

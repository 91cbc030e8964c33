"""Folders to batches: decode once, keep as integers where they fit, crop and flip on the device, seeded."""

import os
import secrets
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import IO, Literal, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from .. import distributed
from ..device import free
from ..errors import BadInput
from ..terminal import words
from ..threads import ordered
from . import pictures
from .folders import is_or_are, spread
from .pictures import BadImage

Resize = Literal["square", "short", "none"]
Job = TypeVar("Job")
Done = TypeVar("Done")
DEVICE_SHARE = 0.25
"""The part of free GPU memory that one tensor may take: training needs the rest."""
MEMORY_SHARE = 0.4
"""The part of available memory that one tensor may take."""
TOLD = 5
"""Pictures that are named where many are too small."""
NUMPY = {torch.uint8: np.uint8, torch.int16: np.int16}
ON_DEVICE = "on the device"
TRANSPARENT = "transparent, laid on white"
ENLARGED = "enlarged more than twice: with a lower --size and --crop as much is learned in less time"


@dataclass(frozen=True, eq=False)
class Store:
    """The decoded images of one domain: the pixels of all, one image after the other, in one tensor.

    So images of one size and of many go by the same path. The tensor lives on the device, in memory, or in a
    file that is mapped into memory; crops are the same, bit by bit, wherever it is.
    """

    pixels: Tensor
    """(P, C) uint8; or int16, the bits of uint16, which PyTorch cannot index everywhere."""
    layout: Tensor
    """(N, 3): first pixel, height and width of each image. Where `pixels` are."""
    crop: int
    device: torch.device
    paths: list[Path]
    """The images, in the order of their index."""
    skipped: list[str]
    """A line for each image that could not be read."""
    notes: list[str]
    """What was changed in reading, or left out: a line for each kind, with the number of its pictures."""
    place: str
    """on the device, in memory, on disk ...: where they lie."""
    zoom: float = 1.0
    """Crops are enlarged at random, up to so many times."""

    @classmethod
    def load(
        cls,
        paths: Sequence[Path],
        *,
        channels: Literal[1, 3],
        size: int,
        resize: Resize,
        crop: int,
        device: torch.device,
        zoom: float = 1.0,
        budget: int | None = None,
        folder: Path | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> "Store":
        """Decode and resize all images once, in threads. As soon as one has 16 bit, all are kept so.

        `budget`: bytes that may be taken on the device or in memory, by default a part of what is free there;
        beyond it, the pixels go into a file in `folder` that vanishes with the process. `on_progress(done,
        all)` may raise, to stop. Of several processes on a machine one decodes, for all (`_shared`). Raises
        BadInput when an image is smaller than the crop, and when more than one in ten (and more than one) cannot be
        read.
        """
        folder = folder or Path(tempfile.gettempdir())
        decode = partial(_decode, paths, channels, size, resize, crop, on_progress)
        peers = distributed.peers()
        if len(peers) == 1:
            pixels, place, kept = decode(partial(_allocate, device=device, budget=budget, folder=folder))
        else:
            pixels, place, kept = _shared(decode, peers, folder)
            if pixels.nbytes <= _room_on(device, budget):
                pixels, place = pixels.to(device), ON_DEVICE
        layout = torch.tensor(kept.layout, device=pixels.device)
        return cls(pixels, layout, crop, device, [paths[n] for n in kept.which], kept.skipped, kept.notes, place, zoom)

    @property
    def on_device(self) -> bool:
        """Are crops made on the device, with nothing to copy or wait for?"""
        return self.pixels.device.type == self.device.type

    def crops(self, index: Tensor, draws: Tensor) -> Tensor:
        """Random crops, flipped or not: (B, C, crop, crop) float32 in [-1, 1] on the device, channels last.

        `index`: (B,) which images. `draws`: (B, 4), uniform in [0, 1): top, left, flip, zoom. Nothing waits for the
        host, so that a CUDA graph may hold this (where `on_device`).
        """
        where, side = self.pixels.device, self.crop
        index, draws = index.to(where), draws.to(where)
        start, height, width = self.layout[index].unsqueeze(-1).unbind(1)  # each (B, 1)
        if self.zoom > 1:
            return self.enlarged(start, height, width, draws)
        top = _choose(draws[:, 0:1], height - side + 1)
        left = _choose(draws[:, 1:2], width - side + 1)
        line = torch.arange(side, device=where)
        rows = start + (top + line) * width
        columns = left + torch.where(draws[:, 2:3] < 0.5, line, side - 1 - line)
        levels = self.pixels[rows[:, :, None] + columns[:, None, :]]  # (B, crop, crop, C)
        if not self.on_device and self.device.type == "cuda":
            levels = levels.pin_memory()
        return self.scaled(levels.to(self.device, non_blocking=True))

    def scaled(self, levels: Tensor) -> Tensor:
        """(B, H, W, C) as kept -> (B, C, H, W) float32 in [-1, 1]."""
        if levels.dtype == torch.int16:
            return pictures.scale((levels.int() & 0xFFFF).float(), 65535 / 2).permute(0, 3, 1, 2)
        return pictures.scale(levels.float(), 255 / 2).permute(0, 3, 1, 2)

    def enlarged(self, start: Tensor, height: Tensor, width: Tensor, draws: Tensor) -> Tensor:
        """`crops`, of squares of side crop / zoom to crop, brought to crop by bilinear interpolation."""
        scale = 1 / (1 + (self.zoom - 1) * draws[:, 3:4])
        line = torch.arange(self.crop, device=draws.device)
        across = torch.where(draws[:, 2:3] < 0.5, line, self.crop - 1 - line)

        def taps(draw: Tensor, along: Tensor, length: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            at = (draw * (length - self.crop * scale) + (along + 0.5) * scale - 0.5).clamp(min=0)
            first = torch.minimum(at.long(), length - 1)
            return first, torch.minimum(first + 1, length - 1), at - first

        top, bottom, down = taps(draws[:, 0:1], line, height)
        left, right, over = taps(draws[:, 1:2], across, width)

        def row(rows: Tensor) -> Tensor:
            begin = (start + rows * width)[:, :, None]
            end, other = (
                self.scaled(self.pixels[begin + columns[:, None, :]].to(self.device)) for columns in (left, right)
            )
            return torch.lerp(end, other, over[:, None, None, :].to(self.device))

        return torch.lerp(row(top), row(bottom), down[:, None, :, None].to(self.device))


class Kept(NamedTuple):
    """What is known of decoded images beside their pixels."""

    layout: list[tuple[int, int, int]]
    """First pixel, height and width of each."""
    which: list[int]
    """Their places among the paths."""
    skipped: list[str]
    notes: list[str]


Allocate = Callable[[tuple[int, int], torch.dtype], tuple[Tensor, str]]
"""A shape and uint8 or int16 -> an unwritten tensor, and words for where it is."""


def _decode(
    paths: Sequence[Path], channels: Literal[1, 3], size: int, resize: Resize, crop: int,
    on_progress: Callable[[int, int], None] | None, allocate: Allocate,
) -> tuple[Tensor, str, Kept]:  # fmt: skip
    """All images that can be read, resized. Raises BadInput."""
    headers = _each(pictures.header, paths)
    _broken(headers, len(paths))
    good = [(n, header) for n, header in enumerate(headers) if not isinstance(header, BadImage)]
    shapes = _shapes([(paths[n], header) for n, header in good], size, resize, crop)

    # Orientation may exchange height and width, but the number of pixels is known before decoding.
    areas = [height * width for height, width in shapes]
    starts = np.cumsum([0, *areas]).tolist()
    dtype = np.uint16 if any(header.dtype == np.uint16 for _, header in good) else np.uint8
    pixels, place = allocate((starts[-1], channels), torch.int16 if dtype == np.uint16 else torch.uint8)

    def decode(n: int) -> tuple[tuple[int, int, int], tuple[str, ...]]:
        path = paths[good[n][0]]
        picture = pictures.read(path, channels)
        image = pictures.on_white(picture)
        short = min(image.shape[:2])
        image = pictures.resized(image, _shape(image.shape[0], image.shape[1], size, resize))
        height, width = image.shape[:2]
        if height * width != areas[n] or image.itemsize > np.dtype(dtype).itemsize:
            raise BadImage(f"{path}: changed while it was read")
        if image.dtype != dtype:  # 8 bit, where others have 16
            image = image.astype(np.uint16) * np.uint16(257)
        rows = image.reshape(-1, channels)
        pixels[starts[n] : starts[n + 1]] = torch.from_numpy(rows.view(np.int16) if dtype == np.uint16 else rows)
        enlarged = (ENLARGED,) * (min(height, width) > 2 * short)
        return (starts[n], height, width), (*notes_of(picture), *enlarged)

    decoded = _each(decode, range(len(good)), on_progress)
    skipped = _broken([*headers, *decoded], len(paths))
    done = [(n, result) for (n, _), result in zip(good, decoded, strict=True) if not isinstance(result, BadImage)]
    notes = pictures.told((paths[n], said) for n, (_, said) in done)
    return pixels, place, Kept([layout for _, (layout, _) in done], [n for n, _ in done], skipped, notes)


def _shared(
    decode: Callable[[Allocate], tuple[Tensor, str, Kept]], peers: list[int], folder: Path
) -> tuple[Tensor, str, Kept]:
    """The first of `peers` (the processes of a machine) decodes, into a file that all map into their memory, so that
    the machine holds the pictures once. The file loses its name then, and goes with the last process. Called by all;
    raises BadInput in all."""
    first = distributed.rank() == peers[0]
    file = folder / distributed.everyone(f".{secrets.token_hex(4)}.partial")[peers[0]]
    told: tuple[Kept, tuple[int, ...], torch.dtype] | None = None

    def new(shape: tuple[int, int], dtype: torch.dtype) -> tuple[Tensor, str]:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with open(file, "w+b") as opened:
                return _mapped(opened, shape, dtype, folder), ""
        except OSError as error:
            raise BadInput(f"{folder}: no images can be kept there ({error.strerror}): give another --out") from None

    try:
        with distributed.agreed():
            if first:
                pixels, _, kept = decode(new)
                told = kept, tuple(pixels.shape), pixels.dtype
        kept, shape, dtype = distributed.everyone(told)[peers[0]]
        with distributed.agreed():
            try:
                mapped = np.memmap(file, NUMPY[dtype], "c", shape=shape)
            except OSError as error:
                raise BadInput(f"{file}: process {distributed.rank()} does not see it ({error.strerror}), though it "
                               "runs on the same machine: give --out a folder that all see") from None  # fmt: skip
    finally:
        if first:
            file.unlink(missing_ok=True)
    return torch.from_numpy(mapped), f"in a file that {len(peers)} processes share", kept


def _choose(draw: Tensor, count: Tensor) -> Tensor:
    """Uniform in [0, 1) -> 0 to `count` - 1. In float32 the product may be rounded up to `count`."""
    return torch.minimum((draw * count).long(), count - 1)


@dataclass(frozen=True)
class Draws:
    """All that is random in one step, for B images of each domain. On the CPU."""

    index_a: Tensor
    index_b: Tensor
    """(B,) which images."""
    crop_a: Tensor
    crop_b: Tensor
    """(B, 4), uniform in [0, 1): top, left, flip, zoom. For `Store.crops`."""
    chance_a: Tensor
    chance_b: Tensor
    """(B, 18), uniform in [0, 1): coin and slot for `History`, then for fakes and for reals seven for
    `projected.augment` and one for the square that a PatchGAN judges."""

    def part(self, rank: int, world: int) -> "Draws":
        """What falls to one process of several: together they see what one would alone."""
        return Draws(*(field.chunk(world)[rank] for field in vars(self).values()))


def steps_per_epoch(count_a: int, count_b: int, batch: int) -> int:
    """An epoch is as many steps as the larger domain has batches, at least one. `batch`: of all processes."""
    return max(1, max(count_a, count_b) // batch)


def draw(seed: int, step: int, count_a: int, count_b: int, batch: int) -> Draws:
    """The draws of a step, counted from 0 through all epochs; `batch`: of all processes.

    Everything follows from (seed, step), so that a resumed run repeats the undisturbed one. As in the authors'
    code, A comes by shuffled index, B uniformly at random (the smaller domain is gone through repeatedly).
    """
    largest = max(count_a, count_b)
    epoch, within = divmod(step, steps_per_epoch(count_a, count_b, batch))
    places = (within * batch + np.arange(batch)) % largest  # a batch larger than both domains goes round
    random = _random(seed, "step", step)
    index_b = random.integers(0, count_b, batch)
    uniform = torch.from_numpy(random.random((batch, 10), dtype=np.float32))
    index_a = _order(seed, epoch, largest)[places] % count_a
    more = torch.from_numpy(random.random((batch, 34), dtype=np.float32))
    zoom, looks_a, looks_b = more.split((2, 16, 16), dim=1)
    return Draws(
        torch.from_numpy(index_a), torch.from_numpy(index_b),
        torch.cat([uniform[:, 0:3], zoom[:, 0:1]], dim=1), torch.cat([uniform[:, 3:6], zoom[:, 1:2]], dim=1),
        torch.cat([uniform[:, 6:8], looks_a], dim=1), torch.cat([uniform[:, 8:10], looks_b], dim=1),
    )  # fmt: skip


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
    return _random(seed, "epoch", epoch).permutation(count)


def _random(seed: int, purpose: Literal["step", "epoch"], number: int) -> np.random.Generator:
    """Philox counts: the numbers of any step are there at once, without those before them."""
    key = [seed % 2**64, {"step": 0, "epoch": 1}[purpose]]
    return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, number]))


def load_test(
    paths: Sequence[Path], *, channels: Literal[1, 3], resize: Resize, crop: int, count: int = 4
) -> list[np.ndarray]:
    """`count` pictures, evenly spread, as the network is to see them: (crop, crop, C), uint8 or uint16.

    square: resized to the crop, as in the paper's test; short: the short side to the crop, then its centre;
    none: the centre of the native size. Broken ones are left out; raises BadInput when none is left.
    """
    paths = spread(paths, count)
    headers = zip(paths, _each(pictures.header, paths), strict=True)
    _shapes([(path, header) for path, header in headers if not isinstance(header, BadImage)], crop, resize, crop)
    taken = _each(
        lambda path: as_tested(pictures.on_white(pictures.read(path, channels)), path, resize=resize, crop=crop), paths
    )
    whole = [picture for picture in taken if not isinstance(picture, BadImage)]
    if not whole:
        first = taken[0] if taken else "there is none"
        raise BadInput(
            f"no test image, or none of those kept out for it, can be read: {first}; viceversa data names "
            "broken ones, and --test-a and --test-b others"
        )
    return whole


def as_tested(image: np.ndarray, path: Path, *, resize: Resize, crop: int) -> np.ndarray:
    """(H, W, C), read from `path`, as the network is to see it (see `load_test`); nothing larger is kept. Raises
    BadImage for one that is smaller than the crop."""
    height, width = _shape(image.shape[0], image.shape[1], crop, resize)
    if min(height, width) < crop:
        raise BadImage(f"{path}: {width}x{height} pixels are smaller than the crop of {crop}")
    top, left = (height - crop) // 2, (width - crop) // 2
    return pictures.resized(image, (height, width))[top : top + crop, left : left + crop].copy()


def _shape(height: int, width: int, size: int, resize: Resize) -> tuple[int, int]:
    """Height and width after resizing."""
    if resize == "none":
        return height, width
    if resize == "square":
        return size, size
    short = min(height, width)
    return max(size, round(height * size / short)), max(size, round(width * size / short))


def notes_of(picture: pictures.Picture) -> tuple[str, ...]:
    """What is changed or left out of a picture that is trained on, in words."""
    hidden = picture.alpha is not None and bool((picture.alpha < np.iinfo(picture.alpha.dtype).max).any())
    return (*picture.notes, TRANSPARENT) if hidden else picture.notes


def _shapes(
    headers: Sequence[tuple[Path, pictures.Header]], size: int, resize: Resize, crop: int
) -> list[tuple[int, int]]:
    """Heights and widths after resizing. Raises BadInput where images are smaller than the crop then, with their
    number and the first of them."""
    shapes = [_shape(header.height, header.width, size, resize) for _, header in headers]
    both = zip(headers, shapes, strict=True)
    small = [f"{path} ({header.width}x{header.height})" for (path, header), shape in both if min(shape) < crop]
    if small:
        named = ", ".join(small[:TOLD]) + (f" and {len(small) - TOLD:,} more" if len(small) > TOLD else "")
        raise BadInput(
            f"{words(len(small), 'image')} of {len(shapes):,} {is_or_are(len(small))} smaller than --crop {crop}: "
            f"{named}; lower it, use --resize short, or take them out"
        )
    return shapes


def too_many(broken: int, count: int) -> bool:
    """More than one, and more than one in ten."""
    return broken > max(1, count // 10)


def _broken(results: Sequence[object], count: int) -> list[str]:
    """What is said of each broken image. Raises BadInput where they are `too_many` of `count`, or all."""
    broken = [str(result) for result in results if isinstance(result, BadImage)]
    if too_many(len(broken), count) or len(broken) == count:
        raise BadInput(f"{len(broken)} of {words(count, 'image')} cannot be read: {'; '.join(broken[:3])}")
    return broken


def _each(
    task: Callable[[Job], Done], jobs: Iterable[Job], on_progress: Callable[[int, int], None] | None = None
) -> list[Done | BadImage]:
    """`task` of each job, by threads, in order; where it raised a BadImage, that."""

    def attempt(job: Job) -> Done | BadImage:
        try:
            return task(job)
        except BadImage as broken:
            return broken

    jobs = list(jobs)
    results: list[Done | BadImage] = []
    with closing(ordered(attempt, jobs)) as coming:
        for result in coming:
            results.append(result)
            if on_progress is not None:
                on_progress(len(results), len(jobs))
    return results


def _allocate(
    shape: tuple[int, int], dtype: torch.dtype, device: torch.device, budget: int | None, folder: Path
) -> tuple[Tensor, str]:
    """An `Allocate` in the best place where it fits (see `Store.load`). Of a file only the mapping is left. Raises
    BadInput when the disk has no room."""
    need = shape[0] * shape[1] * dtype.itemsize
    if need <= _room_on(device, budget):
        return torch.empty(shape, dtype=dtype, device=device), ON_DEVICE
    if need <= (free(torch.device("cpu")) * MEMORY_SHARE if budget is None else budget):
        return torch.empty(shape, dtype=dtype), "in memory"
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        return _mapped(file, shape, dtype, folder), "on disk"


def _room_on(device: torch.device, budget: int | None) -> float:
    """Bytes that the pixels of one domain may take on a device that is not the CPU."""
    if device.type == "cpu":
        return -1
    return free(device) * DEVICE_SHARE if budget is None else budget


def _mapped(file: IO[bytes], shape: tuple[int, int], dtype: torch.dtype, folder: Path) -> Tensor:
    """An unwritten tensor in a new file. Raises BadInput when the disk has no room."""
    need = shape[0] * shape[1] * dtype.itemsize
    try:
        if hasattr(os, "posix_fallocate"):  # room that is only promised would end in SIGBUS
            os.posix_fallocate(file.fileno(), 0, need)
    except OSError as error:
        raise BadInput(f"{folder}: no room for {need / 1e9:.1f} GB of images: {error.strerror}") from None
    return torch.from_numpy(np.memmap(file, NUMPY[dtype], "w+", shape=shape))

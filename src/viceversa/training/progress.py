"""The same pictures after every epoch, in both directions: a still an epoch, and films made of the stills."""

import json
import math
import re
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn

from ..data.pictures import to_pixels, to_tensor
from ..errors import BadInput
from ..files import replacing, write_bytes
from .film import encode_gif

Item = TypeVar("Item")
Box = tuple[int, int, int, int]
"""Left, top, right, bottom, in pixels."""

MARGIN, GAP, HEADER = 24, 6, 72
"""Pixels around the pictures of a still, between them, and above them."""
BACKGROUND, FAINT, DIM, BRIGHT, ACCENT = "#18181b", "#34343a", "#8e8e96", "#ececf0", "#e3b04b"
IMAGE_DESCRIPTION = 270  # of EXIF
INKS = (BACKGROUND, FAINT, DIM, BRIGHT, ACCENT)

FILM_MARGIN, FILM_GAP, FILM_HEADER = 10, 2, 30
FILM_FRAMES, FILM_BYTES, FRAME_PIXELS = 60, 8 * 2**20, 360_000
"""A film's limits: frames, bytes of the file, and pixels of a frame's pictures."""


@dataclass(frozen=True)
class Shown:
    """What one look at the test pictures gave, by direction ("ab", "ba")."""

    grids: dict[str, np.ndarray]
    """(H, W, 3) uint8: a row for each picture: input, translation, round trip."""
    pairs: dict[str, tuple[Tensor, Tensor]]
    """Inputs and translations, (N, C, H, W) in [-1, 1], float32 on the CPU."""


@dataclass(frozen=True)
class Layout:
    """Where things lie in a still: a block for each direction, side by side, three pictures in a row."""

    cell: tuple[int, int]
    """Width and height of a picture as it is shown."""
    rows: tuple[int, int]
    """How many pictures each block has."""

    @property
    def size(self) -> tuple[int, int]:
        right, bottom = self.block(1)[2:]
        return right, max(bottom, self.block(0)[3])

    def block(self, block: int) -> Box:
        """A direction's place, with its margins."""
        width = 3 * self.cell[0] + 2 * GAP + 2 * MARGIN
        height = HEADER + self.rows[block] * (self.cell[1] + GAP) - GAP + MARGIN
        return block * width, 0, (block + 1) * width, height

    def picture(self, block: int, row: int, column: int) -> Box:
        """A picture's place: columns are input, translation, round trip."""
        width, height = self.cell
        left = self.block(block)[0] + MARGIN + column * (width + GAP)
        top = HEADER + row * (height + GAP)
        return left, top, left + width, top + height

    def exif(self) -> Image.Exif:
        """The layout as a still carries it, so that the still can be understood alone."""
        exif = Image.Exif()
        exif[IMAGE_DESCRIPTION] = json.dumps({"cell": self.cell, "rows": self.rows})
        return exif


def layout_of(still: Path) -> Layout | None:
    """Where things lie in this still; None for a file that is none of ours."""
    try:
        with Image.open(still) as image:
            told = json.loads(image.getexif()[IMAGE_DESCRIPTION])
        (width, height), (rows_a, rows_b) = told["cell"], told["rows"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Layout((width, height), (rows_a, rows_b))


def stills(run: Path) -> list[tuple[int, Path]]:
    """The epochs of RUN/progress/epoch_0001.webp, ..., and the files, in order."""
    found = ((re.fullmatch(r"epoch_(\d+)\.webp", p.name), p) for p in (run / "progress").glob("epoch_*"))
    return sorted((int(name[1]), path) for name, path in found if name)


def boxes(still: Path) -> dict[str, list[tuple[Box, Box, Box]]]:
    """Input, translation and round trip of each picture, by direction. Raises BadInput for what is no still."""
    layout = layout_of(still)
    if layout is None:
        raise BadInput(f"{still} is no progress picture of a run; remove it, or train the run again")
    return {
        direction: [
            (layout.picture(block, row, 0), layout.picture(block, row, 1), layout.picture(block, row, 2))
            for row in range(layout.rows[block])
        ]
        for block, direction in enumerate(("ab", "ba"))
    }


def cells(still: Path) -> dict[str, list[tuple[Image.Image, Image.Image, Image.Image]]]:
    """The pictures that lie in the `boxes` of a still."""
    places = boxes(still)
    with Image.open(still) as image:
        sheet = image.convert("RGB")
    return {
        direction: [(sheet.crop(x), sheet.crop(y), sheet.crop(z)) for x, y, z in rows]
        for direction, rows in places.items()
    }


class Progress:
    """Shows what the generators make of the same pictures: RUN/progress/epoch_0001.webp, ..., and the films
    RUN/progress/day2night.gif and night2day.gif. The same pictures and weights give the same bytes.
    """

    def __init__(
        self,
        run: Path,
        names: tuple[str, str],
        images_a: Sequence[np.ndarray],
        images_b: Sequence[np.ndarray],
    ):
        """Images are (H, W, C) uint8 or uint16, all of one size, at least one of each domain."""
        self.run = run
        self.names = names
        self.images = {
            "ab": [to_tensor(image) for image in images_a],
            "ba": [to_tensor(image) for image in images_b],
        }
        height, width = images_a[0].shape[:2]
        scale = shown_scale(max(height, width))
        self.layout = Layout((round(width * scale), round(height * scale)), (len(images_a), len(images_b)))
        self.filmed_at, self.film_took = -math.inf, 0.0

    @torch.inference_mode()
    def show(
        self, epoch: int, ab: nn.Module, ba: nn.Module, device: torch.device,
        forward: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> Shown:  # fmt: skip
        """Translate every picture there and back, and write the still of this epoch.

        One picture at a time: the memory of a training step is enough for it. `forward` makes the context
        to translate in (autocast).
        """
        blocks, pairs = [], {}
        for direction, there, back in (("ab", ab, ba), ("ba", ba, ab)):
            rows = []
            for image in self.images[direction]:
                with forward():
                    translation = there(image.to(device))
                    round_trip = back(translation)
                rows.append((image, translation.float().cpu(), round_trip.float().cpu()))
            blocks.append(rows)
            pairs[direction] = (torch.cat([row[0] for row in rows]), torch.cat([row[1] for row in rows]))
        still = draw_still(self.layout, blocks, self.names, epoch)
        with replacing(self.run / "progress" / f"epoch_{epoch:04d}.webp") as temporary:
            still.save(temporary, "WEBP", quality=90, method=2, exif=self.layout.exif())
        grids = {d: np.asarray(still.crop(self.layout.block(n))) for n, d in enumerate(("ab", "ba"))}
        return Shown(grids, pairs)

    def film(self, final: bool = False) -> None:
        """Make both films of the stills that lie in RUN/progress; to be called after every epoch.

        Returns at once while the last making took more than 2% of the time since, unless `final`.
        """
        started = time.monotonic()
        if not final and started - self.filmed_at < 50 * self.film_took:
            return
        ours = [(epoch, path) for epoch, path in stills(self.run) if layout_of(path) == self.layout]
        if not ours:
            return
        a, b = self.names
        for block, (source, target) in enumerate(((a, b), (b, a))):
            film = make_film(self.layout, block, f"{source} to {target}", thinned(ours, FILM_FRAMES))
            write_bytes(self.run / "progress" / f"{source}2{target}.gif", film)
        self.filmed_at = time.monotonic()
        self.film_took = self.filmed_at - started


def shown_scale(side: int) -> float:
    """Small pictures are shown enlarged by a whole number, those over 512 pixels reduced."""
    return max(1, 128 // side) if side <= 512 else 512 / side


def draw_still(
    layout: Layout, blocks: Sequence[Sequence[tuple[Tensor, ...]]], names: tuple[str, str], epoch: int
) -> Image.Image:
    """Both blocks with their titles; each row's tensors are (1, C, H, W)."""
    still = Image.new("RGB", layout.size, BACKGROUND)
    draw = ImageDraw.Draw(still)
    for block, rows in enumerate(blocks):
        left, _, right, _ = layout.block(block)
        source, target = names if block == 0 else names[::-1]
        corner = f"epoch {epoch}" if block == 1 else ""
        write_line(draw, left + MARGIN, right - MARGIN, 27, f"{source} to {target}", corner, 18)
        for column, label in enumerate((source, target, f"{source} again")):
            start, _, end, _ = layout.picture(block, 0, column)
            write_line(draw, start, end, HEADER - 13, label, "", 13, DIM)
        for row, pictures in enumerate(rows):
            for column, picture in enumerate(pictures):
                still.paste(as_shown(picture, layout.cell), layout.picture(block, row, column)[:2])
    return still


def as_shown(picture: Tensor, size: tuple[int, int]) -> Image.Image:
    """(1, C, H, W) as RGB; enlarged pixels stay squares, so that a checkerboard is not smoothed away."""
    pixels = to_pixels(picture)[0]
    image = Image.fromarray(np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels)
    grows = size[0] >= image.width
    return image.resize(size, Image.Resampling.NEAREST if grows else Image.Resampling.LANCZOS)


@cache
def label_font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def write_line(
    draw: ImageDraw.ImageDraw, left: int, right: int, middle: int, text: str, at_right: str, size: int,
    colour: str = BRIGHT,
) -> None:  # fmt: skip
    """Text from `left`, shortened where there is no room, and dim text that ends at `right`."""
    font = label_font(size)
    room = right - left - (draw.textlength(at_right, font) + size if at_right else 0)
    short = text
    while short and draw.textlength(short, font) > room:
        text = text[:-1].rstrip()
        short = text + "…" if text else ""
    draw.text((left, middle), short, colour, font, anchor="lm")
    draw.text((right, middle), at_right, DIM, font, anchor="rm")


def thinned(items: Sequence[Item], count: int) -> list[Item]:
    """At most `count` of them, evenly; the first and the last stay."""
    count = min(len(items), count)
    return [items[round(n * (len(items) - 1) / max(count - 1, 1))] for n in range(count)]


def make_film(layout: Layout, block: int, title: str, shots: Sequence[tuple[int, Path]]) -> bytes:
    """A GIF of inputs beside their translations, epoch by epoch; smaller until it is within its limit."""
    pixels, last = FRAME_PIXELS, shots[-1][0]
    while True:
        frames = [film_frame(path, layout, block, pixels, title, epoch, last) for epoch, path in shots]
        film = encode_gif(frames, INKS)
        if len(film) <= FILM_BYTES:
            return film
        pixels = int(pixels * 0.9 * FILM_BYTES / len(film))


def film_frame(
    still: Path, layout: Layout, block: int, pixels: int, title: str, epoch: int, last_epoch: int
) -> Image.Image:
    """One still's inputs beside their translations, in about so many pixels, the epoch, and a thin bar."""
    count, (width, height) = layout.rows[block], layout.cell
    across = max(1, round(math.sqrt(count * height / width)))  # pairs side by side: a frame wider than high
    down = math.ceil(count / across)
    scale = min(1.0, math.sqrt(pixels / (count * 2 * width * height)))
    cell = max(1, round(width * scale)), max(1, round(height * scale))
    pair = 2 * cell[0] + FILM_GAP
    right = FILM_MARGIN + across * (pair + FILM_MARGIN)
    bottom = FILM_HEADER + down * (cell[1] + FILM_GAP) - FILM_GAP + FILM_MARGIN
    frame = Image.new("RGB", (right, bottom), BACKGROUND)
    draw = ImageDraw.Draw(frame)
    write_line(draw, FILM_MARGIN, right - FILM_MARGIN, FILM_HEADER // 2, title, f"epoch {epoch}", 14)
    with Image.open(still) as image:
        sheet = image.convert("RGB")
    for row in range(count):
        for column in (0, 1):
            left = FILM_MARGIN + row % across * (pair + FILM_MARGIN) + column * (cell[0] + FILM_GAP)
            top = FILM_HEADER + row // across * (cell[1] + FILM_GAP)
            picture = sheet.crop(layout.picture(block, row, column))
            frame.paste(picture.resize(cell, Image.Resampling.LANCZOS), (left, top))
    draw.rectangle((0, bottom - 3, right, bottom), FAINT)
    draw.rectangle((0, bottom - 3, round(right * epoch / last_epoch), bottom), ACCENT)
    return frame

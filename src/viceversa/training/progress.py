"""The same pictures after every epoch, in both directions: a still an epoch, and films made of the stills."""

import io
import json
import math
import unicodedata
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..data.pictures import to_channels, to_pixels, to_tensor
from ..errors import BadInput
from ..files import replacing, write_bytes, write_text
from ..model.file import by_epoch

Item = TypeVar("Item")
Box = tuple[int, int, int, int]
"""Left, top, right, bottom, in pixels."""
Translate = Callable[[Tensor], Tensor]
Triple = tuple[Box, Box, Box]
"""Input, translation, round trip."""

MARGIN, GAP, HEADER = 24, 6, 72
"""Pixels around the pictures of a still, between them, and above them."""
BACKGROUND, FAINT, DIM, BRIGHT, ACCENT = "#18181b", "#34343a", "#8e8e96", "#ececf0", "#e3b04b"
FONTS = (
    "DejaVuSans", "NotoSans-Regular", "LiberationSans-Regular", "Arial", "arial", "Arial Unicode", "segoeui",
    "NotoSansCJK-Regular", "NotoSansCJKsc-Regular", "NotoSansCJKjp-Regular", "SourceHanSans-Regular", "wqy-zenhei",
    "wqy-microhei", "DroidSansFallbackFull", "PingFang", "Hiragino Sans GB", "AppleSDGothicNeo", "msyh", "msgothic",
    "malgun",
)  # fmt: skip
"""Files of fonts that a system may have, for names that Pillow's own font has no letters for."""
LAYOUT = "layout.json"
FILM_FRAMES, FILM_BYTES, FRAME_PIXELS = 60, 8 * 2**20, 400_000
"""A film's limits: frames, bytes of the file, and pixels of a frame."""


@dataclass(frozen=True)
class Shown:
    """What one look at the test pictures gave, by direction ("ab", "ba")."""

    still: Path
    grids: dict[str, np.ndarray]
    """(H, W, 3) uint8: of each picture input, translation and round trip."""
    pairs: dict[str, tuple[Tensor, Tensor]]
    """Inputs and translations, (N, C, H, W) in [-1, 1], float32 on the CPU."""


@dataclass(frozen=True)
class Layout:
    """Where things lie in a still. RUN/progress/layout.json holds it, by the first epoch that has it."""

    size: tuple[int, int]
    """Width and height of a still."""
    blocks: dict[str, Box]
    """Each direction's part of a still; which is also a frame of its film."""
    pictures: dict[str, list[Triple]]
    """By direction, where each test picture's three are."""


def layout_for(cell: tuple[int, int], counts: tuple[int, int]) -> Layout:
    """One direction above the other, in each as many triples side by side as make it wider than high.

    `cell`: width and height of a picture as it is shown; `counts`: the test pictures of each direction.
    """
    width, height = cell
    across = math.ceil(math.sqrt(max(counts) * height / (3 * width)))
    triple = 3 * width + 2 * GAP
    right, top = MARGIN + across * (triple + MARGIN), 0
    blocks: dict[str, Box] = {}
    pictures: dict[str, list[Triple]] = {}
    for direction, count in zip(("ab", "ba"), counts, strict=True):
        pictures[direction] = []
        for n in range(count):
            x, y = MARGIN + n % across * (triple + MARGIN), top + HEADER + n // across * (height + GAP)
            first, second, third = (
                (left, y, left + width, y + height) for left in (x, x + width + GAP, x + 2 * (width + GAP))
            )
            pictures[direction].append((first, second, third))
        bottom = pictures[direction][-1][0][3] + MARGIN
        blocks[direction], top = (0, top, right, bottom), bottom
    return Layout((right, top), blocks, pictures)


def layouts(run: Path) -> dict[int, Layout]:
    """By the first epoch that has it, in order; none where there is no (whole) layout.json."""
    try:
        told = json.loads((run / "progress" / LAYOUT).read_text(encoding="utf-8"))
        return {int(epoch): parsed(told[epoch]) for epoch in sorted(told, key=int)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def parsed(told: dict[str, Any]) -> Layout:
    """From JSON, which has lists for tuples."""

    def box(values: Sequence[int]) -> Box:
        left, top, right, bottom = values
        return left, top, right, bottom

    pictures = {way: [(box(x), box(y), box(z)) for x, y, z in rows] for way, rows in told["pictures"].items()}
    return Layout((told["size"][0], told["size"][1]), {way: box(told["blocks"][way]) for way in ("ab", "ba")}, pictures)


def stills(run: Path) -> list[tuple[int, Path]]:
    """The epochs of RUN/progress/epoch_0001.webp, ..., and the files, in order."""
    return by_epoch(run / "progress", "webp")


def layout_of(still: Path) -> Layout | None:
    """Where things lie in this still; None for a file that is none of ours."""
    try:
        with Image.open(still) as image:
            size, epoch = image.size, int(still.stem.removeprefix("epoch_"))
    except (OSError, ValueError):
        return None
    ours = [layout for since, layout in layouts(still.parents[1]).items() if since <= epoch]
    return ours[-1] if ours and ours[-1].size == size else None


def boxes(still: Path) -> dict[str, list[Triple]]:
    """Input, translation and round trip of each picture, by direction. Raises BadInput for what is no still."""
    layout = layout_of(still)
    if layout is None:
        raise BadInput(f"{still} is no progress picture of a run that has {LAYOUT} beside it; remove it")
    return layout.pictures


def cells(still: Path) -> dict[str, list[tuple[Image.Image, Image.Image, Image.Image]]]:
    """The pictures that lie in the `boxes` of a still."""
    places = boxes(still)
    with Image.open(still) as image:
        sheet = image.convert("RGB")
    return {way: [(sheet.crop(x), sheet.crop(y), sheet.crop(z)) for x, y, z in rows] for way, rows in places.items()}


class Progress:
    """Shows what the generators make of the same pictures: RUN/progress/epoch_0001.webp, ..., and the films
    RUN/progress/day2night.gif and night2day.gif. The same pictures and weights give the same bytes.
    """

    def __init__(
        self, run: Path, names: tuple[str, str], images_a: Sequence[np.ndarray], images_b: Sequence[np.ndarray]
    ):
        """Images are (H, W, C) uint8 or uint16, all of one size, at least one of each domain."""
        self.run, self.names = run, names
        self.images = {"ab": [to_tensor(i) for i in images_a], "ba": [to_tensor(i) for i in images_b]}
        height, width = images_a[0].shape[:2]
        side = max(height, width)
        scale = max(1, 128 // side) if side <= 512 else 512 / side  # small ones grow in whole numbers
        self.layout = layout_for((round(width * scale), round(height * scale)), (len(images_a), len(images_b)))

    @torch.inference_mode()
    def show(
        self, epoch: int, ab: Translate, ba: Translate, device: torch.device,
        forward: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> Shown:  # fmt: skip
        """Translate every picture there and back, and write the still of this epoch.

        One picture at a time: the memory of a training step is enough for it. `forward` makes the context
        to translate in (autocast).
        """
        made, pairs = {}, {}
        for direction, there, back in (("ab", ab, ba), ("ba", ba, ab)):
            rows = []
            for image in self.images[direction]:
                with forward():
                    translation = there(image.to(device))
                    round_trip = back(translation)
                rows.append((image, translation.float().cpu(), round_trip.float().cpu()))
            made[direction] = rows
            pairs[direction] = (torch.cat([row[0] for row in rows]), torch.cat([row[1] for row in rows]))
        still = draw_still(self.layout, made, self.names, epoch)
        self.keep_layout(epoch)
        path = self.run / "progress" / f"epoch_{epoch:04d}.webp"
        with replacing(path) as temporary:
            still.save(temporary, "WEBP", quality=90, method=2)
        return Shown(path, {way: np.asarray(still.crop(block)) for way, block in self.layout.blocks.items()}, pairs)

    def keep_layout(self, epoch: int) -> None:
        """In JSON, as soon as an epoch has another layout than those before it (other test pictures)."""
        before = layouts(self.run)
        known = {since: layout for since, layout in before.items() if since < epoch}
        if not known or list(known.values())[-1] != self.layout:
            known[epoch] = self.layout
        if known != before:
            text = json.dumps({since: vars(layout) for since, layout in known.items()})
            write_text(self.run / "progress" / LAYOUT, text)

    def film(self, most_frames: int = FILM_FRAMES, most_bytes: int = FILM_BYTES) -> None:
        """Make both films of the stills that lie in RUN/progress. Takes seconds: for the end of a run."""
        ours = [(epoch, path) for epoch, path in stills(self.run) if layout_of(path) == self.layout]
        if not ours:
            return
        for direction, (source, target) in (("ab", self.names), ("ba", self.names[::-1])):
            films = make_films(self.layout.blocks[direction], thinned(ours, most_frames), most_bytes)
            for ending in ("gif", "webp"):
                path = self.run / "progress" / f"{source}2{target}.{ending}"
                if ending in films:
                    write_bytes(path, films[ending])
                else:
                    path.unlink(missing_ok=True)  # of an earlier end of this run


def draw_still(
    layout: Layout, made: dict[str, list[tuple[Tensor, Tensor, Tensor]]], names: tuple[str, str], epoch: int
) -> Image.Image:
    """Both directions with their titles; each row's tensors are (1, C, H, W)."""
    still = Image.new("RGB", layout.size, BACKGROUND)
    draw = ImageDraw.Draw(still)
    face = face_for("".join(names))
    names = (writable(names[0], face), writable(names[1], face))
    for direction, (source, target) in (("ab", names), ("ba", names[::-1])):
        _, top, right, _ = layout.blocks[direction]
        write_line(draw, MARGIN, right - MARGIN, top + 27, f"{source} to {target}", f"epoch {epoch}", face, 18)
        for places, pictures in zip(layout.pictures[direction], made[direction], strict=True):
            labels = (source, target, f"{source} again")
            for box, picture, label in zip(places, pictures, labels, strict=True):
                still.paste(as_shown(picture, (box[2] - box[0], box[3] - box[1])), box[:2])
                if box[1] == top + HEADER:
                    write_line(draw, box[0], box[2], box[1] - 13, label, "", face, 13, DIM)
    return still


def as_shown(picture: Tensor, size: tuple[int, int]) -> Image.Image:
    """(1, C, H, W) as RGB; enlarged pixels stay squares, so that a checkerboard is not smoothed away."""
    image = Image.fromarray(to_channels(to_pixels(picture)[0], 3))
    grows = size[0] >= image.width
    return image.resize(size, Image.Resampling.NEAREST if grows else Image.Resampling.LANCZOS)


Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@cache
def font_of(face: str | None, size: int) -> Font:
    """Pillow's own, or one of the system's. Raises OSError where the system has none of that name."""
    return ImageFont.load_default(size) if face is None else ImageFont.truetype(face, size)


@cache
def face_for(text: str) -> str | None:
    """The first font that has all letters of the text, else the one that has most; None is Pillow's own."""
    best: str | None = None
    for face in (None, *FONTS):
        try:
            missing = [letter for letter in text if not has(face, letter)]
            if len(missing) < len([letter for letter in text if not has(best, letter)]):
                best = face
        except OSError:
            continue
        if not missing:
            return face
    return best


@cache
def has(face: str | None, letter: str) -> bool:
    """Has the font this letter, or would it draw the box of what is missing?"""

    def drawn(letter: str) -> tuple[tuple[int, int], bytes]:
        mask = font_of(face, 18).getmask(letter)
        return mask.size, bytes(mask)

    try:
        return drawn(letter) != drawn("\U0010ffff")  # which is no letter, in any font
    except UnicodeError:
        return False


def writable(text: str, face: str | None) -> str:
    """Where the font lacks a letter, what is left of it without its accents, else a question mark."""

    def written(letter: str) -> str:
        if has(face, letter):
            return letter
        return "".join(part for part in unicodedata.normalize("NFKD", letter) if has(face, part)) or "?"

    return "".join(map(written, unicodedata.normalize("NFC", text)))


def write_line(
    draw: ImageDraw.ImageDraw, left: int, right: int, middle: int, text: str, at_right: str, face: str | None,
    size: int, colour: str = BRIGHT,
) -> None:  # fmt: skip
    """Text from `left`, shortened where there is no room, and dim text that ends at `right`."""
    font = font_of(face, size)
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


def make_films(block: Box, shots: Sequence[tuple[int, Path]], most_bytes: int) -> dict[str, bytes]:
    """The part `block` of the stills, epoch by epoch, as an endless GIF of about eight seconds that lingers on
    the last; and as WebP, where that is smaller. Smaller pictures until the GIF is within `most_bytes`.
    """
    each = min(max(round(800 / len(shots)), 8), 60) * 10  # milliseconds, in hundredths of a second
    how: dict[str, Any] = {"save_all": True, "loop": 0, "duration": [each] * (len(shots) - 1) + [each + 2500]}
    pixels = float(FRAME_PIXELS)
    while True:
        frames = [film_frame(path, block, pixels, epoch / shots[-1][0]) for epoch, path in shots]
        gif = encoded(one_palette(frames), "GIF", **how, optimize=True, disposal=1)
        if len(gif) <= most_bytes:
            break
        pixels *= 0.9 * most_bytes / len(gif)
    webp = encoded(frames, "WEBP", **how, quality=80, method=4)
    return {"gif": gif} | ({"webp": webp} if len(webp) < len(gif) else {})


def film_frame(still: Path, block: Box, pixels: float, done: float) -> Image.Image:
    """A part of a still, in at most so many pixels, with a thin bar that says how much of the run is done."""
    with Image.open(still) as image:
        frame = image.convert("RGB").crop(block)
    scale = min(1.0, math.sqrt(pixels / (frame.width * frame.height)))
    if scale < 1:
        size = max(1, int(frame.width * scale)), max(1, int(frame.height * scale))
        frame = frame.resize(size, Image.Resampling.LANCZOS)
    draw = ImageDraw.Draw(frame)
    draw.rectangle((0, frame.height - 3, frame.width, frame.height), FAINT)
    draw.rectangle((0, frame.height - 3, round(frame.width * done), frame.height), ACCENT)
    return frame


def one_palette(frames: Sequence[Image.Image]) -> list[Image.Image]:
    """In the 255 colours that suit (up to eight of) the frames: the same for all, so that what is still stays
    still; one is left, for the pixels that did not change.
    """
    some = [frame.reduce(4) for frame in thinned(frames, 8)]
    sheet = Image.new("RGB", (some[0].width, sum(frame.height for frame in some)))
    for n, frame in enumerate(some):
        sheet.paste(frame, (0, n * frame.height))
    palette = sheet.quantize(255, Image.Quantize.MEDIANCUT, kmeans=1)
    return [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]


def encoded(frames: Sequence[Image.Image], form: str, **how: Any) -> bytes:
    film = io.BytesIO()
    frames[0].save(film, form, append_images=frames[1:], **how)
    return film.getvalue()

"""A film translated, and a photo made a film of how it changes."""

from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import replace
from fractions import Fraction
from functools import partial
from itertools import chain, repeat, takewhile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..data import pictures
from ..errors import BadInput
from ..terminal import Update
from ..threads import ordered
from . import clips
from .clips import Clip, Frame
from .pipeline import Way, beside, side_by_side
from .translator import Translator
from .writers import Writer, open_writer

RATE, BEFORE, AFTER = 25, 0.5, 1.5
"""Of a photo's film: frames a second, and seconds for which its beginning and its end stand still."""
LARGEST_FILM, LARGEST_ANIMATION = 1920, 800
"""Long side of a photo's film, and of its GIF or WebP."""


def translate_film(
    translator: Translator,
    source: Path,
    target: Path,
    *,
    to: str | None = None,
    codec: str = "h264",
    quality: int = 80,
    steady: bool = True,
    size: int | None = None,
    strength: float = 1.0,
    compare: bool = False,
    keep: bool = False,
    on_progress: Update | None = None,
) -> list[str]:
    """Translate a film or an animation into what the ending of `target` says. An existing target is replaced.

    The times of the frames, the orientation, the sound, and where the new file holds them subtitles, chapters and
    attachments are kept. `compare` also writes before and after side by side, as NAME.compare.mp4; with `keep`, that of
    the two which is there already is left. `on_progress(done, total)` is called after each frame; the total is None
    where the file does not say. Returns what a person should know of the result, a line each.

    Raises BadInput before anything is written and Failed from then on. What was done until then, or until an
    interruption, is NAME.partial.mp4, and plays.
    """
    translate = translator.frames(to, size=size, steady=steady, strength=strength)
    with clips.read(source) as clip:
        notes = write_film(clip, translate, target, codec, quality, compare, keep, on_progress)
    damage = [f"{clip.damaged} damaged packets of {source} were left out"] if clip.damaged else []
    return clip.notes + damage + notes


def show_change(
    translator: Translator,
    source: Path,
    target: Path,
    *,
    to: str | None = None,
    seconds: float = 4.0,
    codec: str = "h264",
    quality: int = 80,
    size: int | None = None,
    strength: float = 1.0,
    compare: bool = False,
    keep: bool = False,
    on_progress: Update | None = None,
) -> list[str]:
    """A film of how a photo changes: it stands still for a moment, changes in so many seconds, and stands still.

    From the photo to its translation, linearly in steps of its levels, slowly at first and at the end. The rest is
    as for `translate_film`.
    """
    direction = translator.model.direction(to)
    picture = pictures.read(source, 3)
    before = pictures.on_white(picture)
    given = pictures.to_channels(before, translator.channels(direction))
    after = np.broadcast_to(translator(given, to, size=size, strength=strength), before.shape)
    moving = target.suffix.lower() in clips.ANIMATIONS
    first, last = (shrunk(pixels, LARGEST_ANIMATION if moving else LARGEST_FILM) for pixels in (before, after))
    alpha = None if picture.alpha is None else shrunk(picture.alpha, max(first.shape))
    alpha = None if alpha is None or alpha.min() == 255 else alpha
    rate = RATE // 2 if moving else RATE
    still, change, end = (round(rate * part) for part in (BEFORE, seconds, AFTER))
    part = np.clip((np.arange(still + change + end) - still) / max(1, change), 0, 1)
    parts = iter(part * part * (3 - 2 * part))
    length = Fraction(1, rate)
    frames = (Frame(first, n * length, length, alpha) for n in range(still + change + end))
    clip = Clip(frames=frames, source=source, total=still + change + end, rate=Fraction(rate), clock=length)
    levels, way = first.astype(np.float32), last.astype(np.float32) - first

    def mixed(_: np.ndarray) -> np.ndarray:
        return np.asarray((levels + np.float32(next(parts)) * way).round().astype(np.uint8))

    notes = write_film(clip, mixed, target, codec, quality, compare, keep, on_progress)
    (height, width), (high, wide) = before.shape[:2], first.shape[:2]
    return notes + ([f"{target}: {width}x{height} became {wide}x{high}"] if (high, wide) != (height, width) else [])


def shrunk(pixels: np.ndarray, side: int) -> np.ndarray:
    """(H, W, 3) uint8 or uint16 -> uint8, the long side at most `side`."""
    image = pictures.to_pil(np.ascontiguousarray(pixels))
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return np.asarray(image)


def write_film(
    clip: Clip, translate: Way, target: Path, codec: str, quality: int, compare: bool, keep: bool,
    on_progress: Update | None,
) -> list[str]:  # fmt: skip
    """Translate and write the frames of a clip, and its sound; returns the writer's notes."""
    outputs: list[tuple[Path, Callable[[Pair], Frame]]] = [(target, lambda pair: pair[1])]
    if compare:
        outputs.append((beside(target, "compare"), both))
    outputs = [(path, view) for path, view in outputs if not (keep and path.exists())]
    if not outputs:
        return [f"{target} was there already"]
    with ExitStack() as stack:
        end: Any = object()
        decoded = stack.enter_context(closing(ordered(lambda _: next(clip.frames, end), repeat(None), workers=1)))
        pairs = (
            (item, replace(item, pixels=translate(item.pixels))) if isinstance(item, Frame) else item
            for item in takewhile(lambda item: item is not end, decoded)
        )
        begun: list[Any] = []  # packets of what goes along, and the first frame, which tells the size
        while not begun or not isinstance(begun[-1], tuple):
            begun.append(next(pairs, None))
            if begun[-1] is None:
                raise BadInput(f"{clip.source}: {'no frame can be decoded' if clip.damaged else 'holds no frames'}")
        writers = []
        for path, view in outputs:
            shape = view(begun[-1]).pixels.shape[:2]
            writers.append((stack.enter_context(open_writer(path, clip, shape, codec, quality)), view))
        write = partial(write_item, writers)
        done = 0
        for is_frame in stack.enter_context(closing(ordered(write, chain(begun, pairs), workers=1))):
            done += is_frame
            if is_frame and on_progress is not None:
                on_progress(done, clip.total)
    clip.damaged += sum(track.damaged for track in writers[0][0].tracks.values())
    return writers[0][0].notes


Pair = tuple[Frame, Frame]
"""A frame as it was and as it was translated."""


def both(pair: Pair) -> Frame:
    was, now = pair
    alpha = None if was.alpha is None else np.concatenate([was.alpha, was.alpha], axis=1)
    return replace(now, pixels=side_by_side(was.pixels, now.pixels), alpha=alpha)


def write_item(writers: list[tuple[Writer, Callable[[Pair], Frame]]], item: Any) -> bool:
    """Write a frame (True) or a packet of what goes along (False)."""
    if isinstance(item, tuple):
        for writer, view in writers:
            writer.write(view(item))
        return True
    index, parts = item.stream.index, writers[0][0].unpacked(item)
    for writer, _ in writers:
        writer.add(index, parts)
    return False

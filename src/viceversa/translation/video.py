"""Videos: decoded, translated, steadied and encoded, all at the same time."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import av
import numpy as np
import torch
from PIL import Image

from ..data.pictures import to_pixels, to_tensor
from ..errors import BadInput
from . import animation, encoding, movie
from .animation import AnimationWriter
from .encoding import FilmWriter
from .movie import Clip, Frame
from .steady import Steady
from .translator import Translator

T = TypeVar("T")
Pair = tuple[Frame, Frame]
"""A frame as it was and as it was translated."""
Writer = FilmWriter | AnimationWriter

WRITTEN = frozenset(encoding.CONTAINERS) | animation.SUFFIXES
"""Endings of the videos that can be written."""
AHEAD = 3
"""Frames that are decoded before the network wants them, and frames that may wait for the encoder."""


def is_video(path: Path) -> bool:
    """A film by its ending, or a GIF or WebP that moves."""
    suffix = path.suffix.lower()
    return suffix in movie.SUFFIXES or (suffix in animation.SUFFIXES and animation.is_animated(path))


def result_name(source: Path) -> str:
    """What the translated video is called: as the source, but .mp4 where its own ending cannot be written."""
    return source.name if source.suffix.lower() in WRITTEN else f"{source.stem}.mp4"


def translate_video(
    translator: Translator,
    source: Path,
    target: Path,
    *,
    to: str | None = None,
    codec: str = "h264",
    quality: int = 80,
    steady: bool = True,
    size: int | None = None,
    compare: bool = False,
    on_progress: Callable[[int, int | None], None] | None = None,
) -> list[str]:
    """Translate a film, a GIF or a WebP into what the ending of `target` says. An existing target is replaced.

    The times of the frames, the orientation and the sound are kept. `compare` also writes before and after
    side by side, as NAME.compare.mp4. `on_progress(done, total)` is called after each frame; the total is None
    where the file does not say. Returns what a person should know of the result, a line each.

    Raises BadInput before anything is written and Failed from then on. What was done until then, or until an
    interruption, is NAME.partial.mp4, and plays.
    """
    if target.suffix.lower() not in WRITTEN:
        raise BadInput(f"{target}: videos are written as {' '.join(sorted(WRITTEN))}")
    if not 1 <= quality <= 100:
        raise BadInput(f"--quality {quality}: choose from 1 to 100")
    read = animation.read if source.suffix.lower() in animation.SUFFIXES else movie.read
    channels = translator.channels(translator.direction(to))
    translate = (steadily if steady else frame_by_frame)(translator, to, size)
    with ExitStack() as stack:
        clip = stack.enter_context(read(source))
        decoded = stack.enter_context(closing(ahead(clip.frames)))
        pairs = translated(decoded, translate if channels == 3 else lambda pixels: translate(gray(pixels)))
        start = up_to_first_frame(pairs)
        if not start:
            raise BadInput(f"{source}: {'no frame can be decoded' if clip.damaged else 'holds no frames'}")
        writer: Writer = open_writer(target, clip, start[-1][1], codec, quality)
        stack.enter_context(writer)
        writers: list[tuple[Writer, Callable[[Pair], Frame]]] = [(writer, after)]
        if compare:
            beside = target.with_name(f"{target.stem}.compare{target.suffix}")
            both: Writer = open_writer(beside, clip, side_by_side(start[-1]), codec, quality)
            stack.enter_context(both)
            writers.append((both, side_by_side))
        done = 0
        for item in stack.enter_context(closing(write_behind(writers, chain(start, pairs)))):
            if isinstance(item, tuple):
                done += 1
                if on_progress is not None:
                    on_progress(done, clip.total)
    damage = [f"{clip.damaged} damaged packets of {source} were left out"] if clip.damaged else []
    return clip.notes + damage + writer.notes


def gray(pixels: np.ndarray) -> np.ndarray:
    """(H, W, 3) -> (H, W, 1), by Rec. 601, as pictures."""
    return np.asarray(Image.fromarray(pixels).convert("L"))[..., None]


def frame_by_frame(translator: Translator, to: str | None, size: int | None) -> Callable[[np.ndarray], np.ndarray]:
    """(H, W, C) uint8 -> the same, translated, each frame for itself."""
    return lambda pixels: translator(pixels, to=to, size=size)  # type: ignore[no-any-return]


def steadily(translator: Translator, to: str | None, size: int | None) -> Callable[[np.ndarray], np.ndarray]:
    """(H, W, C) uint8 -> the same, translated, for consecutive frames: with less flicker."""
    steady = Steady()

    @torch.inference_mode()
    def translate(pixels: np.ndarray) -> np.ndarray:
        calm, still = steady.before(to_tensor(pixels).to(translator.device))
        shown = steady.after(translator(calm, to=to, size=size), still)
        return np.asarray(to_pixels(shown)[0])

    return translate


def translated(
    items: Iterable[Frame | av.Packet], translate: Callable[[np.ndarray], np.ndarray]
) -> Iterator[Pair | av.Packet]:
    """Each frame with its translation; packets of sound as they are."""
    for item in items:
        yield (item, replace(item, pixels=translate(item.pixels))) if isinstance(item, Frame) else item


def up_to_first_frame(pairs: Iterator[Pair | av.Packet]) -> list[Any]:
    """What comes until the first frame, and that; nothing where there is none."""
    start = []
    for pair in pairs:
        start.append(pair)
        if isinstance(pair, tuple):
            return start
    return []


def after(pair: Pair) -> Frame:
    return pair[1]


def side_by_side(pair: Pair) -> Frame:
    """Before at the left, after at the right."""
    was, now = pair
    shown = [np.broadcast_to(frame.pixels, (*frame.pixels.shape[:2], 3)) for frame in pair]
    alpha = None if was.alpha is None else np.concatenate([was.alpha, was.alpha], axis=1)
    return replace(now, pixels=np.concatenate(shown, axis=1), alpha=alpha)


def open_writer(target: Path, clip: Clip, first: Frame, codec: str, quality: int) -> Writer:
    """Raises BadInput for what cannot be written."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as wrong:
        raise BadInput(f"{target}: cannot write there ({wrong.strerror})") from None
    if target.is_dir():
        raise BadInput(f"{target}: a folder of this name is in the way")
    if target.suffix.lower() in animation.SUFFIXES:
        return AnimationWriter(target, clip, quality)
    return FilmWriter(target, clip, first.pixels.shape[:2], codec, quality)


def ahead(items: Iterator[T], depth: int = AHEAD) -> Generator[T, None, None]:
    """The same items, made by a thread that is so many ahead."""
    end = object()
    with ThreadPoolExecutor(1) as thread:
        coming: deque[Future] = deque(thread.submit(next, items, end) for _ in range(depth))
        while (item := coming.popleft().result()) is not end:
            coming.append(thread.submit(next, items, end))
            yield item


def write_behind(
    writers: list[tuple[Writer, Callable[[Pair], Frame]]], items: Iterable[Pair | av.Packet], depth: int = AHEAD
) -> Generator[Pair | av.Packet, None, None]:
    """The same items, written by a thread that is so many behind. All are written when this ends, whatever ends it."""

    def write(item: Pair | av.Packet) -> None:
        for writer, view in writers:
            if isinstance(item, tuple):
                writer.write(view(item))
            else:
                writer.sound(item)

    with ThreadPoolExecutor(1) as thread:
        going: deque[Future] = deque()
        for item in items:
            going.append(thread.submit(write, item))
            if len(going) > depth:
                going.popleft().result()
            yield item
        for written in going:
            written.result()

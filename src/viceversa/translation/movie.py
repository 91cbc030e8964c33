"""Films read through FFmpeg (PyAV): upright frames with their times, and the sound as it is."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import Colorspace, Interpolation

from ..errors import BadInput, Failed

SUFFIXES = frozenset(
    f".{ending}"
    for ending in ("mp4", "m4v", "mov", "mkv", "webm", "avi", "mpg", "mpeg", "m2ts", "mts", "ts", "wmv", "flv", "3gp",
                   "ogv", "vob", "mxf")
)  # fmt: skip
"""Endings of files that are taken for films."""


OF_THE_FILE = frozenset(("encoder", "major_brand", "minor_version", "compatible_brands"))
"""Metadata that tell of the file, not of the film."""
UNNAMED, HDR = 2, (16, 18)
"""Numbers of H.273: a matrix that is not named; the transfers of HDR (PQ and HLG)."""


@dataclass(frozen=True)
class Frame:
    """One picture of a film or an animation."""

    pixels: np.ndarray
    """(H, W, 3) uint8, upright."""
    start: Fraction
    """Seconds since the beginning of the film."""
    length: Fraction
    """Seconds for which it is shown."""
    alpha: np.ndarray | None = None
    """(H, W) uint8, where the source had transparency."""


@dataclass(kw_only=True)
class Clip:
    """What is read: the frames, with packets of sound between them, and what must be known to write them."""

    frames: Iterator[Frame | av.Packet]
    total: int | None = None
    """Frames, where the file says so; an estimate."""
    rate: Fraction = Fraction(10)
    """Frames a second, on average."""
    clock: Fraction = Fraction(1, 1000)
    """Seconds of which all times are multiples."""
    aspect: Fraction = Fraction(1)
    """Width of a pixel divided by its height."""
    sounds: list[Any] = field(default_factory=list)
    """PyAV's audio streams."""
    metadata: dict[str, str] = field(default_factory=dict)
    loop: int | None = 0
    """How often an animation repeats: 0 for ever, None not at all."""
    damaged: int = 0
    """Packets that could not be decoded so far."""
    notes: list[str] = field(default_factory=list)
    """What a person should know of the film, a line each."""


@contextmanager
def read(source: Path) -> Iterator[Clip]:
    """Open a film. Raises BadInput for a file that is none; Failed, while frames are read, for a broken one."""
    try:
        container: Any = av.open(source, "r", metadata_errors="replace")
    except av.error.EOFError:
        raise BadInput(f"{source}: holds no frames") from None
    except (av.error.FFmpegError, OSError) as wrong:
        raise BadInput(f"{source}: not a video, or a broken one ({said(wrong)})") from None
    with container:
        if not container.streams.video:
            raise BadInput(f"{source}: holds no video stream")
        video = container.streams.best("video") or container.streams.video[0]
        video.thread_type = "AUTO"
        rate = video.average_rate or video.guessed_rate or Fraction(25)
        seconds = video.duration * video.time_base if video.duration else (container.duration or 0) / 10**6
        clip = Clip(
            frames=iter(()),
            total=video.frames or round(seconds * rate) or None,
            rate=rate,
            clock=video.time_base or 1 / rate,
            aspect=video.sample_aspect_ratio or Fraction(1),
            sounds=[sound for sound in container.streams.audio if sound.codec_context is not None],
            metadata={key: text for key, text in container.metadata.items() if key not in OF_THE_FILE},
        )
        if video.codec_context.color_trc in HDR:
            clip.notes.append(f"{source}: is HDR; its values are taken as they are, which looks paler")
        clip.frames = decode(source, container, video, clip)
        yield clip


def decode(source: Path, container: Any, video: Any, clip: Clip) -> Iterator[Frame | av.Packet]:
    """Frames as they are shown, and between them the packets of sound; both counted from the film's start."""
    streams = [video, *clip.sounds]
    origin = min((s.start_time * s.time_base for s in streams if s.start_time is not None), default=Fraction(0))
    size: tuple[int, int] | None = None
    end = Fraction(0)
    try:
        for packet in container.demux(streams):
            if packet.stream is not video:
                if packet.dts is not None:
                    yield moved(packet, -origin)
                continue
            try:
                decoded = packet.decode()
            except av.error.InvalidDataError:  # as players do: what is damaged is left out
                clip.damaged += 1
                continue
            for frame in decoded:
                size = size or (frame.width, frame.height)
                start = end if frame.pts is None else frame.pts * frame.time_base - origin
                length = Fraction(frame.duration * clip.clock if frame.duration else 1 / clip.rate)
                end = start + length
                yield Frame(upright(to_rgb(frame, *size), display_matrix(frame)), start, length)
    except (av.error.FFmpegError, OSError) as wrong:
        raise Failed(f"{source}: broken after {float(end):.1f} s ({said(wrong)})") from None


def moved(packet: Any, seconds: Fraction) -> av.Packet:
    """The packet, that much later."""
    shift = round(seconds / packet.time_base)
    packet.dts = packet.dts + shift
    packet.pts = packet.dts if packet.pts is None else packet.pts + shift
    return packet  # type: ignore[no-any-return]


def to_rgb(frame: av.VideoFrame, width: int, height: int) -> np.ndarray:
    """(H, W, 3) uint8 by the matrix that the frame names; where it names none, as players: BT.709 from 720 lines."""
    named = frame.colorspace != UNNAMED
    guess = Colorspace.ITU709 if frame.height >= 720 else Colorspace.ITU601
    return frame.reformat(
        width, height, "rgb24", src_colorspace=None if named else guess, interpolation=Interpolation.BICUBIC
    ).to_ndarray()


def display_matrix(frame: av.VideoFrame) -> tuple[int, int, int, int] | None:
    """How to turn the frame upright: a, b, c, d that take (x, y) to (ax + cy, bx + dy), each -1, 0 or 1."""
    data: Any = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return None
    a, b, _, c, d = np.frombuffer(bytes(data), np.int32)[:5].astype(np.float64)
    largest = max(abs(a), abs(b), 1.0)
    return round(a / largest), round(b / largest), round(c / largest), round(d / largest)


def upright(pixels: np.ndarray, matrix: tuple[int, int, int, int] | None) -> np.ndarray:
    """Turn and mirror (H, W, C) by a display matrix, in steps of a quarter turn."""
    if matrix is None:
        return pixels
    a, b, c, d = matrix
    if a == 0 and d == 0:
        pixels, a, d = pixels.swapaxes(0, 1), c, b
    return np.ascontiguousarray(pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])


def said(wrong: Exception) -> str:
    """FFmpeg's words for what went wrong."""
    return str(getattr(wrong, "strerror", None) or wrong)


@contextmanager
def telling(partial: Path) -> Iterator[None]:
    """What goes wrong while a film is written becomes Failed, in a line that names the file."""
    try:
        yield
    except (av.error.FFmpegError, OSError) as wrong:
        raise Failed(f"{partial}: cannot be written any further ({said(wrong)})") from None

"""Moving pictures in: films through FFmpeg (PyAV), with what goes along; GIF, WebP, PNG and AVIF through Pillow.

A clip is read frame by frame: upright and whole, with times, what is transparent upon white.
"""

import os
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.filter import Graph
from av.stream import Discard, Disposition
from av.video.reformatter import Colorspace, Interpolation
from PIL import Image, ImageSequence

from ..data import pictures
from ..errors import BadInput, Failed
from ..terminal import words

FILMS = frozenset(
    f".{ending}"
    for ending in ("mp4", "m4v", "mov", "mkv", "webm", "avi", "mpg", "mpeg", "m2ts", "mts", "ts", "wmv", "flv", "3gp",
                   "ogv", "vob", "mxf")
)  # fmt: skip
"""Endings of files that are taken for films."""
ANIMATIONS = {
    end: name for name in pictures.MOVING if name in pictures.WRITTEN for end in pictures.ENDINGS[name].split()
}
"""Endings of pictures that may move, and Pillow's name for each."""
CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm", ".avi": "avi"}
"""Endings of films that are written, and FFmpeg's name for each."""
WRITTEN = CONTAINERS.keys() | ANIMATIONS.keys()
"""Endings of all moving pictures that can be written."""
OF_THE_FILE = frozenset(("encoder", "major_brand", "minor_version", "compatible_brands"))
"""Metadata that tell of the file, not of the film."""
CHROMA = {(16, 16): "4:4:4", (8, 16): "4:2:2", (16, 8): "4:4:0"}
"""How colours finer than 4:2:0 are called: of 16x16 pixels, how many samples."""
UNNAMED, HDR = 2, (16, 18)
"""Numbers of H.273: a matrix that is not named; the transfers of HDR (PQ and HLG)."""
SEE_THROUGH = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
"""Codecs of WebM, and the decoders that know of its transparency."""
UNSAID = 100
"""Milliseconds that browsers show a frame which names no length."""
ANEW, SHORT = Fraction(1, 10), Fraction(1, 2)
"""Seconds: by which times that begin anew go back at least; that a whole film may be shorter than it says."""


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
    """What is read: the frames, with packets of what goes along between them, and what must be known to write them."""

    frames: Iterator[Frame | av.Packet]
    source: Path
    total: int | None = None
    """Frames, where the file says so; an estimate."""
    rate: Fraction = Fraction(10)
    """Frames a second, on average."""
    clock: Fraction = Fraction(1, 1000)
    """Seconds of which all times are multiples."""
    shortest: Fraction | None = None
    """Seconds for which an animation shows its shortest frame."""
    aspect: Fraction = Fraction(1)
    """Width of a pixel divided by its height; known to be that of upright frames once the first is read."""
    chroma: str = ""
    """4:4:4 or the like, where colours are finer than 4:2:0; known once the first frame is read."""
    origin: Fraction = Fraction(0)
    """Seconds at which the source begins, by its own clock; frames and packets count from there."""
    end: Fraction = Fraction(0)
    """Seconds to which it has been read, by its own clock."""
    sounds: list[Any] = field(default_factory=list)
    """PyAV's audio streams."""
    subtitles: list[Any] = field(default_factory=list)
    attachments: list[Any] = field(default_factory=list)
    chapters: list[Any] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    """What else there is, which no translation has."""
    metadata: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    """Title and language of the pictures."""
    plays: int = 0
    """How often an animation is played: 0 for ever."""
    damaged: int = 0
    """Packets that could not be decoded so far."""
    notes: list[str] = field(default_factory=list)
    """What a person should know of the film, a line each."""


class Changed(Failed):
    """A film is not what it was when its reading began: still being copied, it may be."""


def is_film(path: Path) -> bool:
    """A film by its ending, or a picture that moves."""
    suffix = path.suffix.lower()
    if suffix not in ANIMATIONS:
        return suffix in FILMS
    stamp = state(path)
    return stamp is not None and moves(path, *stamp)


@lru_cache(1 << 16)  # --watch asks each second
def moves(path: Path, size: int, changed: int) -> bool:
    """Does a picture hold several? `size` and `changed` tell whether it is still the same file."""
    try:
        with pictures.own_limits(), Image.open(path, formats=[ANIMATIONS[path.suffix.lower()]]) as image:
            return bool(getattr(image, "is_animated", False))
    except Exception:  # so broken that Pillow stumbles: read as a picture, it is told of
        return False


def result_name(source: Path) -> str:
    """What the translated film is called: as the source, but .mp4 where its own ending cannot be written."""
    return source.name if source.suffix.lower() in WRITTEN else f"{source.stem}.mp4"


def read(source: Path) -> AbstractContextManager[Clip]:
    """Open a film or an animation. Raises BadInput for a file that is none; Failed, while frames are read, for a
    broken one."""
    return (read_animation if source.suffix.lower() in ANIMATIONS else read_film)(source)


@contextmanager
def read_film(source: Path) -> Iterator[Clip]:
    try:
        container: Any = av.open(by_path(source), "r", metadata_errors="replace")
    except av.error.EOFError:
        raise BadInput(f"{source}: holds no frames") from None
    except (av.error.FFmpegError, OSError) as wrong:
        raise BadInput(f"{source}: not a video, or a broken one ({said(wrong)})") from None
    with container:
        streams = container.streams
        covers = [stream for stream in streams.video if stream.disposition & Disposition.attached_pic]
        videos = [stream for stream in streams.video if stream not in covers]
        if not videos:
            raise BadInput(f"{source}: holds no video stream")
        video = best if (best := streams.best("video")) in videos else videos[0]
        if video.codec_context is None:
            raise BadInput(f"{source}: nothing here decodes its video")
        rate = video.average_rate or video.guessed_rate or Fraction(25)
        seconds = video.duration * video.time_base if video.duration else (container.duration or 0) / 10**6
        sounds = [sound for sound in streams.audio if sound.codec_context is not None]
        begin = [stream.start_time * stream.time_base for stream in (video, *sounds) if stream.start_time is not None]
        clip = Clip(
            frames=iter(()),
            source=source,
            total=video.frames or round(seconds * rate) or None,
            rate=rate,
            clock=video.time_base or 1 / rate,
            aspect=video.sample_aspect_ratio or Fraction(1),
            origin=min(begin, default=Fraction(0)),
            sounds=sounds,
            subtitles=list(streams.subtitles),
            attachments=list(streams.attachments),
            chapters=container.chapters(),
            others=+Counter({
                "further video stream": len(videos) - 1,
                "cover picture": len(covers),
                "data stream": sum(not is_written_again(stream) for stream in streams.data),
            }),
            metadata={key: text for key, text in container.metadata.items() if key not in OF_THE_FILE},
            labels=labels(video),
        )  # fmt: skip
        if silent := len(streams.audio) - len(sounds):
            clip.notes.append(f"{source}: {words(silent, 'stream')} of sound, which nothing here decodes, left out")
        if video.codec_context.color_trc in HDR:
            clip.notes.append(f"{source}: is HDR; its values are taken as they are, which looks paler")
        clip.frames = decode_film(container, video, clip)
        yield clip


def is_written_again(data: Any) -> bool:
    """Is it of chapters, or a time code, which the metadata hold, too?"""
    return data.discard == Discard.all or "timecode" in data.metadata


def labels(stream: Any) -> dict[str, str]:
    """Title and language of a stream, as they are written."""
    title = stream.metadata.get("title") or stream.metadata.get("name")  # in an MP4
    return {key: text for key, text in (("title", title), ("language", stream.language)) if text}


def by_path(path: Path) -> str:
    """A file as FFmpeg takes it for one: 12:30.mp4 alone would be of a protocol called 12."""
    return os.path.abspath(path)


def decode_film(container: Any, video: Any, clip: Clip) -> Iterator[Frame | av.Packet]:
    """Frames as they are shown, and between them the packets of what goes along; both counted from the film's start."""
    along, moving = [*clip.sounds, *clip.subtitles], Pictures(container, video, clip)
    before = state(clip.source)
    size: tuple[int, int] | None = None
    frame: Frame | None = None
    end = Fraction(0)
    try:
        for packet in on_one_clock(container, video, clip):
            if packet.stream is not video:
                if packet.stream in along and packet.dts is not None:
                    packet.pts = packet.dts if packet.pts is None else packet.pts
                    yield moved(packet, -clip.origin)
                continue
            try:
                decoded = moving.decode(packet)
            except av.error.InvalidDataError:  # as players do: what is damaged is left out
                clip.damaged += 1
                continue
            for picture in decoded:
                matrix = display_matrix(picture)
                if size is None:
                    size = picture.width, picture.height
                    look(picture, matrix, clip)
                start = end if picture.pts is None else picture.pts * picture.time_base - clip.origin
                length = picture.duration * picture.time_base if picture.duration else 1 / clip.rate
                end = start + length
                frame = on_white(upright(to_rgb(picture, *size), matrix), start, length)
                yield frame
        if frame is not None and moving.repeated - clip.origin > end:
            yield replace(frame, start=moving.repeated - clip.origin - 1 / clip.rate, length=1 / clip.rate)
    except (av.error.FFmpegError, OSError) as wrong:
        raise Failed(f"{clip.source}: broken after {float(end):.1f} s ({said(wrong)})") from None
    if state(clip.source) != before:
        raise Changed(f"{clip.source}: changed while it was read, after {float(end):.1f} s")
    clip.notes += cut_off(container, video, clip)


def state(source: Path) -> tuple[int, int] | None:
    """What tells whether a file is still the same: size and time of the last change, of a pipe nothing. None: gone."""
    with suppress(OSError, ValueError):
        status = source.stat()
        return (status.st_size, status.st_mtime_ns) if status.st_size else (0, 0)
    return None


def cut_off(container: Any, video: Any, clip: Clip) -> list[str]:
    """A word on a film that ends before it says. MPEG streams do not say, and their length is guessed."""
    says = Fraction(container.duration or 0, 10**6)
    if container.format.name == "avi":  # where what is there has been measured, but the frames were counted
        says = max(says, video.frames / clip.rate)
    there = clip.end - min(clip.origin, Fraction(0))
    if "mpeg" in container.format.name or says - there < max(SHORT, 2 / clip.rate):
        return []
    return [f"{clip.source}: ends after {float(there):.1f} s of {float(says):.1f} s: the rest of the file is missing"]


def on_one_clock(container: Any, video: Any, clip: Clip) -> Iterator[Any]:
    """Packets. Where their times begin anew, as in films that were put together, they go on after those before."""
    shifts = [Fraction(0)]
    part, last = Counter[int](), dict[int, Fraction]()  # by stream: which shift is its own, and where it is
    begin = {each.index: (each.start_time or 0) * each.time_base - clip.origin for each in (video, *clip.sounds)}
    for packet in container.demux():
        stream = packet.stream
        if stream.index in begin and packet.dts is not None:
            now = packet.dts * packet.time_base
            if now < last.get(stream.index, now) - ANEW:
                part[stream.index] += 1
                if part[stream.index] == len(shifts):  # this one begins as much after the others as it first did
                    start = now if packet.pts is None else packet.pts * packet.time_base
                    shifts.append(clip.end - start + begin[stream.index])
            last[stream.index] = now
        moved(packet, shifts[part[stream.index] if stream.index in begin else -1])
        if packet.pts is not None:
            clip.end = max(clip.end, (packet.pts + (packet.duration or 0)) * packet.time_base)
        yield packet


def moved(packet: Any, seconds: Fraction) -> Any:
    """The packet, that much later."""
    shift = round(seconds / packet.time_base) if seconds else 0
    packet.pts = None if packet.pts is None else packet.pts + shift
    packet.dts = None if packet.dts is None else packet.dts + shift
    return packet


class Pictures:
    """Decodes the pictures of a film: in order, with their times, and whole where they were two fields."""

    def __init__(self, container: Any, video: Any, clip: Clip):
        self.clip, self.decoder = clip, video.codec_context
        if ("alpha_mode", "1") in ((key.lower(), text) for key, text in video.metadata.items()):
            # FFmpeg's own decoders do not see it
            name = SEE_THROUGH.get(self.decoder.name, "")
            if name in av.codecs_available:
                self.decoder = av.CodecContext.create(name, "r")
            else:
                clip.notes.append(f"{clip.source}: what is transparent, which nothing here decodes, is shown")
        self.decoder.thread_type = "AUTO"
        self.is_avi = container.format.name == "avi"
        self.times: deque[int] = deque()
        """Of an AVI, which does not tell when a picture is shown: in this order at the times when some are decoded."""
        self.repeated = Fraction(0)
        """Seconds until which the last picture stays by packets without bytes."""
        self.graph: Graph | None = None
        """Makes whole pictures of fields, from the first on; of one size and format: `kind`."""
        self.kind: tuple[int, int, str] | None = None

    def decode(self, packet: Any) -> list[Any]:
        """The pictures that are ready; those that are left, for the last packet, which is empty."""
        last = packet.dts is None and not packet.size
        if not packet.size and not last:  # the same picture again
            self.repeated = (packet.dts + (packet.duration or 0)) * packet.time_base
            return []
        decoded = self.decoder.decode(packet)
        if self.is_avi and not last:
            self.times.append(packet.dts)
        for picture in decoded:
            picture.pts = self.times.popleft() if self.times else picture.pts
        return [whole for picture in decoded for whole in self.whole(picture)] + (self.whole(None) if last else [])

    def whole(self, picture: Any) -> list[Any]:
        """The picture as it is, or those that are made of fields, which come a picture later; None for the rest."""
        kind = None if picture is None else (picture.width, picture.height, picture.format.name)
        ready = []
        if self.graph is not None and kind != self.kind:
            self.graph.push(None)
            ready, self.graph = pulled(self.graph), None
        if picture is None or (self.graph is None and not picture.interlaced_frame):
            return ready + [picture] * (picture is not None)
        if self.graph is None:
            note = f"{self.clip.source}: is interlaced; each two fields became one whole picture"
            self.clip.notes += [note] * (note not in self.clip.notes)
            self.graph, self.kind = Graph(), kind
            buffer = self.graph.add_buffer(picture, time_base=picture.time_base)
            fields = self.graph.add("bwdif", "mode=send_frame:deint=interlaced")
            self.graph.link_nodes(buffer, fields, self.graph.add("buffersink")).configure()
        self.graph.push(picture)
        return ready + pulled(self.graph)


def pulled(graph: Graph) -> list[Any]:
    """The pictures that are ready in a filter graph."""
    ready = []
    with suppress(av.error.BlockingIOError, av.error.EOFError):
        while True:
            ready.append(graph.pull())
    return ready


def look(picture: av.VideoFrame, matrix: tuple[int, int, int, int] | None, clip: Clip) -> None:
    """What only the first picture tells."""
    if matrix is not None and matrix[0] == 0:  # a quarter turn: wide pixels become high ones
        clip.aspect = 1 / clip.aspect
    pixels = picture.format
    if len(pixels.components) >= 3 and not pixels.is_rgb:
        clip.chroma = CHROMA.get((pixels.chroma_width(16), pixels.chroma_height(16)), "")
    if (bits := max(part.bits for part in pixels.components)) > 8:
        clip.notes.append(f"{clip.source}: levels of {bits} bits became 8")


def to_rgb(frame: av.VideoFrame, width: int, height: int) -> np.ndarray:
    """(H, W, 3) uint8, or with alpha (H, W, 4), by the matrix that the frame names; where it names none, as players:
    BT.709 from 720 lines."""
    named = frame.colorspace != UNNAMED
    guess = Colorspace.ITU709 if frame.height >= 720 else Colorspace.ITU601
    kind = "rgba" if any(part.is_alpha for part in frame.format.components) else "rgb24"
    return frame.reformat(
        width, height, kind, src_colorspace=None if named else guess, interpolation=Interpolation.BICUBIC
    ).to_ndarray()


def on_white(pixels: np.ndarray, start: Fraction, length: Fraction) -> Frame:
    """The frame of (H, W, 3 or 4) uint8: what is transparent upon white."""
    if pixels.shape[2] == 3 or pixels[..., 3].min() == 255:
        return Frame(np.ascontiguousarray(pixels[..., :3]), start, length)
    picture = pictures.Picture(pixels[..., :3], pixels[..., 3])
    return Frame(pictures.on_white(picture), start, length, picture.alpha)


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


@contextmanager
def read_animation(source: Path) -> Iterator[Clip]:
    lengths: list[Fraction] = []
    broken: Exception | None = None
    with pictures.own_limits():
        try:
            with opened_animation(source) as image:
                for _, length in played(image):
                    lengths.append(length)
        except MemoryError:
            raise
        except Exception as wrong:  # Pillow raises nearly anything when a file is broken
            if not lengths:
                why = f"{type(wrong).__name__}: {wrong}".rstrip(": ").replace("\n", " ")
                raise BadInput(f"{source}: not an animation that can be read, or a broken one ({why})") from None
            broken = wrong
        rate = (len(lengths) / sum(lengths, Fraction(0))).limit_denominator(1001) or Fraction(1, 1001)
        with opened_animation(source) as image:
            yield Clip(
                frames=decode_animation(source, image, len(lengths), broken),
                source=source,
                total=len(lengths),
                rate=rate,
                shortest=min(lengths),
                plays=plays(image),
            )


def plays(image: Image.Image) -> int:
    """How often an animation is played, 0 for ever. A GIF names the times that it is repeated, and nothing for once; an
    AVIF, nothing."""
    loop = image.info.get("loop")
    if image.format == "GIF":
        return 1 if loop is None else loop and loop + 1
    return loop or 0


def opened_animation(source: Path) -> Image.Image:
    return Image.open(source, formats=sorted(set(ANIMATIONS.values())))


def played(image: Image.Image) -> Iterator[tuple[Image.Image, Fraction]]:
    """The pictures of an animation in turn, and the seconds for which each is shown."""
    # Of a PNG, the first picture may be for those who do not know that it moves.
    first = int(bool(getattr(image, "default_image", False)))
    for picture in islice(ImageSequence.Iterator(image), first, None):
        picture.load()  # before that, a WebP does not know its length
        yield picture, Fraction(picture.info.get("duration") or UNSAID).limit_denominator(1001) / 1000


def decode_animation(source: Path, image: Image.Image, count: int, broken: Exception | None) -> Iterator[Frame]:
    """The frames as they are shown; Failed after those that are whole, where more were `broken`."""
    start = Fraction(0)
    for picture, length in islice(played(image), count):
        yield on_white(np.asarray(picture.convert("RGBA")), start, length)
        start += length
    if broken is not None:
        raise Failed(f"{source}: broken after {float(start):.1f} s ({broken})") from None


def said(wrong: Exception) -> str:
    """FFmpeg's words for what went wrong."""
    return str(getattr(wrong, "strerror", None) or wrong)

"""Moving pictures in and out: films through FFmpeg (PyAV), with their sound; GIF, WebP, PNG and AVIF through Pillow.

A clip is read frame by frame: upright, with times, what is transparent upon white.
"""

import os
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, Self

import av
import numpy as np
from av.bitstream import BitStreamFilterContext
from av.video.reformatter import ColorRange, Colorspace, Interpolation
from PIL import Image, ImageSequence

from ..data import pictures as images
from ..errors import BadInput, Failed
from ..terminal import words

FILMS = frozenset(
    f".{ending}"
    for ending in ("mp4", "m4v", "mov", "mkv", "webm", "avi", "mpg", "mpeg", "m2ts", "mts", "ts", "wmv", "flv", "3gp",
                   "ogv", "vob", "mxf")
)  # fmt: skip
"""Endings of files that are taken for films."""
ANIMATIONS = {end: name for name in images.MOVING if name in images.WRITTEN for end in images.ENDINGS[name].split()}
"""Endings of pictures that may move, and Pillow's name for each."""
CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm", ".avi": "avi"}
"""Endings of films that are written, and FFmpeg's name for each."""
WRITTEN = CONTAINERS.keys() | ANIMATIONS.keys()
"""Endings of all moving pictures that can be written."""
OF_THE_FILE = frozenset(("encoder", "major_brand", "minor_version", "compatible_brands"))
"""Metadata that tell of the file, not of the film."""
UNNAMED, HDR, BT709, LIMITED = 2, (16, 18), 1, 1
"""Numbers of H.273: a matrix that is not named; the transfers of HDR (PQ and HLG); high-definition colour; and of
FFmpeg: the range 16 to 235."""
UNSAID = 100
"""Milliseconds that browsers show a frame which names no length."""
SHORTEST = Fraction(20, 1000)
"""Of a GIF's frames: browsers show those that are shorter for a tenth of a second."""
LONGEST_NAME = 255
"""Bytes of a file's name that file systems take."""
UNNAMED_LAYOUTS = {1: "mono", 2: "stereo", 3: "2.1", 4: "4.0", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}
"""Loudspeakers that so many channels of sound are for where nothing is said, as in FFmpeg."""
os.environ.setdefault("SVT_LOG", "1")  # the AV1 encoder tells its life story on standard error else


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
    source: Path | None = None
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
    sounds: list[Any] = field(default_factory=list)
    """PyAV's audio streams."""
    metadata: dict[str, str] = field(default_factory=dict)
    loop: int | None = 0
    """How often an animation repeats: 0 for ever, None not at all."""
    damaged: int = 0
    """Packets that could not be decoded so far."""
    notes: list[str] = field(default_factory=list)
    """What a person should know of the film, a line each."""


def is_film(path: Path) -> bool:
    """A film by its ending, or a picture that moves."""
    suffix = path.suffix.lower()
    if suffix not in ANIMATIONS:
        return suffix in FILMS
    try:
        status = path.stat()
    except (OSError, ValueError):
        return False
    return moves(path, status.st_size, status.st_mtime_ns)


@lru_cache(1 << 16)  # --watch asks each second
def moves(path: Path, size: int, changed: int) -> bool:
    """Does a picture hold several? `size` and `changed` tell whether it is still the same file."""
    try:
        with images.own_limits(), Image.open(path, formats=[ANIMATIONS[path.suffix.lower()]]) as image:
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
        container: Any = av.open(source, "r", metadata_errors="replace")
    except av.error.EOFError:
        raise BadInput(f"{source}: holds no frames") from None
    except (av.error.FFmpegError, OSError) as wrong:
        raise BadInput(f"{source}: not a video, or a broken one ({said(wrong)})") from None
    with container:
        if not container.streams.video:
            raise BadInput(f"{source}: holds no video stream")
        video = container.streams.best("video") or container.streams.video[0]
        if video.codec_context is None:
            raise BadInput(f"{source}: nothing here decodes its video")
        video.thread_type = "AUTO"
        rate = video.average_rate or video.guessed_rate or Fraction(25)
        seconds = video.duration * video.time_base if video.duration else (container.duration or 0) / 10**6
        clip = Clip(
            frames=iter(()),
            source=source,
            total=video.frames or round(seconds * rate) or None,
            rate=rate,
            clock=video.time_base or 1 / rate,
            aspect=video.sample_aspect_ratio or Fraction(1),
            sounds=[sound for sound in container.streams.audio if sound.codec_context is not None],
            metadata={key: text for key, text in container.metadata.items() if key not in OF_THE_FILE},
        )
        if silent := len(container.streams.audio) - len(clip.sounds):
            clip.notes.append(f"{source}: {words(silent, 'stream')} of sound, which nothing here decodes, left out")
        if video.codec_context.color_trc in HDR:
            clip.notes.append(f"{source}: is HDR; its values are taken as they are, which looks paler")
        clip.frames = decode_film(source, container, video, clip)
        yield clip


def decode_film(source: Path, container: Any, video: Any, clip: Clip) -> Iterator[Frame | av.Packet]:
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
                matrix = display_matrix(frame)
                if size is None:
                    size = frame.width, frame.height
                    if matrix is not None and matrix[0] == 0:  # a quarter turn: wide pixels become high ones
                        clip.aspect = 1 / clip.aspect
                start = end if frame.pts is None else frame.pts * frame.time_base - origin
                length = Fraction(frame.duration * clip.clock if frame.duration else 1 / clip.rate)
                end = start + length
                yield on_white(upright(to_rgb(frame, *size), matrix), start, length)
    except (av.error.FFmpegError, OSError) as wrong:
        raise Failed(f"{source}: broken after {float(end):.1f} s ({said(wrong)})") from None


def moved(packet: Any, seconds: Fraction) -> av.Packet:
    """The packet, that much later."""
    shift = round(seconds / packet.time_base)
    packet.dts = packet.dts + shift
    packet.pts = packet.dts if packet.pts is None else packet.pts + shift
    return packet  # type: ignore[no-any-return]


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
    picture = images.Picture(pixels[..., :3], pixels[..., 3])
    return Frame(images.on_white(picture), start, length, picture.alpha)


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
    with images.own_limits():
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
                loop=image.info.get("loop"),
            )


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


@contextmanager
def telling(partial: Path) -> Iterator[None]:
    """What goes wrong while a film is written becomes Failed, in a line that names the file."""
    try:
        yield
    except (av.error.FFmpegError, OSError) as wrong:
        raise Failed(f"{partial}: cannot be written any further ({said(wrong)})") from None


class Writer(ABC):
    """Writes one film. A context: left well, the file gets its name; left by an exception, what was done stays, as
    NAME.partial.mp4, which plays. `notes`: what a person should know of the result, a line each.
    """

    def __init__(self, target: Path, clip: Clip):
        self.target, self.partial = target, target.with_name(f"{target.stem}.partial{target.suffix}")
        if len(os.fsencode(self.partial.name)) > LONGEST_NAME:
            self.partial = target.with_name(f"{secrets.token_hex(4)}.partial{target.suffix}")
        if clip.source is not None and os.path.realpath(self.partial) == os.path.realpath(clip.source):
            raise BadInput(f"{clip.source} would be overwritten on the way to {target}: name another --out")
        self.sounds: dict[int, Sound] = {}
        """By the number of the source's stream; an animation is silent."""
        self.frames = 0
        self.notes: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # What stopped the film may stop its end, too: a full disk. The first word on it is enough.
        with telling(self.partial) if kind is None else suppress(av.error.FFmpegError, OSError):
            self.finish()
        if kind is None:
            self.partial.replace(self.target)
        elif not self.frames:
            self.partial.unlink()

    @abstractmethod
    def write(self, frame: Frame) -> None:
        """Take the next frame."""

    @abstractmethod
    def finish(self) -> None:
        """Complete the file."""

    def unpacked(self, packet: Any) -> list[Any]:
        """What of a packet of the source's sound any writer takes by `add_sound`: a packet changes as it is read."""
        with telling(self.partial):
            sound = self.sounds.get(packet.stream.index)
            return [] if sound is None else sound.unpacked(packet)

    def add_sound(self, index: int, parts: list[Any]) -> None:
        """Take what `unpacked` found in a packet of that stream."""
        with telling(self.partial):
            for part in parts:
                self.sounds[index].write(part)


def open_writer(target: Path, clip: Clip, size: tuple[int, int], codec: str, quality: int) -> Writer:
    """Of what the ending of `target` says; `size`: (height, width) of the frames. Raises BadInput for a codec that
    is not there, that the container cannot hold, or that cannot encode this size; and for an unwritable target."""
    if target.is_dir():
        raise BadInput(f"{target}: a folder of this name is in the way")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.suffix.lower() in ANIMATIONS:
            return AnimationWriter(target, clip, quality)
        return FilmWriter(target, clip, size, codec, quality)
    except (av.error.FFmpegError, OSError) as wrong:
        raise BadInput(f"{target}: cannot write {size[1]}x{size[0]} there ({said(wrong)})") from None


class AnimationWriter(Writer):
    """A GIF, WebP, PNG or AVIF, which is encoded at the end."""

    def __init__(self, target: Path, clip: Clip, quality: int):
        super().__init__(target, clip)
        self.clip, self.quality = clip, quality
        self.kind = ANIMATIONS[target.suffix.lower()]
        self.pictures: list[Image.Image] = []
        self.starts: list[Fraction] = []
        self.end = Fraction(0)
        self.partial.touch()

    def write(self, frame: Frame) -> None:
        """A GIF leaves out frames that come too fast for it."""
        self.end = frame.start + frame.length
        if self.kind == "GIF" and self.starts and frame.start - self.starts[-1] < SHORTEST:
            return
        picture = Image.fromarray(frame.pixels[..., 0] if frame.pixels.shape[2] == 1 else frame.pixels)
        if frame.alpha is not None:
            picture.putalpha(Image.fromarray(frame.alpha))
        self.starts.append(frame.start)
        self.pictures.append(picture)
        self.frames += 1

    def finish(self) -> None:
        if not self.pictures:
            return
        step = 10 if self.kind == "GIF" else 1  # milliseconds that the format counts in
        edges = [step * round(1000 * second / step) for second in (*self.starts, self.end)]
        once = {"loop": 1} if self.kind in ("WEBP", "PNG") else {}
        self.pictures[0].save(
            self.partial,
            self.kind,
            save_all=True,
            append_images=self.pictures[1:],
            duration=[after - before for before, after in zip(edges[:-1], edges[1:], strict=True)],
            quality=self.quality,
            **({"loop": self.clip.loop} if self.clip.loop is not None else once),
        )


@dataclass(frozen=True)
class Codec:
    """How films are encoded by one codec."""

    encoder: str
    """FFmpeg's name of the encoder."""
    pixels: str
    """FFmpeg's name of the pixel format."""
    options: Callable[[int], dict[str, str]]
    """From quality, 1 to 100, to the options of the encoder."""
    multiple: tuple[int, int] = (1, 1)
    """What height and width must be multiples of."""


def crf(worst: float, slope: float, **others: str) -> Callable[[int], dict[str, str]]:
    """Constant quality: `worst` at quality 0, better by `slope` for each step."""
    return lambda quality: {"crf": str(round(worst - slope * quality))} | others


CODECS = {
    # veryfast takes 0.07 instead of 0.19 s of a core for 1920x1080, for 41 instead of 42 dB in as many bytes.
    "h264": Codec("libx264", "yuv420p", crf(50, 0.4, preset="veryfast"), multiple=(2, 2)),
    "hevc": Codec("libx265", "yuv420p", crf(50, 0.4, **{"x265-params": "log-level=none"}), multiple=(2, 2)),
    "av1": Codec("libsvtav1", "yuv420p", crf(63, 0.45, preset="8")),
    "vp9": Codec("libvpx-vp9", "yuv420p", crf(63, 0.45, **{"b": "0", "row-mt": "1", "cpu-used": "4"})),
    "prores": Codec(
        "prores_ks",
        "yuv422p10le",
        lambda quality: {"profile": "3", "global_quality": str(118 * round(26 - quality / 4))},
        multiple=(1, 2),
    ),
    "ffv1": Codec("ffv1", "bgr0", lambda quality: {"level": "3", "slicecrc": "1"}),
}
"""Quality 80, the default, is crf 18 of H.264, where differences are hard to see. ffv1 is lossless."""


def choose_codec(codec: str, target: Path) -> str:
    """`codec`, or for a container that cannot hold the default, H.264, the one it is made for.

    Raises BadInput for a codec that is not there or does not go into the container.
    """
    there = sorted(name for name in CODECS if CODECS[name].encoder in av.codecs_available)
    if codec not in there:
        raise BadInput(f"--codec {codec}: no such codec here; there are {', '.join(there)}")
    container: Any = av.open(target, "w", format=CONTAINERS[target.suffix.lower()])  # opens no file yet
    held = [name for name in there if name in container.supported_codecs]
    if codec in held:
        return codec
    if codec == "h264" and container.default_video_codec in held:
        return str(container.default_video_codec)
    raise BadInput(f"--codec {codec}: {target.suffix} cannot hold it; it holds {', '.join(held)}")


class FilmWriter(Writer):
    """A film. MP4 and MOV are written in fragments of a second, and made plain files at the end."""

    def __init__(self, target: Path, clip: Clip, size: tuple[int, int], codec: str, quality: int):
        super().__init__(target, clip)
        name = choose_codec(codec, target)
        self.codec = CODECS[name]
        kind = CONTAINERS[target.suffix.lower()]
        fragments = {"movflags": "hybrid_fragmented+delay_moov", "frag_duration": "1000000"}
        options = {"flush_packets": "1"} | (fragments if kind in ("mp4", "mov") else {})
        try:
            self.container: Any = av.open(self.partial, "w", format=kind, options=options)
            self.container.metadata.update(clip.metadata)
            frame = clip.shortest or 1 / clip.rate
            self.clock = frame if kind == "avi" else clip.clock  # AVI counts frames, not time
            self.video = self.add_video(name, clip, size, quality)
            self.sounds = {sound.index: Sound(self.container, sound) for sound in clip.sounds}
            self.container.start_encoding()
        except (av.error.FFmpegError, OSError):
            self.partial.unlink(missing_ok=True)
            raise
        self.last = -1
        (height, width), (high, wide) = size, (self.video.height, self.video.width)
        if (height, width) != (high, wide):
            self.notes.append(f"{target}: {width}x{height} became {wide}x{high}, since {name} wants even sides; "
                              "--codec vp9 and av1 keep the size")  # fmt: skip
        self.notes += [
            f"{target}: {sound.was} sound became {sound.became}, since {target.suffix} cannot hold it"
            for sound in self.sounds.values()
            if not sound.copied
        ]

    def add_video(self, name: str, clip: Clip, size: tuple[int, int], quality: int) -> Any:
        height, width = (side + -side % multiple for side, multiple in zip(size, self.codec.multiple, strict=True))
        video: Any = self.container.add_stream(self.codec.encoder, rate=clip.rate)
        video.width, video.height, video.pix_fmt = width, height, self.codec.pixels
        video.time_base = video.codec_context.time_base = self.clock
        video.sample_aspect_ratio = clip.aspect
        video.options = self.codec.options(quality) | ({"bf": "0"} if self.container.format.name == "avi" else {})
        if self.codec.pixels.startswith("yuv"):
            context = video.codec_context
            context.colorspace = context.color_primaries = context.color_trc = BT709
            context.color_range = LIMITED
        if name == "hevc" and self.container.format.name in ("mp4", "mov"):
            video.codec_context.codec_tag = "hvc1"  # Apple's players know no other
        video.codec_context.open()
        return video

    def write(self, frame: Frame) -> None:
        """Gray becomes RGB; where a codec wants even sides, the last row and column stand twice; RGB to BT.709."""
        clear = f"{self.target}: what is transparent was laid upon white"
        if frame.alpha is not None and clear not in self.notes:
            self.notes.append(clear)
        height, width = frame.pixels.shape[:2]
        pixels = images.to_channels(frame.pixels, 3)
        pixels = np.pad(pixels, ((0, self.video.height - height), (0, self.video.width - width), (0, 0)), "edge")
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        if self.codec.pixels.startswith("yuv"):
            picture = picture.reformat(
                format=self.codec.pixels,
                dst_colorspace=Colorspace.ITU709,
                dst_color_range=ColorRange.MPEG,
                interpolation=Interpolation.BICUBIC,
            )
        self.last = max(round(frame.start / self.clock), self.last + 1)
        picture.pts, picture.time_base = self.last, self.clock
        picture.duration = round(frame.length / self.clock)
        with telling(self.partial):
            self.container.mux(self.video.encode(picture))
        self.frames += 1

    def finish(self) -> None:
        self.container.mux(self.video.encode(None))
        for sound in self.sounds.values():
            sound.finish()
        self.container.close()


class Sound:
    """One stream of sound: its packets copied where the container holds the codec, else encoded again."""

    def __init__(self, container: Any, source: Any):
        self.container = container
        self.was = source.codec_context.codec.canonical_name
        self.copied = self.was in container.supported_codecs
        self.damaged = 0
        if self.copied:
            self.stream = container.add_stream_from_template(source)
            name_layout(self.stream.codec_context)
            bare = self.was == "aac" and not source.codec_context.extradata  # from a broadcast stream
            self.unpack = BitStreamFilterContext("aac_adtstoasc", source).filter if bare else lambda packet: [packet]
        else:
            self.unpack = av.Packet.decode
            self.encode_again(source)
        if source.language:
            self.stream.metadata["language"] = source.language

    def encode_again(self, source: Any) -> None:
        """Make the encoder ready: rate and loudspeakers as they were, where it knows them."""
        codec, encoder = ("opus", "libopus") if self.container.format.name == "webm" else ("aac", "aac")
        known: Any = av.Codec(encoder, "w")
        rates = [48_000] if codec == "opus" else known.audio_rates  # all that Opus is played at
        rate = source.rate if source.rate in rates else 48_000
        name_layout(source.codec_context)
        own = source.layout.name
        layout = next(name for name in (own, own.replace("(side)", ""), "stereo") if takes(encoder, rate, name))
        self.became = codec + f", {rate} instead of {source.rate} Hz" * (rate != source.rate)
        self.became += f", stereo instead of {own}" * (layout == "stereo" != own)
        self.stream = self.container.add_stream(encoder, rate=rate, layout=layout)
        context = self.stream.codec_context
        context.open()
        self.resampler = av.AudioResampler(context.format.name, layout, rate, context.frame_size or None)

    def unpacked(self, packet: Any) -> list[Any]:
        """The packet as it is written, or the frames in it; damaged ones are left out and counted."""
        if self.container.format.name == "avi" and packet.dts < 0:
            return []  # an encoder's run-up, before the film; AVI counts from 0 and would delay the picture for it
        try:
            return self.unpack(packet)
        except av.error.InvalidDataError:
            self.damaged += 1
            return []

    def write(self, part: Any) -> None:
        if self.copied:
            part.stream = self.stream
            self.container.mux(part)
        else:
            self.encode(part)

    def finish(self) -> None:
        if not self.copied:
            self.encode(None)
            self.container.mux(self.stream.encode(None))

    def encode(self, frame: Any) -> None:
        for part in self.resampler.resample(frame):
            self.container.mux(self.stream.encode(part))


def name_layout(context: Any) -> None:
    """Of PCM in some containers only the number of channels is known, which other containers do not take."""
    if context.layout.name == f"{context.channels} channels":
        context.layout = UNNAMED_LAYOUTS.get(context.channels, context.layout)


def takes(encoder: str, rate: int, layout: str) -> bool:
    """Does an encoder of sound know this layout of loudspeakers?"""
    context: Any = av.CodecContext.create(encoder, "w")
    context.sample_rate, context.layout, context.format = rate, layout, context.codec.audio_formats[0]
    try:
        context.open()
    except av.error.FFmpegError:
        return False
    return True

"""Moving pictures out: films through FFmpeg (PyAV), with what goes along; GIF, WebP, PNG and AVIF through Pillow."""

import os
import secrets
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import count
from pathlib import Path
from typing import Any, Self

import av
import numpy as np
import torch
from av.video.reformatter import ColorRange, Colorspace, Interpolation
from PIL import Image

from ..config import LONGEST_NAME
from ..data import pictures
from ..device import free
from ..errors import BadInput, Failed
from ..terminal import words
from .clips import ANIMATIONS, CONTAINERS, Changed, Clip, Frame, by_path, said
from .tracks import Sound, Track, holds

BT709, LIMITED = 1, 1
"""Numbers of H.273: high-definition colour; and of FFmpeg: the range 16 to 235."""
SHORTEST = Fraction(20, 1000)
"""Of a GIF's frames: browsers show those that are shorter for a tenth of a second."""
os.environ.setdefault("SVT_LOG", "1")  # the AV1 encoder tells its life story on standard error else


@contextmanager
def telling(partial: Path) -> Iterator[None]:
    """What goes wrong while a film is written becomes Failed, in a line that names the file."""
    try:
        yield
    except (av.error.FFmpegError, OSError) as wrong:
        raise Failed(f"{partial}: cannot be written any further ({said(wrong)})") from None


class Writer(ABC):
    """Writes one film. A context: left well, the file gets its name; left by an exception, what was done stays, as
    NAME.partial.mp4, which plays; unless it is of a source that changed. `notes`: what a person should know of the
    result, a line each.
    """

    def __init__(self, target: Path, clip: Clip, size: tuple[int, int]):
        self.target, self.clip = target, clip
        self.partial = free_name(target, clip.source)
        self.size = size
        """(height, width) of what is written."""
        self.aspect = clip.aspect
        self.tracks: dict[int, Track] = {}
        """By the number of the source's stream; an animation has none."""
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
        elif not self.frames or issubclass(kind, Changed):
            self.partial.unlink()

    def make_square(self, what: str) -> None:
        """Have pixels that are not square enlarged to square ones, since `what` cannot tell how wide they are."""
        (height, width), aspect = self.size, self.aspect
        self.size = round(height * max(1 / aspect, Fraction(1))), round(width * max(aspect, Fraction(1)))
        self.aspect = Fraction(1)
        if self.size != (height, width):
            self.notes.append(
                f"{self.target}: {width}x{height} pixels of {aspect.numerator}:{aspect.denominator} became "
                f"{self.size[1]}x{self.size[0]} square ones, since {what} cannot tell how wide they are"
            )

    def left_out(self, more: dict[str, int]) -> None:
        """Say what of the source is not in the file."""
        if left := self.clip.others + Counter(more):
            self.notes.append(f"{self.target}: left out: {', '.join(words(left[kind], kind) for kind in left)}")

    @abstractmethod
    def write(self, frame: Frame) -> None:
        """Take the next frame."""

    @abstractmethod
    def finish(self) -> None:
        """Complete the file."""

    def unpacked(self, packet: Any) -> list[Any]:
        """What of a packet of what goes along any writer takes by `add`: a packet changes as it is read."""
        with telling(self.partial):
            track = self.tracks.get(packet.stream.index)
            return [] if track is None else track.unpacked(packet)

    def add(self, index: int, parts: list[Any]) -> None:
        """Take what `unpacked` found in a packet of that stream."""
        with telling(self.partial):
            for part in parts:
                self.tracks[index].write(part)


def free_name(target: Path, source: Path) -> Path:
    """NAME.partial.mp4, and another where that is too long, or is there already: it may be the translation of a film
    that is called so."""
    name = target.with_name(f"{target.stem}.partial{target.suffix}")
    if len(os.fsencode(name.name)) > LONGEST_NAME:
        return target.with_name(f"{secrets.token_hex(4)}.partial{target.suffix}")
    if os.path.realpath(name) == os.path.realpath(source):
        raise BadInput(f"{source} would be overwritten on the way to {target}: name another --out")
    others = (target.with_name(f"{target.stem}.partial{number}{target.suffix}") for number in count(2))
    return name if not os.path.lexists(name) else next(other for other in others if not os.path.lexists(other))


def open_writer(target: Path, clip: Clip, size: tuple[int, int], codec: str, quality: int) -> Writer:
    """Of what the ending of `target` says; `size`: (height, width) of the frames. Raises BadInput for a codec that
    is not there, that the container cannot hold, or that cannot encode this size; and for an unwritable target."""
    if target.is_dir():
        raise BadInput(f"{target}: a folder of this name is in the way")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.suffix.lower() in ANIMATIONS:
            return AnimationWriter(target, clip, size, quality)
        try:
            return FilmWriter(target, clip, size, codec, quality, copy=True)
        except av.error.FFmpegError:  # such as a header that misses what only an encoder tells
            return FilmWriter(target, clip, size, codec, quality, copy=False)
    except (av.error.FFmpegError, OSError) as wrong:
        raise BadInput(f"{target}: cannot write there ({said(wrong)})") from None


class AnimationWriter(Writer):
    """A GIF, WebP, PNG or AVIF, which is encoded at the end."""

    def __init__(self, target: Path, clip: Clip, size: tuple[int, int], quality: int):
        super().__init__(target, clip, size)
        self.quality = quality
        self.kind = ANIMATIONS[target.suffix.lower()]
        self.make_square(target.suffix)
        self.left_out({"sound stream": len(clip.sounds), "subtitle stream": len(clip.subtitles),
                       "attachment": len(clip.attachments), "chapter": len(clip.chapters)})  # fmt: skip
        height, width = self.size
        need, there = (clip.total or 0) * height * width * 3, free(torch.device("cpu"))
        if need > there:
            raise BadInput(
                f"{target}: about {clip.total:,} frames of {width}x{height} take {need / 1e9:.1f} GB of memory "
                f"until they are written, and {there / 1e9:.1f} GB are free: name a film, such as .mp4"
            )
        self.pictures: list[Image.Image] = []
        self.starts: list[Fraction] = []
        self.end = Fraction(0)
        self.too_fast = 0
        self.partial.touch()

    def write(self, frame: Frame) -> None:
        """A GIF leaves out frames that come too fast for it."""
        self.end = frame.start + frame.length
        if self.kind == "GIF" and self.starts and frame.start - self.starts[-1] < SHORTEST:
            self.too_fast += 1
            return
        pixels, alpha = frame.pixels, frame.alpha
        if self.kind == "GIF" and alpha is not None:
            soft = f"{self.target}: what is half transparent became opaque or nothing, since a GIF knows no more"
            self.notes += [soft] * (soft not in self.notes and not set(np.unique(alpha)) <= {0, 255})
            alpha = np.where(alpha < 128, np.uint8(0), np.uint8(255))
        pixels = pictures.resized(pixels, self.size)
        alpha = None if alpha is None else pictures.resized(alpha[..., None], self.size)[..., 0]
        self.starts.append(frame.start)
        self.pictures.append(pictures.to_pil(pixels, alpha))
        self.frames += 1

    def finish(self) -> None:
        if not self.pictures:
            return
        step = 10 if self.kind == "GIF" else 1  # milliseconds that the format counts in
        edges = [step * round(1000 * second / step) for second in (*self.starts, self.end)]
        options: dict[str, Any] = {"quality": self.quality}
        if self.kind == "GIF" and any("A" in picture.getbands() for picture in self.pictures):
            options["disposal"] = 2  # where a frame is transparent, the one before would be seen
        self.pictures[0].save(
            self.partial,
            self.kind,
            save_all=True,
            append_images=self.pictures[1:],
            duration=[after - before for before, after in zip(edges[:-1], edges[1:], strict=True)],
            **options | self.loop(),
        )
        if self.too_fast:
            self.notes.append(f"{self.target}: {words(self.too_fast, 'frame')} came faster than 50 a second, which is "
                              "too fast for a GIF, and were left out")  # fmt: skip

    def loop(self) -> dict[str, int]:
        """Pillow's word for how often it is played: of a GIF, how often again; an AVIF is played for ever."""
        plays = min(self.clip.plays, 65_535)
        if self.kind == "GIF":
            return {} if plays == 1 else {"loop": max(0, plays - 1)}
        if self.kind == "AVIF" and plays:
            self.notes.append(f"{self.target}: is played for ever, and not {words(plays, 'time')}, which no AVIF says")
        return {} if self.kind == "AVIF" else {"loop": plays}


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
    container: Any = av.open(by_path(target), "w", format=CONTAINERS[target.suffix.lower()])  # opens no file yet
    held = [name for name in there if name in container.supported_codecs]
    if codec in held:
        return codec
    if codec == "h264" and container.default_video_codec in held:
        return str(container.default_video_codec)
    raise BadInput(f"--codec {codec}: {target.suffix} cannot hold it; it holds {', '.join(held)}")


class FilmWriter(Writer):
    """A film. MP4 and MOV are written in fragments of a second, and made plain files at the end. `copy`: take sound and
    subtitles as they are, where the container holds them."""

    def __init__(self, target: Path, clip: Clip, size: tuple[int, int], codec: str, quality: int, copy: bool):
        super().__init__(target, clip, size)
        name = choose_codec(codec, target)
        self.codec = CODECS[name]
        kind = CONTAINERS[target.suffix.lower()]
        if kind not in ("mp4", "mov") and name not in ("h264", "hevc"):  # PyAV tells these containers nothing of it
            self.make_square(f"{name} in {target.suffix}")
        fragments = {"movflags": "hybrid_fragmented+delay_moov", "frag_duration": "1000000"}
        options = {"flush_packets": "1"} | (fragments if kind in ("mp4", "mov") else {})
        try:
            self.container: Any = av.open(by_path(self.partial), "w", format=kind, options=options)
            self.container.metadata.update(clip.metadata)
            frame = clip.shortest or 1 / clip.rate
            self.clock = frame if kind == "avi" else clip.clock  # AVI counts frames, not time
            self.video = self.add_video(name, quality)
            self.add_tracks(kind, copy)
            self.container.start_encoding()
        except (av.error.FFmpegError, OSError):
            self.partial.unlink(missing_ok=True)
            raise
        self.last = -1
        (height, width), (high, wide) = self.size, (self.video.height, self.video.width)
        if (height, width) != (high, wide):
            self.notes.append(f"{target}: {width}x{height} became {wide}x{high}, since {name} wants even sides; "
                              "--codec vp9 and av1 keep the size")  # fmt: skip
        coarse = "4:2:0" if "420" in self.codec.pixels else "4:2:2" if "422" in self.codec.pixels else clip.chroma
        if clip.chroma > coarse:
            self.notes.append(f"{target}: colours of {clip.chroma} became {coarse}")
        self.notes += [
            f"{target}: {track.was} sound became {track.became}, since {target.suffix} {track.reason}"
            for track in self.tracks.values()
            if isinstance(track, Sound) and not track.copied
        ]

    def add_tracks(self, kind: str, copy: bool) -> None:
        """What goes along with the pictures, where the container holds it."""
        clip, container = self.clip, self.container
        for sound in clip.sounds:
            self.tracks[sound.index] = Sound(container, sound, clip.origin, copy)
        held = [subtitle for subtitle in clip.subtitles if copy and holds(container, subtitle)]
        for subtitle in held:
            self.tracks[subtitle.index] = Track(container, subtitle)
        attachments = clip.attachments if kind == "matroska" else []
        for attachment in attachments:
            container.add_attachment(attachment.name, attachment.mimetype, attachment.data)
        chapters = clip.chapters if kind != "avi" else []
        container.set_chapters([shifted(chapter, -clip.origin) for chapter in chapters])
        self.left_out({"subtitle stream": len(clip.subtitles) - len(held),
                       "attachment": len(clip.attachments) - len(attachments),
                       "chapter": len(clip.chapters) - len(chapters)})  # fmt: skip

    def add_video(self, name: str, quality: int) -> Any:
        height, width = (side + -side % each for side, each in zip(self.size, self.codec.multiple, strict=True))
        video: Any = self.container.add_stream(self.codec.encoder, rate=self.clip.rate)
        video.width, video.height, video.pix_fmt = width, height, self.codec.pixels
        video.time_base = video.codec_context.time_base = self.clock
        video.sample_aspect_ratio = self.aspect
        video.options = self.codec.options(quality) | ({"bf": "0"} if self.container.format.name == "avi" else {})
        if self.codec.pixels.startswith("yuv"):
            context = video.codec_context
            context.colorspace = context.color_primaries = context.color_trc = BT709
            context.color_range = LIMITED
        if name == "hevc" and self.container.format.name in ("mp4", "mov"):
            video.codec_context.codec_tag = "hvc1"  # Apple's players know no other
        video.metadata.update(self.clip.labels)
        try:
            video.codec_context.open()
        except av.error.FFmpegError as wrong:
            raise BadInput(f"{self.target}: {name} cannot encode {width}x{height} ({said(wrong)})") from None
        return video

    def write(self, frame: Frame) -> None:
        """Gray becomes RGB; where a codec wants even sides, the last row and column stand twice; RGB to BT.709."""
        clear = f"{self.target}: what is transparent was laid upon white"
        if frame.alpha is not None and clear not in self.notes:
            self.notes.append(clear)
        pixels = pictures.resized(pictures.to_channels(frame.pixels, 3), self.size)
        height, width = self.size
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
        for track in self.tracks.values():
            self.notes += [f"{self.target}: {note}" for note in track.finish()]
        self.container.close()


def shifted(chapter: dict[str, Any], seconds: Fraction) -> dict[str, Any]:
    """The chapter, that much later."""
    shift = round(seconds / chapter["time_base"])
    return chapter | {"start": max(0, chapter["start"] + shift), "end": max(0, chapter["end"] + shift)}

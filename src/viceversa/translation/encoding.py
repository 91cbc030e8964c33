"""Films written through FFmpeg (PyAV): codecs, containers, and the sound copied where the container holds it."""

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import av
import numpy as np
from av.bitstream import BitStreamFilterContext
from av.video.reformatter import ColorRange, Colorspace, Interpolation

from ..errors import BadInput
from .movie import Clip, Frame, said, telling

CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm", ".avi": "avi"}
"""Endings of films that are written, and FFmpeg's name for each."""
os.environ.setdefault("SVT_LOG", "1")  # the AV1 encoder tells its life story on standard error else
BT709, LIMITED = 1, 1
"""The numbers of H.273 for high-definition colour, and of FFmpeg for the range 16 to 235."""


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
    "h264": Codec("libx264", "yuv420p", crf(50, 0.4), multiple=(2, 2)),
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


class FilmWriter:
    """Writes one film. Until it is complete it is called NAME.partial.mp4, and plays as far as it got.

    A context: left well, the file gets its name; left by an exception, the partial file stays. MP4 and MOV
    are written in fragments of a second, and made plain files at the end. Raises BadInput for a codec that is
    not there, that the container cannot hold, or that cannot encode this size; and for an unwritable target.
    """

    def __init__(self, target: Path, clip: Clip, size: tuple[int, int], codec: str, quality: int):
        """`size`: (height, width) of the frames."""
        self.target, self.partial = target, target.with_name(f"{target.stem}.partial{target.suffix}")
        name = choose_codec(codec, target)
        self.codec = CODECS[name]
        kind = CONTAINERS[target.suffix.lower()]
        fragments = {"movflags": "hybrid_fragmented+delay_moov", "frag_duration": "1000000"}
        options = {"flush_packets": "1"} | (fragments if kind in ("mp4", "mov") else {})
        try:
            self.container: Any = av.open(self.partial, "w", format=kind, options=options)
            self.container.metadata.update(clip.metadata)
            self.clock = 1 / clip.rate if kind == "avi" else clip.clock  # AVI counts frames, not time
            self.video = self._add_video(name, clip, size, quality)
            self.sounds = {sound.index: Sound(self.container, sound) for sound in clip.sounds}
            self.container.start_encoding()
        except (av.error.FFmpegError, OSError) as wrong:
            self.partial.unlink(missing_ok=True)
            height, width = size
            raise BadInput(f"{target}: cannot write {width}x{height} as {name} there ({said(wrong)})") from None
        self.last = -1
        self.notes = [*self._padded(name, size), *self._encoded_again()]

    def _add_video(self, name: str, clip: Clip, size: tuple[int, int], quality: int) -> Any:
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

    def _padded(self, name: str, size: tuple[int, int]) -> list[str]:
        height, width = size
        if (height, width) == (self.video.height, self.video.width):
            return []
        return [
            f"{self.target}: {width}x{height} became {self.video.width}x{self.video.height}, since {name} wants even"
            " sides; --codec vp9 and av1 keep the size"
        ]

    def _encoded_again(self) -> list[str]:
        changed = [sound for sound in self.sounds.values() if not sound.copied]
        ending = self.target.suffix
        return [
            f"{self.target}: {sound.was} sound became {sound.codec}, since {ending} cannot hold it" for sound in changed
        ]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # What stopped the film may stop its end, too: a full disk. The first word on it is enough.
        with telling(self.partial) if kind is None else suppress(av.error.FFmpegError, OSError):
            self.container.mux(self.video.encode(None))
            for sound in self.sounds.values():
                sound.finish()
            self.container.close()
        if kind is None:
            self.partial.replace(self.target)
        elif self.last < 0:
            self.partial.unlink()

    def write(self, frame: Frame) -> None:
        """Encode one frame: RGB to BT.709."""
        pixels = pad(frame.pixels, self.video.height, self.video.width)
        picture = av.VideoFrame.from_ndarray(pixels, format="rgb24")
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

    def sound(self, packet: Any) -> None:
        """Copy, or encode again, a packet of the source's sound."""
        if self.container.format.name == "avi" and packet.dts < 0:
            return  # an encoder's run-up, before the film; AVI counts from 0 and would delay the picture for it
        with telling(self.partial):
            self.sounds[packet.stream.index].write(packet)


class Sound:
    """One stream of sound: its packets copied where the container holds the codec, else encoded again."""

    def __init__(self, container: Any, source: Any):
        self.container = container
        self.was = source.codec_context.codec.canonical_name
        self.copied = self.was in container.supported_codecs
        if self.copied:
            self.stream = container.add_stream_from_template(source)
            bare = self.was == "aac" and not source.codec_context.extradata  # from a broadcast stream
            self.repack = BitStreamFilterContext("aac_adtstoasc", source) if bare else None
        else:
            self.codec = "opus" if container.format.name == "webm" else "aac"
            rate = 48_000 if self.codec == "opus" else source.rate  # all that Opus knows
            self.stream = container.add_stream(
                "libopus" if self.codec == "opus" else "aac", rate=rate, layout=source.layout.name
            )
            self.stream.codec_context.open()
            context = self.stream.codec_context
            self.resampler = av.AudioResampler(
                context.format.name, context.layout.name, context.rate, context.frame_size or None
            )
        if source.language:
            self.stream.metadata["language"] = source.language

    def write(self, packet: av.Packet) -> None:
        if self.copied:
            for ready in self.repack.filter(packet) if self.repack else [packet]:
                ready.stream = self.stream
                self.container.mux(ready)
        else:
            for frame in packet.decode():
                self._encode(frame)

    def finish(self) -> None:
        if not self.copied:
            self._encode(None)
            self.container.mux(self.stream.encode(None))

    def _encode(self, frame: Any) -> None:
        for part in self.resampler.resample(frame):
            self.container.mux(self.stream.encode(part))


def pad(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """RGB of this size: gray three times, the last row and column again where a codec wants even sides."""
    if pixels.shape[2] == 1:
        pixels = pixels.repeat(3, axis=2)
    missing = ((0, height - pixels.shape[0]), (0, width - pixels.shape[1]), (0, 0))
    return np.ascontiguousarray(np.pad(pixels, missing, "edge") if missing != ((0, 0),) * 3 else pixels)

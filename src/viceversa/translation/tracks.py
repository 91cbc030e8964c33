"""What goes along with the pictures of a film: sound and subtitles, copied where the new file holds them."""

from fractions import Fraction
from typing import Any

import av
from av.bitstream import BitStreamFilterContext

from .clips import labels

PCM = "pcm_s16le pcm_s16be pcm_s24le pcm_s24be pcm_s32le pcm_s32be pcm_f32le pcm_f32be pcm_f64le pcm_f64be"
COPIED = {
    "mp4": f"aac ac3 eac3 mp3 mp2 alac flac opus mov_text {PCM}",
    "mov": f"aac ac3 eac3 mp3 mp2 alac adpcm_ima_qt mov_text pcm_s8 pcm_u8 pcm_alaw pcm_mulaw {PCM}",
    "matroska": "aac ac3 eac3 dts truehd mlp mp3 mp2 opus vorbis flac alac tta wavpack "
                f"pcm_u8 {PCM} subrip ass webvtt hdmv_pgs_subtitle dvd_subtitle dvb_subtitle",
    "webm": "opus vorbis webvtt",
    "avi": "aac ac3 mp3 mp2 wmav1 wmav2 adpcm_ms adpcm_ima_wav pcm_u8 pcm_alaw pcm_mulaw "
           "pcm_s16le pcm_s24le pcm_s32le pcm_f32le pcm_f64le",
}  # fmt: skip
"""Codecs of sound and subtitles that go into a container as they are, and play there."""
LATE = Fraction(1, 50)
"""Seconds of silence that nobody misses."""
PAUSE = Fraction(1, 10)
"""Seconds without sound that are heard."""
UNNAMED_LAYOUTS = {1: "mono", 2: "stereo", 3: "2.1", 4: "4.0", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}
"""Loudspeakers that so many channels of sound are for where nothing is said, as in FFmpeg."""


def holds(container: Any, source: Any) -> bool:
    """Does the container take this stream as it is?"""
    if source.codec_context is None or source.codec_context.name not in container.supported_codecs:
        return False
    return source.codec_context.codec.canonical_name in COPIED[container.format.name].split()


class Track:
    """One stream of the source, whose packets are copied."""

    damaged = 0

    def __init__(self, container: Any, source: Any):
        self.container = container
        self.stream = container.add_stream_from_template(source)
        self.label(source)

    def label(self, source: Any) -> None:
        self.stream.metadata.update(labels(source))
        self.stream.disposition = source.disposition

    def unpacked(self, packet: Any) -> list[Any]:
        """What of a packet is written: itself, or the frames in it; damaged ones are left out and counted."""
        return [packet]

    def write(self, part: Any) -> None:
        part.stream = self.stream
        self.container.mux(part)

    def finish(self) -> list[str]:
        """Write what is left. Returns what is to be said of the whole."""
        return []


class Sound(Track):
    """One stream of sound: its packets copied where the container holds the codec, else encoded again.

    AVI knows no times of sound: it begins with the film, and goes on without a pause.
    """

    def __init__(self, container: Any, source: Any, origin: Fraction, copy: bool):
        """`origin`: where the film begins, by the clock of the source."""
        self.container = container
        self.is_avi, self.has_edits = container.format.name == "avi", container.format.name in ("mp4", "mov")
        self.was = source.codec_context.codec.canonical_name
        late = (source.start_time or 0) * source.time_base - origin if self.is_avi else Fraction(0)
        self.copied = copy and holds(container, source) and late <= LATE
        self.reason = f"cannot say that it begins after {float(late):.2f} s" if late > LATE else "cannot hold it"
        self.end, self.last, self.paused = Fraction(0), -Fraction(10**9), Fraction(0)
        if self.copied:
            self.stream = container.add_stream_from_template(source)
            name_layout(self.stream.codec_context)
            bare = self.was == "aac" and not source.codec_context.extradata  # from a broadcast stream
            self.unpack = BitStreamFilterContext("aac_adtstoasc", source).filter if bare else lambda packet: [packet]
        else:
            self.unpack = decoded
            self.encode_again(source)
        self.label(source)

    def encode_again(self, source: Any) -> None:
        """Make the encoder ready: rate and loudspeakers as they were, where it knows them."""
        codec, encoder = ("opus", "libopus") if self.container.format.name == "webm" else ("aac", "aac")
        known: Any = av.Codec(encoder, "w")
        rates = known.audio_rates
        if codec == "opus" or (self.is_avi and source.rate < 44_100):
            rates = [48_000]  # all that Opus is played at; and AVI miscounts larger frames, as those of lower rates
        rate = source.rate if source.rate in rates else 48_000
        name_layout(source.codec_context)
        own = source.layout.name
        layout = next(name for name in (own, own.replace("(side)", ""), "stereo") if takes(encoder, rate, name))
        self.became = codec + f", {rate} instead of {source.rate} Hz" * (rate != source.rate)
        self.became += f", stereo instead of {own}" * (layout == "stereo" != own)
        self.stream = self.container.add_stream(encoder, rate=rate, layout=layout)
        self.stream.codec_context.open()
        self.kind: tuple[str, str, int] | None = None
        self.resampler: av.AudioResampler | None = None
        """For frames of one kind, as they may change in the midst of a film."""

    def unpacked(self, packet: Any) -> list[Any]:
        if not packet.size or (self.copied and self.is_outside(packet)):
            return []
        try:
            return self.unpack(packet)
        except av.error.InvalidDataError:
            self.damaged += 1
            return []

    def is_outside(self, packet: Any) -> bool:
        """Is the packet before the film, before the one before, or cut off by an edit list? MP4 and MOV cut off again
        what is before the film."""
        start, length = packet.dts * packet.time_base, (packet.duration or 0) * packet.time_base
        if (packet.is_discard and not (self.has_edits and start < 0)) or start < self.last:
            return True
        self.last = start
        if self.is_avi:
            if start + length / 2 < 0:  # an encoder's run-up, for which AVI would delay the picture
                return True
            packet.pts = packet.dts = max(packet.dts, 0)
            self.paused += start - self.end if 0 < self.end < start - PAUSE else 0
            self.end = start + length
        return False

    def write(self, part: Any) -> None:
        if self.copied:
            super().write(part)
            return
        kind = part.format.name, part.layout.name, part.sample_rate
        if kind != self.kind:
            context = self.stream.codec_context
            silence = {"async": "1"} | ({"first_pts": "0"} if self.kind is None else {})
            self.resampler = av.AudioResampler(
                context.format.name, context.layout.name, context.sample_rate, context.frame_size or None,
                options=silence if self.is_avi else None,
            )  # fmt: skip
            self.kind = kind
        self.encode(part)

    def encode(self, frame: Any) -> None:
        """None: what is left."""
        frames = self.resampler.resample(frame) if self.resampler is not None else []
        for part in frames + [None] * (frame is None):
            packets = self.stream.encode(part)
            self.container.mux([packet for packet in packets if not self.is_avi or packet.dts >= 0])

    def finish(self) -> list[str]:
        if not self.copied:
            self.encode(None)
        pauses = f"{float(self.paused):.1f} s of pauses in the sound were left out, since .avi cannot hold them"
        return [pauses] * (self.paused > 0)


def decoded(packet: Any) -> list[Any]:
    """The frames in a packet, by a clock as fine as their samples, which those of packets are not."""
    frames = packet.decode()
    for frame in frames:
        if frame.pts is not None:
            frame.pts = round(frame.pts * frame.time_base * frame.sample_rate)
            frame.time_base = Fraction(1, frame.sample_rate)
    return frames  # type: ignore[no-any-return]


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

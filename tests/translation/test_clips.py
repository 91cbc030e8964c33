"""What films bring along, and what may be wrong with them: nothing is lost, moved or changed without a word."""

import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.codec.context import Flags
from av.stream import Disposition
from PIL import Image
from test_films import RATE, Through, film, gif, heard, off, picture, played, seconds, shown, translate

from viceversa.errors import BadInput, Failed
from viceversa.model import networks
from viceversa.model.file import Model
from viceversa.translation.films import show_change, translate_film
from viceversa.translation.translator import Translator

REPEATS = Path(__file__).with_name("repeats.ogv")
"""Ten pictures of Theora, 3 black, 1 white, 6 black; where one is as the one before, its packet is empty."""


def remuxed(source: Path, target: Path, later: float = 0, **options: str) -> Path:
    """The packets of a film, that many seconds later, in another container."""
    with av.open(source) as there, av.open(target, "w", options=options) as container:
        streams = {stream.index: container.add_stream_from_template(stream) for stream in there.streams}
        container.start_encoding()
        for packet in there.demux():
            if packet.dts is not None:
                shift = round(later / packet.time_base)
                packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                packet.stream = streams[packet.stream.index]
                container.mux(packet)
    return target


def beeping(
    path: Path, codec: str, late: float = 0.0, pause: tuple[float, float] = (9, 9), layout: str = "stereo"
) -> Path:
    """Two seconds whose sound may begin late, or pause where nothing is, and is a tone from 1.0 to 1.2 s."""
    with av.open(path, "w") as container:
        video: Any = container.add_stream("mpeg2video" if path.suffix == ".ts" else "libx264", rate=RATE)
        video.height, video.width, video.pix_fmt = 48, 64, "yuv420p"
        audio: Any = container.add_stream(codec, rate=48000, layout=layout)
        audio.bit_rate = 128_000
        audio.codec_context.open()
        step = audio.codec_context.frame_size or 1024
        times = np.arange(96000) / 48000
        wave = (20000 * np.sin(times * 1000 * 2 * np.pi) * ((times > 1) & (times < 1.2))).astype(np.int16)
        for index in range(50):
            frame = av.VideoFrame.from_ndarray(picture(index), format="rgb24")
            frame.pts = index
            container.mux(video.encode(frame))
        resample = av.AudioResampler(audio.codec_context.format.name, layout, 48000)
        for start in range(int(48000 * late), 96000 - step, step):
            if pause[0] <= start / 48000 < pause[1]:
                continue
            part = np.repeat(wave[start : start + step], {"mono": 1, "stereo": 2}[layout])[None]
            sound = av.AudioFrame.from_ndarray(part, format="s16", layout=layout)
            sound.sample_rate, sound.pts, sound.time_base = 48000, start, Fraction(1, 48000)
            for ready in resample.resample(sound):
                container.mux(audio.encode(ready))
        for stream in (video, audio):
            container.mux(stream.encode(None))
    return path


def tone(path: Path) -> tuple[float, float]:
    """When the tone is heard, counted from when the first picture is seen."""
    times: list[float] = []
    with av.open(path) as container:
        first = next(container.decode(video=0))
        begin = 0 if path.suffix == ".avi" else float(first.pts * first.time_base)  # where FFmpeg guesses
        container.seek(0)
        for frame in container.decode(audio=0):
            wave = frame.to_ndarray().astype(float)
            wave = wave[0] if frame.format.is_planar else wave.reshape(-1, frame.layout.nb_channels)[:, 0]
            loud = np.flatnonzero(np.abs(wave) > (0.05 if "flt" in frame.format.name else 0.05 * 2**15))
            times += [float(frame.pts * frame.time_base) + at / frame.sample_rate - begin for at in loud]
    return min(times), max(times)


@pytest.mark.parametrize(
    ("ending", "options"),
    [("mkv", {}), ("mp4", {"movflags": "faststart"}), ("avi", {}), ("flv", {})],
)  # fmt: skip
def test_a_film_that_ends_before_it_says_is_told(tmp_path: Path, ending: str, options: dict[str, str]) -> None:
    codec = "mpeg4" if ending == "avi" else "libx264"
    whole = remuxed(film(tmp_path / "film.mp4", 100, codec=codec), tmp_path / f"whole.{ending}", **options)
    assert not any("ends after" in note for note in translate(whole, tmp_path / "out.mp4"))
    data = whole.read_bytes()
    (tmp_path / f"half.{ending}").write_bytes(data[: 6 * len(data) // 10])
    (note,) = (note for note in translate(tmp_path / f"half.{ending}", tmp_path / "out.mp4") if "ends after" in note)
    assert re.search(rf"half\.{ending}: ends after [1-3]\.\d s of 4\.\d s: the rest of the file is missing", note)
    assert 1 < seconds(tmp_path / "out.mp4") < 3.5


def test_a_film_that_grows_while_it_is_read_is_not_done(tmp_path: Path) -> None:
    data = film(tmp_path / "whole.mkv", frames=50).read_bytes()
    (tmp_path / "in.mkv").write_bytes(data[: len(data) // 2])

    def copy_on(image: Any) -> Any:
        (tmp_path / "in.mkv").write_bytes(data)
        return image

    with pytest.raises(Failed, match=r"in\.mkv: changed while it was read"):
        translate_film(Through(copy_on), tmp_path / "in.mkv", tmp_path / "out.mkv", to="b")
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize(
    ("codec", "source", "target"),
    [("flac", "mkv", "avi"), ("eac3", "mkv", "avi"), ("flac", "mkv", "mov"), ("libopus", "mkv", "mov"),
     ("aac", "ts", "avi"), ("wmav1", "avi", "mp4")],
)  # fmt: skip
def test_sound_that_a_container_only_claims_to_hold_is_encoded_again(
    tmp_path: Path, codec: str, source: str, target: str
) -> None:
    beeping(tmp_path / f"in.{source}", codec)
    notes = translate(tmp_path / f"in.{source}", tmp_path / f"out.{target}")
    (note,) = (note for note in notes if "sound" in note)
    assert "became aac" in note and note.endswith(f"since .{target} cannot hold it")
    assert tone(tmp_path / f"out.{target}") == pytest.approx(tone(tmp_path / f"in.{source}"), abs=0.03)
    assert abs(len(heard(tmp_path / f"out.{target}")) - 96000) < 6000


@pytest.mark.parametrize("codec", ["aac", "ac3", "libmp3lame", "pcm_s16le"])
def test_sound_of_an_avi_is_in_step(tmp_path: Path, codec: str) -> None:
    """Which knows no times of sound: also where an encoder's run-up is before the film."""
    beeping(tmp_path / "in.mkv", codec)
    assert translate(tmp_path / "in.mkv", tmp_path / "out.avi") == []
    assert tone(tmp_path / "out.avi") == pytest.approx(tone(tmp_path / "in.mkv"), abs=0.015)


def test_sound_that_begins_late_waits_in_an_avi_too(tmp_path: Path) -> None:
    beeping(tmp_path / "in.mkv", "aac", late=0.5)
    (note,) = translate(tmp_path / "in.mkv", tmp_path / "out.avi")
    assert "since .avi cannot say that it begins after 0.5" in note
    assert tone(tmp_path / "out.avi") == pytest.approx((1, 1.2), abs=0.03)
    assert translate(tmp_path / "in.mkv", tmp_path / "out.mkv") == []
    assert tone(tmp_path / "out.mkv") == pytest.approx((1, 1.2), abs=0.03)


@pytest.mark.parametrize("codec", ["flac", "pcm_s16le"])
def test_a_pause_in_the_sound_is_kept_in_an_avi_or_said(tmp_path: Path, codec: str) -> None:
    beeping(tmp_path / "in.mkv", codec, pause=(0.3, 0.7))
    (note,) = translate(tmp_path / "in.mkv", tmp_path / "out.avi")
    if codec == "flac":
        assert "became aac" in note and tone(tmp_path / "out.avi") == pytest.approx((1, 1.2), abs=0.03)
    else:
        assert "out.avi: 0.4 s of pauses in the sound were left out" in note


def test_frames_that_are_as_the_one_before_are_no_damage(tmp_path: Path) -> None:
    assert translate(REPEATS, tmp_path / "out.mkv", codec="ffv1") == []
    pixels, times = shown(tmp_path / "out.mkv")
    assert [int(image.mean() > 20) for image in pixels] == [0, 1, 0, 0]
    assert [round(float(time), 2) for time in times] == [0, 0.16, 0.2, 0.36]
    assert abs(seconds(tmp_path / "out.mkv") - 0.4) < 0.01


@pytest.mark.parametrize("ending", ["mkv", "avi", "mp4", "webm"])
def test_sound_that_an_edit_list_cut_off_stays_away(tmp_path: Path, ending: str) -> None:
    remuxed(beeping(tmp_path / "whole.mp4", "aac"), tmp_path / "in.mp4", later=-1.1)
    translate(tmp_path / "in.mp4", tmp_path / f"out.{ending}")
    begin, end = tone(tmp_path / f"out.{ending}")
    assert -0.03 < begin < 0.03 and end == pytest.approx(0.1, abs=0.04)
    assert abs(seconds(tmp_path / f"out.{ending}") - 0.9) < 0.06


@pytest.mark.parametrize(
    ("name", "codec"),
    [("out.mp4", "h264"), ("out.mkv", "h264"), ("out.avi", "h264"), ("out.mov", "prores"), ("out.webm", "vp9"),
     ("out.mkv", "vp9"), ("out.mkv", "ffv1"), ("out.gif", "h264"), ("out.webp", "h264"), ("out.png", "h264")],
)  # fmt: skip
@pytest.mark.parametrize("aspect", [Fraction(64, 45), Fraction(8, 9)])
def test_a_film_is_as_wide_as_it_was(tmp_path: Path, name: str, codec: str, aspect: Fraction) -> None:
    film(tmp_path / "in.mp4", frames=2, sound=None, prepare=lambda v: setattr(v, "sample_aspect_ratio", aspect))
    notes = translate(tmp_path / "in.mp4", tmp_path / name, codec=codec)
    pixel: Any = None
    if name in ("out.gif", "out.webp", "out.png"):
        width, height = played(tmp_path / name)[0][0].size
    else:
        with av.open(tmp_path / name) as container:
            video = container.streams.video[0]
            width, height, pixel = video.width, video.height, video.sample_aspect_ratio
    shape = (pixel or 1) * Fraction(width, height)
    assert abs(float(shape / (aspect * Fraction(64, 48))) - 1) < 0.02
    assert [f"became {width}x{height} square ones" in note for note in notes] == [True] * ((width, height) != (64, 48))


def test_a_finished_film_that_is_called_partial_is_left(tmp_path: Path) -> None:
    (tmp_path / "out.partial.mp4").write_bytes(b"finished")
    translate(film(tmp_path / "in.mp4", frames=3), tmp_path / "out.mp4")
    assert (tmp_path / "out.partial.mp4").read_bytes() == b"finished"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4", "out.mp4", "out.partial.mp4"]


def test_what_is_transparent_in_a_webm_is_seen(tmp_path: Path) -> None:
    clear = np.dstack([picture(0), np.tile(np.repeat(np.uint8([0, 255]), 16), (48, 2))])
    with av.open(tmp_path / "in.webm", "w") as container:
        video: Any = container.add_stream("libvpx-vp9", rate=RATE, options={"auto-alt-ref": "0", "crf": "4", "b": "0"})
        video.height, video.width, video.pix_fmt = 48, 64, "yuva420p"
        video.metadata["alpha_mode"] = "1"
        for _ in range(3):
            container.mux(video.encode(av.VideoFrame.from_ndarray(clear, format="rgba")))
        container.mux(video.encode(None))
    (note,) = translate(tmp_path / "in.webm", tmp_path / "out.mp4")
    assert "what is transparent was laid upon white" in note
    assert shown(tmp_path / "out.mp4")[0][0][:, 2:14].min() > 245
    translate(tmp_path / "in.webm", tmp_path / "out.webp")
    assert off(np.asarray(played(tmp_path / "out.webp")[0][0])[..., 3], clear[..., 3]) < 2


def rich(path: Path) -> Path:
    """A film with all that a Matroska may hold."""
    film(path.with_name("plain.mp4"), frames=25)
    with av.open(path.with_name("plain.mp4")) as there, av.open(path, "w") as container:
        container.set_chapters([
            {"id": n, "start": n, "end": n + 1, "time_base": Fraction(1, 2), "metadata": {"title": name}}
            for n, name in enumerate(("One", "Two"))
        ])  # fmt: skip
        pictures, sound = (container.add_stream_from_template(stream) for stream in there.streams)
        other = container.add_stream_from_template(there.streams[1])
        text: Any = container.add_mux_stream("subrip")
        text.time_base = Fraction(1, 1000)
        pictures.metadata["title"] = "Main"
        sound.metadata.update(title="Original", language="eng")
        other.metadata.update(title="Commentary", language="ger")
        sound.disposition, other.disposition = 0, Disposition.default
        container.add_attachment("font.ttf", "font/ttf", b"letters")
        line: Any = av.Packet(b"Good day")
        line.stream, line.time_base, line.pts, line.dts, line.duration = text, Fraction(1, 1000), 200, 200, 600
        container.start_encoding()
        for packet in there.demux():
            if packet.dts is not None:
                packet.stream = pictures if packet.stream.type == "video" else sound
                container.mux(packet)
        container.mux(line)
    return path


def test_all_that_a_film_brings_along_comes_along(tmp_path: Path) -> None:
    assert translate(rich(tmp_path / "in.mkv"), tmp_path / "out.mkv") == []
    with av.open(tmp_path / "in.mkv") as there, av.open(tmp_path / "out.mkv") as container:
        for was, now in zip(there.streams, container.streams, strict=True):
            assert (now.type, now.language, now.metadata.get("title")) == (
                was.type,
                was.language,
                was.metadata.get("title"),
            )
            assert now.disposition == was.disposition
        assert [(c["metadata"], c["start"]) for c in container.chapters()] == [
            (c["metadata"], c["start"]) for c in there.chapters()
        ]
        assert container.streams.attachments[0].data == b"letters"
        (line,) = (packet for packet in container.demux(subtitles=0) if packet.size)
        first = shown(tmp_path / "out.mkv")[1][0]  # which waits for the run-up of the sound
        assert bytes(line) == b"Good day" and line.pts == 200 + 1000 * first and line.duration == 600


@pytest.mark.parametrize(
    ("ending", "left"),
    [("mp4", "1 subtitle stream, 1 attachment"), ("avi", "1 subtitle stream, 1 attachment, 2 chapters"),
     ("gif", "2 sound streams, 1 subtitle stream, 1 attachment, 2 chapters")],
)  # fmt: skip
def test_what_does_not_come_along_is_one_line(tmp_path: Path, ending: str, left: str) -> None:
    notes = translate(rich(tmp_path / "in.mkv"), tmp_path / f"out.{ending}")
    assert notes == [f"{tmp_path}/out.{ending}: left out: {left}"]
    if ending == "mp4":
        with av.open(tmp_path / "out.mp4") as container:
            assert [chapter["metadata"]["title"] for chapter in container.chapters()] == ["One", "Two"]
            assert [sound.language for sound in container.streams.audio] == ["eng", "ger"]
            assert [bool(sound.disposition & Disposition.default) for sound in container.streams.audio] == [False, True]
        assert translate(tmp_path / "out.mp4", tmp_path / "again.mkv") == []
        with av.open(tmp_path / "again.mkv") as container:
            assert [stream.metadata["title"] for stream in container.streams] == ["Main", "Original", "Commentary"]


def test_fields_become_whole_pictures(tmp_path: Path) -> None:
    with av.open(tmp_path / "in.mp4", "w") as container:
        video: Any = container.add_stream("libx264", rate=RATE, options={"crf": "4"})
        video.height, video.width, video.pix_fmt = 48, 64, "yuv420p"
        video.codec_context.flags |= Flags.interlaced_dct | Flags.interlaced_me
        for index in range(10):
            woven = picture(4 * index)
            woven[1::2] = picture(4 * index + 2)[1::2]
            container.mux(video.encode(av.VideoFrame.from_ndarray(woven, format="rgb24")))
        container.mux(video.encode(None))
    (note,) = translate(tmp_path / "in.mp4", tmp_path / "out.mp4")
    assert "in.mp4: is interlaced" in note
    pixels, times = shown(tmp_path / "out.mp4")
    assert times == shown(tmp_path / "in.mp4")[1] and len(times) == 10
    for made in pixels[2:-2]:
        rows = made[14:22].astype(float)
        assert np.abs(np.diff(rows, axis=0)).mean() < 6


@pytest.mark.parametrize("ending", ["mp4", "webm"])
def test_times_that_begin_anew_go_on(tmp_path: Path, ending: str) -> None:
    """As in broadcasts that were joined as files."""
    part = film(tmp_path / "part.ts", frames=25).read_bytes()
    (tmp_path / "in.ts").write_bytes(part * 3)
    translate(tmp_path / "in.ts", tmp_path / f"out.{ending}")
    _, times = shown(tmp_path / f"out.{ending}")
    steps = [float(after - before) for before, after in zip(times[:-1], times[1:], strict=True)]
    assert (
        len(times) == 75
        and min(steps) > 0.01
        and max(steps) < 0.1
        and abs(seconds(tmp_path / f"out.{ending}") - 3) < 0.2
    )
    assert abs(len(heard(tmp_path / f"out.{ending}")) - 3 * 48000) < 9600


def test_sound_may_change_midway(tmp_path: Path) -> None:
    one, other = (beeping(tmp_path / f"{name}.ts", "mp2", layout=name).read_bytes() for name in ("stereo", "mono"))
    (tmp_path / "in.ts").write_bytes(one + other)
    (note,) = translate(tmp_path / "in.ts", tmp_path / "out.webm")
    assert "mp2 sound became opus" in note and len(shown(tmp_path / "out.webm")[0]) == 100
    begin, end = tone(tmp_path / "out.webm")
    assert begin == pytest.approx(1, abs=0.1) and end == pytest.approx(3.2, abs=0.15)


def test_names_may_hold_a_colon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    film(tmp_path / "in.mp4", frames=3).rename("12:30.mp4")
    assert translate(Path("12:30.mp4"), Path("concat:1.mp4")) == []
    assert len(shown(tmp_path / "concat:1.mp4")[0]) == 3


def test_what_is_transparent_in_a_gif_does_not_smear(tmp_path: Path) -> None:
    pictures = []
    for index in range(5):
        image = Image.new("RGBA", (60, 40))
        image.paste((255, 0, 0, 255), (10 * index, 10, 10 * index + 10, 20))
        pictures.append(image)
    pictures[0].save(tmp_path / "in.png", save_all=True, append_images=pictures[1:], duration=100)
    for source, target in (("in.png", "one.gif"), ("one.gif", "two.gif")):
        translate(tmp_path / source, tmp_path / target)
        assert [int((np.asarray(frame)[..., 3] > 0).sum()) for frame in played(tmp_path / target)[0]] == [100] * 5


def test_a_gif_that_is_too_slow_for_a_film_is_said(tmp_path: Path) -> None:
    film(tmp_path / "in.mkv", sound=None, times=[round(1000 * index / 60) for index in range(30)])
    (note,) = translate(tmp_path / "in.mkv", tmp_path / "out.gif")
    kept = len(played(tmp_path / "out.gif")[0])
    assert kept < 30 and f"{30 - kept} frames came faster than 50 a second" in note


def test_an_animation_that_memory_cannot_hold_is_refused(tmp_path: Path) -> None:
    film(tmp_path / "in.mkv", sound=None, times=[0, 40, 80, 10**12])
    with pytest.raises(BadInput, match=r"out.webp: about .* frames of 64x48 take .* GB of memory"):
        translate(tmp_path / "in.mkv", tmp_path / "out.webp")
    assert not (tmp_path / "out.webp").exists()


def plays(path: Path) -> int | None:
    """How often browsers play an animation, 0 for ever: a GIF tells how often it is repeated."""
    loop = played(path)[2]
    if path.suffix == ".gif":
        return 1 if loop is None else loop and loop + 1
    return loop


@pytest.mark.parametrize("source", ["gif", "webp", "png"])
@pytest.mark.parametrize("target", ["gif", "webp", "png", "avif"])
@pytest.mark.parametrize("often", [0, 1, 2, 4])
def test_animations_are_played_as_often(tmp_path: Path, source: str, target: str, often: int) -> None:
    loop = {"loop": often} if source != "gif" else {} if often == 1 else {"loop": max(0, often - 1)}
    gif(tmp_path / f"in.{source}", duration=50, **loop)
    assert plays(tmp_path / f"in.{source}") == often
    notes = translate(tmp_path / f"in.{source}", tmp_path / f"out.{target}")
    if target == "avif":
        assert ["is played for ever" in note for note in notes] == [True] * bool(often)
        translate(tmp_path / "out.avif", tmp_path / "back.gif")
        assert plays(tmp_path / "back.gif") == 0
    else:
        assert notes == [] and plays(tmp_path / f"out.{target}") == often


def test_a_song_with_a_cover_is_no_film(tmp_path: Path) -> None:
    film(tmp_path / "film.mp4", frames=1)
    with av.open(tmp_path / "film.mp4") as there, av.open(tmp_path / "in.mp4", "w") as container:
        sound = container.add_stream_from_template(there.streams.audio[0])
        cover: Any = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt, cover.disposition = 64, 48, "yuvj420p", Disposition.attached_pic
        container.mux(cover.encode(av.VideoFrame.from_ndarray(picture(0), format="rgb24")))
        container.mux(cover.encode(None))
        for packet in there.demux(audio=0):
            if packet.dts is not None:
                packet.stream = sound
                container.mux(packet)
    with pytest.raises(BadInput, match="holds no video stream"):
        translate(tmp_path / "in.mp4", tmp_path / "out.mp4")


def test_a_photo_that_is_transparent_stays_so_or_it_is_said(tmp_path: Path) -> None:
    Image.new("RGBA", (64, 48), (60, 60, 60, 128)).save(tmp_path / "cut.png")
    generator = networks.Generator(width=2, blocks=1).build()
    translator = Translator(Model({"ab": generator}, ("day", "night"), {}), device="cpu")
    (note,) = show_change(translator, tmp_path / "cut.png", tmp_path / "out.mov", seconds=0.1)
    assert "what is transparent was laid upon white" in note
    assert show_change(translator, tmp_path / "cut.png", tmp_path / "out.webp", seconds=0.1) == []
    assert (np.asarray(played(tmp_path / "out.webp")[0][0])[..., 3] == 128).all()


def test_pictures_of_an_avi_that_wait_for_others_are_shown_in_time(tmp_path: Path) -> None:
    film(tmp_path / "in.avi", frames=20, sound=None, times=[40 * index for index in range(20)])
    with av.open(tmp_path / "in.avi") as container:
        assert container.streams.video[0].codec_context.has_b_frames
    translate(tmp_path / "in.avi", tmp_path / "out.mkv", codec="ffv1")
    pixels, times = shown(tmp_path / "out.mkv")
    assert [round(25 * float(time)) for time in times] == list(range(20))
    assert max(off(made, picture(index)[..., ::-1]) for index, made in enumerate(pixels)) < 5


@pytest.mark.parametrize(
    ("pixels", "codec", "says"),
    [("yuv444p", "h264", "colours of 4:4:4 became 4:2:0"), ("yuv422p", "h264", "colours of 4:2:2 became 4:2:0"),
     ("yuv444p", "prores", "colours of 4:4:4 became 4:2:2"), ("yuv422p", "prores", ""), ("yuv444p", "ffv1", ""),
     ("yuv420p10le", "ffv1", "levels of 10 bits became 8")],
)  # fmt: skip
def test_colours_and_levels_that_become_coarser_are_said(tmp_path: Path, pixels: str, codec: str, says: str) -> None:
    ending = "mov" if codec == "prores" else "mkv"
    film(tmp_path / "in.mkv", frames=2, sound=None, pixels=pixels)
    notes = translate(tmp_path / "in.mkv", tmp_path / f"out.{ending}", codec=codec)
    assert [note.endswith(says) for note in notes] == [True] * bool(says)

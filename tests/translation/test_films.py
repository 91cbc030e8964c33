"""Films and animations: what goes in comes out, in the other domain."""

import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from viceversa.errors import BadInput, Failed
from viceversa.model import networks
from viceversa.model.file import Model
from viceversa.translation.clips import ANIMATIONS, is_film, result_name
from viceversa.translation.films import show_change, translate_film
from viceversa.translation.translator import Translator
from viceversa.translation.writers import CODECS

RATE = 25


class Through:
    """A translator whose network is any function of arrays."""

    def __init__(self, network: Callable[[Any], Any]):
        self.network = network

    def frames(self, to: str | None = None, **how: Any) -> Callable[[Any], Any]:
        return self.network


def swap(image: Any) -> Any:
    """Red and blue exchanged: a translation that is easy to check."""
    return np.ascontiguousarray(image[..., ::-1])


def picture(index: int, height: int = 48, width: int = 64) -> np.ndarray:
    """(H, W, 3): a slope from red at the top left, and a white bar that moves with the number of the frame."""
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([200 - 150 * x / width, 40 + 100 * y / height, np.full_like(x, 30)], axis=2)
    at = (2 * index) % (width - 8)
    pixels[height // 4 : height // 2, at : at + 8] = 255
    return pixels.astype(np.uint8)


def film(
    path: Path,
    frames: int = 30,
    size: tuple[int, int] = (48, 64),
    sound: str | None = "aac",
    times: list[int] | None = None,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    prepare: Callable[[Any], object] = lambda stream: None,
    seconds_late: int = 0,
) -> Path:
    """Write a film of `picture`s, with a sine for sound. `times`: when each frame is shown, in 1/1000 s."""
    clock = Fraction(1, 1000)
    times = times or [round(1000 * index / RATE) for index in range(frames)]
    with av.open(path, "w") as container:
        video: Any = container.add_stream(codec, rate=RATE, options={"crf": "4"} if codec == "libx264" else {})
        video.height, video.width = size
        video.pix_fmt = pixels
        video.codec_context.time_base = clock
        context = video.codec_context
        context.colorspace = context.color_primaries = context.color_trc = context.color_range = 1
        prepare(video)
        audio: Any = container.add_stream(sound, rate=48000, layout="stereo") if sound else None
        for index, time in enumerate(times):
            frame: Any = av.VideoFrame.from_ndarray(picture(index, *size), format="rgb24").reformat(
                format=pixels, dst_colorspace=1, dst_color_range=1
            )
            frame.pts, frame.time_base = time + 1000 * seconds_late, clock
            following = times[index + 1] if index + 1 < len(times) else time + 1000 // RATE
            frame.duration = following - time
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if audio is not None:
            write_sine(container, audio, Fraction(times[-1], 1000) + Fraction(1, RATE))
    return path


def write_film(path: Path, pictures: list[np.ndarray]) -> Path:
    """Write (H, W, 3) pictures as they are: lossless and silent."""
    with av.open(path, "w") as container:
        video: Any = container.add_stream("ffv1", rate=RATE)
        video.height, video.width = pictures[0].shape[:2]
        video.pix_fmt = "bgr0"
        for pixels in pictures:
            container.mux(video.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")))
        container.mux(video.encode(None))
    return path


def write_sine(container: Any, audio: Any, seconds: Fraction) -> None:
    if not audio.codec_context.is_open:
        audio.codec_context.open()
    step = audio.codec_context.frame_size or 1024
    wave = (8000 * np.sin(np.arange(round(48000 * seconds)) * 440 * 2 * np.pi / 48000)).astype(np.int16)
    resample = av.AudioResampler(audio.codec_context.format.name, "stereo", 48000)
    for start in range(0, len(wave), step):
        part = np.repeat(wave[start : start + step], 2)[None]
        frame = av.AudioFrame.from_ndarray(part, format="s16", layout="stereo")
        frame.sample_rate, frame.pts, frame.time_base = 48000, start, Fraction(1, 48000)
        for ready in resample.resample(frame):
            container.mux(audio.encode(ready))
    container.mux(audio.encode(None))


def sound_first(path: Path) -> Path:
    """A film whose stream 0 is its sound."""
    with av.open(film(path.with_stem("other"))) as there, av.open(path, "w") as container:
        streams = {stream.index: container.add_stream_from_template(stream) for stream in reversed(there.streams)}
        for packet in there.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                container.mux(packet)
    return path


def shown(path: Path) -> tuple[list[np.ndarray], list[Fraction]]:
    """The frames of a film as RGB, and when they are shown."""
    with av.open(path) as container:
        frames = list(container.decode(video=0))
        return [f.to_ndarray(format="rgb24") for f in frames], [f.pts * f.time_base for f in frames]


def heard(path: Path) -> np.ndarray:
    with av.open(path) as container:
        return np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])


def packets(path: Path) -> list[tuple[Fraction, bytes]]:
    with av.open(path) as container:
        return [(p.pts * p.time_base, bytes(p)) for p in container.demux(audio=0) if p.pts is not None]


def seconds(path: Path) -> float:
    with av.open(path) as container:
        return float(container.duration / 10**6)


def off(one: np.ndarray, other: np.ndarray) -> float:
    """Mean difference of levels."""
    return float(np.abs(one.astype(float) - other).mean())


def translate(source: Path, target: Path, **options: Any) -> list[str]:
    return translate_film(Through(swap), source, target, to="b", **{"steady": False, **options})


def test_ten_seconds_keep_duration_rate_and_sound(tmp_path: Path) -> None:
    source = film(tmp_path / "in.mp4", frames=250)
    done: list[tuple[int, int | None]] = []
    notes = translate(source, tmp_path / "out.mp4", on_progress=lambda *at: done.append(at))
    pixels, times = shown(tmp_path / "out.mp4")
    assert times == shown(source)[1] and len(times) == 250 and times[0] == 0
    assert abs(seconds(tmp_path / "out.mp4") - seconds(source)) < 1 / RATE
    assert packets(tmp_path / "out.mp4") == packets(source)
    assert done[0] == (1, 250) and done[-1] == (250, 250)
    assert max(off(made, picture(i)[..., ::-1]) for i, made in enumerate(pixels)) < 4
    assert notes == [] and [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []


def test_output_is_a_plain_file_tagged_bt709(tmp_path: Path) -> None:
    translate(film(tmp_path / "in.mp4"), tmp_path / "out.mp4")
    assert b"moof" not in (tmp_path / "out.mp4").read_bytes()[:64]
    with av.open(tmp_path / "out.mp4") as container:
        video = container.streams.video[0]
        context = video.codec_context
        tags = context.colorspace, context.color_primaries, context.color_trc, context.color_range
        assert tags == (1, 1, 1, 1) and context.pix_fmt == "yuv420p" and video.frames == 30
        assert container.duration == 1_200_000


def test_variable_frame_rate_is_kept(tmp_path: Path) -> None:
    times = [0, 10, 50, 51, 200, 700, 720, 1500]
    translate(film(tmp_path / "in.mp4", times=times), tmp_path / "out.mp4")
    assert shown(tmp_path / "out.mp4")[1] == [Fraction(time, 1000) for time in times]
    assert abs(seconds(tmp_path / "out.mp4") - seconds(tmp_path / "in.mp4")) < 1e-3


@pytest.mark.parametrize(("turn", "flip"), [(90, False), (180, False), (270, False), (0, True), (90, True)])
def test_rotation_is_baked_in(tmp_path: Path, turn: int, flip: bool) -> None:
    if not hasattr(av.video.stream.VideoStream, "set_display_rotation"):
        pytest.skip("this PyAV cannot write rotations")
    film(tmp_path / "in.mp4", prepare=lambda video: video.set_display_rotation(turn, hflip=flip))
    translate(tmp_path / "in.mp4", tmp_path / "out.mp4")
    expected = np.rot90(picture(7), turn // 90)  # counter-clockwise, then mirrored
    expected = expected[:, ::-1] if flip else expected
    with av.open(tmp_path / "out.mp4") as container:
        frame = list(container.decode(video=0))[7]
    assert frame.rotation == 0
    assert off(frame.to_ndarray(format="rgb24"), expected[..., ::-1]) < 4


@pytest.mark.parametrize("size", [(47, 63), (48, 63), (33, 50)])
def test_odd_sides_are_made_even_by_repetition_and_said(tmp_path: Path, size: tuple[int, int]) -> None:
    film(tmp_path / "in.mkv", size=size, codec="ffv1", pixels="bgr0")
    (note,) = translate(tmp_path / "in.mkv", tmp_path / "out.mp4")
    made = shown(tmp_path / "out.mp4")[0][3]
    assert made.shape == (size[0] + size[0] % 2, size[1] + size[1] % 2, 3)
    assert off(made[: size[0], : size[1]], picture(3, *size)[..., ::-1]) < 4
    assert f"{size[1]}x{size[0]}" in note
    if size[1] % 2:
        assert off(made[:, -1], made[:, -2]) < 4


@pytest.mark.parametrize(
    ("codec", "ending"),
    [("h264", "mov"), ("h264", "mkv"), ("h264", "avi"), ("hevc", "mp4"), ("av1", "mp4"), ("av1", "webm"),
     ("vp9", "webm"), ("prores", "mov"), ("ffv1", "mkv"), ("h264", "webm")],
)  # fmt: skip
def test_codecs_and_containers(tmp_path: Path, codec: str, ending: str) -> None:
    if CODECS[codec].encoder not in av.codecs_available:
        pytest.skip(f"this PyAV has no {codec}")
    film(tmp_path / "in.mp4", frames=12, size=(80, 96))
    target = tmp_path / f"out.{ending}"
    translate(tmp_path / "in.mp4", target, codec=codec)
    with av.open(target) as container:
        held = container.streams.video[0].codec_context.codec.canonical_name
        assert held == ("vp9" if (codec, ending) == ("h264", "webm") else codec)
    pixels, times = shown(target)
    first = times[0]  # where times cannot be negative, all wait for AAC's 1024 samples of run-up
    assert 0 <= first <= Fraction(1, RATE)
    assert [round(float(time - first), 2) for time in times] == [index / RATE for index in range(12)]
    assert max(off(made, picture(i, 80, 96)[..., ::-1]) for i, made in enumerate(pixels)) < 5
    assert abs(len(heard(target)) - 48000 * 12 / RATE) < 4096


def test_lossless_and_odd_where_the_codec_can(tmp_path: Path) -> None:
    write_film(tmp_path / "in.mkv", [picture(index, 47, 63) for index in range(5)])
    assert translate(tmp_path / "in.mkv", tmp_path / "out.mkv", codec="ffv1") == []
    for index, made in enumerate(shown(tmp_path / "out.mkv")[0]):
        assert (made == picture(index, 47, 63)[..., ::-1]).all()


def test_quality_is_size(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    film(tmp_path / "in.mp4", sound=None)
    sizes = []
    for quality in (10, 50, 90):
        translate_film(
            Through(lambda image: noise), tmp_path / "in.mp4", tmp_path / "out.mp4", quality=quality, steady=False
        )
        sizes.append((tmp_path / "out.mp4").stat().st_size)
    assert 1.2 * sizes[0] < sizes[1] < sizes[2] / 1.2


def test_sound_that_does_not_fit_is_encoded_again_and_said(tmp_path: Path) -> None:
    film(tmp_path / "in.mp4", frames=50)
    (note,) = translate(tmp_path / "in.mp4", tmp_path / "out.webm", codec="vp9")
    assert "aac" in note and "opus" in note
    sound = heard(tmp_path / "out.webm")
    spectrum = np.abs(np.fft.rfft(sound[4800:52800]))
    assert spectrum.argmax() == 440 and abs(len(sound) - 2 * 48000) < 4096


def test_a_film_that_does_not_begin_at_zero(tmp_path: Path) -> None:
    film(tmp_path / "in.ts", frames=30)
    with av.open(tmp_path / "in.ts") as container:
        assert container.start_time > 0
    translate(tmp_path / "in.ts", tmp_path / "out.mp4")
    _, times = shown(tmp_path / "out.mp4")
    assert times[0] < 0.1 and len(times) == 30 and abs(seconds(tmp_path / "out.mp4") - 1.2) < 0.1


def test_sound_that_begins_before_the_picture_stays_in_step(tmp_path: Path) -> None:
    film(tmp_path / "in.mkv", frames=10, seconds_late=2)
    translate(tmp_path / "in.mkv", tmp_path / "out.mkv")
    assert shown(tmp_path / "out.mkv")[1] == shown(tmp_path / "in.mkv")[1]
    assert shown(tmp_path / "out.mkv")[1][0] == 2


def test_wide_pixels_stay_wide(tmp_path: Path) -> None:
    film(tmp_path / "in.mp4", prepare=lambda video: setattr(video, "sample_aspect_ratio", Fraction(16, 11)))
    translate(tmp_path / "in.mp4", tmp_path / "out.mp4")
    with av.open(tmp_path / "out.mp4") as container:
        assert container.streams.video[0].sample_aspect_ratio == Fraction(16, 11)


def test_before_and_after_side_by_side(tmp_path: Path) -> None:
    film(tmp_path / "in.mp4")
    translate(tmp_path / "in.mp4", tmp_path / "out.mp4", compare=True)
    both = shown(tmp_path / "out.compare.mp4")[0][5]
    assert off(both, np.concatenate([picture(5), picture(5)[..., ::-1]], axis=1)) < 4
    assert packets(tmp_path / "out.compare.mp4") == packets(tmp_path / "out.mp4")


@pytest.mark.parametrize(
    ("make", "name", "ending"),
    [(sound_first, "in.mp4", "mp4"), (film, "in.ts", "mp4"), (film, "in.mkv", "webm"), (film, "in.mp4", "avi")],
)
def test_the_film_of_both_sounds_as_the_film(
    tmp_path: Path, make: Callable[[Path], Path], name: str, ending: str
) -> None:
    """Also where its streams are in another order, its sound is of a broadcast, or is encoded again."""
    translate(make(tmp_path / name), tmp_path / f"out.{ending}", compare=True)
    one, other = packets(tmp_path / f"out.{ending}"), packets(tmp_path / f"out.compare.{ending}")
    assert one == other and len(one) > 50
    sound = heard(tmp_path / f"out.compare.{ending}")
    assert np.abs(np.fft.rfft(sound[4800:28800])).argmax() == 220


@pytest.mark.parametrize(
    ("codec", "rate", "layout", "ending", "says"),
    [("ac3", 48000, "5.1(side)", "webm", "became opus, since"),
     ("flac", 48000, "4.0", "webm", "became opus, stereo instead of 4.0, since"),
     ("wavpack", 192000, "stereo", "mp4", "became aac, 48000 instead of 192000 Hz, since"),
     ("pcm_s16le", 48000, "stereo", "mp4", "")],
)  # fmt: skip
def test_sound_that_an_encoder_does_not_know_is_brought_to_what_it_does(
    tmp_path: Path, codec: str, rate: int, layout: str, ending: str, says: str
) -> None:
    with av.open(tmp_path / "in.mkv", "w") as container:
        video: Any = container.add_stream("ffv1", rate=RATE)
        video.height, video.width, video.pix_fmt = 48, 64, "bgr0"
        audio: Any = container.add_stream(codec, rate=rate, layout=layout)
        audio.codec_context.open()
        for index in range(10):
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture(index), format="rgb24")))
        kind, step = audio.codec_context.format.name, audio.codec_context.frame_size or 4096
        length = rate * 2 // 5 // step * step
        for start in range(0, length, step):
            sound = av.AudioFrame(kind, layout, step)
            sound.sample_rate, sound.pts, sound.time_base = rate, start, Fraction(1, rate)
            container.mux(audio.encode(sound))
        for stream in (video, audio):
            container.mux(stream.encode(None))
    notes = translate(tmp_path / "in.mkv", tmp_path / f"out.{ending}", compare=True)
    assert says in "".join(notes) and len(notes) == bool(says)
    with av.open(tmp_path / f"out.compare.{ending}") as container:
        assert len([0 for frame in container.decode(video=0)]) == 10
        container.seek(0)
        assert abs(sum(frame.samples for frame in container.decode(audio=0)) - length * 48000 / rate) < 4096


def test_damaged_sound_is_left_out_and_said(tmp_path: Path) -> None:
    data = bytearray(film(tmp_path / "in.mkv", frames=50).read_bytes())
    with av.open(tmp_path / "in.mkv") as container:
        places = [(packet.pos, packet.size) for packet in container.demux(audio=0) if packet.size]
    for at, size in places[20:23]:
        data[at + 8 : at + size] = b"\xff" * (size - 8)
    (tmp_path / "in.mkv").write_bytes(data)
    damage, _ = translate(tmp_path / "in.mkv", tmp_path / "out.webm")
    assert "damaged packets" in damage and len(shown(tmp_path / "out.webm")[0]) == 50
    assert np.abs(np.fft.rfft(heard(tmp_path / "out.webm")[48000:72000])).argmax() == 220


def gif(path: Path, **options: Any) -> Path:
    pictures = [Image.fromarray(picture(4 * index)) for index in range(5)]
    if options.pop("clear", False):
        for image in pictures:
            image.putalpha(Image.fromarray(np.tile(np.uint8([0, 255]), (48, 32))))
    pictures[0].save(path, save_all=True, append_images=pictures[1:], **options)
    return path


def played(path: Path) -> tuple[list[Image.Image], list[int], int | None]:
    with Image.open(path) as image:
        frames, lengths = [], []
        for index in range(image.n_frames):
            image.seek(index)
            frames.append(image.convert("RGBA"))
            lengths.append(image.info["duration"])
        return frames, lengths, image.info.get("loop")


@pytest.mark.parametrize(("ending", "other"), [("gif", "gif"), ("webp", "webp"), ("gif", "webp"), ("webp", "gif")])
@pytest.mark.parametrize("loop", [0, 3])
def test_animations_keep_lengths_loop_and_transparency(tmp_path: Path, ending: str, other: str, loop: int) -> None:
    lengths = [40, 200, 70, 30, 500]
    source = gif(tmp_path / f"in.{ending}", duration=lengths, loop=loop, clear=True, disposal=2, lossless=True)
    target = tmp_path / f"out.{other}"
    translate(source, target, quality=100)
    frames, kept, repeats = played(target)
    # A GIF tells how often it is repeated, a WebP how often it is played.
    assert kept == lengths and repeats == (loop + (other == "webp") - (ending == "webp") if loop else 0)
    for made, was in zip(frames, played(source)[0], strict=True):
        alpha = np.asarray(made)[..., 3]
        assert (alpha == np.asarray(was)[..., 3]).all()
        assert off(np.asarray(made)[..., 2::-1][alpha > 0], np.asarray(was)[..., :3][alpha > 0]) < 12


def test_a_gif_that_plays_once_does_so_again(tmp_path: Path) -> None:
    translate(gif(tmp_path / "in.gif", duration=50), tmp_path / "out.gif")
    assert played(tmp_path / "out.gif")[2] is None


def test_between_films_and_animations(tmp_path: Path) -> None:
    film(tmp_path / "in.mp4", frames=25)
    translate(tmp_path / "in.mp4", tmp_path / "out.gif")
    frames, lengths, loop = played(tmp_path / "out.gif")
    assert sum(lengths) == 1000 and loop == 0
    assert off(np.asarray(frames[0])[..., :3], picture(0)[..., ::-1]) < 12
    translate(tmp_path / "out.gif", tmp_path / "back.mp4")
    assert abs(seconds(tmp_path / "back.mp4") - 1) < 1e-6


@pytest.mark.parametrize("ending", ["gif", "webp", "png"])
def test_animations_that_are_cut_off_anywhere_are_told(tmp_path: Path, ending: str) -> None:
    """Whatever Pillow raises."""
    data = gif(tmp_path / f"whole.{ending}", duration=50).read_bytes()
    for length in range(0, len(data) - 1, len(data) // 40):
        (tmp_path / f"in.{ending}").write_bytes(data[:length])
        try:
            translate(tmp_path / f"in.{ending}", tmp_path / f"out.{ending}")
        except (BadInput, Failed) as told:
            assert f"in.{ending}" in str(told) and "\n" not in str(told)
            if isinstance(told, Failed):  # what was whole is there
                assert shown(tmp_path / f"out.partial.{ending}")[0]
        else:  # but for the mark of the end, all is there
            assert len(shown(tmp_path / f"out.{ending}")[0]) == len(shown(tmp_path / f"whole.{ending}")[0])


def test_an_animation_becomes_a_film_as_quick_as_it_is(tmp_path: Path) -> None:
    """Its rate is that of all frames; AVI, which counts frames, counts by the shortest."""
    pictures = [Image.fromarray(picture(index)) for index in range(11)]
    save = pictures[0].save
    save(tmp_path / "even.webp", save_all=True, append_images=pictures[1:], duration=40)
    save(tmp_path / "thirds.png", save_all=True, append_images=pictures[1:], duration=100 / 3)
    save(tmp_path / "mixed.gif", save_all=True, append_images=pictures[1:], duration=[200] + [40] * 10)
    for name, ending, lasts in (("even.webp", "avi", 0.44), ("even.webp", "mp4", 0.44), ("thirds.png", "mp4", 11 / 30),
                                ("thirds.png", "avi", 11 / 30), ("mixed.gif", "avi", 0.6)):  # fmt: skip
        translate(tmp_path / name, tmp_path / f"out.{ending}")
        assert abs(seconds(tmp_path / f"out.{ending}") - lasts) < 0.002, name
        assert len(shown(tmp_path / f"out.{ending}")[0]) >= 11
    with av.open(tmp_path / "out.mp4") as container:
        assert abs(container.streams.video[0].average_rate - 30) < 0.1


def test_what_is_a_video(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "still.gif")
    (tmp_path / "broken.webp").write_bytes(b"RIFF")
    assert is_film(gif(tmp_path / "a.gif", duration=50)) and is_film(gif(tmp_path / "a.webp", duration=50))
    assert is_film(Path("film.MP4")) and is_film(Path("film.mkv"))
    assert not any(is_film(tmp_path / name) for name in ("still.gif", "broken.webp", "none.gif", "a.jpg"))


def test_name_of_the_result() -> None:
    assert [result_name(Path(name)) for name in ("a/b.MOV", "c.wmv", "d.gif")] == ["b.MOV", "c.mp4", "d.gif"]


def test_title_is_kept_and_hdr_is_said(tmp_path: Path) -> None:
    def prepare(video: Any) -> None:
        video.container.metadata["title"] = "A walk"
        video.codec_context.color_trc = 18  # HLG, as phones film

    (note,) = translate(film(tmp_path / "in.mp4", frames=3, prepare=prepare), tmp_path / "out.mp4")
    with av.open(tmp_path / "out.mp4") as container:
        assert container.metadata["title"] == "A walk"
    assert "HDR" in note


@pytest.mark.parametrize(("height", "matrix"), [(480, 5), (720, 1)])
def test_a_film_that_names_no_matrix_is_read_as_players_do(tmp_path: Path, height: int, matrix: int) -> None:
    red = np.zeros((height, 64, 3), np.uint8)
    red[..., 0] = 200
    with av.open(tmp_path / "in.mp4", "w") as container:
        video: Any = container.add_stream("libx264", rate=RATE, options={"crf": "1"})
        video.height, video.width, video.pix_fmt = height, 64, "yuv420p"
        frame = av.VideoFrame.from_ndarray(red, format="rgb24").reformat(
            format="yuv420p", dst_colorspace=matrix, dst_color_range=1
        )
        frame.colorspace = 2
        container.mux(video.encode(frame))
        container.mux(video.encode(None))
    translate(tmp_path / "in.mp4", tmp_path / "out.mkv", codec="ffv1")
    assert off(shown(tmp_path / "out.mkv")[0][0], red[..., ::-1]) < 2


def empty_film(path: Path) -> Path:
    """A film with a header and no frames."""
    with av.open(path, "w", format="matroska") as container:
        video: Any = container.add_stream("ffv1", rate=25)
        video.height, video.width, video.pix_fmt = 48, 64, "bgr0"
        container.start_encoding()
    return path


def only_sound(path: Path) -> Path:
    with av.open(path, "w") as container:
        write_sine(container, container.add_stream("aac", rate=48000, layout="stereo"), Fraction(1))
    return path


def no_film(path: Path) -> Path:
    path.write_bytes(b"this is no film" * 100)
    return path


def cut_off(path: Path) -> Path:
    film(path)
    path.write_bytes(path.read_bytes()[:2000])
    return path


def cut_off_gif(path: Path) -> Path:
    gif(path, duration=50)
    path.write_bytes(path.read_bytes()[:5])
    return path


def unknown_codec(path: Path) -> Path:
    write_film(path, [picture(0)])
    path.write_bytes(path.read_bytes().replace(b"V_FFV1", b"V_XYZ1"))
    return path


def enormous_gif(path: Path) -> Path:
    data = bytearray(gif(path, duration=50).read_bytes())
    data[6:10] = b"\xff" * 4
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("make", "name", "says"),
    [(unknown_codec, "in.mkv", "nothing here decodes its video"), (enormous_gif, "in.gif", "broken"),
     (empty_film, "in.mkv", "no frames"),
     (only_sound, "in.mp4", "no video"), (no_film, "in.mp4", "not a video"),
     (cut_off, "in.mp4", "broken"), (cut_off_gif, "in.gif", "broken"), (lambda path: path, "in.mp4", "No such file"),
     (lambda path: path, "in.gif", "in.gif")],
)  # fmt: skip
def test_bad_films_are_told_before_anything_is_written(
    tmp_path: Path, make: Callable[[Path], Path], name: str, says: str
) -> None:
    with pytest.raises(BadInput, match=says) as told:
        translate(make(tmp_path / name), tmp_path / "out" / "out.mp4")
    assert name in str(told.value) and "\n" not in str(told.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "name", "says"),
    [({"codec": "mpeg17"}, "out.mp4", "h264"), ({"codec": "prores"}, "out.mp4", "cannot hold"),
     ({"codec": "hevc"}, "out.webm", "vp9"), ({}, "in.mp4/out.mp4", "cannot write"),
     ({}, "in.mp4/out.gif", "cannot write"), ({}, "folder.mp4", "folder")],
)  # fmt: skip
def test_bad_wishes_are_told_before_anything_is_written(
    tmp_path: Path, options: dict[str, Any], name: str, says: str
) -> None:
    film(tmp_path / "in.mp4", frames=3)
    (tmp_path / "folder.mp4").mkdir()
    there = sorted(tmp_path.rglob("*"))
    with pytest.raises(BadInput, match=says):
        translate(tmp_path / "in.mp4", tmp_path / name, **options)
    assert sorted(tmp_path.rglob("*")) == there


def test_damage_in_the_middle_is_left_out_and_said(tmp_path: Path) -> None:
    data = bytearray(film(tmp_path / "in.mkv", frames=60, codec="mjpeg", pixels="yuvj420p", sound=None).read_bytes())
    with av.open(tmp_path / "in.mkv") as container:
        places = [packet.pos for packet in container.demux(video=0) if packet.size]
    data[places[30] + 16 : places[31] - 8] = b"\0" * (places[31] - places[30] - 24)
    (tmp_path / "in.mkv").write_bytes(data)
    notes = translate(tmp_path / "in.mkv", tmp_path / "out.mkv")
    assert len(shown(tmp_path / "out.mkv")[0]) == 59 and "damaged" in notes[0]


@pytest.mark.parametrize("ending", ["mp4", "mkv", "gif", "webp"])
def test_interrupted_the_partial_file_plays(tmp_path: Path, ending: str) -> None:
    def stop(done: int, total: int | None) -> None:
        if done == 20:
            raise KeyboardInterrupt

    film(tmp_path / "in.mp4", frames=50)
    (tmp_path / f"out.{ending}").write_bytes(b"an earlier film")
    with pytest.raises(KeyboardInterrupt):
        translate(tmp_path / "in.mp4", tmp_path / f"out.{ending}", on_progress=stop)
    assert (tmp_path / f"out.{ending}").read_bytes() == b"an earlier film"
    partial = tmp_path / f"out.partial.{ending}"
    kept = len(played(partial)[0] if ending in ("gif", "webp") else shown(partial)[0])
    assert 20 <= kept <= 25  # those that were on their way may be there, too


def test_killed_the_partial_file_plays(tmp_path: Path) -> None:
    film(tmp_path / "in.mp4", frames=250)
    script = f"""
        import os, sys
        from pathlib import Path
        from viceversa.translation.films import translate_film
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from test_films import Through, swap
        def die(done, total):
            if done == 200:
                os.kill(os.getpid(), {int(signal.SIGKILL)})
        translate_film(Through(swap), Path("in.mp4"), Path("out.mp4"), steady=False, on_progress=die)
    """
    result = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], cwd=tmp_path, check=False)
    assert result.returncode == -signal.SIGKILL and not (tmp_path / "out.mp4").exists()
    pixels, times = shown(tmp_path / "out.partial.mp4")
    assert len(pixels) >= 50 and times[0] == 0
    for made, time in zip(pixels, times, strict=True):
        assert off(made, picture(round(time * RATE))[..., ::-1]) < 4


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    film(tmp_path / "in.mp4", frames=60, size=(256, 256))
    script = """
        import resource, signal, sys
        from pathlib import Path
        import numpy as np
        sys.path.insert(0, FOLDER)
        from test_films import Through
        from viceversa.errors import Failed
        from viceversa.translation.films import translate_film
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        rng = np.random.default_rng(0)
        noise = lambda image: rng.integers(0, 256, image.shape, dtype=np.uint8)
        for name in ("out.mp4", "out.mkv", "out.webp"):
            try:
                translate_film(Through(noise), Path("in.mp4"), Path(name), steady=False)
            except Failed as failure:
                print(failure)
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script).replace("FOLDER", repr(str(Path(__file__).parent)))],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("cannot be written") == 3 and len(result.stdout.splitlines()) == 3
    assert not any((tmp_path / f"out.{ending}").exists() for ending in ("mp4", "mkv", "webp"))


def test_a_network_that_fails_passes_its_word_on(tmp_path: Path) -> None:
    def broken(image: Any) -> Any:
        raise BadInput("no such domain")

    film(tmp_path / "in.mp4")
    with pytest.raises(BadInput, match="no such domain"):
        translate_film(Through(broken), tmp_path / "in.mp4", tmp_path / "new" / "out.mp4")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("steady", [False, True])
@pytest.mark.parametrize("channels", [(1, 3), (3, 1)])
def test_a_model_of_one_channel(tmp_path: Path, channels: tuple[int, int], steady: bool) -> None:
    film(tmp_path / "in.mp4", frames=4)
    generator = networks.Generator(width=2, blocks=1, channels_in=channels[0], channels_out=channels[1]).build()
    translator = Translator(Model({"ab": generator}, ("day", "night"), {}), device="cpu")
    translate_film(translator, tmp_path / "in.mp4", tmp_path / "out.mkv", steady=steady, codec="ffv1", compare=True)
    made = shown(tmp_path / "out.mkv")[0][0]
    assert made.shape == (48, 64, 3) and ((made == made[..., :1]).all() == (channels[1] == 1))
    assert (shown(tmp_path / "out.compare.mkv")[0][0][:, 64:] == made).all()


def test_what_lies_hidden_in_a_film_is_upon_white(tmp_path: Path) -> None:
    clear = np.zeros((48, 64, 4), np.uint8)
    clear[..., :3] = picture(0)
    clear[:, ::2, 3] = 255
    with av.open(tmp_path / "in.mkv", "w") as container:
        video: Any = container.add_stream("ffv1", rate=RATE)
        video.height, video.width, video.pix_fmt = 48, 64, "bgra"
        for _ in range(3):
            container.mux(video.encode(av.VideoFrame.from_ndarray(clear, format="rgba")))
        container.mux(video.encode(None))
    (note,) = translate(tmp_path / "in.mkv", tmp_path / "out.mkv", codec="ffv1")
    made = shown(tmp_path / "out.mkv")[0][0]
    assert (made[:, ::2] == picture(0)[:, ::2, ::-1]).all() and (made[:, 1::2] == 255).all()
    assert "what is transparent was laid upon white" in note
    translate(tmp_path / "in.mkv", tmp_path / "out.webp", quality=100)
    assert (np.asarray(played(tmp_path / "out.webp")[0][0])[..., 3] == clear[..., 3]).all()


def test_a_model_of_gray_is_shown_a_photo_upon_white(tmp_path: Path) -> None:
    seen: list[np.ndarray] = []

    class Seeing(Translator):
        def __call__(self, image: Any, to: str | None = None, **how: Any) -> Any:
            seen.append(image)
            return image

    Image.new("RGBA", (64, 48), (60, 60, 60, 0)).save(tmp_path / "cut.png")
    generator = networks.Generator(width=2, blocks=1, channels_in=1, channels_out=1).build()
    translator = Seeing(Model({"ab": generator}, ("day", "night"), {}), device="cpu")
    show_change(translator, tmp_path / "cut.png", tmp_path / "out.mkv", seconds=0.1)
    assert seen[0].shape == (48, 64, 1) and (seen[0] == 255).all()


def test_a_film_is_not_overwritten_on_the_way_to_its_own_translation(tmp_path: Path) -> None:
    before = film(tmp_path / "q.partial.mp4", frames=3).read_bytes()
    with pytest.raises(BadInput, match="would be overwritten on the way to"):
        translate(tmp_path / "q.partial.mp4", tmp_path / "q.mp4")
    assert (tmp_path / "q.partial.mp4").read_bytes() == before and not (tmp_path / "q.mp4").exists()


def test_a_comparison_that_comes_later_leaves_the_film(tmp_path: Path) -> None:
    film(tmp_path / "in.mp4", frames=3)
    (tmp_path / "out.mp4").write_bytes(b"mine")
    translate(tmp_path / "in.mp4", tmp_path / "out.mp4", compare=True, keep=True)
    assert (tmp_path / "out.mp4").read_bytes() == b"mine" and len(shown(tmp_path / "out.compare.mp4")[0]) == 3


def test_the_same_as_picture_by_picture(tmp_path: Path) -> None:
    write_film(tmp_path / "in.mkv", [picture(index) for index in range(4)])
    generator = networks.Generator(width=4, blocks=1).build()
    translator = Translator(Model({"ab": generator}, ("day", "night"), {}), device="cpu")
    translate_film(translator, tmp_path / "in.mkv", tmp_path / "out.mkv", to="night", codec="ffv1", steady=False)
    for index, made in enumerate(shown(tmp_path / "out.mkv")[0]):
        assert (made == translator(picture(index), to="night")).all()
    with pytest.raises(BadInput, match="night"):
        translate_film(translator, tmp_path / "in.mkv", tmp_path / "new" / "out.mkv", to="nigth")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_wide_pixels_are_turned_with_the_film(tmp_path: Path, turn: int) -> None:
    """A phone's film of an anamorphic lens, held upright: what was wide is high, and is played so."""

    def prepare(video: Any) -> None:
        video.sample_aspect_ratio = Fraction(4, 3)
        video.set_display_rotation(turn)

    if not hasattr(av.video.stream.VideoStream, "set_display_rotation"):
        pytest.skip("this PyAV cannot write rotations")
    film(tmp_path / "in.mp4", frames=3, prepare=prepare)
    translate(tmp_path / "in.mp4", tmp_path / "out.mp4")
    with av.open(tmp_path / "out.mp4") as container:
        video = container.streams.video[0]
        upright = turn == 180
        assert (video.width, video.height) == ((64, 48) if upright else (48, 64))
        assert video.sample_aspect_ratio == (Fraction(4, 3) if upright else Fraction(3, 4))


@pytest.mark.parametrize("ending", ["png", "apng", "avif"])
def test_other_pictures_that_move_are_translated_as_they_move(tmp_path: Path, ending: str) -> None:
    if f".{ending}" not in ANIMATIONS:
        pytest.skip(f"this Pillow has no {ending}")
    pictures = [Image.fromarray(picture(4 * index)) for index in range(4)]
    options = {"loop": 2} if ending != "avif" else {"quality": 90}
    source, target = tmp_path / f"in.{ending}", tmp_path / f"out.{ending}"
    pictures[0].save(source, save_all=True, append_images=pictures[1:], duration=[40, 200, 70, 30], **options)
    pictures[0].save(tmp_path / f"still.{ending}")
    assert is_film(source) and not is_film(tmp_path / f"still.{ending}")
    translate(source, target, quality=95)
    frames, lengths, loop = played(target)
    assert lengths == [40, 200, 70, 30] and loop == (2 if ending != "avif" else None)
    for made, was in zip(frames, played(source)[0], strict=True):
        assert off(np.asarray(made)[..., 2::-1], np.asarray(was)[..., :3]) < 6


def test_the_picture_for_those_who_do_not_know_that_a_png_moves_is_no_frame(tmp_path: Path) -> None:
    first, *others = (Image.fromarray(picture(4 * index)) for index in range(4))
    first.save(tmp_path / "in.png", save_all=True, append_images=others, duration=50, default_image=True)
    translate(tmp_path / "in.png", tmp_path / "out.png")
    frames, _, _ = played(tmp_path / "out.png")
    assert len(frames) == 3 and off(np.asarray(frames[0])[..., 2::-1], np.asarray(others[0])) == 0


def test_a_name_as_long_as_names_can_be(tmp_path: Path) -> None:
    """The name of what is not complete yet is never longer than names can be."""
    target = tmp_path / f"{'n' * 251}.mp4"
    translate(film(tmp_path / "in.mp4", frames=3), target)
    assert target.exists() and len(list(tmp_path.iterdir())) == 2

"""`viceversa translate` as a person uses it: files of every kind, broken ones, interruptions, bad input."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from patience import LONG
from PIL import Image, TiffImagePlugin

from viceversa.cli import main
from viceversa.data import pictures, statistics
from viceversa.data.pictures import Picture
from viceversa.model.file import Model, save_model
from viceversa.model.networks import Generator, initialise
from viceversa.translation import clips, command, pipeline
from viceversa.translation.command import RECORD
from viceversa.translation.pipeline import Job, Work, batches
from viceversa.translation.translator import load


def save_generators(path, *directions):
    """A model that changes pictures visibly and exactly the same each time."""
    drawn = torch.Generator().manual_seed(0)
    generators = {}
    for direction in directions:
        generators[direction] = Generator(width=4, blocks=1).build().eval()
        initialise(generators[direction], drawn)
        for weight in generators[direction].parameters():
            weight.data *= 5
    save_model(path, Model(generators, ("day", "night")))
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_generators(tmp_path_factory.mktemp("model") / "model.safetensors", "ab", "ba")


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def noise(*shape, dtype=np.uint8, seed=0):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def make(path, height=20, width=30, channels=3, seed=0):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise(height, width, channels, seed=seed)).save(path)
    return path


def moving(path, count=3):
    frames = [Image.fromarray(noise(32, 48, 3, seed=n)) for n in range(count)]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=100)
    return Path(path)


def translate(*arguments):
    return main(["translate", *map(str, arguments), "--device", "cpu", "--precision", "fp32"])


def files(folder):
    # os.walk, since a folder may go while one looks: a process that begins tries whether it can be made.
    found = (Path(at, name).relative_to(folder) for at, _, names in os.walk(folder) for name in names)
    return sorted(str(file) for file in found if file.name != command.RECORD)


def complaint(capsys):
    lines = capsys.readouterr().err.splitlines()
    told = [line for line in lines if line.startswith("viceversa: ")]
    assert len(told) == 1 and not any("Traceback" in line for line in lines)
    return told[0]


def test_a_folder_keeps_its_tree_names_sizes_and_formats(model):
    names = ["a.png", "b.jpg", "sub/c.webp", "sub/deep/d.tif", "sub/e.bmp", "f.gif", "g.jpeg", "H.JPG"]
    for n, name in enumerate(names):
        make(Path("in", name), 20 + n, 30 + n)
    make("in/.hidden/x.png")
    Path("in/notes.txt").write_text("no image")
    assert translate(model, "in", "--to", "night", "-o", "out") == 0
    assert files("out") == sorted(names)
    for name in names:
        with Image.open(Path("in", name)) as before, Image.open(Path("out", name)) as after:
            assert (after.size, after.format) == (before.size, before.format)
    expected = load(model, precision="fp32")("in/a.png", "night")
    assert np.array_equal(np.asarray(Image.open("out/a.png")), np.asarray(expected))


def test_files_globs_and_lists(model):
    for name in ("x/1.png", "x/y/2.png", "x/y/3.jpg"):
        make(name)
    Path("list.txt").write_text("x/1.png\n")
    assert translate(model, "x/1.png", "--to", "day", "-o", "files") == 0
    assert translate(model, "x/**/*.png", "--to", "day", "-o", "globs") == 0
    assert translate(model, "list.txt", "--to", "day", "-o", "lists") == 0
    assert (files("files"), files("globs"), files("lists")) == (["1.png"], ["1.png", "y/2.png"], ["1.png"])


def test_one_file_to_one_file_and_another_format(model):
    make("a.png", 40, 50)
    assert translate(model, "a.png", "--to", "day", "-o", "deep/b.jpg") == 0
    assert translate(model, "a.png", "--to", "day", "-o", "other", "--format", "webp") == 0
    assert Image.open("deep/b.jpg").format == "JPEG" and Image.open("deep/b.jpg").size == (50, 40)
    assert files("other") == ["a.webp"] and Image.open("other/a.webp").format == "WEBP"


def test_standard_input_and_output(model):
    make("a.png", 9, 7)
    command = [sys.executable, "-m", "viceversa", "translate", model, "-", "--to", "day", "-o", "-"]
    done = subprocess.run([*command, "--precision", "fp32"], input=Path("a.png").read_bytes(), capture_output=True)
    assert done.returncode == 0, done.stderr
    assert translate(model, "a.png", "--to", "day", "-o", "b.png") == 0
    assert done.stdout == Path("b.png").read_bytes()


def test_what_a_format_does_not_hold_is_told_of_standard_output_too(model, capsysbinary):
    clear = Picture(noise(8, 9, 3, dtype=np.uint16), alpha=noise(8, 9, dtype=np.uint16))
    pictures.write(Path("clear.png"), clear)
    assert translate(model, "clear.png", "--to", "day", "-o", "-", "--format", "jpg") == 0
    written, said = capsysbinary.readouterr()
    assert written.startswith(b"\xff\xd8")
    assert b"(clear.png): transparency, which JPEG does not hold, left out" in said
    assert b"(clear.png): 16 bits, rounded to the 8 of JPEG" in said


def test_compare_and_round_trip_are_written_beside(model):
    make("a.png", 16, 20)
    assert translate(model, "a.png", "--to", "day", "-o", "out", "--compare", "--round-trip") == 0
    assert files("out") == ["a.compare.png", "a.png", "a.round-trip.png"]
    before, after, both, back = (np.asarray(Image.open(path)) for path in (
        "a.png", "out/a.png", "out/a.compare.png", "out/a.round-trip.png",
    ))  # fmt: skip
    assert np.array_equal(both, np.concatenate([before, after], 1))
    assert np.array_equal(back, load(model, precision="fp32")(after, "night"))


def test_too_wide_for_a_format_is_said_before_the_work(model, capsys):
    """And not after it, again and again, with a part of it done."""
    make("in/wide.png", 8, 9000)
    assert translate(model, "in", "--to", "day", "-o", "out", "--format", "webp", "--compare") == 2
    said = complaint(capsys)
    assert "in/wide.png: out/wide.compare.webp: WEBP holds at most 16383 pixels a side, not 18000x8; choose PNG" in said
    assert said.endswith("by --format png, or leave out --compare") and not Path("out/wide.webp").exists()
    assert translate(model, "in", "--to", "day", "-o", "out", "--format", "webp") == 0
    make("in/wide.png", 8, 17_000)
    capsys.readouterr()
    assert translate(model, "in", "--to", "day", "-o", "new", "--format", "webp") == 2
    assert "new/wide.webp: WEBP holds at most 16383 pixels a side, not 17000x8; choose PNG, as by --format png" in (
        complaint(capsys)
    )


def test_exif_alpha_and_sixteen_bits_stay(model):
    exif = Image.Exif()
    exif[274], exif[271] = 6, "Camera"
    Image.fromarray(noise(10, 20, 3)).save("upright.jpg", exif=exif)
    clear = make("clear.png", channels=4)
    pictures.write(Path("deep.png"), Picture(noise(9, 8, 3, dtype=np.uint16), format="PNG"))
    pictures.write(Path("deep.tif"), Picture(noise(9, 8, 3, dtype=np.uint16), format="TIFF"))
    assert translate(model, "upright.jpg", clear, "deep.png", "deep.tif", "--to", "night", "-o", "out") == 0
    with Image.open("out/upright.jpg") as image:
        assert image.size == (10, 20) and image.getexif()[271] == "Camera" and image.getexif().get(274, 1) == 1
    assert np.array_equal(np.asarray(Image.open("out/clear.png"))[..., 3], noise(20, 30, 4)[..., 3])
    for name in ("out/deep.png", "out/deep.tif"):
        assert pictures.read(Path(name)).pixels.dtype == np.uint16


def test_what_is_there_is_left_and_overwritten_when_asked(model, capsys):
    for n in range(3):
        make(f"in/{n}.png", seed=n)
    assert translate(model, "in", "--to", "night", "-o", "out") == 0
    Path("out/1.png").write_bytes(b"mine")
    Path("out/2.png").unlink()
    assert translate(model, "in", "--to", "night", "-o", "out") == 0
    assert "translated 1 to out; 2 were there already" in capsys.readouterr().err
    assert Path("out/1.png").read_bytes() == b"mine" and Path("out/2.png").exists()
    assert translate(model, "in", "--to", "night", "-o", "out", "--overwrite") == 0
    assert Image.open("out/1.png").size == (30, 20)


def test_what_is_there_of_another_picture_is_told(model, capsys):
    for n, folder in enumerate(("x", "y")):
        make(f"{folder}/1.png", seed=n)
    Path("y/1.png").write_bytes(Path("y/1.png").read_bytes() + b"more")
    assert translate(model, "x", "--to", "night", "-o", "out") == 0
    capsys.readouterr()
    assert translate(model, "x", "--to", "night", "-o", "out") == 0
    assert "another picture" not in told(capsys)
    assert translate(model, "y", "--to", "night", "-o", "out") == 0
    assert "out/1.png is there already, made of another picture than what is to be translated now" in told(capsys)
    assert translate(model, "y", "--to", "night", "-o", "out", "--overwrite") == 0
    assert translate(model, "y", "--to", "night", "-o", "out") == 0
    assert "another picture" not in told(capsys)


def test_what_is_there_and_was_not_written_by_it_is_told(model, capsys):
    for n in range(3):
        make(f"in/{n}.png", seed=n)
    make("out/1.png")
    assert translate(model, "in", "--to", "night", "-o", "out") == 0
    assert "out/1.png is there already, and viceversa knows of no translation that made it" in told(capsys)
    assert translate(model, "in", "--to", "night", "-o", "out", "--overwrite") == 0
    assert translate(model, "in", "--to", "night", "-o", "out") == 0
    assert "no translation" not in told(capsys)


def test_records_of_older_versions_say_nothing_of_sizes(model, capsys):
    make("in/1.png")
    assert translate(model, "in", "--to", "night", "-o", "out") == 0
    record = Path("out", RECORD)
    kept = json.loads(record.read_text())
    record.write_text(json.dumps([each | {"files": [*each["files"]]} for each in kept]))
    capsys.readouterr()
    assert translate(model, "in", "--to", "night", "-o", "out") == 0
    assert (said := told(capsys)).count("there already") == 1 and "another picture" not in said
    assert translate(model, "in", "--to", "day", "-o", "out") == 2


OTHER_WORK = {
    "the other domain": ["MODEL", "--to", "day"],
    "another model": ["OTHER", "--to", "night"],
    "a size": ["MODEL", "--to", "night", "--size", "16"],
    "a strength": ["MODEL", "--to", "night", "--strength", "0.5"],
    "another comparison": ["MODEL", "--to", "day", "--compare"],
    "while one watches": ["MODEL", "--to", "day", "--watch"],
}


@pytest.fixture
def other_model(model):
    changed = load(model).model
    changed.generators["ab"].model[-2].bias += 0.5
    save_model(Path("other.safetensors"), changed)
    return "other.safetensors"


@pytest.mark.parametrize("name", OTHER_WORK)
def test_what_is_there_of_other_work_is_no_work_done(model, other_model, name, capsys):
    """A second model, domain, size or strength on the same photos, into the same folder."""
    for n in range(3):
        make(f"in/{n}.png", seed=n)
    assert translate(model, "in/0.png", "in/1.png", "--to", "night", "-o", "out") == 0
    before = Path("out/0.png").read_bytes()
    given = [{"MODEL": model, "OTHER": other_model}.get(argument, argument) for argument in OTHER_WORK[name]]
    capsys.readouterr()
    assert translate(*given, "in", "-o", "out") == 2
    said = complaint(capsys)
    assert f"out/0.png and 1 more are there already, translated by {model} --to night: " in said
    assert "name another --out" in said and ("--overwrite does it again" in said) == ("--watch" not in given)
    assert files("out") == ["0.png", "1.png"] and Path("out/0.png").read_bytes() == before
    if "--watch" in given:
        return
    assert translate(*given, "in/2.png", "-o", "out") == 0  # which clashes with nothing
    assert translate(*given, "in/2.png", "-o", "out") == 0
    assert "translated 0 to out; 1 was there already (--overwrite does it again)" in told(capsys)
    assert translate(*given, "in", "-o", "out", "--overwrite") == 0
    assert Path("out/0.png").read_bytes() != before
    assert translate(*given, "in", "-o", "out") == 0
    assert translate(model, "in/0.png", "--to", "night", "-o", "out") == 2


@pytest.mark.parametrize("flags", [[], ["--compare"], ["--strength", "0.5"]])
def test_a_named_file_that_is_there_is_never_taken_for_work_done(model, other_model, flags, capsys):
    """By which model it was made nothing says: a second one's command would end well, with the first one's picture."""
    make("a.png")
    assert translate(model, "a.png", "--to", "night", "-o", "one.png") == 0
    before = Path("one.png").read_bytes()
    capsys.readouterr()
    assert translate(other_model, "a.png", "--to", "night", "-o", "one.png", *flags) == 2
    assert "one.png is there already: --overwrite does it again, or name another --out" in complaint(capsys)
    assert Path("one.png").read_bytes() == before and not Path("one.compare.png").exists()
    assert translate(other_model, "a.png", "--to", "night", "-o", "one.png", *flags, "--overwrite") == 0
    assert Path("one.png").read_bytes() != before


def test_a_folder_in_the_place_of_a_result_is_no_result(model, capsys):
    make("in/a.png")
    Path("out/a.png").mkdir(parents=True)
    for more in ([], ["--overwrite"]):
        assert translate(model, "in", "--to", "night", "-o", "out", *more) == 2
        assert "out/a.png is a folder, where a file is to be written: name another --out" in complaint(capsys)


def test_a_model_that_was_trained_on_is_another(model, other_model, capsys):
    make("a.png")
    shutil.copy(model, "m.safetensors")
    assert translate("m.safetensors", "a.png", "--to", "night", "-o", "out") == 0
    shutil.copy(other_model, "m.safetensors")
    assert translate("m.safetensors", "a.png", "--to", "night", "-o", "out") == 2
    assert "translated by m.safetensors --to night, which has changed since: " in complaint(capsys)


def test_what_could_not_be_overwritten_is_still_of_the_work_before(model, capsys):
    for n in range(2):
        make(f"in/{n}.png", seed=n)
    assert translate(model, "in", "--to", "night", "-o", "out") == 0
    Path("in/0.png").write_bytes(b"broken")
    assert translate(model, "in", "--to", "day", "-o", "out", "--overwrite") == 1
    assert translate(model, "in/1.png", "--to", "day", "-o", "out") == 0
    capsys.readouterr()
    assert translate(model, "in/0.png", "--to", "day", "-o", "out") == 2
    assert f"translated by {model} --to night" in complaint(capsys)


def test_folders_without_a_record_go_on_and_labels_are_of_any_work(model, capsys):
    for n in range(2):
        make(f"in/{n}.png", seed=n)
    Path("in/notes.txt").write_text("a label")
    assert translate(model, "in", "--to", "night", "-o", "out") == 0
    Path("out", command.RECORD).unlink()
    Path("out/1.png").unlink()
    assert translate(model, "in", "--to", "day", "-o", "out", "--with-labels") == 0
    assert "translated 1 and copied 1 label to out; 1 was there already" in told(capsys)
    Path("out/0.png").unlink()
    Path("out/1.png").unlink()
    assert translate(model, "in", "--to", "night", "-o", "out", "--with-labels") == 0
    for damaged in ("{", "[3]", '[{"files": []}]'):
        Path("out", command.RECORD).write_text(damaged)
        capsys.readouterr()
        assert translate(model, "in", "--to", "night", "-o", "out") == 2
        assert f"out/{command.RECORD}: no record" in (said := complaint(capsys)) and "take it away" in said


def test_broken_files_are_told_at_the_end_and_the_rest_is_done(model, capsys):
    for n in range(4):
        make(f"in/{n}.jpg", 60, 60, seed=n)
    for n in (1, 2):
        Path(f"in/{n}.jpg").write_bytes(Path(f"in/{n}.jpg").read_bytes()[:900])
    assert translate(model, "in", "--to", "night", "-o", "out") == 1
    assert files("out") == ["0.jpg", "3.jpg"]
    told = capsys.readouterr().err
    assert "2 of 4 failed: 1.jpg, 2.jpg" in told and "in/1.jpg: broken" in told


def test_a_single_broken_file_is_bad_input(model, capsys):
    Path("a.png").write_bytes(b"nothing like a PNG")
    assert translate(model, "a.png", "--to", "night", "-o", "out") == 2
    assert "a.png: not an image" in complaint(capsys)
    assert not Path("out").exists() or files("out") == []


def test_a_decompression_bomb_is_refused(model, capsys):
    Image.new("1", (30_000, 30_000)).save("bomb.png")
    assert translate(model, "bomb.png", "--to", "night", "-o", "out") == 2
    assert "larger than 500 megapixels" in complaint(capsys)


def test_too_large_for_the_memory_is_said(model, capsys):
    make("a.png", 3000, 3000, 3)
    assert translate(model, "a.png", "--to", "night", "-o", "out", "--memory", "200MB") == 2
    assert "raise --memory, or use --size" in complaint(capsys)


BAD = {
    "no such model": (["nothing.safetensors", "in", "--to", "night"], "no model 'nothing.safetensors'"),
    "a near domain": (["MODEL", "in", "--to", "nigth"], "did you mean night?"),
    "no domain": (["MODEL", "in"], "--to day or --to night"),
    "no such input": (["MODEL", "nowhere", "--to", "night"], "nowhere: no such file or folder"),
    "no match": (["MODEL", "in/*.webp", "--to", "night"], "no images match"),
    "an empty folder": (["MODEL", "empty", "--to", "night"], "an empty folder"),
    "inside the input": (["MODEL", "in", "--to", "night", "-o", "in/out"], "inside the input folder"),
    "the input itself": (["MODEL", "in", "--to", "night", "-o", "in"], "inside the input folder"),
    "onto the input": (["MODEL", "in/a.png", "--to", "night", "-o", "in/a.png"], "is an input"),
    "onto each other": (["MODEL", "in", "in2", "--to", "night", "-o", "out"], "would both be written to out/a.png"),
    "by their format": (["MODEL", "in2", "--to", "night", "-o", "out", "--format", "bmp"], "would both be written"),
    "many to a file": (["MODEL", "in2", "--to", "night", "-o", "out.png"], "2 inputs cannot go to one place"),
    "a file for a folder": (["MODEL", "in", "--to", "night", "-o", "in2/a.png/out"], "cannot be written to (File"),
    "two formats": (["MODEL", "in/a.png", "--to", "day", "-o", "b.png", "--format", "jpg"], "contradict"),
    "a kind that is not written": (["MODEL", "in/a.png", "--to", "day", "-o", "n.pdf"], ".pdf is not written: name a"),
    "a kind that is only read": (["MODEL", "in", "--to", "day", "-o", "n.dcm"], ".dcm is not written: name a folder"),
    "an unknown kind": (["MODEL", "in/a.png", "--to", "day", "-o", "n.Xyz"], ".xyz is not written: name a file (.apng"),
    "an unknown film": (["MODEL", "moving.gif", "--to", "day", "-o", "n.flv"], "name a file (.apng .avi "),
    "a kind of standard input": (["MODEL", "-", "--to", "day", "-o", "n.xyz"], ".xyz is not written"),
    "an archive": (["MODEL", "in", "--to", "day", "-o", "out.zip"], ".zip is not written: name a folder without"),
    "nameless input": (["MODEL", "-", "--to", "day", "-o", "out"], "give --out FILE"),
    "a film of a photo and back": (["MODEL", "in/a.png", "--to", "day", "-o", "x.mp4", "--round-trip"], "is a video"),
    "seconds of an image": (["MODEL", "in/a.png", "--to", "day", "-o", "x.jpg", "--seconds", "2"], "--seconds 2"),
    "seconds of a folder": (["MODEL", "in", "--to", "day", "-o", "out", "--seconds", "2"], "is for one photo"),
    "a film of standard input": (["MODEL", "-", "--to", "day", "-o", "x.gif", "--seconds", "1"], "needs a named photo"),
    "a film of no name": (["MODEL", "-", "--to", "day", "-o", "x.mp4"], "needs a named photo"),
    "seconds of a film": (["MODEL", "moving.gif", "--to", "day", "-o", "x.gif", "--seconds", "1"], "is for a photo"),
    "a film and a format": (["MODEL", "moving.gif", "--to", "day", "-o", "x.gif", "--format", "png"], "is a video"),
    "an enormous size": (["MODEL", "in/a.png", "--to", "day", "--size", "1000000000"], "size"),
    "labels of other names": (["MODEL", "in", "--to", "day", "--with-labels", "--format", "jpg"], "leave it out"),
    "watch to a file": (["MODEL", "in", "--to", "day", "-o", "out.png", "--watch"], "name a folder"),
    "strength": (["MODEL", "in", "--to", "day", "--strength", "1.5"], "--strength 1.5"),
    "nowhere to write": (
        ["MODEL", "in", "--to", "day", "-o", "/proc/here/out"],
        "--out /proc/here/out: cannot be written",
    ),
    "a long model": (["m" * 300, "in", "--to", "day"], "m" * 50),
    "a long input": (["MODEL", "i" * 300, "--to", "day"], "i" * 50),
    "a long output": (["MODEL", "in", "--to", "day", "-o", "o" * 300], "300"),
    "a long domain": (["MODEL", "in", "--to", "d" * 300], "d" * 50),
    "quality": (["MODEL", "in", "--to", "day", "--quality", "0"], "--quality 0"),
    "size": (["MODEL", "in/a.png", "--to", "day", "--size", "0"], "--size 0"),
    "memory": (["MODEL", "in", "--to", "day", "--memory", "much"], "--memory much"),
    "no way back": (["ONE WAY", "in", "--to", "night", "--round-trip"], "--to day"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_before_anything_is_written(model, name, capsys):
    arguments, message = BAD[name]
    for path in ("in/a.png", "in2/a.png", "in2/a.jpg"):
        make(path)
    Path("empty").mkdir()
    moving("moving.gif")
    one_way = save_generators(Path("one-way.safetensors"), "ab")
    before = files(".")
    given = [{"MODEL": model, "ONE WAY": one_way}.get(argument, argument) for argument in arguments]
    assert translate(*given) == 2
    assert message in complaint(capsys)
    assert files(".") == before


def test_a_folder_may_have_a_dot_in_its_name(model):
    make("in/a.png")
    Path("there.pdf").mkdir()
    for given, out in (("in", "night.v2"), ("in", "night.old"), ("in/a.png", "night.v2.10"), ("in/a.png", "there.pdf")):
        assert translate(model, given, "--to", "day", "-o", out) == 0
        assert files(out) == ["a.png"]


def test_the_same_file_twice_is_one_input(model):
    make("in/a.png")
    assert translate(model, "in/a.png", "in/../in/a.png", "in", "--to", "day", "-o", "out") == 0
    assert files("out") == ["a.png"]


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
from viceversa.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(os.name != "posix", reason="limits of the size of a file")
def test_a_full_disk_ends_the_run_with_nothing_half_written(model):
    make("in/a.png", 20, 20)
    make("in/b.png", 200, 200)
    make("in/c.png", 20, 20)
    command = [sys.executable, "-c", LIMITED, "translate", model, "in", "--to", "night", "-o", "out"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "viceversa: cannot write out/b.png: File too large" in done.stderr and "Traceback" not in done.stderr
    assert set(files("out")) <= {"a.png", "c.png"}


def run_in_background(model, *more):
    command = [sys.executable, "-m", "viceversa", "translate", model, "in", "--to", "night", "-o", "out", *more]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def wait_for(condition, seconds=LONG):
    until = time.monotonic() + seconds
    while not condition():  # which may be so for a moment alone, while a file gets its name
        assert time.monotonic() < until
        time.sleep(0.005)


@pytest.mark.skipif(os.name != "posix", reason="signals")
def struck(model, chance) -> bool:
    """Three signals, each after some more pictures. False where all were done before one came: on a busy machine this
    process may come too late."""
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)):
        enough = len(files("out")) + chance.randrange(1, 6)
        process = run_in_background(model)
        wait_for(lambda enough=enough: len(files("out")) >= enough or process.poll() is not None)  # noqa: B023
        process.send_signal(number)
        told = process.communicate(timeout=LONG)[1]
        if process.returncode == 0:
            return False
        assert process.returncode == code, told
        if code > 0:
            assert "done; the same command goes on from there" in told and "Traceback" not in told
            assert not [name for name in files("out") if "partial" in name]
    return True


def test_interrupted_at_random_and_started_again_it_gives_the_same_files(model):
    for n in range(60):
        make(f"in/{n:02}.png", 150 + n % 3, 160, seed=n)
    assert main(["translate", str(model), "in", "--to", "night", "-o", "undisturbed"]) == 0
    chance = random.Random(0)
    for _ in range(10):
        if struck(model, chance):
            break
        shutil.rmtree("out")
    assert 0 < len(files("out")) < 60
    assert run_in_background(model).wait(240) == 0
    finished = [name for name in files("out") if "partial" not in name]  # a killed process cannot clean up
    assert finished == files("undisturbed")
    for name in finished:
        one, other = (np.asarray(Image.open(Path(place, name))).astype(int) for place in ("out", "undisturbed"))
        assert np.abs(one - other).max() <= 1


def test_videos_and_animations_are_handed_on(model, capsys):
    make("in/photo.png")
    moving("in/moving.gif")
    Image.fromarray(noise(32, 48, 3)).save("in/still.gif")
    assert translate(model, "in", "--to", "night", "-o", "out") == 0
    assert files("out") == ["moving.gif", "photo.png", "still.gif"]
    with Image.open("out/moving.gif") as after:
        assert after.n_frames == 3 and after.size == (48, 32)


def test_a_format_that_a_video_does_not_heed_is_said(model, capsys):
    make("in/a.jpg")
    moving("in/b.gif")
    assert translate(model, "in", "--to", "night", "-o", "out", "--format", "png") == 0
    assert "--format png is for images, and not heeded for 1 video" in told(capsys)
    assert files("out") == ["a.png", "b.gif"]


def test_a_comparison_that_comes_later_leaves_what_is_there(model):
    make("in/a.png")
    moving("in/b.gif")
    assert translate(model, "in", "--to", "night", "-o", "out") == 0
    for name in ("a.png", "b.gif"):
        Path("out", name).write_bytes(b"mine")
    assert translate(model, "in", "--to", "night", "-o", "out", "--compare") == 0
    assert files("out") == ["a.compare.png", "a.png", "b.compare.gif", "b.gif"]
    assert Path("out/a.png").read_bytes() == Path("out/b.gif").read_bytes() == b"mine"
    assert translate(model, "in", "--to", "night", "-o", "out", "--compare", "--overwrite") == 0
    assert Image.open("out/a.png").size == (30, 20) and Image.open("out/b.gif").n_frames == 3


def test_an_interrupted_film_is_said_to_begin_anew(model, capsys, monkeypatch):
    def interrupted(*arguments, **how):
        raise KeyboardInterrupt

    make("in/a.png")
    moving("in/b.gif")
    monkeypatch.setattr(command, "translate_film", interrupted)
    assert translate(model, "in", "--to", "night", "-o", "out") == 130
    assert "1 of 2 done; the same command goes on from there, but films begin anew; " in complaint(capsys)
    monkeypatch.setattr(command, "translate_pictures", interrupted)
    assert translate(model, "in/a.png", "--to", "night", "-o", "other") == 130
    assert "films" not in complaint(capsys)


def test_out_of_memory_is_no_fault_of_ours(model, capsys, monkeypatch):
    def full(*arguments):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    make("a.png")
    monkeypatch.setattr(pipeline, "side_by_side", full)
    assert translate(model, "a.png", "--to", "night", "-o", "out", "--compare") == 2
    assert "a.png: out of memory: close what else uses it, or use --size" in complaint(capsys)


def test_pictures_of_one_size_go_together():
    def work(height, dtype=np.uint8, pages=1):
        return Work(Job(Path("a"), Path("b")), (Picture(np.zeros((height, 10, 3), dtype)),) * pages)

    broken = Work(Job(Path("a"), Path("b")), error="broken")
    works = [work(10), work(10), work(10), work(20), work(20), broken, broken, work(20), work(20, np.uint16)]
    stacks = [work(10), work(10, pages=3), work(10, pages=3), work(10)]
    assert [len(batch) for batch in batches(stacks, 10**6)] == [1, 1, 1, 1]
    sizes = lambda pixels: [len(batch) for batch in batches(works, pixels)]  # noqa: E731
    assert sizes(10**6) == [3, 2, 1, 1, 1, 1]
    assert sizes(200) == [2, 1, 1, 1, 1, 1, 1, 1]
    assert sizes(1) == [1] * 9
    fetched = []
    assert len(next(batches((fetched.append(w) or w for w in works), 200))) == 2 and len(fetched) <= 3
    assert [w for batch in batches(works, 10**6) for w in batch] == works


def test_a_batch_gives_what_single_pictures_give(model, monkeypatch):
    for n in range(5):
        make(f"in/{n}.png", 24, 32, seed=n)
    assert translate(model, "in", "--to", "night", "-o", "single") == 0
    together = lambda works, pixels: batches(works, 10**6)  # noqa: E731
    monkeypatch.setattr(pipeline, "batches", together)
    assert translate(model, "in", "--to", "night", "-o", "batch") == 0
    for name in files("single"):
        assert Path("single", name).read_bytes() == Path("batch", name).read_bytes()


def told(capsys):
    err = capsys.readouterr().err
    assert "Traceback" not in err
    return err


def test_every_page_of_a_stack_is_translated(model):
    """As microscopes and scanners write them; smaller copies of the first page and masks are no pages."""
    pages = [noise(20, 30, 3, seed=n) for n in range(5)]
    frames = [Image.fromarray(page) for page in pages]
    Path("in").mkdir()
    frames[0].save("in/stack.tif", save_all=True, append_images=frames[1:])
    deep = [Picture(noise(12, 14, 3, dtype=np.uint16, seed=n), format="TIFF") for n in range(2)]
    pictures.write(Path("in/deep.tif"), deep)
    assert translate(model, "in", "--to", "night", "-o", "out", "--compare") == 0
    translator = load(model, device="cpu", precision="fp32")
    made, both = pictures.read_all(Path("out/stack.tif")), pictures.read_all(Path("out/stack.compare.tif"))
    assert len(made) == len(both) == 5
    for page, after, beside in zip(pages, made, both, strict=True):
        assert np.array_equal(after.pixels, translator(page, "night"))
        assert np.array_equal(beside.pixels, np.concatenate([page, after.pixels], 1))
    made = pictures.read_all(Path("out/deep.tif"))
    assert [page.pixels.dtype for page in made] == [np.uint16] * 2
    assert np.array_equal(made[1].pixels, translator(deep[1].pixels, "night"))


def test_what_is_to_be_said_of_any_page_is_said(model, capsys):
    pages = [Picture(noise(8, 9, 1, dtype=np.uint16), format="TIFF", signed=n >= 2) for n in range(4)]
    pictures.write(Path("stack.tif"), pages)
    assert translate(model, "stack.tif", "--to", "night", "-o", "out") == 0
    assert "1 picture (stack.tif): signed values" in told(capsys)


def test_a_stack_does_not_fit_into_other_formats(model, capsys):
    frames = [Image.fromarray(noise(8, 8, 3, seed=n)) for n in range(2)]
    frames[0].save("stack.tif", save_all=True, append_images=frames[1:])
    assert translate(model, "stack.tif", "--to", "night", "-o", "out", "--format", "jpg") == 2
    assert "stack.tif" in (said := complaint(capsys)) and "holds one picture, not 2; choose TIFF" in said


def test_a_place_on_earth_and_signs_stay(model, capsys):
    """GeoTIFF's tags; and gray of 16 bit with a sign, of which the order of the values is kept."""
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[33550], tags[33922], tags[34735] = (
        (10.0, 10.0, 0.0),
        (0.0, 0.0, 0.0, 5e5, 4e6, 0.0),
        (1, 1, 0, 1, 1024, 0, 1, 1),
    )
    tags.tagtype.update({33550: 12, 33922: 12, 34735: 3})
    Image.fromarray(noise(9, 9, 3)).save("place.tif", tiffinfo=tags)
    ramp = np.linspace(-1000, 2000, 64 * 64).astype(np.int16).reshape(64, 64)
    levels = (ramp.astype(np.int32) + 32768).astype(np.uint16)[..., None]
    pictures.write(Path("scan.tif"), Picture(levels, format="TIFF", signed=True))
    assert translate(model, "place.tif", "scan.tif", "--to", "night", "-o", "out") == 0
    assert "scan.tif" in (said := told(capsys)) and "signed values" in said
    with Image.open("out/place.tif") as image:
        for tag in (33550, 33922, 34735):
            assert image.tag_v2[tag] == tags[tag]
    half = pictures.read(Path("scan.tif"), 3)
    after = pictures.read(Path("out/scan.tif"))
    assert np.array_equal(after.pixels, load(model, precision="fp32")(half.pixels, "night"))


def test_two_names_for_one_file_are_two_outputs_and_links_are_followed(model):
    make("elsewhere/a.png")
    Path("in/cam").mkdir(parents=True)
    for name in ("in/one.png", "in/two.png"):
        Path(name).symlink_to(Path("elsewhere/a.png").resolve())
    Path("in/cam/front").symlink_to(Path("elsewhere").resolve())
    Path("in/cam/round").symlink_to(Path("in").resolve())  # a circle
    assert translate(model, "in", "--to", "day", "-o", "out") == 0
    assert files("out") == ["cam/front/a.png", "one.png", "two.png"]


def test_what_is_left_out_or_called_otherwise_is_said(model, capsys):
    make("in/a.png")
    Image.open("in/a.png").save("in/b.qoi")
    for n in range(7):
        Path(f"in/{n}.xyz").touch()
    Path("in/notes.txt").touch()
    assert translate(model, "in", "--to", "day", "-o", "out") == 0
    said = told(capsys)
    assert "7 .xyz, 1 .txt" in said and ".qoi becomes .png" in said
    assert files("out") == ["a.png", "b.png"] and Image.open("out/b.png").format == "PNG"


def test_whatever_goes_wrong_with_one_file_is_its_line_and_no_others(model, capsys, monkeypatch):
    """A fault of ours, too: by name, with its kind and the file."""
    for n in range(14):
        make(f"in/{n:02}.png", seed=n)
    for n in range(2, 14):
        Path(f"in/{n:02}.png").write_bytes(b"broken")
    Path("in/gone.png").symlink_to("/nonexistent/x.png")
    encode = pictures.write

    def faulty(path, pages, quality):
        if path.name == "01.png":
            raise TypeError("unheard of\nsecond line")
        return encode(path, pages, quality)

    monkeypatch.setattr(pictures, "write", faulty)
    assert translate(model, "in", "--to", "day", "-o", "out") == 1
    said = told(capsys)
    assert files("out") == ["00.png"]
    assert "in/01.png: a fault of viceversa, please report it (TypeError: unheard of)" in said
    assert len([line for line in said.splitlines() if line.startswith("  in/")]) == 10
    assert (
        "and 4 more of this kind" in said
        and "14 of 15 failed: 01.png" in said
        and "and 4 more" in said.splitlines()[-1]
    )


@pytest.mark.skipif(os.name != "posix" or sys.platform == "darwin", reason="names that are not UTF-8")
@pytest.mark.parametrize("encoding", ["utf-8:strict", "cp1252", "ascii"])
def test_odd_names_end_no_command(model, encoding):
    odd = os.fsdecode("夜景".encode("gbk"))
    for n in range(3):
        make(f"in/{odd}{n}.png", seed=n)
    Path(f"in/{odd}1.png").write_bytes(b"broken")
    Path(f"in/{odd}\n.png").write_bytes(b"broken")
    command = [sys.executable, "-m", "viceversa", "translate", model, "in", "--to", "night", "-o", f"out{odd}"]
    done = subprocess.run(command, capture_output=True, env={**os.environ, "PYTHONIOENCODING": encoding})
    assert done.returncode == 1 and b"Traceback" not in done.stderr, done.stderr
    assert b"2 of 4 failed" in done.stderr
    assert files(f"out{odd}") == [f"{odd}0.png", f"{odd}2.png"]


def test_a_name_as_long_as_names_can_be(model):
    make(f"in/{'n' * 251}.png")
    frames = [Image.fromarray(noise(8, 8, 3, seed=n)) for n in range(3)]
    frames[0].save(f"in/{'m' * 251}.gif", save_all=True, append_images=frames[1:], duration=50)
    assert translate(model, "in", "--to", "day", "-o", "out") == 0
    assert files("out") == files("in")


def test_a_picture_unlike_those_that_were_trained_on_is_said(model, capsys):
    rng = np.random.default_rng(0)
    like = [np.clip(rng.normal(128 + 20 * n % 60, 40, (40, 40, 3)), 0, 255).astype(np.uint8) for n in range(-3, 4)]
    known = load(model).model
    known.info["statistics"] = {"day": statistics.describe(like)}
    save_model(Path("known.safetensors"), known)
    Path("in").mkdir()
    Image.fromarray(like[2]).save("in/like.png")
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save("in/black.png")
    assert translate("known.safetensors", "in", "--to", "night", "-o", "out") == 0
    said = told(capsys)
    assert "in/black.png" in said and "unlike all 7 images of day" in said and "like.png" not in said
    assert files("out") == ["black.png", "like.png"]


def test_part_of_the_way(model):
    make("a.png", 16, 20)
    assert translate(model, "a.png", "--to", "day", "-o", "half", "--strength", "0.5") == 0
    assert translate(model, "a.png", "--to", "day", "-o", "none", "--strength", "0") == 0
    assert translate(model, "a.png", "--to", "day", "-o", "full") == 0
    before, half, none, full = (
        np.asarray(Image.open(p)).astype(int) for p in ("a.png", "half/a.png", "none/a.png", "full/a.png")
    )
    assert np.array_equal(before, none)
    assert np.abs(half - (before + full) / 2).max() <= 1


@pytest.mark.parametrize(
    "more", [["evening.mp4"], ["evening.gif", "--seconds", "1"], ["evening.webp", "--seconds", "1"]]
)
def test_a_photo_becomes_a_film_of_the_change(model, more, capsys):
    y, x = np.mgrid[:48, :64]
    Image.fromarray(np.stack([4 * x, 5 * y, 255 - 4 * x], 2).astype(np.uint8)).save("a.png")
    name, *seconds = more
    assert translate(model, "a.png", "--to", "night", "-o", name, "--quality", "95", *seconds) == 0
    if name.endswith("mp4"):
        with av.open(name) as film:
            assert abs(film.duration / 1e6 - 6) < 0.1
            frames = [frame.to_ndarray(format="rgb24").astype(int) for frame in film.decode(video=0)]
    else:
        with Image.open(name) as film:
            frames = []
            for n in range(film.n_frames):
                film.seek(n)
                frames.append(np.asarray(film.convert("RGB")).astype(int))
    before = np.asarray(Image.open("a.png")).astype(int)
    after = load(model, precision="fp32")(before.astype(np.uint8), "night").astype(int)
    soft = lambda pixels: pixels.reshape(6, 8, 8, 8, 3).mean((1, 3, 4))  # noqa: E731  codecs hold this best
    off = lambda one, other: np.abs(soft(one) - soft(other)).mean()  # noqa: E731
    ways = [off(frame, before) for frame in frames]
    assert ways[0] < 5 and off(frames[-1], after) < 5 and ways[-1] > 20
    assert all(later > earlier - 1 for earlier, later in zip(ways, ways[1:], strict=False))


def test_a_large_photo_becomes_a_film_that_players_can_show(model, capsys):
    make("a.png", 100, 2400)
    assert translate(model, "a.png", "--to", "night", "-o", "evening.mp4", "--seconds", "0") == 0
    with av.open("evening.mp4") as film:
        assert (film.streams.video[0].width, film.streams.video[0].height) == (1920, 80)
    assert "2400x100 became 1920x80" in told(capsys)


def test_a_labelled_set_keeps_its_labels(model, capsys):
    make("set/images/a.png", seed=1)
    make("set/masks/a.png", seed=2)
    make("set/SegmentationClass/b.png", seed=3)
    for name in ("labels/a.txt", "Annotations/a.xml", "coco.json", "README"):
        Path("set", name).parent.mkdir(exist_ok=True)
        Path("set", name).write_text(name)
    assert translate(model, "set", "--to", "night", "-o", "out", "--with-labels") == 0
    assert files("out") == files("set")
    for name in files("set"):
        same = Path("set", name).read_bytes() == Path("out", name).read_bytes()
        assert same == (name != "images/a.png"), name
    said = told(capsys)
    assert "translated 1 and copied 6 labels to out" in said and "left out" not in said
    assert translate(model, "set", "--to", "night", "-o", "out", "--with-labels") == 0
    assert "7 were there already" in told(capsys)


def test_pictures_that_are_turned_away_from_their_labels_are_told(model, capsys):
    Path("set").mkdir()
    for n in (1, 3, 6):
        exif = Image.Exif()
        exif[274] = n
        Image.fromarray(noise(16, 16, 3, seed=n)).save(f"set/{n}.jpg", exif=exif)
    make("set/masks/6.png", 16, 16)
    make("set/plain.bmp")
    assert translate(model, "set", "--to", "night", "-o", "out", "--with-labels") == 0
    assert "2 pictures (set/3.jpg and others): turned upright by EXIF, and labels were not: " in told(capsys)
    assert translate(model, "set", "--to", "night", "-o", "pictures") == 0
    assert "turned" not in told(capsys)


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_what_arrives_is_translated_until_ctrl_c(model):
    """A file that still grows is waited for; one that failed is tried again when it has changed."""
    Path("in").mkdir()
    process = run_in_background(model, "--watch")
    make("in/first.png", seed=1)
    wait_for(lambda: Path("out/first.png").exists())
    whole = make("slow.png", 60, 60, seed=2).read_bytes()
    with open("in/slow.png", "wb") as slow:
        place = 0
        while not Path("out/second.png").exists():
            slow.write(whole[place : place + 1])
            slow.flush()
            place = min(place + 1, len(whole) - 10)  # never whole as long as it grows
            if place == 5:
                make("in/second.png", seed=3)
            time.sleep(0.05)
        assert not Path("out/slow.png").exists()
        slow.write(whole[place:])
    broken = Path("in/broken.png")
    broken.write_bytes(b"not yet")
    wait_for(lambda: Path("out/slow.png").exists())
    make("in/third.png", seed=4)
    wait_for(lambda: Path("out/third.png").exists())
    Path("in/broken.png").write_bytes(whole)
    wait_for(lambda: Path("out/broken.png").exists())
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=LONG)[1]
    assert process.returncode == 0 and "Traceback" not in said, said
    assert said.count("broken.png") == 1  # and of the last it may not have been told that it was done
    assert any(f"no longer watching; {done} translated to out" in said for done in (4, 5))


def test_while_one_watches_only_what_clashes_is_left_out(model, capsys, monkeypatch):
    """And what is finished is not opened again at each look."""
    looks, opened = [], []
    is_animated = Image.open
    monkeypatch.setattr(clips.Image, "open", lambda path, *a, **k: opened.append(path) or is_animated(path, *a, **k))

    def look(seconds):
        looks.append(len(opened))
        if len(looks) == 3:
            make("in/a.bmp")
            moving("in/b.gif")
        if len(looks) == 6:
            make("in/c.png")
        if len(looks) == 10:
            raise KeyboardInterrupt

    make("in/a.jpg")
    monkeypatch.setattr(command.time, "sleep", look)
    assert translate(model, "in", "--to", "night", "-o", "out", "--watch", "--round-trip", "--format", "png") == 0
    said = told(capsys)
    assert files("out") == ["a.png", "a.round-trip.png", "c.png", "c.round-trip.png"]
    assert said.count("left out: in/a.bmp and in/a.jpg would both be written to out/a.png") == 1
    assert said.count("left out: --round-trip is for images, and in/b.gif is a video") == 1
    assert looks[-1] == looks[-2]
    assert translate(model, "-", "--to", "night", "-o", "out", "--watch") == 2  # which no time mends

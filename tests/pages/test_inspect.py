"""Sets of pictures in which everything is known: what is a copy of what, and what is wrong."""

import base64
import io
import os
import subprocess
import sys

import numpy as np
import pytest
from browser import opened
from PIL import Image, ImageFilter

from viceversa.cli import main
from viceversa.config import Train
from viceversa.pages import inspect
from viceversa.pages.advice import advise, facts, page, small
from viceversa.pages.inspect import (
    colour_distance,
    distances,
    examine,
    fingerprint,
    groups,
    lab_histogram,
    look,
    mean_colour,
    nearest,
)  # fmt: skip
from viceversa.training import settings


def scene(seed, size=(96, 96), dark=False):
    """Clouds with as much detail at every scale as photos have; no two seeds alike."""
    random = np.random.default_rng(seed)
    clouds = np.zeros((size[1], size[0], 3), np.float32)
    for octave in range(6):
        noise = random.normal(size=(3 * 2**octave, 3 * 2**octave, 3)).astype(np.float32)
        planes = [Image.fromarray(noise[..., c]).resize(size, Image.Resampling.BICUBIC) for c in range(3)]
        clouds += np.stack(planes, axis=-1) / 2**octave
    image = Image.fromarray((127 + 50 * clouds).clip(0, 255).astype(np.uint8))
    return image.point(lambda value: value // 4) if dark else image


def fill(folder, seeds, **how):
    folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        scene(seed, **how).save(folder / f"{seed:04d}.png")
    return folder


@pytest.fixture
def root(tmp_path):
    """30 days and 30 nights, and 8 test pictures of each, no two alike."""
    for name, seeds, dark in (("trainA", range(30), False), ("trainB", range(100, 130), True),
                              ("testA", range(200, 208), False), ("testB", range(300, 308), True)):  # fmt: skip
        fill(tmp_path / name, seeds, dark=dark)
    return tmp_path


def said(found, level=None):
    return [advice.text for advice in advise(facts(found)) if level in (None, advice.level)]


def test_a_clean_set(root):
    found = examine(str(root))
    assert [(f.name, f.count) for f in found.folders] == [
        ("a, training", 30), ("b, training", 30), ("a, test", 8), ("b, test", 8),
    ]  # fmt: skip
    assert found.copies == [] and found.scenes == {"a": 30, "b": 30}
    assert [(k.total, k.scenes, k.near, k.exact) for k in found.known] == [(8, 0, 0, 0)] * 2
    (few,) = said(found, "wrong")
    assert "a has 30 training images and b has 30 training images. That is too few" in few
    assert "No picture is there twice." in said(found, "fine")
    assert any("a is lighter than b" in text for text in said(found, "fine"))


def test_copies_are_found_in_whatever_dress(root):
    scene(3).save(root / "trainA" / "same.bmp")  # the same pixels
    scene(4).save(root / "trainA" / "compressed.jpg", quality=70)
    scene(5).resize((64, 64), Image.Resampling.LANCZOS).save(root / "trainA" / "smaller.png")
    scene(6).filter(ImageFilter.GaussianBlur(1)).point(lambda v: min(255, v + 12)).save(root / "trainA" / "soft.png")
    found = examine(str(root))
    groups = [(c.kind, {look.path.name for _, look in c.members}) for c in found.copies]
    assert groups[0] == ("exact", {"0003.png", "same.bmp"})
    assert sorted(map(sorted, (names for kind, names in groups if kind == "near"))) == [
        ["0004.png", "compressed.jpg"], ["0005.png", "smaller.png"], ["0006.png", "soft.png"],
    ]  # fmt: skip
    (advice,) = (a for a in advise(facts(found)) if "repeat another" in a.text)
    assert "4 of the 34 training images of a repeat another (1 exactly, 3 nearly)" in advice.text
    assert "trainA/0003.png = trainA/same.bmp" in advice.names


def test_pictures_in_both_domains(root):
    scene(7).save(root / "trainB" / "day.webp", quality=90)
    (advice,) = (a for a in advise(facts(examine(str(root)))) if "in both domains" in a.text)
    assert advice.level == "wrong" and advice.text.startswith("1 picture is in both")
    assert advice.names == ("trainA/0007.png = trainB/day.webp",)


def test_a_folder_inside_the_other_holds_no_copies(tmp_path, capsys):
    """Who takes them out of one, as is said of copies, takes them out of both."""
    fill(tmp_path / "day", range(4))
    fill(tmp_path / "night", range(50, 54), dark=True)
    found = examine(str(tmp_path), str(tmp_path / "day"))
    assert found.copies == [] and len(found.shared) == 4
    advice = advise(facts(found))
    assert not any("Take them out" in each.text or "No picture is there twice" in each.text for each in advice)
    (shared,) = (each for each in advice if "in both domains" in each.text)
    assert shared.level == "wrong" and shared.names[0] == "day/0000.png"
    assert "4 images are in both domains, the same files and no copies" in shared.text
    assert f"{tmp_path.name} holds all of day (does one folder lie inside the other?)" in shared.text
    assert "Delete none" in shared.text
    assert main(["data", str(tmp_path), str(tmp_path / "day")]) == 0
    assert "day/0000.png = " not in capsys.readouterr().out


def test_one_file_in_both_domains_by_a_link(tmp_path):
    fill(tmp_path / "day", range(4))
    fill(tmp_path / "night", range(50, 54), dark=True)
    (tmp_path / "night" / "link.png").symlink_to(tmp_path / "day" / "0001.png")
    scene(2).save(tmp_path / "night" / "copy.png")
    found = examine(str(tmp_path / "day"), str(tmp_path / "night"))
    text = " ".join(said(found))
    assert "1 image is in both domains, the same file and no copy: it teaches" in text
    assert "1 picture is in both domains, exactly or nearly" in text


def test_tests_that_are_the_files_trained_on_are_not_to_be_deleted(root):
    fill(root / "trainA" / "later", (8, 9, 40))  # below the folder that is trained on
    found = examine(str(root), test_a=str(root / "trainA" / "later"))
    known = next(k for k in found.known if k.domain == "a")
    assert (known.exact, len(known.shared), known.twice) == (3, 3, [])
    text = " ".join(said(found, "wrong"))
    assert "3 of 3 test images of a are trained on, the same files and no copies. Delete none" in text
    assert "Take them out" not in text


def test_tests_that_were_in_training(root):
    scene(8).save(root / "testA" / "exact.png")
    scene(9).save(root / "testA" / "nearly.jpg", quality=60)
    for seed in (10, 11, 12):  # the same place at another hour, and something stands there
        other = scene(seed).point(lambda value: value * 3 // 4)
        other.paste(scene(seed + 500, (9, 9)), (60, 50))
        other.save(root / "testA" / f"later{seed}.png")
    found = examine(str(root))
    known = next(k for k in found.known if k.domain == "a")
    assert (known.total, known.exact, known.near, known.scenes) == (13, 1, 2, 5)
    assert [(t.path.name, r.path.name) for t, r, _ in known.pairs][:2] == [
        ("exact.png", "0008.png"), ("nearly.jpg", "0009.png"),
    ]  # fmt: skip
    assert {r.path.name for _, r, _ in known.pairs[2:]} == {"0010.png", "0011.png", "0012.png"}
    text = " ".join(said(found))
    assert "1 of 13 test images of a is in training too, to the pixel" in text
    assert "5 of 13 test images of a show a scene that is trained on, 1 of them in nearly the same picture" in text
    assert "The test images of b show other scenes" in text


def test_one_camera_is_one_scene(tmp_path):
    for domain, start in (("day", 0), ("night", 50)):
        (tmp_path / domain).mkdir()
        for n in range(12):
            moment = scene(start + n % 3)  # three cameras
            moment.paste(scene(900 + start + n, (9, 9)), (10 + 5 * n, 20))
            moment.save(tmp_path / domain / f"{n}.png")
    found = examine(str(tmp_path / "day"), str(tmp_path / "night"))
    assert found.scenes == {"day": 3, "night": 3}
    text = " ".join(said(found))
    assert "day about 3 scenes and night about 3 scenes" in text
    assert "day and night have no test images" in text


def test_flat_pictures_are_not_taken_for_copies(root):
    for n in range(4):
        noise = np.random.default_rng(n).integers(0, 4, (64, 64, 3), np.uint8)
        Image.fromarray(noise).save(root / "trainB" / f"black{n}.png")
    found = examine(str(root))
    assert found.copies == []
    (advice,) = (a for a in advise(facts(found)) if "nearly one colour" in a.text)
    assert "4 of 34 images of b" in advice.text and advice.names[0] == "trainB/black0.png"


def test_flat_pictures_are_no_scenes_and_their_copies_are_named(root):
    """Black nights: most of a set, and the same in training and in test."""
    for n in range(20):
        black = Image.new("RGB", (64, 64), (n % 4, n // 4, 0))
        black.save(root / "trainB" / f"black{n:02d}.png")
        if n < 2:
            black.save(root / "testB" / f"dark{n}.png")
    for n in range(4):
        Image.new("RGB", (64, 64), (n, n, n)).save(root / "trainA" / f"flat{n}.png")
    scene(101, dark=True).save(root / "testB" / "seen.png")
    for n in range(103, 130):
        (root / "trainB" / f"{n:04d}.png").unlink()
    found = examine(str(root))
    known = next(k for k in found.known if k.domain == "b")
    assert (known.exact, known.near, known.scenes) == (3, 3, 3)
    advice = advise(facts(found))
    assert not any("same places again" in each.text for each in advice)  # 3 scenes in 3 pictures
    (taken,) = (each for each in advice if "to the pixel" in each.text)
    assert taken.text.startswith("3 of 11 test images of b are in training too")
    assert sorted(taken.names) == [
        "testB/dark0.png = trainB/black00.png",
        "testB/dark1.png = trainB/black01.png",
        "testB/seen.png = trainB/0101.png",
    ]
    for n in range(100, 103):
        (root / "trainB" / f"{n:04d}.png").unlink()
    assert not any("0 scenes" in text for text in said(examine(str(root))))  # flat ones only


def test_contact_sheets_show_what_is_trained_on(root):
    """White, where a cut-out is transparent."""
    path = root / "trainA" / "cut.png"
    cut = Image.new("RGBA", (64, 64), (255, 0, 0, 0))
    cut.save(path)
    shown = small(examine(str(root)), path)["src"]
    with Image.open(io.BytesIO(base64.b64decode(shown.partition(",")[2]))) as image:
        assert np.asarray(image.convert("RGB")).min() > 250


def test_sizes_and_kinds(tmp_path):
    fill(tmp_path / "day", range(4), size=(900, 600))
    fill(tmp_path / "night", range(50, 54), size=(120, 200), dark=True)
    deep = np.random.default_rng(0).integers(0, 2**16, (200, 120)).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "night" / "deep.png")  # gray, 16 bit
    found = examine(str(tmp_path / "day"), str(tmp_path / "night"))
    day, night = found.training
    assert (day.sizes, night.sizes, day.formats) == ("900x600", "120x200", "PNG")
    text = " ".join(said(found))
    assert "5 of 5 images of night are smaller than the crop of 256" in text
    assert "--size 134 --crop 120 --resize short fits the median of night" in text
    assert "day is large" not in text and "--resize none" not in text  # which would enlarge the nights
    assert "day (width / height 1.50) and night (width / height 0.60)" in text
    assert "0% of day and 100% of night are upright" in text
    assert "day is 5.0 times as large as night" in text
    assert "1 images of night have 16 bit and 4 have 8" in text or "1 image of night has 16 bit" in text
    assert "1 of 5 images of night is gray among coloured ones" in text


def test_one_advice_for_the_sizes_of_both_folders(tmp_path):
    fill(tmp_path / "day", range(4), size=(112, 113))
    fill(tmp_path / "night", range(50, 54), size=(103, 104), dark=True)
    text = " ".join(said(examine(str(tmp_path / "day"), str(tmp_path / "night"))))
    assert "4 of 4 images of day and 4 of 4 images of night are smaller than the crop of 256" in text
    assert text.count("--size") == 1 and "--size 115 --crop 100 fits the median of night." in text
    assert "day and night have no test images: training will hold out up to four" in text
    fill(tmp_path / "noon", range(4), size=(900, 600))
    fill(tmp_path / "dusk", range(50, 54), size=(900, 640), dark=True)
    text = " ".join(said(examine(str(tmp_path / "noon"), str(tmp_path / "dusk"))))
    assert "noon is large" in text and "--resize none" in text and "--size" not in text


def test_the_table_fits_a_terminal(tmp_path, monkeypatch, capsys):
    """Nothing is cut off, and no column is lost."""
    for folder, dark in (("day", False), ("night", True)):
        fill(tmp_path / folder, range(3), dark=dark)
        scene(5, size=(4000, 3000), dark=dark).save(tmp_path / folder / "large.jpg")
        scene(6, dark=dark).save(tmp_path / folder / "third.webp")
        scene(7, dark=dark).save(tmp_path / folder / "fourth.bmp")
    for columns in (72, 80, 160):
        monkeypatch.setenv("COLUMNS", str(columns))
        assert main(["data", str(tmp_path / "day"), str(tmp_path / "night")]) == 0
        told = capsys.readouterr().out
        table = told.partition("Apart in colour")[0]
        assert "\u2026" not in table and max(map(len, table.splitlines())) <= columns
        for word in "format scenes broken images PNG JPEG WEBP BMP 4000x3000 training".split():
            assert word in table, (columns, word, table)


def test_broken_files(root, capsys):
    for n in range(6):
        whole = (root / "trainA" / f"{n:04d}.png").read_bytes()
        (root / "trainA" / f"{n:04d}.png").write_bytes(whole[: len(whole) // 2])
    found = examine(str(root))
    assert len(found.folders[0].broken) == 6 and found.folders[0].count == 30
    (advice,) = (a for a in advise(facts(found)) if "cannot be read" in a.text)
    assert advice.level == "wrong" and "6 of 30 images of a, training" in advice.text
    assert "0003.png" in advice.names[3]
    assert main(["data", str(root)]) == 0
    assert "cannot be read" in capsys.readouterr().out


def test_one_broken_file_is_left_out_however_few_there_are(tmp_path):
    fill(tmp_path / "day", range(4))
    fill(tmp_path / "night", range(50, 54), dark=True)
    (tmp_path / "day" / "broken.png").write_bytes(b"")
    (advice,) = (a for a in advise(facts(examine(str(tmp_path / "day"), str(tmp_path / "night")))) if "read" in a.text)
    assert advice.level == "care" and "1 of 5 images of day, training cannot be read. Training leaves" in advice.text
    assert "refuses" not in advice.text


def test_tests_that_cannot_be_read_are_left_out_however_many(root):
    for n in range(200, 204):
        (root / "testA" / f"{n:04d}.png").write_bytes(b"")
    (advice,) = (a for a in advise(facts(examine(str(root)))) if "cannot be read" in a.text)
    assert advice.level == "care"
    assert advice.text == "4 of 8 images of a, test cannot be read. Training leaves them out."


def test_no_crop_is_advised_that_no_network_takes(tmp_path):
    fill(tmp_path / "day", range(4), size=(20, 20))
    fill(tmp_path / "night", range(50, 54), size=(20, 20), dark=True)
    text = " ".join(said(examine(str(tmp_path / "day"), str(tmp_path / "night"))))
    assert "smaller than the crop of 256" in text and "look for larger pictures" in text
    assert "--size 26 --crop 24 enlarges least: no network takes less than 24. day, of 20 pixels" in text
    settings.check(Train(a="day", size=26, crop=24))


def test_what_is_left_out_or_changed_is_said(root, capsys):
    """Files of other kinds by their ending; animations and cut-outs by name."""
    for n in range(3):
        (root / "trainA" / f"IMG_{n}.dng").write_bytes(b"of another kind")
    frames = [scene(n) for n in (40, 41, 42)]
    frames[0].save(root / "trainA" / "moving.gif", save_all=True, append_images=frames[1:])
    for n in (50, 51):
        cut = scene(n).convert("RGBA")
        cut.putalpha(Image.new("L", cut.size, 0))
        cut.save(root / "trainB" / f"cut{n}.png")
    found = examine(str(root))
    text = "\n".join(said(found, "care"))
    assert f"{root}/trainA: files of other kinds are left out: 3 .dng." in text
    assert "1 of 31 images of a, training: several pictures in one file, of which the first is taken." in text
    assert "2 of 32 images of b, training: transparent, laid on white." in text
    hidden = next(look for look in found.folders[1].looks if look.path.name == "cut50.png")
    assert hidden.flat and mean_colour(hidden.colours[None])[0] == pytest.approx(100, abs=1)  # white, as is trained on
    assert main(["data", str(root)]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "3 .dng" in told and "moving.gif" in told and "cut50.png" in told


@pytest.mark.parametrize("encoding", ["ascii:strict", "utf-8:strict", "cp1252:strict"])
def test_names_that_no_terminal_can_print(root, encoding):
    """22 names in the bytes of GBK, one of them broken; the standard output goes to a file."""
    for n in range(22):
        os.rename(root / "trainA" / f"{n:04d}.png", os.fsencode(root) + b"/trainA/\xc4\xe3\xba\xc3%d.png" % n)
    with open(os.fsencode(root) + b"/trainA/\xc4\xe3\xba\xc30.png", "r+b") as file:
        file.truncate(100)
    out = root / "é.html"
    command = [sys.executable, "-m", "viceversa", "data", root, "-o", out]
    done = subprocess.run(command, env=os.environ | {"PYTHONIOENCODING": encoding}, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert rb"\udcc4\udce3\udcba\udcc30.png" in b"".join(done.stdout.split())  # lines are folded
    assert r"trainA/\udcc4\udce3" in out.read_text(encoding="utf-8")


def test_a_plain_install_will_do(root):
    """Without any of the extras."""
    code = "import sys; sys.modules |= dict.fromkeys(['imagehash', 'torchmetrics', 'scipy', 'onnx']); "
    code += f"from viceversa.cli import main; sys.exit(main(['data', {str(root)!r}]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and "No picture is there twice" in done.stdout, done.stderr


def test_near_equal_frames_are_compared_with_one_of_them_only(monkeypatch):
    """6,000 frames of 50 scenes: 50 heads each is compared with, and one block of them with itself."""
    random = np.random.default_rng(2)
    scenes = random.integers(0, 2, (50, 256)).astype(bool)
    prints = np.repeat(scenes, 120, axis=0)
    prints ^= random.random(prints.shape) < 0.01
    order = random.permutation(len(prints))
    compared = 0
    real = inspect.distances

    def counted(some, others):
        nonlocal compared
        compared += len(some) * len(others)
        return real(some, others)

    monkeypatch.setattr(inspect, "distances", counted)
    done = []
    labels = groups(prints[order], inspect.NEAR, done.append)
    assert len(set(labels)) == 50 and sum(done) == 6000
    assert compared < inspect.ROWS**2 + 60 * len(prints) < len(prints) ** 2 / 10


def test_the_folder_that_holds_all_is_found_once(root, monkeypatch):
    for n in range(10):
        scene(n).save(root / "trainA" / f"again{n}.png")
    found = examine(str(root))
    calls = []
    real = os.path.commonpath
    monkeypatch.setattr(os.path, "commonpath", lambda paths: calls.append(1) or real(paths))
    assert len(advise(facts(found))) > 5 and len(found.copies) == 10
    assert len(calls) == 1


def test_unequal_folders_and_alike_colours(tmp_path):
    fill(tmp_path / "one", range(3))
    fill(tmp_path / "two", range(100, 140))
    text = " ".join(said(examine(str(tmp_path / "one"), str(tmp_path / "two"))))
    assert "two has 13 times as many images as one" in text
    assert "In colour, one and two differ hardly" in text


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda day: None, "no such"),
        (lambda day: day.mkdir(), "empty folder"),
        (lambda day: fill(day, [1]), "one image"),
        (lambda day: (day.mkdir(), [(day / f"{n}.png").write_bytes(b"no image") for n in range(3)]), "can be read"),
        (lambda day: fill(day, range(50, 54)), "same images"),
    ],
)
def test_bad_input_is_one_clear_line(tmp_path, capsys, make, says):
    make(tmp_path / "day")
    fill(tmp_path / "night", range(50, 54))
    out = tmp_path / "page.html"
    assert main(["data", str(tmp_path / "day"), str(tmp_path / "night"), "-o", str(out)]) == 2
    told = capsys.readouterr()
    (line,) = [line for line in told.err.splitlines() if line.startswith("viceversa:")]
    assert says in line and "Traceback" not in told.err
    assert not out.exists()


def test_page_must_be_a_file(root, capsys):
    assert main(["data", str(root), "-o", str(root)]) == 2
    assert "is a folder" in capsys.readouterr().err


def test_the_fingerprint_is_phash():
    """Bit for bit that of the library ImageHash."""
    imagehash = pytest.importorskip("imagehash")
    for seed, size in enumerate(((96, 96), (200, 131), (40, 64))):
        image = scene(seed, size)
        assert np.array_equal(fingerprint(image), imagehash.phash(image, hash_size=16).hash.ravel())


def test_distances_and_groups_are_exact():
    prints = np.random.default_rng(0).integers(0, 2, (70, 256)).astype(bool)
    prints[40] = prints[3]
    prints[50] = prints[3] ^ (np.arange(256) < 16)
    prints[60] = prints[3] ^ (np.arange(256) < 17)
    apart = distances(prints[:5], prints)
    assert np.array_equal(apart, (prints[:5, None] != prints[None]).sum(2))
    labels = groups(prints, inspect.NEAR)
    assert labels[40] == labels[50] == 3 and labels[60] == 60
    assert len(set(labels)) == 68
    at, bits = nearest(prints[60:61], prints[:60])
    assert (at[0], bits[0]) == (50, 1)


def test_ten_thousand_pictures_in_bounded_memory(monkeypatch):
    prints = np.random.default_rng(1).integers(0, 2, (10_000, 256)).astype(bool)
    prints[9_999] = prints[17]
    largest = 0
    real = inspect.distances

    def watched(some, others):
        nonlocal largest
        block = real(some, others)
        largest = max(largest, block.nbytes)
        return block

    monkeypatch.setattr(inspect, "distances", watched)
    labels = groups(prints, inspect.NEAR)
    assert labels[9_999] == 17 and len(set(labels)) == 9_999
    assert largest < 50e6


def test_colours_in_cielab():
    def counts(colour):
        return lab_histogram(Image.new("RGB", (8, 8), colour))[None]

    assert mean_colour(counts("white")) == pytest.approx([100, 0, 0], abs=1)
    assert mean_colour(counts("red")) == pytest.approx([54.3, 80.8, 69.9], abs=1)  # of the ICC's D50
    assert mean_colour(counts("blue")) == pytest.approx([29.6, 68.3, -112], abs=1)
    assert colour_distance(counts("white"), counts("black")) == pytest.approx([100, 0, 0], abs=0.5)
    assert colour_distance(counts("red"), counts("red")) == pytest.approx([0, 0, 0])
    half = np.concatenate([counts("white"), counts("black")])
    assert colour_distance(half, counts("black"))[0] == pytest.approx(50, abs=0.5)


def test_a_look_at_a_16_bit_picture(tmp_path):
    values = np.linspace(0, 65535, 40 * 30).reshape(30, 40).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    seen = look(tmp_path / "deep.png")
    assert (seen.width, seen.height, seen.sixteen, seen.gray, seen.flat) == (40, 30, True, True, False)
    assert mean_colour(seen.colours[None])[0] == pytest.approx(53, abs=4)


def test_page_in_a_browser(root):
    scene(3).save(root / "trainA" / "same.bmp")
    scene(9).save(root / "testA" / "nearly.jpg", quality=60)
    found = examine(str(root))
    file = root / "data.html"
    file.write_text(page(found, advise(facts(found))), encoding="utf-8")
    assert file.stat().st_size < 2e6
    with opened(file, width=390, height=844) as shown:
        assert shown.locator("h1").inner_text().split() == ["a", "⇄", "b"]
        assert shown.get_by_text("to the pixel").count() >= 1
        assert shown.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0 && i.alt)")
        assert shown.locator(".twins figure").count() >= 2  # a twin is two figures in one

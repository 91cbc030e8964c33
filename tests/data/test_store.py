"""Folders to batches: what is found, what is cropped, that it is the same everywhere and every time."""

import filecmp
import os
import shutil
import threading
import time
import tracemalloc
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from viceversa.data import pictures
from viceversa.data.folders import find, find_sources
from viceversa.data.pictures import Picture
from viceversa.data.store import Store, draw, load_test, steps_per_epoch
from viceversa.device import free
from viceversa.errors import BadInput

CPU = torch.device("cpu")


def noise(height, width, channels=3, dtype=np.uint8, seed=0):
    most = np.iinfo(dtype).max
    return np.random.default_rng(seed).integers(0, most, (height, width, channels), dtype, endpoint=True)


def make(folder, count, seed=0, shape=(40, 50), dtype=np.uint8):
    for n in range(count):
        picture = Picture(noise(*shape, dtype=dtype, seed=1000 * seed + n), format="PNG")
        pictures.write(folder / f"{n:02}.png", picture)
    return folder


def load(paths, **options):
    choices = {"channels": 3, "size": 24, "resize": "square", "crop": 16, "device": CPU} | options
    return Store.load(paths, **choices)


# What is found


def test_two_folders_hold_out_four_evenly_spread(tmp_path):
    day, night = make(tmp_path / "day", 20), make(tmp_path / "night", 9, seed=1)
    found = find_sources(str(day), str(night))
    assert found.names == ("day", "night") and found.warnings == []
    assert found.kept_out == {"a": ["02.png", "07.png", "12.png", "17.png"], "b": [f"{n:02}.png" for n in (1, 3, 5, 7)]}
    assert [path.stem for path in found.test_a] == ["02", "07", "12", "17"]
    assert len(found.a) == 16 and len(found.b) == 5 and len(found.test_b) == 4
    assert not set(found.a) & set(found.test_a) and sorted(found.a + found.test_a) == find(day).paths
    assert find_sources(str(day), str(night)) == found


@pytest.mark.parametrize("count, train, test", [(1, 1, 1), (2, 1, 1), (3, 2, 1), (5, 3, 2), (8, 4, 4)])
def test_tiny_domains_keep_something_to_train_on(tmp_path, count, train, test):
    found = find_sources(str(make(tmp_path / "x", count)), str(make(tmp_path / "y", 30, seed=1)))
    assert (len(found.a), len(found.test_a)) == (train, test)
    assert (len(found.warnings) == 1 and "x has one image only" in found.warnings[0]) == (count == 1)


def test_root_with_train_and_test_folders(tmp_path):
    for n, name in enumerate(("trainA", "trainB", "testA", "testB")):
        make(tmp_path / name, 3, seed=n)
    found = find_sources(str(tmp_path))
    assert found.names == ("a", "b") and found.kept_out == {"a": [], "b": []}
    assert found.test_a == find(tmp_path / "testA").paths and len(found.a) == len(found.b) == 3
    other = make(tmp_path / "other", 2, seed=9)
    assert find_sources(str(tmp_path), test_b=str(other)).test_b == find(other).paths
    shutil.rmtree(tmp_path / "testA")
    found = find_sources(str(tmp_path))
    assert found.kept_out == {"a": ["01.png"], "b": []} and len(found.a) == 2 and len(found.b) == 3
    shutil.rmtree(tmp_path / "trainB")
    with pytest.raises(BadInput, match="has no folder trainB; give two folders"):
        find_sources(str(tmp_path))
    with pytest.raises(BadInput, match="gone: no such folder"):
        find_sources(str(tmp_path / "gone"))


def test_names(tmp_path, monkeypatch):
    for n, name in enumerate(("day", "night", "one/x", "two/x", "odd:name", os.fsdecode(b"caf\xe9"))):
        make(tmp_path / name, 2, seed=n)
    (tmp_path / "dusk.txt").write_text("day/00.png\nday/01.png\n")
    monkeypatch.chdir(tmp_path / "day")

    def names(a, b, given=None):
        return find_sources(str(tmp_path / a), str(tmp_path / b), names=given).names

    assert names("day/*.png", "night/**/*.png") == ("day", "night")
    assert names("dusk.txt", "night") == ("dusk", "night")
    assert names("one/x", "two/x") == ("a", "b")
    assert names("odd:name", "night") == ("a", "b")
    assert names(os.fsdecode(b"caf\xe9"), "night") == ("a", "b")  # Latin-1, which no text file of a run can hold
    assert find_sources(".", "../night").names == ("day", "night")
    assert names("day", "night", ("sun", "moon")) == ("sun", "moon")
    for wrong in (("a/b", "c"), ("", "c"), ("..", "c"), ("a", "a:"), ("-a", "b"), ("Same", "same"), ("夜" * 41, "b")):
        with pytest.raises(BadInput, match="--names"):
            names("day", "night", wrong)


def test_same_and_shared_images(tmp_path):
    day, night = make(tmp_path / "day", 6), make(tmp_path / "night", 6, seed=1)
    with pytest.raises(BadInput, match="hold the same images"):
        find_sources(str(day), str(day))
    with pytest.raises(BadInput, match="hold the same images"):
        find_sources(str(day), str(shutil.copytree(day, tmp_path / "copy")))
    (night / "link.png").symlink_to(day / "00.png")
    shutil.copy(day / "01.png", night / "other name.png")
    assert find_sources(str(day), str(night)).warnings == ["of the images, 2 are in both day and night"]
    test = make(tmp_path / "test", 1)
    found = find_sources(str(day), str(night), str(test), str(tmp_path / "night" / "05.png"))
    assert found.warnings[1:] == [
        "of the test images of day, 1 is trained on too",
        "of the test images of night, 1 is trained on too",
    ]


def test_files_of_other_kinds_are_told(tmp_path):
    day, night = make(tmp_path / "day", 6), make(tmp_path / "night", 6, seed=1)
    for n in range(49):
        (night / f"IMG_{n}.xyz").touch()
    (night / "film.mp4").touch()
    expected = f"{night}: files of other kinds are left out: 49 .xyz, 1 .mp4"
    assert find_sources(str(day), str(night)).warnings == [expected]
    assert find_sources(str(day), str(make(tmp_path / "x", 2, seed=2)), test_b=str(night)).warnings[0] == expected


def test_a_run_inside_its_data_is_refused(tmp_path, monkeypatch):
    day, night = make(tmp_path / "day", 3), make(tmp_path / "night", 3, seed=1)
    monkeypatch.chdir(day)
    with pytest.raises(BadInput, match=r"--out runs/latest lies inside \., .*name a folder outside"):
        find_sources(".", "../night", out=Path("runs/latest"))
    with pytest.raises(BadInput, match="lies inside"):
        find_sources(".", str(night), out=night / "run")
    assert find_sources(".", str(night), out=tmp_path / "run").names == ("day", "night")


def test_copies_are_found_without_reading_the_folders(tmp_path, monkeypatch):
    """Of large files three small pieces are read, whole ones only where these are the same, and not without end."""
    first, second = tmp_path / "a", tmp_path / "b"
    rng = np.random.default_rng(0)
    for folder in (first, second):
        folder.mkdir()
        for n in range(6):
            (folder / f"{n}.bmp").write_bytes(rng.bytes(100_000))
    shutil.copy(first / "0.bmp", second / "x.bmp")
    alike = bytearray((first / "1.bmp").read_bytes())
    alike[20_000] ^= 1  # the pieces are the same, the rest is not
    (second / "y.bmp").write_bytes(alike)
    (second / "z.bmp").symlink_to(first / "2.bmp")
    whole = []
    cmp = filecmp.cmp
    monkeypatch.setattr(filecmp, "cmp", lambda *a, **k: (whole.append(a), cmp(*a, **k))[1])
    assert find_sources(str(first), str(second)).warnings == ["of the images, 2 are in both a and b"]
    assert len(whole) == 2  # 0 and x, 1 and y


def test_what_was_kept_out_is_known_below_the_source(tmp_path):
    one, other = (tmp_path / unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))
    night = make(tmp_path / "night", 5, seed=9)
    for place in (one, other):
        make(place / "deep", 5)
        make(place, 5, seed=1)  # the same names
        (place / "00.png").rename(place / f"{place.name}.png")
    first, moved = (find_sources(str(place), str(night)) for place in (one, other))
    assert first.kept_out == moved.kept_out and len(first.kept_out["a"]) == 4
    shutil.rmtree(one / "deep")  # what is left is known as before
    left = find_sources(str(one), str(night), kept_out=first.kept_out)
    assert left.kept_out["a"] == [name for name in first.kept_out["a"] if "/" not in name] != []
    listed = tmp_path / "list.txt"
    listed.write_text("".join(f"{path.relative_to(tmp_path)}\n" for path in reversed(find(other).paths)))
    before = find_sources(str(listed), str(night))
    again = find_sources(str(listed), str(night), kept_out=before.kept_out)
    assert (again.a, again.test_a, again.kept_out) == (before.a, before.test_a, before.kept_out)
    older = {"a": [path.name for path in first.test_a if path.parent == one]}  # names alone
    assert find_sources(str(one), str(night), kept_out=older).test_a == [one / name for name in older["a"]]


def test_a_list_may_name_an_image_twice(tmp_path):
    day, night = make(tmp_path / "day", 1), make(tmp_path / "night", 5, seed=1)
    listed = tmp_path / "list.txt"
    listed.write_text(f"{day / '00.png'}\n{day / '00.png'}\n")
    found = find_sources(str(listed), str(night))
    assert (
        found.a == [day / "00.png"] * 2 and found.test_a == [day / "00.png"] and "one image only" in found.warnings[0]
    )
    listed.write_text("".join(f"{night / name}.png\n" for name in ("03", "01", "03", "02")))
    found = find_sources(str(listed), str(day))
    assert [path.stem for path in found.test_a] == ["01"] and [path.stem for path in found.a] == ["03", "03", "02"]


def test_names_are_compared_in_one_unicode_form(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "dé") for form in ("NFC", "NFD"))
    make(tmp_path / decomposed, 2)
    make(tmp_path / "night", 2, seed=1)
    place = [str(tmp_path / decomposed), str(tmp_path / "night")]
    assert find_sources(*place).names == (composed, "night")
    assert find_sources(*place, names=("x", decomposed)).names == ("x", composed)
    with pytest.raises(BadInput, match="both domains are called"):
        find_sources(*place, names=(composed, decomposed))


def test_what_cannot_be_found_is_told(tmp_path):
    day = str(make(tmp_path / "day", 2))
    (tmp_path / "empty").mkdir()
    for wrong, why in {"gone": "no such file or folder", "empty": "an empty folder"}.items():
        with pytest.raises(BadInput, match=f"{wrong}: {why}"):
            find_sources(day, str(tmp_path / wrong))
        with pytest.raises(BadInput, match=f"{wrong}: {why}"):
            find_sources(day, day + "/00.png", test_a=str(tmp_path / wrong))


# Crops


def expected_crop(image, draw, side):
    """By slices of the prepared image."""
    top = min(int(np.float32(draw[0]) * np.float32(image.shape[0] - side + 1)), image.shape[0] - side)
    left = min(int(np.float32(draw[1]) * np.float32(image.shape[1] - side + 1)), image.shape[1] - side)
    crop = image[top : top + side, left : left + side]
    return crop[:, ::-1] if draw[2] >= 0.5 else crop


def prepared(image, resize, size):
    """By Pillow alone."""
    if resize == "none":
        return image
    height, width = image.shape[:2]
    short = min(height, width)
    shape = (size, size) if resize == "square" else (round(width * size / short), round(height * size / short))
    return np.asarray(Image.fromarray(image).resize(shape, Image.Resampling.BICUBIC))


@pytest.mark.parametrize("resize", ["square", "short", "none"])
def test_crops_are_slices_of_the_resized_image(tmp_path, resize):
    shapes = [(40, 50), (50, 40), (33, 90), (24, 24)]
    for n, shape in enumerate(shapes):
        pictures.write(tmp_path / f"{n}.png", Picture(noise(*shape, seed=n)))
    store = load(find(tmp_path).paths, resize=resize)
    index = torch.arange(4).repeat(8)
    draws = torch.rand(32, 3, generator=torch.Generator().manual_seed(0))
    draws[0], draws[1] = 0, torch.tensor([1 - 2**-24] * 3)  # the corners
    batch = store.crops(index, draws)
    assert batch.shape == (32, 3, 16, 16) and batch.dtype == torch.float32
    assert batch.is_contiguous(memory_format=torch.channels_last)
    for n, where, got in zip(index.tolist(), draws.tolist(), batch, strict=True):
        image = prepared(noise(*shapes[n], seed=n), resize, 24)
        crop = np.ascontiguousarray(expected_crop(image, where, 16))
        assert torch.equal(got, pictures.to_tensor(crop)[0])


def test_orientation_exchanges_the_sides(tmp_path):
    tags = Image.Exif()
    tags[274] = 6
    stored = noise(30, 60)
    pictures.write(tmp_path / "x.png", Picture(stored, exif=tags.tobytes()))
    for resize in ("short", "none"):
        store = load([tmp_path / "x.png"], resize=resize)
        image = prepared(np.rot90(stored, -1), resize, 24)
        crop = store.crops(torch.tensor([0]), torch.tensor([[0.99, 0.5, 0.0]]))
        assert torch.equal(crop, pictures.to_tensor(np.ascontiguousarray(expected_crop(image, [0.99, 0.5, 0], 16))))


def test_draws_reach_every_place_evenly(tmp_path):
    pictures.write(tmp_path / "x.png", Picture(np.arange(5 * 7, dtype=np.uint8).reshape(5, 7, 1).repeat(3, axis=2)))
    store = load(find(tmp_path).paths, resize="none", crop=3)
    batch = store.crops(torch.zeros(6000, dtype=torch.long), draw(1, 0, 1, 1, 6000).crop_a)
    corners = pictures.to_pixels(batch)[:, 0, [0, 2], 0]
    upright = corners[corners[:, 0] < corners[:, 1], 0]
    flipped = corners[corners[:, 0] > corners[:, 1], 1]
    places = [7 * top + left for top in range(3) for left in range(5)]
    assert sorted(set(upright.tolist())) == sorted(set(flipped.tolist())) == places
    for corner in (upright, flipped):
        counts = np.bincount(corner)[places]
        assert len(corner) == pytest.approx(3000, abs=200) and counts.min() > 140 and counts.max() < 260


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("resize", ["none", "short"])
def test_16_bit_keeps_values_between_8_bit_steps(tmp_path, channels, resize):
    levels = (20000 + np.arange(40 * 40).reshape(40, 40, 1)).repeat(channels, axis=2).astype(np.uint16)
    pictures.write(tmp_path / "fine.tiff", Picture(levels, format="TIFF"))
    coarse = noise(40, 40, channels)
    pictures.write(tmp_path / "gross.png", Picture(coarse))
    store = load(find(tmp_path).paths, resize=resize, size=20, crop=20, channels=channels)
    batch = store.crops(torch.arange(2), torch.zeros(2, 3))
    fine, gross = pictures.to_pixels(batch, np.uint16)
    if resize == "none":
        assert np.array_equal(fine, levels[:20, :20])
        assert np.array_equal(gross, coarse[:20, :20].astype(np.uint16) * 257)
    else:
        between = levels.reshape(20, 2, 20, 2, channels).mean((1, 3))  # of a gradient, bicubic is the mean
        assert np.abs(fine.astype(int) - between)[2:-2, 2:-2].max() <= 1
    assert len(np.unique(fine)) > 300


def test_full_range_of_16_bit(tmp_path):
    levels = np.array([0, 1, 32767, 32768, 65534, 65535], np.uint16).reshape(2, 3, 1).repeat(3, axis=2)
    pictures.write(tmp_path / "x.png", Picture(levels))
    store = load(find(tmp_path).paths, resize="none", crop=2)
    batch = store.crops(torch.tensor([0, 0]), torch.tensor([[0, 0, 0], [0, 0.9, 0]]))
    assert np.array_equal(pictures.to_pixels(batch, np.uint16), [levels[:, :2], levels[:, 1:]])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_disk_and_memory_give_the_same_bits(tmp_path, dtype):
    paths = find(make(tmp_path / "x", 6, dtype=dtype)).paths
    stores = [load(paths, resize="short", budget=budget, folder=tmp_path / "run") for budget in (10**9, 0)]
    assert [store.place for store in stores] == ["in memory", "on disk"]
    assert list((tmp_path / "run").iterdir()) == []  # the file has lost its name already
    d = draw(3, 5, 6, 6, 4)
    first, second = (store.crops(d.index_a, d.crop_a) for store in stores)
    assert torch.equal(first, second) and first.std() > 0.1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_gpu_gives_the_same_bits_also_in_a_graph(tmp_path, dtype):
    paths = find(make(tmp_path / "x", 6, dtype=dtype)).paths
    gpu = torch.device("cuda")
    host, resident, fed = (load(paths, device=d, budget=b) for d, b in ((CPU, 10**9), (gpu, 10**9), (gpu, 0)))
    assert resident.on_device and host.on_device and not fed.on_device
    d = draw(3, 5, 6, 6, 4)
    expected = host.crops(d.index_a, d.crop_a)
    assert torch.equal(fed.crops(d.index_a, d.crop_a).cpu(), expected)
    index, crop = torch.zeros_like(d.index_a, device=gpu), torch.zeros_like(d.crop_a, device=gpu)
    resident.crops(index, crop)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        batch = resident.crops(index, crop)
    index.copy_(d.index_a)
    crop.copy_(d.crop_a)
    graph.replay()
    assert torch.equal(batch.cpu(), expected)


# What is broken, or does not fit


def test_broken_images_are_skipped_named_and_counted(tmp_path):
    folder = make(tmp_path / "x", 20)
    (folder / "03.png").write_bytes(b"no image")
    whole = (folder / "07.png").read_bytes()
    (folder / "07.png").write_bytes(whole[: len(whole) // 2])
    seen = []
    store = load(find(folder).paths, on_progress=lambda done, total: seen.append((done, total)))
    assert len(store.skipped) == 2 and "03.png" in store.skipped[0] and "07.png" in store.skipped[1]
    assert len(store.paths) == len(store.layout) == 18 and seen == [(n, 19) for n in range(1, 20)]
    last = torch.tensor([17])
    alone = load([folder / "19.png"])
    assert torch.equal(store.crops(last, torch.zeros(1, 3)), alone.crops(torch.tensor([0]), torch.zeros(1, 3)))
    (folder / "08.png").write_bytes(whole[:-30])
    with pytest.raises(BadInput, match=r"3 of 20 images cannot be read: .*03\.png.*07\.png") as told:
        load(find(folder).paths)
    assert "\n" not in str(told.value)


def test_a_link_whose_file_is_gone_is_one_broken_image(tmp_path):
    day, night = make(tmp_path / "day", 12), make(tmp_path / "night", 12, seed=1)
    (day / "zz.png").symlink_to("/nonexistent/x.png")
    (night / "zz.png").symlink_to("/nonexistent/x.png")
    found = find_sources(str(day), str(night))
    assert len(found.a) + len(found.test_a) == 13 and found.warnings == []
    for few in (3, 12):
        store = load(find(day).paths[-few - 1 :])
        assert len(store.paths) == few and store.skipped == [f"{day / 'zz.png'}: No such file or directory"]


def test_what_is_transparent_lies_on_white_and_is_said(tmp_path):
    """The colours under alpha 0 are no part of a cut-out."""
    pixels, alpha = noise(24, 24), np.full((24, 24), 255, np.uint8)
    alpha[:12], alpha[12] = 0, 51
    folder = make(tmp_path / "x", 2, shape=(24, 24))
    pictures.write(folder / "cut.png", Picture(pixels, alpha))
    pictures.write(folder / "opaque.png", Picture(pixels, np.full((24, 24), 255, np.uint8)))
    store = load(find(folder).paths, size=24, crop=24, resize="none")
    got = pictures.to_pixels(store.crops(torch.tensor([2, 3]), torch.zeros(2, 4)))
    assert (got[0, :12] == 255).all() and np.array_equal(got[0, 13:], pixels[13:])
    assert np.abs(got[0, 12] - (204 + pixels[12] / 5)).max() <= 0.5
    assert np.array_equal(got[1], pixels)
    assert store.notes == [f"1 picture ({folder / 'cut.png'}): transparent, laid on white"]
    (test,) = load_test([folder / "cut.png"], channels=3, resize="none", crop=24, count=1)
    assert np.array_equal(test, got[0])


def test_what_is_enlarged_more_than_twice_is_told(tmp_path):
    paths = find(make(tmp_path / "x", 2, shape=(11, 40))).paths + find(make(tmp_path / "y", 2, shape=(12, 12))).paths
    store = load(paths, resize="short", size=24, crop=24)
    assert store.notes == [
        f"2 pictures ({paths[0]} and others): enlarged more than twice: with a lower --size and --crop as much is "
        "learned in less time"
    ]


def test_white_of_16_bit(tmp_path):
    alpha = np.array([[0, 65535, 32768, 13107]], np.uint16)
    white = pictures.on_white(Picture(np.full((1, 4, 1), 1000, np.uint16), alpha))
    assert white.dtype == np.uint16 and white.flatten().tolist() == [65535, 1000, 33267, 52628]


def test_animations_and_stacks_among_stills_are_said(tmp_path):
    folder = make(tmp_path / "x", 2)
    frames = [Image.new("RGB", (40, 40), colour) for colour in ("red", "lime", "blue")]
    for name in ("a.gif", "b.png", "c.tif", "d.webp"):
        frames[0].save(folder / name, save_all=True, append_images=frames[1:])
    store = load(find(folder).paths)
    assert len(store.paths) == 6 and store.notes == [
        f"4 pictures ({folder / 'a.gif'} and others): several pictures in one file, of which the first is taken"
    ]


def test_nothing_but_broken_images(tmp_path):
    (tmp_path / "x.png").write_bytes(b"")
    with pytest.raises(BadInput, match="1 of 1 image cannot be read"):
        load([tmp_path / "x.png"])


def test_sizes_that_do_not_fit(tmp_path):
    paths = find(make(tmp_path / "x", 2, shape=(10, 40))).paths
    with pytest.raises(
        BadInput, match=r"2 images of 2 are smaller than --crop 16: .*00\.png \(40x10\), .*--resize short"
    ):
        load(paths, resize="none")
    with pytest.raises(BadInput, match=r"00\.png \(40x10\)"):
        load_test(paths, channels=3, resize="none", crop=16)
    many = find(make(tmp_path / "x", 9, shape=(10, 40))).paths
    with pytest.raises(BadInput, match=r"9 images of 10 are smaller .*04\.png \(40x10\) and 4 more; lower it"):
        load([*many, *find(make(tmp_path / "large", 1)).paths], resize="none")
    one = tmp_path / "one.png"
    pictures.write(one, Picture(np.full((1, 1, 3), 7, np.uint8)))
    assert (pictures.to_pixels(load([one]).crops(torch.tensor([0]), torch.rand(1, 3))) == 7).all()


def test_a_full_disk_is_told(tmp_path, monkeypatch):
    paths = find(make(tmp_path / "x", 2)).paths

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(BadInput, match=r"run: no room for 0\.0 GB of images: No space left"):
        load(paths, budget=0, folder=tmp_path / "run")


def test_loading_stops_at_once_when_the_progress_callback_raises(tmp_path, monkeypatch):
    paths = find(make(tmp_path / "x", 60)).paths
    read, decoded, before = pictures.read, [], set(threading.enumerate())
    monkeypatch.setattr(pictures, "read", lambda *a: (decoded.append(a), time.sleep(0.05), read(*a))[2])

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load(paths, on_progress=stop)
    assert len(decoded) < 40 and set(threading.enumerate()) <= before


# Draws


def test_the_same_seed_and_step_draw_the_same():
    first, again = draw(7, 123, 10, 6, 4), draw(7, 123, 10, 6, 4)
    assert all(torch.equal(x, y) for x, y in zip(vars(first).values(), vars(again).values(), strict=True))
    for other in (draw(8, 123, 10, 6, 4), draw(7, 124, 10, 6, 4)):
        assert not torch.equal(first.crop_a, other.crop_a) and not torch.equal(first.chance_b, other.chance_b)
    assert first.crop_a.shape == first.crop_b.shape == (4, 4) and first.chance_a.shape == (4, 18)
    assert first.crop_a.dtype == torch.float32 and first.index_a.dtype == first.index_b.dtype == torch.long
    draw(2**70 + 3, 0, 2, 2, 1)  # any seed


def test_draws_are_these_numbers():
    """A change here breaks the resuming of runs that were begun before it."""
    d = draw(1, 5, 4, 3, 2)
    assert d.index_a.tolist() == [1, 3] and d.index_b.tolist() == [1, 1]
    assert d.crop_a[0, :3].tolist() == pytest.approx([0.0642, 0.6374, 0.7478], abs=1e-4)
    assert d.chance_b[1, :2].tolist() == pytest.approx([0.3936, 0.7913], abs=1e-4)


@pytest.mark.parametrize("count_a, count_b", [(12, 5), (5, 12)])
def test_an_epoch_goes_through_a_by_shuffled_index(count_a, count_b):
    steps = steps_per_epoch(count_a, count_b, 2)
    assert steps == 6
    epochs = [
        torch.cat([draw(1, epoch * steps + n, count_a, count_b, 2).index_a for n in range(steps)]) for epoch in range(3)
    ]
    for order in epochs:
        assert sorted(order.tolist()) == sorted(n % count_a for n in range(12))
    assert not torch.equal(epochs[0], epochs[1])


def test_b_is_uniform_and_independent_of_a():
    index = torch.cat([draw(1, n, 4, 8, 16).index_b for n in range(500)])
    counts = torch.bincount(index, minlength=8)
    assert counts.sum() == 8000 and counts.min() > 880 and counts.max() < 1120
    uniform = torch.cat([draw(1, n, 4, 8, 16).chance_a for n in range(500)])
    assert uniform.min() >= 0 and uniform.max() < 1 and abs(uniform.mean() - 0.5) < 0.01


def test_a_batch_larger_than_both_domains():
    assert steps_per_epoch(3, 2, 8) == 1
    assert np.bincount(draw(1, 4, 3, 2, 8).index_a).tolist() in ([3, 3, 2], [3, 2, 3], [2, 3, 3])


def test_processes_share_what_one_would_see():
    whole = draw(1, 9, 10, 10, 6)
    parts = [whole.part(rank, 3) for rank in range(3)]
    for name, field in vars(whole).items():
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), field)
        assert len(getattr(parts[1], name)) == 2


# Test pictures


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_test_pictures_are_prepared_as_in_the_paper(tmp_path, dtype):
    paths = find(make(tmp_path / "x", 9, shape=(30, 60), dtype=dtype)).paths
    for resize, box in {"square": None, "short": (16, 32), "none": (30, 60)}.items():
        tests = load_test(paths, channels=3, resize=resize, crop=16)
        assert len(tests) == 4 and {p.shape for p in tests} == {(16, 16, 3)}
        image = pictures.read(paths[1]).pixels  # 1, 3, 5, 7 of nine
        if dtype == np.uint8:
            whole = prepared(image, "none" if resize == "none" else "square" if resize == "square" else "short", 16)
            top, left = (0, 0) if box is None else ((box[0] - 16) // 2, (box[1] - 16) // 2)
            assert np.array_equal(tests[0], whole[top : top + 16, left : left + 16])
        assert tests[0].dtype == dtype
    (tmp_path / "x" / "01.png").write_bytes(b"")
    assert len(load_test(paths, channels=1, resize="square", crop=16)) == 3
    with pytest.raises(BadInput, match=r"no test image, or none of those kept out for it, can be read.*--test-a"):
        load_test(paths[1:2], channels=1, resize="square", crop=16)


# Memory


def test_memory_that_is_free_is_known_and_shared_among_processes(monkeypatch):
    alone = free(CPU)
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < alone <= total
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert free(CPU) == pytest.approx(alone / 4, rel=0.2)


def test_test_images_are_cut_to_size_as_they_are_read(tmp_path):
    """Not all at full size at once: sixty of a megapixel would be 180 MB."""
    for n in range(60):
        Image.new("RGB", (1000, 1000), (n, 0, 0)).save(tmp_path / f"{n:02}.png")
    tracemalloc.start()
    tests = load_test(sorted(tmp_path.iterdir()), channels=3, resize="none", crop=32, count=60)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(tests) == 60 and peak < 100e6 and all(picture.base is None for picture in tests)

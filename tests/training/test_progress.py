"""Stills and films: the same bytes for the same pictures, faithful, within their limits, and made to be read."""

import json

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence
from torch import nn

from viceversa.errors import BadInput
from viceversa.training import progress
from viceversa.training.progress import Progress, boxes, cells, layout_for, layouts, stills, thinned

CPU = torch.device("cpu")


class Shade(nn.Module):
    """Stands for a generator of some epoch: smooth changes of brightness; any number of channels."""

    def __init__(self, strength, channels=3):
        super().__init__()
        self.strength, self.channels = strength, channels

    def forward(self, x):
        out = (1 - self.strength) * x - 0.5 * self.strength
        return out.mean(1, keepdim=True) if self.channels == 1 else out.expand(-1, 3, -1, -1)


def photos(count, height=64, width=64, channels=3, seed=0):
    """Pictures with shapes of many colours and a little noise: (H, W, C)."""
    random = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        coarse = random.integers(0, 255, (5, 5, channels), np.uint8)
        image = np.stack(
            [np.asarray(Image.fromarray(c).resize((width, height), 3)) for c in coarse.transpose(2, 0, 1)], 2
        )
        made.append(np.clip(image + random.normal(0, 4, image.shape), 0, 255).astype(np.uint8))
    return made


def train(run, epochs, images_a=None, images_b=None):
    p = Progress(run, ("day", "night"), images_a or photos(4), images_b or photos(3, seed=1))
    for epoch in epochs:
        shown = p.show(epoch, Shade(epoch / 20), Shade(-epoch / 20), CPU)
    return p, shown


def contents(run):
    return {path.name: path.read_bytes() for path in sorted((run / "progress").iterdir())}


# Stills


def test_a_still_holds_input_translation_and_round_trip_of_every_picture(tmp_path):
    a, b = photos(4, 160, 160), photos(3, 160, 160, seed=1)
    _, shown = train(tmp_path, [12], a, b)
    found = cells(tmp_path / "progress" / "epoch_0012.webp")
    assert [len(found[way]) for way in ("ab", "ba")] == [4, 3]
    for images, rows, strength in ((a, found["ab"], 0.6), (b, found["ba"], -0.6)):
        for image, row in zip(images, rows, strict=True):
            there = (1 - strength) * (image / 127.5 - 1) - 0.5 * strength
            back = (1 + strength) * there.clip(-9, 9) + 0.5 * strength
            for expected, cell in zip((image / 127.5 - 1, there, back), row, strict=True):
                assert cell.size == (160, 160)
                error = np.asarray(cell) / 127.5 - 1 - expected.clip(-1, 1)
                assert np.abs(error).mean() < 0.04
    assert shown.grids["ab"].dtype == np.uint8 and shown.grids["ab"].shape[2] == 3


def test_what_the_watch_is_given(tmp_path):
    a, b = photos(4), photos(3, channels=1, seed=1)
    p = Progress(tmp_path, ("day", "night"), a, b)
    shown = p.show(1, Shade(0.5, channels=1), Shade(0.5), CPU)
    inputs, outputs = shown.pairs["ab"]
    assert inputs.shape == (4, 3, 64, 64) and outputs.shape == (4, 1, 64, 64)
    assert torch.equal(outputs, Shade(0.5, channels=1)(inputs)) and outputs.dtype == torch.float32
    assert [tuple(t.shape) for t in shown.pairs["ba"]] == [(3, 1, 64, 64), (3, 3, 64, 64)]
    grays = np.asarray(cells(tmp_path / "progress" / "epoch_0001.webp")["ab"][0][1], int)
    assert np.ptp(grays, axis=2).mean() < 1  # gray is shown as gray, but for the colours of its neighbours


def test_translates_in_the_context_that_is_given(tmp_path):
    p = Progress(tmp_path, ("a", "b"), photos(1), photos(1))
    net = nn.Conv2d(3, 3, 1)
    shown = p.show(1, net, net, CPU, forward=lambda: torch.autocast("cpu", torch.bfloat16))
    inputs, outputs = shown.pairs["ab"]
    with torch.inference_mode():
        assert torch.equal(outputs, outputs.bfloat16().float()) and not torch.equal(outputs, net(inputs))


def test_sixteen_bits_look_as_eight(tmp_path):
    eight = photos(2)
    sixteen = [image.astype(np.uint16) * 257 for image in eight]
    train(tmp_path / "eight", [1], eight, eight)
    train(tmp_path / "sixteen", [1], sixteen, sixteen)
    assert contents(tmp_path / "eight") == contents(tmp_path / "sixteen")


def test_small_pictures_grow_in_whole_numbers_and_large_ones_shrink(tmp_path):
    for (height, width), expected in {
        (32, 24): (96, 128), (100, 80): (80, 100), (512, 256): (256, 512), (300, 1024): (512, 150)
    }.items():  # fmt: skip
        p = Progress(tmp_path, ("a", "b"), photos(1, height, width), photos(1, height, width))
        left, top, right, bottom = p.layout.pictures["ab"][0][0]
        assert (right - left, bottom - top) == expected


def test_long_names_stay_in_their_place(tmp_path):
    """The pictures beside overlong names are those beside short ones, but for what WebP makes of them."""
    sheets = []
    for name in ("day", "an exceedingly long name of a domain, " * 4):
        Progress(tmp_path, (name, "night"), photos(2), photos(2)).show(1, Shade(0), Shade(0), CPU)
        sheets.append(Image.open(tmp_path / "progress" / "epoch_0001.webp").convert("RGB"))
    assert sheets[0].size == sheets[1].size
    for triple in (triple for rows in boxes(tmp_path / "progress" / "epoch_0001.webp").values() for triple in rows):
        for box in triple:
            assert np.abs(np.asarray(sheets[0].crop(box), int) - np.asarray(sheets[1].crop(box))).mean() < 2


@pytest.mark.parametrize("names", [("Tag & S\u00f6hne", "Nacht"), ("So\u0308hne", "\u591c\u666f"), ("day", "\u0142")])
def test_no_letter_of_a_name_is_drawn_as_a_box(tmp_path, monkeypatch, names):
    face = progress.face_for("".join(names))
    assert all(progress.has(face, letter) for name in names for letter in progress.writable(name, face))
    monkeypatch.setattr(progress, "FONTS", ())  # a system without fonts
    progress.face_for.cache_clear()
    plain = {"\u00f6": "o", "o\u0308": "o", "\u0142": "?", "\u591c\u666f": "??"}
    written = names
    for letter, instead in plain.items():
        written = tuple(name.replace(letter, instead) for name in written)
    for run, each in (("odd", names), ("plain", written)):
        Progress(tmp_path / run, each, photos(1), photos(1)).show(1, Shade(0), Shade(0), CPU)
    assert contents(tmp_path / "odd") == contents(tmp_path / "plain")
    progress.face_for.cache_clear()


def test_boxes_tell_where_and_refuse_other_files(tmp_path):
    train(tmp_path, [1])
    still = tmp_path / "progress" / "epoch_0001.webp"
    found = boxes(still)
    assert [len(found[way]) for way in ("ab", "ba")] == [4, 3]
    left, top, right, bottom = found["ab"][0][0]
    assert (right - left, bottom - top) == (128, 128)
    other = tmp_path / "other.webp"
    Image.open(still).convert("RGB").save(other)
    for wrong in (other, tmp_path / "none.webp"):
        with pytest.raises(BadInput, match="no progress picture"):
            boxes(wrong)


# Films


def test_a_killed_and_resumed_run_ends_with_the_same_bytes(tmp_path):
    p, _ = train(tmp_path / "once", range(1, 7))
    p.film()
    p, _ = train(tmp_path / "twice", range(1, 5))
    p.film()
    p, _ = train(tmp_path / "twice", range(3, 7))
    p.film()
    assert contents(tmp_path / "once") == contents(tmp_path / "twice")
    assert {"epoch_0001.webp", "layout.json", "day2night.gif", "night2day.gif"} < set(contents(tmp_path / "once"))


@pytest.mark.parametrize("ending", ["gif", "webp"])
def test_a_film_shows_every_epoch_and_lingers_on_the_last(tmp_path, ending):
    p, _ = train(tmp_path, range(1, 6), photos(2), photos(1))
    p.film()
    for name, direction in (("day2night", "ab"), ("night2day", "ba")):
        film = Image.open(tmp_path / "progress" / f"{name}.{ending}")
        frames = [(frame.convert("RGB"), frame.info["duration"]) for frame in ImageSequence.Iterator(film)]
        assert len(frames) == 5 and film.info["loop"] == 0
        lengths = [length for _, length in frames]
        assert len(set(lengths[:-1])) == 1 and lengths[-1] == lengths[0] + 2500
        left, top, _, _ = p.layout.blocks[direction]
        for epoch, (frame, _) in enumerate(frames, start=1):
            still = tmp_path / "progress" / f"epoch_{epoch:04d}.webp"
            for box, cell in zip(boxes(still)[direction][0], cells(still)[direction][0], strict=True):
                shown = frame.crop((box[0] - left, box[1] - top, box[2] - left, box[3] - top))
                assert np.abs(np.asarray(shown, int) - np.asarray(cell)).mean() < 10


def test_a_webp_lies_beside_the_gif_only_where_it_is_smaller(tmp_path):
    p, _ = train(tmp_path, range(1, 4))
    p.film()
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "progress").iterdir()}
    assert sizes["day2night.webp"] < sizes["day2night.gif"]
    noise = [np.random.default_rng(0).integers(0, 2, (128, 128, 1), np.uint8).repeat(3, 2) * 255]
    p, _ = train(tmp_path, [4], noise, noise)  # one frame of few colours, which a GIF holds in fewer bytes
    (tmp_path / "progress" / "night2day.webp").write_bytes(b"of an earlier end of this run")
    p.film()
    gif, webp = (tmp_path / "progress" / f"night2day.{ending}" for ending in ("gif", "webp"))
    assert gif.exists() and not webp.exists()


def test_a_film_keeps_to_its_frames_and_bytes(tmp_path):
    p, _ = train(tmp_path, range(1, 14), photos(1), photos(1))
    p.film(most_frames=10)
    film = tmp_path / "progress" / "day2night.gif"
    whole, limit = Image.open(film), film.stat().st_size // 3
    p.film(most_frames=10, most_bytes=limit)
    less = Image.open(film)
    assert whole.n_frames == less.n_frames == 10
    assert film.stat().st_size <= limit and less.width < whole.width


def test_no_film_of_nothing_and_foreign_files_do_no_harm(tmp_path):
    p = Progress(tmp_path, ("day", "night"), photos(2), photos(2))
    p.film()
    assert not (tmp_path / "progress").exists()
    train(tmp_path, [1, 2], photos(2), photos(2))
    train(tmp_path, [3], photos(1), photos(2))  # other test pictures: another size
    Image.new("RGB", (9, 9)).save(tmp_path / "progress" / "epoch_0004.webp")
    (tmp_path / "progress" / "epoch_0005.webp").write_text("no picture")
    (tmp_path / "progress" / "epoch_0001 (copy).webp").write_text("no still")
    p.film()
    assert Image.open(tmp_path / "progress" / "night2day.gif").n_frames == 2
    assert [epoch for epoch, _ in stills(tmp_path)] == [1, 2, 3, 4, 5]


def test_thinning_is_even_and_keeps_the_ends():
    assert thinned(range(5), 60) == [0, 1, 2, 3, 4]
    assert thinned([], 60) == [] and thinned([7], 60) == [7]
    picked = thinned(range(1, 201), 60)
    assert len(set(picked)) == 60 and (picked[0], picked[-1]) == (1, 200)
    assert set(np.diff(picked)) <= {3, 4}


def test_one_layout_is_told_in_json_beside_the_stills(tmp_path):
    p, _ = train(tmp_path, [1, 2])
    file = tmp_path / "progress" / "layout.json"
    told = json.loads(file.read_text())
    assert list(told) == ["1"] and told["1"]["size"] == list(p.layout.size)
    assert layouts(tmp_path) == {1: p.layout}
    train(tmp_path, [3, 4], photos(1), photos(1))  # other test pictures: another layout, from here on
    assert list(layouts(tmp_path)) == [1, 3]
    found = [len(boxes(path)["ab"]) for _, path in stills(tmp_path)]
    assert found == [4, 4, 1, 1]
    train(tmp_path, [2, 3])  # as if it had been taken back to the first epoch
    assert layouts(tmp_path) == {1: p.layout}


def test_directions_lie_above_each_other_wider_than_high():
    for cell, counts in (((128, 128), (4, 3)), ((256, 144), (4, 4)), ((100, 300), (1, 4))):
        layout = layout_for(cell, counts)
        everything = [box for rows in layout.pictures.values() for triple in rows for box in triple]
        assert len(set(everything)) == 3 * sum(counts)
        for way, count in zip(("ab", "ba"), counts, strict=True):
            left, top, right, bottom = layout.blocks[way]
            assert len(layout.pictures[way]) == count
            inside = [box for triple in layout.pictures[way] for box in triple]
            assert all(left < x and top < y and u < right and v < bottom for x, y, u, v in inside)
        assert layout.blocks["ab"][3] == layout.blocks["ba"][1] and layout.size == layout.blocks["ba"][2:]

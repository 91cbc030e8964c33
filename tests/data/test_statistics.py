"""What does not fit a model is said: a night as a day, a gray picture, a drawing; what fits, is not."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFilter

from viceversa.data.pictures import Picture, encode
from viceversa.data.statistics import WORDS, describe, describe_store, measure, misfit, remark, stored
from viceversa.data.store import Store


def scene(seed, night=False, side=120):
    """A sky, houses with windows, a street: bright and blue, or dark with lamps."""
    random = np.random.default_rng(seed)
    sky, street = ((20, 20, 45), (40, 35, 30)) if night else ((120, 160, 225), (110, 105, 100))
    picture = Image.new("RGB", (side + 40, side), sky)
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, side * 0.8, side + 40, side), street)
    for _ in range(12):
        x, width, top = random.integers(0, side), random.integers(15, 40), random.integers(20, 70)
        wall = random.integers(10, 45, 3) if night else random.integers(90, 210, 3)
        draw.rectangle((x, top, x + width, side * 0.8), tuple(map(int, wall)))
        draw.rectangle((x + 4, top + 6, x + 9, top + 14), (250, 210, 120) if night else (70, 80, 100))
    grain = random.normal(0, 6, (side, side + 40, 3))
    lit = np.asarray(picture, float) * random.uniform(0.8, 1.1) + grain
    return lit.clip(0, 255).astype(np.uint8)


def drawing(image):
    lines = Image.fromarray(image).convert("L").filter(ImageFilter.FIND_EDGES).point(lambda v: 255 * (v < 40))
    return np.asarray(lines.convert("RGB"))


@pytest.fixture(scope="module")
def statistics():
    return {name: describe(scene(n, name == "night") for n in range(60)) for name in ("day", "night")}


def test_what_fits_is_not_remarked(statistics):
    told = [remark(scene(n), statistics, "day", "night") for n in range(100, 140)]
    told += [remark(scene(n, True), statistics, "night", "day") for n in range(100, 140)]
    assert sum(map(bool, told)) <= 4  # 5%


def test_a_night_given_to_the_day_direction(statistics):
    said = remark(scene(200, night=True), statistics, "day", "night")
    assert said.startswith("unlike all 60 images of day that the model was trained on: ")
    assert "darker" in said or "black" in said
    assert said.endswith("It looks like night already: --to day?")


def test_infrared_and_drawings(statistics):
    gray = np.asarray(Image.fromarray(scene(200)).convert("L").convert("RGB"))
    assert "grayer" in remark(gray, statistics, "day", "night")
    assert misfit(drawing(scene(200)), statistics["day"])
    assert misfit(255 - scene(200), statistics["day"])


def test_a_gray_model_and_one_without_statistics(statistics):
    gray = describe(scene(n).mean(2, keepdims=True).astype(np.uint8) for n in range(40))
    assert not misfit(scene(200).mean(2, keepdims=True).astype(np.uint8), gray)
    assert remark(scene(200, True), {}, "day", "night") == ""


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (5000, 2)])
def test_any_size(size):
    assert np.isfinite(measure(np.full((*size, 3), 130, np.uint8))).all()


def test_sixteen_bit_is_the_same_at_another_depth():
    image = scene(3)
    assert np.allclose(measure(image), measure(image.astype(np.uint16) * 257))
    assert np.allclose(measure(image), measure(image.clip(1).astype(np.uint16) * 257 - 100))  # rounded, as everywhere


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_a_store_as_it_is_trained_on(tmp_path, depth):
    """Trained on at 64 px, and asked about at full size: both are looked at at the same size."""
    scenes = [scene(n).astype(depth) * (257 if depth == np.uint16 else 1) for n in range(12)]
    paths = [tmp_path / f"{n}.png" for n in range(12)]
    for path, image in zip(paths, scenes, strict=True):
        path.write_bytes(encode(Picture(image)))
    common = {"channels": 3, "crop": 32, "device": torch.device("cpu")}
    whole = Store.load(paths, size=0, resize="none", **common)
    assert all(np.array_equal(stored(whole, n), scenes[n]) for n in range(12))
    small = describe_store(Store.load(paths, size=64, resize="short", **common))
    assert small["images"] == 12 and small["side"] == 64 and set(small["ranges"]) == set(WORDS)
    assert not any(misfit(image, small) for image in scenes)
    assert misfit(drawing(scene(5)), small)


def test_training_keeps_them_in_the_model_file(tmp_path):
    import viceversa

    for name in ("day", "night"):
        (tmp_path / name).mkdir()
        for n in range(6):
            Image.fromarray(scene(n, name == "night")).save(tmp_path / name / f"{n}.png")
    small = {"size": 36, "crop": 32, "width": 4, "blocks": 1, "epochs": 1, "decay_epochs": 0, "device": "cpu"}
    viceversa.train(tmp_path / "day", tmp_path / "night", out=tmp_path / "run", log="none", quiet=True, **small)
    statistics = viceversa.load(tmp_path / "run").model.info["statistics"]
    assert statistics["day"]["images"] == 3 and statistics["day"]["side"] == 36  # three are held out
    assert "--to day?" in remark(scene(2, True), statistics, "day", "night")
    checkpoint = sorted((tmp_path / "run" / "checkpoint").glob("*.safetensors"))[-1]
    assert viceversa.load(checkpoint).model.info["statistics"] == statistics

"""Structure kept, calibrated on the photos of cities that ship in the package."""

from importlib.resources import files

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from viceversa.data.pictures import to_tensor
from viceversa.evaluation.scores import edges, structure_kept

CPU = torch.device("cpu")
NAMES = ("china.jpg", "building.jpg", "leuven.jpg")


def photo(name: str) -> Image.Image:
    """The middle of a photo, 256 px a side."""
    with (files("viceversa") / "assets" / name).open("rb") as file:
        image = Image.open(file).convert("RGB")
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side)).resize((256, 256), Image.Resampling.BICUBIC)


def kept(one: Image.Image, other: Image.Image) -> dict[str, float]:
    return structure_kept(to_tensor(np.asarray(one)), to_tensor(np.asarray(other)), CPU)


@pytest.mark.parametrize("name", NAMES)
def test_the_order_holds(name: str) -> None:
    """The same picture, another gamma, a shift of 2 px, a blur of 8 px, another picture: farther and farther."""
    one = photo(name)
    changed = {
        "same": one,
        "gamma": one.point(lambda value: 255 * (value / 255) ** 2),
        "shift": Image.fromarray(np.roll(np.asarray(one), (2, 2), (0, 1))),
        "blur": one.filter(ImageFilter.GaussianBlur(8)),
        "another": photo(NAMES[NAMES.index(name) - 1]),
    }
    found = {what: kept(one, other) for what, other in changed.items()}
    apart = [row["self_similarity"] for row in found.values()]
    assert apart[0] < 1e-6 and apart == sorted(apart) and len(set(apart)) == 5
    agree = [row["edges"] for row in found.values()]
    assert agree[0] == pytest.approx(1) and agree == sorted(agree, reverse=True) and len(set(agree)) == 5
    assert found["gamma"]["self_similarity"] < 0.1 * found["another"]["self_similarity"]


def test_light_may_turn_round_but_edges_may_not() -> None:
    one = to_tensor(np.asarray(photo("leuven.jpg")))
    assert edges(one, -one) > 0.95  # lamps and windows by night
    assert edges(one, one.transpose(2, 3)) < 0.3
    assert edges(one, 0.2 * one - 0.7) > 0.95  # dark and flat
    flat = torch.zeros(1, 3, 40, 40)
    assert edges(flat, flat) == 1
    assert edges(one, torch.zeros_like(one)) == 0  # a picture that lost everything

"""The models that come along: small, whole, described, and doing what they are named for."""

import json

import numpy as np
import pytest
from PIL import Image

import viceversa
from viceversa.demo import photo
from viceversa.model.file import BUNDLED, bundled, load_model

CARD = {"data", "recipe", "command", "seed", "minutes", "machine", "scores", "fails", "licence", "domains"}


@pytest.mark.parametrize("name", sorted(bundled()))
def test_each_has_a_card_and_is_small(name):
    model, card = load_model(bundled()[name]), json.loads((BUNDLED / f"{name}.json").read_text(encoding="utf-8"))
    assert set(card) >= CARD and tuple(card["domains"]) == model.domains
    assert set(model.generators) == {"ab", "ba"}
    assert bundled()[name].stat().st_size <= 2 * 6e6
    assert "untranslated" in str(card["scores"]) and card["scores"] == model.info["scores"]


def test_day_becomes_night_and_night_becomes_day_in_its_place():
    model = viceversa.load("day2night")
    day = photo("leuven.jpg")
    night = model(day, to="night")
    again = model(night, to="day")
    assert night.shape == again.shape == day.shape
    assert night.mean() < 0.7 * day.mean() < again.mean()
    sky = (slice(0, 120), slice(230, 430))  # bright and overcast
    assert night[sky].mean() < 0.5 * day[sky].mean() < again[sky].mean()
    # Every pixel stays where it was: the edges of both lie over each other, and over no shifted copy of theirs.
    edges = [np.abs(np.diff(x.astype(float).mean(2), axis=1))[:-1] for x in (day, night)]

    def agreement(shift):
        return np.corrcoef(edges[0][:, 4:-4].ravel(), np.roll(edges[1], shift, axis=1)[:, 4:-4].ravel())[0, 1]

    assert max(range(-4, 5), key=agreement) == 0


def test_the_command_needs_no_more_than_the_name(tmp_path):
    from viceversa.cli import main

    Image.fromarray(photo("china.jpg")).save(tmp_path / "photo.jpg")
    assert (
        main(["translate", "day2night", str(tmp_path / "photo.jpg"), "--to", "night", "-o", str(tmp_path / "o.jpg")])
        == 0
    )
    assert Image.open(tmp_path / "o.jpg").size == (640, 427)

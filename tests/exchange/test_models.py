"""`viceversa models` lists what comes with the package, and shows a card in full."""

import json

import pytest

from viceversa.cli import main
from viceversa.model import file
from viceversa.model.file import Model, save_model
from viceversa.model.networks import Generator

CARD = {
    "data": "80 photos of a street",
    "minutes": 30,
    "scores": {"kid": {"to night": 0.01, "to day": 0.02}},
    "fails": "roofs by night",
    "licence": "Apache-2.0",
    "pictures": ["a.webp"],
}


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    monkeypatch.setattr(file, "BUNDLED", tmp_path)
    network = Generator(width=2, blocks=1).build()
    save_model(tmp_path / "day2night.safetensors", Model({"ab": network, "ba": network}, ("day", "night")))
    (tmp_path / "day2night.json").write_text(json.dumps(CARD), encoding="utf-8")
    save_model(tmp_path / "maps.safetensors", Model({"ab": network}, ("map", "photo")))
    return tmp_path


def test_all_are_listed_with_what_matters(shipped, capsys):
    assert main(["models"]) == 0
    first, data, fails, licence, second = capsys.readouterr().out.splitlines()
    assert first.startswith("day2night: day <-> night; ResNet, 1 block, width 2, 0.0 M parameters; 0.0 MB")
    assert (data.split(), fails.strip(), licence.strip()) == (
        "data: 80 photos of a street".split(), "fails: roofs by night", "licence: Apache-2.0",
    )  # fmt: skip
    assert second.startswith("maps: map -> photo; ")


def test_a_card_is_shown_in_full(shipped, capsys):
    assert main(["models", "day2night"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:5] == [
        "data: 80 photos of a street", "minutes: 30", "scores:", "    kid:", "        to night: 0.01",
    ]  # fmt: skip
    assert lines[-2:] == ["pictures:", "    - a.webp"]


def test_what_is_not_there_is_told(shipped, capsys, monkeypatch):
    assert main(["models", "day2nihgt"]) == 2
    assert "did you mean day2night?" in capsys.readouterr().err
    for odd in ("[]", "{"):
        (shipped / "maps.json").write_text(odd)
        assert main(["models", "maps"]) == 2
        assert "maps.json: this model's card is no JSON object" in capsys.readouterr().err
    monkeypatch.setattr(file, "BUNDLED", shipped / "none")
    assert main(["models"]) == 0
    assert capsys.readouterr().out == "no models come with this installation\n"

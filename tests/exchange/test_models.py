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


def test_all_are_listed_with_what_matters(shipped, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
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
    assert lines[0].startswith("day -> night: ResNet, 1 block") and lines[1].startswith("night -> day: ResNet, 1 block")
    assert lines[2:7] == [
        "data: 80 photos of a street", "minutes: 30", "scores:", "    kid:", "        to night: 0.01",
    ]  # fmt: skip
    assert lines[-2:] == ["pictures:", "    - a.webp"]


def test_lines_fit_the_terminal(shipped, capsys, monkeypatch):
    (shipped / "day2night.json").write_text(json.dumps(CARD | {"fails": "roofs by night, " * 40}), encoding="utf-8")
    for columns in (60, 100):
        monkeypatch.setenv("COLUMNS", str(columns))
        for command in (["models"], ["models", "day2night"]):
            assert main(command) == 0
            told = capsys.readouterr().out
            assert columns - 20 < max(map(len, told.splitlines())) <= columns
            assert " ".join(told.split()).count("roofs by night,") == 40


@pytest.mark.parametrize("given", ["runs/x", "runs/x/model.safetensors"])
def test_a_run_and_a_file_say_what_they_are(shipped, tmp_path, capsys, given):
    info = {
        "image": {"size": 480, "crop": 448, "resize": "short"},
        "training": {"step": 2692, "epoch": 23, "seconds": 3600.1, "seed": 1, "recipe": "photo"},
        "scores": {"kind": "kid", "features": "lite0", "a": 0.25, "b": 0.125},
        "statistics": {"day": [1, 2, 3]},
    }
    network = Generator(width=2, blocks=1).build()
    save_model(tmp_path / "runs" / "x" / "model.safetensors", Model({"ab": network}, ("day", "night"), info))
    assert main(["models", str(tmp_path / given)]) == 0
    told = capsys.readouterr().out
    assert " ".join(told.split()) == (
        "day -> night: ResNet, 1 block, width 2, 0.0 M parameters "
        "training: recipe: photo steps: 2692 epochs: 23 minutes: 60.0 seed: 1 "
        "scores: kid, lite0: to night: 0.125 to day: 0.25 image: crop: 448 resize: short size: 480"
    )


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

"""The recipe `photo` trains, resumes and shares its work as the paper's does: to the last bit."""

import copy
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import viceversa
from viceversa.model.tint import SLOWLY
from viceversa.training.progress import boxes

SMALL = {
    "recipe": "photo", "size": 80, "crop": 64, "width": 4, "blocks": 1, "discriminator_layers": 1, "decay_epochs": 0,
    "device": "cpu", "precision": "fp32", "seed": 3, "zoom": 1.5, "patch": 32, "log": "none", "names": ("day", "night"),
}  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    random = np.random.default_rng(0)
    made = []
    for name, level in (("day", 200), ("night", 40)):
        folder = tmp_path_factory.mktemp(name)
        for n in range(4):
            coarse = random.integers(0, level, (6, 8, 3), dtype=np.uint8)
            Image.fromarray(coarse).resize((128, 96), Image.Resampling.BICUBIC).save(folder / f"{n}.png")
        made.append(folder)
    return made


def test_a_resumed_run_equals_the_undisturbed_one(folders, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    viceversa.train(*folders, out=whole, epochs=3, **SMALL)
    for epochs in (1, 3):
        run = viceversa.train(*folders, out=parts, epochs=epochs, **SMALL)
    one, other = (load_file(folder / "model.safetensors") for folder in (whole, parts))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    assert not any("frozen" in name for name in one)

    model = viceversa.load(run)
    assert model.model.spec("ab").kind == "pyramid" and model.model.spec("ab").sees
    photo = Image.open(folders[0] / "0.png")
    assert model(photo, to="night").size == photo.size
    kinds = {key for line in run.lines for key in line.get("loss", {})}
    assert {"projected/ab", "projected/a", "adversarial/ab", "cycle/a", "tint/a", "tint/b"} <= kinds


def test_frozen_features_alone_may_judge(folders, tmp_path):
    run = viceversa.train(*folders, out=tmp_path / "run", epochs=1, **SMALL, discriminator="none")
    kinds = {key for line in run.lines for key in line.get("loss", {})}
    assert "projected/ab" in kinds and "adversarial/ab" not in kinds


def test_the_patchgan_judges_squares_of_the_crop(folders, tmp_path):
    run = viceversa.train(*folders, out=tmp_path / "run", epochs=1, **SMALL)
    (kept,) = (run.folder / "checkpoint").glob("*.safetensors")
    shapes = {name: tensor.shape[-2:] for name, tensor in load_file(kept).items() if name.endswith(".images")}
    assert shapes == {"history_a.images": (32, 32), "history_b.images": (32, 32)}
    with pytest.raises(viceversa.BadInput, match="--patch 4"):
        viceversa.train(*folders, out=tmp_path / "small", epochs=1, **SMALL | {"patch": 4})


def test_an_older_pyramid_may_be_guided_midway(folders, tmp_path, capsys):
    viceversa.train(*folders, out=tmp_path / "run", epochs=1, **SMALL, guided=False)
    run = viceversa.train(*folders, out=tmp_path / "run", epochs=2, **SMALL, guided=True)
    assert "from here on --guided, it was --no-guided" in capsys.readouterr().out
    assert viceversa.load(run).model.spec("ab").guided


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_what_is_drawn_at_the_beginning_is_faint_and_no_fainter_without_an_average(folders, tmp_path, ema):
    choices = SMALL | {"ema": ema, "learning_rate": 1e-9}
    run = viceversa.train(*folders, out=tmp_path / "run", epochs=1, **choices)
    for generator in viceversa.load(run).model.generators.values():
        deviation = generator.small.model[-1].weight[:3].std().item()
        assert deviation == pytest.approx(0.1 * 0.02, rel=0.2)  # a tenth of the paper's


@pytest.fixture(scope="module")
def counted(folders, tmp_path_factory):
    return viceversa.train(*folders, out=tmp_path_factory.mktemp("counted") / "run", epochs=1, **SMALL)


def test_what_is_shown_has_the_contrast_of_the_domain_that_it_is_for(counted):
    of_a, of_b = (viceversa.load(counted).model.generators[way].contrast.item() for way in ("ba", "ab"))
    held = load_file(next((counted.folder / "checkpoint").glob("*.safetensors")))
    for found, name in ((of_a, "tint_a"), (of_b, "tint_b")):
        one, light, square = held[f"{name}.light"].double().unbind(1)
        fake, real = (square / one - (light / one) ** 2).sqrt().tolist()
        assert found == pytest.approx(min(2, max(1, real / fake)), rel=1e-3)
    assert of_a > 1.1  # these nights are dark, and what is made of them is drawn faint
    assert held["tint_a.light"][0, 0] == pytest.approx(SLOWLY)  # of two steps the first
    assert held["ab.contrast"] == 1 and held["average_ab.contrast"] == of_b


def without_contrast(file):
    """A file of before contrast was counted."""
    with safe_open(file, "pt") as opened:
        head = opened.metadata()
    save_file({n: value for n, value in load_file(file).items() if not n.endswith((".contrast", ".light"))}, file, head)


def test_older_runs_go_on_and_older_models_are_begun_with(folders, counted, tmp_path, capsys):
    older = Path(shutil.copytree(counted.folder, tmp_path / "run"))
    (kept,) = (older / "checkpoint").glob("*.safetensors")
    for file in (kept, older / "model.safetensors"):
        without_contrast(file)
    (head := json.loads(kept.with_suffix(".json").read_text()))["bytes"] = kept.stat().st_size
    kept.with_suffix(".json").write_text(json.dumps(head))
    assert viceversa.load(older / "model.safetensors").model.generators["ab"].contrast == 1
    viceversa.train(*folders, out=tmp_path / "new", epochs=1, start=str(older / "model.safetensors"), **SMALL)
    assert "model.safetensors: day -> night, night -> day\n" in capsys.readouterr().out
    run = viceversa.train(*folders, out=older, epochs=5, **SMALL)  # ten steps: counted every eight
    assert run.epoch == 5 and viceversa.load(run).model.generators["ba"].contrast > 1


def test_a_pyramid_of_one_level_is_shown_as_it_draws(folders, tmp_path):
    run = viceversa.train(*folders, out=tmp_path / "run", epochs=1, **SMALL | {"levels": 1})
    assert all(network.contrast == 1 for network in viceversa.load(run).model.generators.values())


def test_progress_shows_what_the_saved_model_makes(folders, tmp_path):
    tests = {"test_a": folders[0], "test_b": folders[1]}
    run = viceversa.train(*folders, out=tmp_path / "run", epochs=1, **SMALL, **tests)
    model, still = viceversa.load(run, precision="fp32"), run.folder / "progress" / "epoch_0001.webp"
    with Image.open(still) as opened:
        given, shown, _ = (np.asarray(opened.crop(box)) for box in boxes(still)["ba"][0])
    made = np.asarray(model(Image.fromarray(given[::2, ::2]), to="day"))  # small pictures are shown twice as large
    drawn = copy.deepcopy(model.model)
    drawn.generators["ba"].contrast.fill_(1)
    plain = np.asarray(viceversa.load(drawn, precision="fp32")(Image.fromarray(given[::2, ::2]), to="day"))
    off, before = (np.abs(x.astype(int) - shown[::2, ::2]).mean() for x in (made, plain))
    assert off < 6 and before > 2 * off

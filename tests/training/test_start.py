"""--start: weights of a run, a file or an imported checkpoint; it says what it took, and refuses what does not fit."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import viceversa
from viceversa.cli import main
from viceversa.config import Train, make
from viceversa.errors import BadInput
from viceversa.model.file import Model, save_model
from viceversa.model.networks import Generator
from viceversa.training.settings import own_ruler, without_effect
from viceversa.training.start import read_start

SMALL = {
    "size": 36, "crop": 32, "width": 4, "blocks": 1, "discriminator_layers": 2, "epochs": 1, "decay_epochs": 0,
    "seed": 3, "precision": "fp32", "device": "cpu", "log": "none",
}  # fmt: skip
UNTOUCHED = {"learning_rate": 1e-30, "epochs": 1}
"""Steps that move no weight: what is in the model afterwards is what was taken."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    source = np.random.default_rng(0)
    for name, tint in (("day", (255, 220, 160)), ("night", (60, 70, 120))):
        (root / name).mkdir()
        for n in range(6):
            pixels = source.random((6, 6, 1)) * np.array(tint)
            Image.fromarray(pixels.astype(np.uint8)).resize((48, 40)).save(root / name / f"{n:02}.png")
    return root / "day", root / "night"


@pytest.fixture(scope="module")
def first(folders, tmp_path_factory):
    out = tmp_path_factory.mktemp("first") / "run"
    viceversa.train(*folders, out=out, **SMALL)
    return out


def newest(run):
    return load_file(sorted((run / "checkpoint").glob("*.safetensors"))[-1])


def of(tensors, prefix):
    return {key.removeprefix(f"{prefix}."): value for key, value in tensors.items() if key.startswith(f"{prefix}.")}


def same(one, other):
    return one.keys() == other.keys() != set() and all(torch.allclose(one[k], other[k], atol=1e-12) for k in one)


def test_a_run_gives_generators_and_discriminators(folders, first, tmp_path, capsys):
    viceversa.train(*folders, out=tmp_path / "run", start=str(first), **SMALL | UNTOUCHED | {"seed": 9})
    said = capsys.readouterr().out
    assert "day -> night, night -> day, the judge of day, the judge of night" in said
    assert "begun anew: optimizers, earlier fakes, the schedule" in said
    before, after = newest(first), newest(tmp_path / "run")
    assert all(same(of(before, name), of(after, name)) for name in ("ab", "ba", "disc_a", "disc_b"))


def test_a_model_file_gives_generators_also_to_the_averages(folders, first, tmp_path, capsys):
    file = shutil.copy(first / "model.safetensors", tmp_path / "model.safetensors")
    viceversa.train(*folders, out=tmp_path / "run", start=file, ema=0.9, **SMALL | UNTOUCHED)
    assert "begun anew: the judge of day, the judge of night, optimizers" in capsys.readouterr().out
    before, after = load_file(file), newest(tmp_path / "run")
    for name in ("ab", "average_ab"):
        assert same(of(before, "ab"), of(after, name))


def test_a_run_gives_its_settings_too(folders, first, tmp_path, capsys):
    run = viceversa.train(*folders, out=tmp_path / "run", start=str(first), seed=4, cycle=7)
    held, was = (json.loads((place / "config.json").read_text())["settings"] for place in (run.folder, first))
    assert {name: held[name] for name in held if held[name] != was[name]} == {
        "out": str(run.folder), "start": str(first), "seed": 4, "cycle": 7.0
    }  # fmt: skip
    assert f"with the settings of {first}: " in (said := capsys.readouterr().out) and "--width 4" in said
    other = viceversa.train(
        *folders, out=tmp_path / "b", recipe="fast", start=str(first), **SMALL, upsample="transposed"
    )
    assert json.loads((other.folder / "config.json").read_text())["settings"]["projected"] > 0


def test_a_cut_checkpoint_is_told_and_what_is_older_taken(folders, first, tmp_path, capsys):
    mine = Path(shutil.copytree(first, tmp_path / "first"))
    (whole,) = (mine / "checkpoint").glob("*.safetensors")
    cut = whole.with_name("step_000000099.safetensors")
    cut.write_bytes(whole.read_bytes()[:-100])
    shutil.copy(whole.with_suffix(".json"), cut.with_suffix(".json"))
    viceversa.train(*folders, out=tmp_path / "a", start=str(mine), **SMALL | UNTOUCHED)
    said = capsys.readouterr().out
    assert f"the checkpoint {cut} is broken: what is older is used" in said and f"weights of {whole}: day -> " in said
    whole.write_bytes(cut.read_bytes())
    viceversa.train(*folders, out=tmp_path / "b", start=str(mine), **SMALL | UNTOUCHED)
    said = capsys.readouterr().out
    assert said.count("is broken: what is older is used") == 2
    assert f"weights of {mine / 'model.safetensors'}: day -> night, night -> day\n" in said


def test_a_models_recipe_is_named_where_it_leads_to_its_networks(folders, tmp_path):
    with pytest.raises(BadInput, match=r"give --recipe photo$"):
        viceversa.train(*folders, out=tmp_path / "run", start="day2night")


@pytest.mark.parametrize(("log_light", "words"), [(False, "do not look"), (True, "look")])
def test_ways_that_look_at_light_otherwise_are_taken_and_told(folders, log_light, words):
    """Of the model that comes along each way is of a run of its own."""
    start = read_start(
        make(Train, a=folders[0], start="day2night", recipe="photo", log_light=log_light), ("day", "night")
    )
    assert start is not None and len(start.words) == 1
    assert start.words[0].endswith(f"looks at the logarithm of light, the other does not; this run's {words}")


def test_domains_the_other_way_round(folders, first, tmp_path):
    viceversa.train(*folders[::-1], out=tmp_path / "run", start=str(first), **SMALL | UNTOUCHED)
    before, after = newest(first), newest(tmp_path / "run")
    for theirs, ours in (("ab", "ba"), ("ba", "ab"), ("disc_a", "disc_b"), ("disc_b", "disc_a")):
        assert same(of(before, theirs), of(after, ours))


def test_features_that_the_start_was_trained_against_stay_no_ruler(folders, tmp_path):
    first = viceversa.train(*folders, out=tmp_path / "first", **SMALL | UNTOUCHED | {"projected": 0.5})
    then = viceversa.train(*folders, out=tmp_path / "then", start=str(first.folder), projected=0, epochs=1)
    again = viceversa.train(*folders, out=tmp_path / "then", epochs=2)  # from its own checkpoint
    for run in (first, then, again):
        assert viceversa.load(run).model.info["training"]["features"] == "lite0"


def test_what_has_no_effect_is_said(folders, tmp_path, capsys):
    viceversa.train(
        *folders, out=tmp_path / "run", guided=True, recolour=True, levels=3, keep_lightness=True, patch=64, **SMALL
    )
    said = capsys.readouterr().out
    assert "--levels 3 --guided --recolour: of a pyramid alone, so without effect on a resnet generator" in said
    assert "--keep-lightness: for --channels 1 3 alone" in said
    assert "--patch 64: no smaller than the crop of" in said


def test_settings_of_networks_that_are_not_there_are_without_effect():
    def said(**choices):
        return without_effect(make(Train, a="a", **choices))

    assert said(recipe="photo") == said(recipe="paint") == said() == []
    (line,) = said(discriminator="none", projected=1, patch=32, discriminator_layers=2, discriminator_norm=False)
    assert line.startswith("--patch 32 --discriminator-layers 2 --no-discriminator-norm: of a PatchGAN")
    assert said(recipe="photo", crop=64) == []  # the recipe's square is larger: nobody asked for it
    (line,) = said(generator="unet", blocks=3)
    assert line == "--blocks 3: without effect on a unet generator, which has none"
    (line,) = own_ruler(make(Train, a="a", recipe="paint", score="kid", features="lite0"))
    assert "scores better by it than it is" in line


def test_other_domains_are_said(folders, first, tmp_path, capsys):
    names = {"names": ("summer", "winter")}
    viceversa.train(*folders, out=tmp_path / "run", start=str(first), **SMALL | UNTOUCHED | names)
    said = capsys.readouterr().out
    assert f"day and night of {first}" in said and "are taken for summer and winter" in said


def test_one_direction_and_other_discriminators(folders, first, tmp_path, capsys):
    one = Generator(width=4, blocks=1).build()
    save_model(tmp_path / "one.safetensors", Model({"ba": one}, ("day", "night")))
    viceversa.train(*folders, out=tmp_path / "a", start=str(tmp_path / "one.safetensors"), **SMALL | UNTOUCHED)
    assert "one.safetensors: night -> day\n" in (said := capsys.readouterr().out) and "begun anew: day -> night" in said
    assert same(one.state_dict(), of(newest(tmp_path / "a"), "ba"))
    layers = SMALL | UNTOUCHED | {"discriminator_layers": 1}
    viceversa.train(*folders, out=tmp_path / "b", start=str(first), **layers)
    assert "begun anew: the judge of day, the judge of night" in capsys.readouterr().out
    viceversa.train(*folders, out=tmp_path / "c", **layers)  # wholly anew: not a part of what is of another shape
    assert same(of(newest(tmp_path / "b"), "disc_a"), of(newest(tmp_path / "c"), "disc_a"))


@pytest.mark.parametrize(
    ("settings", "advice"),
    [
        ({"width": 8}, "--width 4"),
        ({"blocks": 2, "upsample": "nearest"}, "--blocks 1 --upsample transposed"),
        ({"channels": (1, 3), "identity": 0}, "--channels 3 3"),
        ({"generator": "unet", "size": 130, "crop": 128}, "--generator resnet"),
        ({"generator": "pyramid", "levels": 1, "recolour": True, "guided": True}, "give --generator resnet"),
    ],
)
def test_other_networks_are_refused_with_the_flags_that_fit(folders, first, tmp_path, settings, advice):
    with pytest.raises(BadInput, match="it has other generators than this run; give") as told:
        viceversa.train(*folders, out=tmp_path / "run", start=str(first), **SMALL | settings)
    assert advice in str(told.value) and "\n" not in str(told.value)
    assert not (tmp_path / "run" / "config.json").exists()


def test_the_advice_can_be_followed(folders, first, tmp_path, capsys):
    asked = {"width": 8, "blocks": 3, "upsample": "nearest", "channels": (1, 3), "identity": 0}
    with pytest.raises(BadInput) as told:
        viceversa.train(*folders, out=tmp_path / "run", start=str(first), **SMALL | asked)
    flags = str(told.value).split("give ")[1].split()
    small = [f"--{key.replace('_', '-')}={value}" for key, value in SMALL.items()]
    assert (
        main(["train", *map(str, folders), "--out", str(tmp_path / "run"), "--start", str(first), *small, *flags]) == 0
    )


def test_a_u_net_wants_the_crop_that_it_was_made_for(folders, tmp_path):
    small = Generator(kind="unet", width=2, halvings=7).build()
    save_model(tmp_path / "m.safetensors", Model({"ab": small}, ("day", "night")))
    asked = SMALL | {
        "generator": "unet",
        "width": 2,
        "size": 260,
        "crop": 256,
        "start": str(tmp_path / "m.safetensors"),
    }
    with pytest.raises(BadInput, match=r"give --crop 128$"):
        viceversa.train(*folders, out=tmp_path / "run", **asked)
    viceversa.train(*folders, out=tmp_path / "run", **asked | UNTOUCHED | {"crop": 128})


def test_gray_to_colour_either_way_round(folders, tmp_path):
    colour = Generator(channels_in=1, channels_out=3, width=4, blocks=1).build()
    save_model(tmp_path / "m.safetensors", Model({"ab": colour}, ("gray", "colour")))
    common = SMALL | UNTOUCHED | {"identity": 0, "start": str(tmp_path / "m.safetensors")}
    viceversa.train(*folders, out=tmp_path / "a", names=("gray", "colour"), channels=(1, 3), **common)
    viceversa.train(*folders, out=tmp_path / "b", names=("colour", "gray"), channels=(3, 1), **common)
    with pytest.raises(BadInput, match="--channels 3 1"):
        viceversa.train(*folders, out=tmp_path / "c", names=("colour", "gray"), channels=(1, 3), **common)


def test_generators_that_no_setting_asks_for(folders, tmp_path):
    cut = Generator(width=4, blocks=1, norm="instance-affine").build()
    save_model(tmp_path / "cut.safetensors", Model({"ab": cut}, ("day", "night")))
    with pytest.raises(BadInput, match="norm instance-affine, which no setting asks for"):
        viceversa.train(*folders, out=tmp_path / "run", start=str(tmp_path / "cut.safetensors"), **SMALL)


def test_two_ways_of_two_kinds(folders, tmp_path):
    """Such as the bundled monet2photo: no flags of a run fit both."""
    ways = {"ab": Generator(width=4, blocks=1).build(), "ba": Generator(width=4, blocks=2).build()}
    save_model(tmp_path / "two.safetensors", Model(ways, ("day", "night")))
    with pytest.raises(BadInput, match="its two ways are different networks, a run's are alike"):
        viceversa.train(*folders, out=tmp_path / "run", start=tmp_path / "two.safetensors", **SMALL)
    assert not (tmp_path / "run").exists()


def test_what_is_no_model(folders, tmp_path):
    (tmp_path / "G.pth").write_bytes(b"weights")
    with pytest.raises(BadInput, match="viceversa import"):
        viceversa.train(*folders, out=tmp_path / "run", start=str(tmp_path / "G.pth"), **SMALL)
    with pytest.raises(BadInput, match="no model 'nowhere'"):
        viceversa.train(*folders, out=tmp_path / "run", start="nowhere", **SMALL)


def test_a_resumed_run_goes_on_without_asking_for_it(folders, first, tmp_path, capsys):
    run = tmp_path / "run"
    mine = Path(shutil.copytree(first, tmp_path / "first"))
    viceversa.train(*folders, out=run, start=str(mine), **SMALL)
    shutil.rmtree(mine)
    capsys.readouterr()
    viceversa.train(*folders, out=run, start=str(mine), **SMALL | {"epochs": 2})
    said = capsys.readouterr().out
    assert "going on after epoch 1" in said and "weights of" not in said
    viceversa.train(*folders, out=run, **SMALL | {"epochs": 3})
    assert json.loads((run / "config.json").read_text())["settings"]["epochs"] == 3

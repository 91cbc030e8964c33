"""A run goes on where it was, with what may change, and refuses what would lose or spoil it; nothing is silent."""

import fcntl
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from test_train import PYTHON, Hearing, command, folders, made  # noqa: F401 (a fixture)

import viceversa
from viceversa.cli import main, parse
from viceversa.config import Train, make
from viceversa.errors import BadInput, Failed
from viceversa.model.cyclegan import adam, build
from viceversa.model.file import Model, resolve, save_model
from viceversa.model.history import History
from viceversa.model.networks import Generator
from viceversa.training import checkpoint
from viceversa.training.checkpoint import Position, keep_epoch
from viceversa.training.metrics import Metrics, read
from viceversa.training.process import Stop
from viceversa.training.train import in_words

SHORT = {**PYTHON, "epochs": 2, "decay_epochs": 0}


def go(folders, run, **choices):  # noqa: F811
    return viceversa.train(*folders, out=run, **{**SHORT, **choices})


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def two_epochs(folders, tmp_path_factory):  # noqa: F811
    run = tmp_path_factory.mktemp("short") / "run"
    go(folders, run)
    return run


@pytest.fixture
def run(two_epochs, tmp_path):
    """A finished run of two epochs, to be spoilt or trained on."""
    return Path(shutil.copytree(two_epochs, tmp_path / "run"))


# Checkpoints


def heads(run):
    return sorted((run / "checkpoint").glob("*.json"))


@pytest.mark.parametrize("spoil", ["tensors", "heads", "gone"])
def test_where_no_checkpoint_can_be_read_nothing_begins_anew(folders, run, spoil):  # noqa: F811
    for head in heads(run):
        if spoil == "tensors":
            file = head.with_suffix(".safetensors")
            file.write_bytes(b"\xff" * file.stat().st_size)
        elif spoil == "heads":
            head.write_text("{")
    if spoil == "gone":
        shutil.rmtree(run / "checkpoint")
    before = contents(run)
    with pytest.raises(BadInput, match="step_0000000" if spoil != "gone" else "no checkpoint to go on from"):
        go(folders, run, epochs=3)
    assert contents(run) == before


def test_what_a_newer_version_adds_is_left_out_and_what_it_changes_is_refused(folders, run):  # noqa: F811
    for head in heads(run):
        head.write_text(json.dumps({**json.loads(head.read_text()), "mood": "good"}))
    assert go(folders, run, epochs=3).epoch == 3
    for head in heads(run):
        head.write_text(json.dumps({**json.loads(head.read_text()), "format": 2}))
    before = contents(run)
    with pytest.raises(BadInput, match="newer viceversa"):
        go(folders, run, epochs=4)
    assert contents(run) == before


@pytest.mark.parametrize(("value", "kept"), [(0.5, torch.bfloat16), (0.1, torch.float32)])
def test_fakes_that_were_made_in_bf16_are_kept_in_it_and_come_back(tmp_path, value, kept):
    spec = Generator(width=4, blocks=1)
    model = build(spec, spec, lambda channels: None, history=3, crop=16, seed=1, projected=True)
    model.history_a = History(3, 3, 16, 16)  # which frozen features alone have not
    model.history_a.images.fill_(value)
    optimizers = adam(model, 2e-4)
    checkpoint.save(tmp_path, model, optimizers, Position(), Model(model.generators(), ("a", "b"), {}))
    saved = checkpoint.load(tmp_path)
    assert saved.tensors["history_a.images"].dtype == kept
    model.history_a.images.zero_()
    checkpoint.restore(model, optimizers, saved.tensors)
    assert model.history_a.images.dtype == torch.float32 and (model.history_a.images == value).all()


def test_the_end_of_an_epoch_that_a_kill_cut_off_is_made_up_for(folders, run):  # noqa: F811
    """Checkpoints are saved first; pictures, scores and models can be made again."""
    before, whole = contents(run), made(run)
    head = heads(run)[-1]
    told = json.loads(head.read_text())
    head.write_text(json.dumps({**told, "due": True}))
    for name in (
        "model.safetensors",
        "progress/epoch_0002.webp",
        "progress/day2night.gif",
        "epochs/epoch_0002.safetensors",
    ):
        (run / name).unlink()
    assert go(folders, run).epoch == 2
    after = contents(run)
    assert after.keys() == before.keys() and made(run) == whole
    assert all(after[name] == before[name] for name in before if name.startswith("progress/"))
    assert after["metrics.jsonl"] == before["metrics.jsonl"]


def spoil(run, **position):
    """Let the newest checkpoint be of elsewhere in the run; what the end of a run makes is gone."""
    head = heads(run)[-1]
    told = json.loads(head.read_text()) | position
    head.write_text(json.dumps({name: value for name, value in told.items() if value is not None}))
    for path in (*run.glob("progress/*.gif"), *run.glob("progress/*.webp"), run / "model.safetensors"):
        path.unlink()


def test_a_part_of_an_epoch_is_made_again_where_an_epoch_has_fewer_steps(folders, run, capsys):  # noqa: F811
    spoil(run, epochs=0.75, over=False)
    go(folders, run, epochs=1, batch=8)
    assert "going on after epoch 0.00" in capsys.readouterr().out
    assert checkpoint.load(run).position.epochs == 1 and read(run)[-1]["end_of_epoch"]
    assert viceversa.load(run).model.info["training"]["epoch"] == 1 and (run / "progress/day2night.gif").exists()


@pytest.mark.parametrize("over", [False, None], ids=["now", "by an older version"])
def test_a_run_that_is_over_by_what_is_asked_now_gets_its_end(folders, run, capsys, over):  # noqa: F811
    spoil(run, epochs=0.75, seconds=9.0, over=over)
    steps = checkpoint.load(run).position.step
    for words in ("done: ", "is finished: 0.75 epochs"):
        go(folders, run, epochs=5, minutes=0.1)
        assert words in capsys.readouterr().out and checkpoint.load(run).position.step == steps
        assert {"epoch_0001.webp", "day2night.gif"} <= {path.name for path in (run / "progress").iterdir()}
        assert viceversa.load(run).model.info["training"]["epoch"] == 1


def test_a_finished_run_of_an_older_version_is_finished(folders, run):  # noqa: F811
    head = heads(run)[-1]
    told = json.loads(head.read_text())
    assert told.pop("over")
    head.write_text(json.dumps(told))
    before = contents(run)
    go(folders, run)
    assert contents(run) == before


def test_what_a_finished_run_is_given_is_told(folders, run, capsys):  # noqa: F811
    go(folders, run, learning_rate=1e-3, cycle=7)
    said = capsys.readouterr().out
    assert "left to train with --learning-rate 0.001 --cycle 7.0: " in said and "from here on" not in said


def test_a_learning_rate_that_rises_again_is_told(folders, run, capsys):  # noqa: F811
    *before, last = read(run)
    lines = [*before, last | {"learning_rate": 6.7e-5}]
    (run / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    go(folders, run, epochs=3)
    assert "the learning rate rises again, from 6.7e-05 to 0.0002" in capsys.readouterr().out
    go(folders, run, epochs=4)
    assert "rises" not in capsys.readouterr().out


# One process at a time


def test_a_second_process_is_refused_and_the_first_goes_on(folders, tmp_path, monkeypatch):  # noqa: F811
    run, second = tmp_path / "run", []

    def another():
        second.append(subprocess.run(command(folders, run), capture_output=True, text=True))

    monkeypatch.setattr(sys, "stdout", Hearing("epoch 1/", another))
    went_on = go(folders, run)
    (refused,) = second
    assert refused.returncode == 2
    assert f"is being trained by process {os.getpid()} on {socket.gethostname()} since" in refused.stderr
    assert [line["epoch"] for line in went_on.losses if line.get("end_of_epoch")] == [1, 2]


def test_what_dead_processes_left_is_taken_over_and_removed(folders, run):  # noqa: F811
    (run / ".holder.json").write_text(json.dumps({"host": "elsewhere", "process": 1, "since": "yesterday"}))
    left = (".config.77.partial.json", "progress/.epoch_0001.77.partial.webp", "checkpoint/.1a2b3c4d.partial")
    for name in left:
        (run / name).write_bytes(b"RIFF")
    go(folders, run)
    assert not [p for p in run.rglob(".*") if p.name != ".lock"]


def test_where_a_file_system_has_no_locks_that_is_said(folders, tmp_path, monkeypatch, capsys):  # noqa: F811
    def flock(fd, how):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    go(folders, tmp_path / "run", epochs=1)
    assert "this file system has no locks" in capsys.readouterr().out


def test_a_folder_that_comes_to_nothing_is_not_left(folders, tmp_path):  # noqa: F811
    with pytest.raises(BadInput):
        go((folders[0], tmp_path / "nowhere"), tmp_path / "a" / "b" / "run")
    assert not (tmp_path / "a").exists()


# What may change


def test_what_changes_no_meaning_changes_without_a_word(folders, run, capsys):  # noqa: F811
    go(folders, run, epochs=3, checkpoint_activations=True, log="tensorboard", patience=3, keep=5)
    assert "from here on" not in capsys.readouterr().out
    assert json.loads((run / "config.json").read_text())["changes"] == []


def test_advice_can_be_followed_and_is_kept(folders, run, capsys):  # noqa: F811
    lines = read(run)
    go(folders, run, epochs=4, learning_rate=1e-4, batch=2, cycle=5.0, precision="auto")
    said = capsys.readouterr().out
    for words in ("--learning-rate is 0.0001, it was 0.0002", "--batch is 2, it was 1", "--cycle is 5.0, it was 10.0"):
        assert f"from here on {words}" in said
    (change,) = json.loads((run / "config.json").read_text())["changes"]
    assert change["epochs"] == 2 and change["learning_rate"] == [2e-4, 1e-4] and change["batch"] == [1, 2]
    after = read(run)
    assert after[: len(lines)] == lines  # none is lost, though an epoch has half as many steps now
    assert [line["step"] for line in after if line.get("end_of_epoch")] == [8, 16, 20, 24]
    assert [line["epoch"] for line in after if line.get("end_of_epoch")] == [1, 2, 3, 4]
    go(
        folders, run, epochs=5, learning_rate=1e-4, batch=2, cycle=5.0, precision="auto"
    )  # from the newest, not the highest
    assert read(run)[: len(after)] == after and "from here on" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("choices", "named"),
    [({"width": 8}, "--width 8 instead of --width 4"), ({"seed": 4}, "--seed"), ({"names": ("x", "y")}, "--names"),
     ({"crop": 28}, "--crop"), ({"projected": 1.0}, "--projected"), ({"tint": 1.0}, "--tint"),
     ({"discriminator_norm": False}, "--no-discriminator-norm instead of --discriminator-norm"),
     ({"ema": 0.5}, "--ema")],
)  # fmt: skip
def test_what_cannot_change_is_named(folders, run, choices, named):  # noqa: F811
    before = contents(run)
    with pytest.raises(BadInput, match=named):
        go(folders, run, epochs=3, **choices)
    assert contents(run) == before


def test_a_run_goes_on_with_its_own_settings_and_what_is_given_this_time(folders, run, capsys):  # noqa: F811
    """Nobody has to repeat --recipe and all flags; what was taken from the run is said in a line."""
    was = json.loads((run / "config.json").read_text())["settings"]
    assert main(["train", *map(str, folders), "--out", str(run), "--epochs", "3", "--cycle", "5"]) == 0
    said = capsys.readouterr().out
    (line,) = [line for line in said.splitlines() if line.startswith(f"{run} goes on with its own settings: ")]
    assert (
        all(f" {words}" in line for words in ("--decay-epochs 0", "--crop 32", "--device cpu")) and "cycle" not in line
    )
    assert "from here on --cycle is 5.0, it was 10.0" in said and said.count("from here on") == 1
    now = json.loads((run / "config.json").read_text())["settings"]
    assert now == was | {"epochs": 3, "cycle": 5.0, "out": str(run), "names": ["day", "night"]}
    assert viceversa.train(*folders, out=run, epochs=4).epoch == 4  # also in Python
    assert json.loads((run / "config.json").read_text())["settings"]["cycle"] == 5.0


def test_a_run_keeps_its_recipe_unless_another_is_named(folders, tmp_path, capsys):  # noqa: F811
    run = str(tmp_path / "run")
    arguments = ["train", *map(str, folders), "--out", run]
    small = ["--size", "36", "--crop", "32", "--width", "4", "--blocks", "1", "--log", "none", "--device", "cpu"]
    assert (
        main([*arguments, "--recipe", "colour", "--channels", "3", "3", *small, "--epochs", "1", "--decay-epochs", "0"])
        == 0
    )
    capsys.readouterr()
    assert main(arguments) == 0  # nothing is left to do, and nothing is refused
    assert "is finished: 1 epochs" in capsys.readouterr().out
    for recipe in ([], ["--recipe", "colour"]):
        epochs = "3" if recipe else "2"
        assert main([*arguments, *recipe, "--epochs", epochs]) == 0
        said = capsys.readouterr().out
        assert "--recipe colour" in said and "--channels 3 3" in said and "from here on" not in said
    assert main([*arguments, "--recipe", "paper", "--epochs", "4"]) == 2  # which has other networks
    assert "holds a run with other settings" in capsys.readouterr().err


def test_minutes_hold_until_epochs_are_asked_for(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    settings = {"recipe": "photo", "minutes": 30.0, "epochs": 5, "channels": [1, 3], "of the future": 1, "seed": 4}
    (run / "config.json").write_text(json.dumps({"settings": settings}))
    same = make(Train, a="day", out=run)
    assert (same.recipe, same.minutes, same.epochs, same.channels, same.seed) == ("photo", 30, 5, (1, 3), None)
    assert make(Train, a="day", out=run, epochs=9).minutes is None
    assert make(Train, a="day", out=run, epochs=9, minutes=7.0).minutes == 7
    for arguments in (["--epochs", "9"], ["--epochs=9"], ["--minutes", "60"], []):
        asked = parse(["train", "day", "--out", str(run), *arguments])
        assert asked.minutes == (None if "9" in " ".join(arguments) else 60 if arguments else 30)
    (run / "config.json").write_text("[]")
    assert make(Train, a="day", out=run) == Train(a="day", out=run)  # that it is no run is said when it begins


# Images


@pytest.fixture
def moved(folders, run, tmp_path):  # noqa: F811
    """The same photos and the same run, elsewhere, under other names."""
    there = [Path(shutil.copytree(folder, tmp_path / f"archive-{folder.name}")) for folder in folders]
    return there, Path(shutil.copytree(run, tmp_path / "moved"))


def test_moved_photos_and_a_moved_run_go_on(moved):
    photos, run = moved
    went_on = go(photos, run, epochs=3)
    assert went_on.epoch == 3 and went_on.domains == ("day", "night")


def test_other_photos_are_noticed_in_numbers_and_gone_on_with_when_asked(moved, capsys):
    photos, run = moved
    held = set(json.loads((run / "config.json").read_text())["kept_out"]["a"])
    in_training = sorted(path for path in photos[0].iterdir() if path.name not in held)
    in_training[0].unlink()
    Image.new("RGB", (48, 40), "red").save(in_training[1])  # another picture under the same name
    for n in range(3):
        Image.new("RGB", (48, 40), (n, 0, 0)).save(photos[1] / f"new{n}.png")
    before = contents(run)
    with pytest.raises(
        BadInput, match=r"day: 1 new or changed, 2 missing; night: 3 new or changed, 0 missing.*--images"
    ):
        go(photos, run, epochs=3)
    assert contents(run) == before
    assert go(photos, run, epochs=3, images="changed").epoch == 3
    config = json.loads((run / "config.json").read_text())
    assert config["images"] == {"a": 7, "b": 11, "test_a": 4, "test_b": 4}
    assert set(config["kept_out"]["a"]) == held  # what was never trained on still is not
    capsys.readouterr()
    assert go(photos, run, epochs=4).epoch == 4  # the list is the new one now


def test_pictures_of_one_size_that_changed_are_noticed(folders, tmp_path):  # noqa: F811
    """All BMPs of so many pixels are as large as each other."""
    photos, run = [tmp_path / "day", tmp_path / "night"], tmp_path / "run"
    for source, there in zip(folders, photos, strict=True):
        there.mkdir()
        for path in source.iterdir():
            Image.open(path).save(there / f"{path.stem}.bmp")
    go(photos, run, epochs=1)
    kept_out = json.loads((run / "config.json").read_text())["kept_out"]["a"]
    trained = sorted(path for path in photos[0].iterdir() if path.name not in kept_out)
    for path in trained[:3]:
        Image.new("RGB", (48, 40), "red").save(path)
    with pytest.raises(BadInput, match=r"began with \(day: 3 changed\)"):
        go(photos, run)
    told = json.loads((run / "images.json").read_text())
    older = {kind: [picture[:2] for picture in pictures] for kind, pictures in told.items()}
    (run / "images.json").write_text(json.dumps(older))  # which knew names and sizes alone
    assert go(photos, run).epoch == 2
    assert json.loads((run / "images.json").read_text())["a"] != told["a"]


def test_broken_test_images_are_said(folders, tmp_path, capsys):  # noqa: F811
    tests = Path(shutil.copytree(folders[0], tmp_path / "tests"))
    first, *_ = sorted(tests.iterdir())
    first.write_bytes(b"no picture")
    for path in sorted(tests.iterdir())[2:]:
        path.unlink()
    go(folders, tmp_path / "run", epochs=1, test_a=str(tests))
    said = capsys.readouterr().out
    assert "1 test image of day cannot be read" in said
    assert "day (12 images) <-> night (8 images, 4 kept out)" in said


def test_images_of_one_name_in_several_folders_go_on(folders, tmp_path, capsys):  # noqa: F811
    photos = [tmp_path / "day", tmp_path / "night"]
    for source, there in zip(folders, photos, strict=True):
        for camera in ("one", "two", "three"):
            shutil.copytree(source, there / camera)
        shutil.copytree(source, there, dirs_exist_ok=True)
    go(photos, tmp_path / "run")
    before = json.loads((tmp_path / "run" / "config.json").read_text())
    assert before["images"]["a"] == 44 and len(before["kept_out"]["a"]) == 4
    assert go(photos, tmp_path / "run", epochs=3).epoch == 3
    after = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (after["images"], after["kept_out"]) == (before["images"], before["kept_out"])


def test_a_list_in_any_order_goes_on(folders, tmp_path):  # noqa: F811
    names = [*map(str, sorted(folders[0].iterdir()))]
    (tmp_path / "list.txt").write_text("\n".join([*names[6:], *names[:6], names[0]]))
    sources = tmp_path / "list.txt", folders[1]
    go(sources, tmp_path / "run")
    assert go(sources, tmp_path / "run", epochs=3).epoch == 3


def test_the_same_images_in_another_order_are_called_so(moved):
    photos, run = moved
    held = set(json.loads((run / "config.json").read_text())["kept_out"]["a"])
    last = max(path for path in photos[0].iterdir() if path.name not in held)
    (photos[0] / "0").mkdir()
    last.rename(photos[0] / "0" / last.name)  # now the first
    with pytest.raises(BadInput, match="day: in another order"):
        go(photos, run, epochs=3)


def test_a_finished_run_is_not_taken_for_one_on_other_images(run, tmp_path):
    with pytest.raises(BadInput, match="no such file or folder"):
        go((tmp_path / "cats", tmp_path / "dogs"), run)
    for n, name in enumerate(("cats", "dogs")):
        (tmp_path / name).mkdir()
        for shade in range(6):
            Image.new("RGB", (48, 40), (n, shade, 0)).save(tmp_path / name / f"{shade}.png")
    with pytest.raises(BadInput, match="or name another --out"):
        go((tmp_path / "cats", tmp_path / "dogs"), run, names=("day", "night"))


def test_what_has_trained_nothing_may_be_begun_otherwise(folders, run):  # noqa: F811
    shutil.rmtree(run / "checkpoint")
    for name in ("model.safetensors", "best.safetensors"):
        (run / name).unlink(missing_ok=True)
    assert go(folders, run, width=2, epochs=1, seed=None).epoch == 1
    assert json.loads((run / "config.json").read_text())["seed"] == SHORT["seed"]


def test_a_finished_run_needs_no_images(folders, run, tmp_path):  # noqa: F811
    photos = [Path(shutil.copytree(folder, tmp_path / "there" / folder.name)) for folder in folders]
    go(photos, run, epochs=3)
    shutil.rmtree(tmp_path / "there")
    assert go(photos, run, epochs=3).epoch == 3


def test_tests_that_come_later_are_taken_and_said(folders, tmp_path, capsys):  # noqa: F811
    root, run = tmp_path / "root", tmp_path / "run"
    for folder, name in zip(folders, ("trainA", "trainB"), strict=True):
        shutil.copytree(folder, root / name)
    viceversa.train(root, out=run, **SHORT)
    before = json.loads((run / "config.json").read_text())
    for side in "AB":
        (root / f"test{side}").mkdir()
        for n in range(2):
            Image.new("RGB", (48, 40), (9, n, 9)).save(root / f"test{side}" / f"{n}.png")
    capsys.readouterr()
    viceversa.train(root, out=run, **{**SHORT, "epochs": 3})
    said = capsys.readouterr().out
    assert said.count("2 test images of") == 2 and "the 4 that were kept out of training stay out of it" in said
    after = json.loads((run / "config.json").read_text())
    assert after["images"] == {"a": 8, "b": 8, "test_a": 2, "test_b": 2}
    assert after["kept_out"] == before["kept_out"]


@pytest.mark.parametrize("where", ["day", "day/deep/run", "night/run"])
def test_a_run_among_its_images_is_refused(folders, tmp_path, where):  # noqa: F811
    day, night = (Path(shutil.copytree(folder, tmp_path / folder.name)) for folder in folders)
    before = contents(tmp_path)
    with pytest.raises(BadInput, match="--out"):
        go((day, night), tmp_path / where)
    assert contents(tmp_path) == before


# Models of earlier epochs


def test_models_of_epochs_are_kept_and_used(folders, tmp_path):  # noqa: F811
    run = go(folders, tmp_path / "run", epochs=2, ema=0.9)
    image = Image.open(sorted(folders[0].iterdir())[0])
    kept = sorted(path.name for path in (run.folder / "epochs").iterdir())
    assert kept[0] == "epoch_0001.safetensors" and kept[-1] == "epoch_0002.safetensors"
    first, last = (viceversa.load(run, epoch=epoch) for epoch in (1, 2))
    assert first.model.info["training"]["epoch"] == 1
    made_by = [np.asarray(model(image, to="night")) for model in (first, last, viceversa.load(run))]
    assert not np.array_equal(made_by[0], made_by[1]) and np.array_equal(made_by[1], made_by[2])
    with pytest.raises(BadInput, match=r"epoch 7 .*is not kept; those kept are 1, 2"):
        viceversa.load(run, epoch=7)
    with pytest.raises(BadInput, match="run folder"):
        viceversa.load(run.folder / "model.safetensors", epoch=1)
    # A checkpoint is a model too: the moving average, as everywhere.
    newest = heads(run.folder)[-1].with_suffix(".safetensors")
    assert resolve(run.folder / "checkpoint") == newest
    for model in (newest, run.folder / "checkpoint"):
        assert np.array_equal(np.asarray(viceversa.load(model)(image, to="night")), made_by[1])


def test_so_many_models_are_kept_evenly_spread(tmp_path):
    for epoch in range(1, 101):
        (tmp_path / "model.safetensors").unlink(missing_ok=True)
        (tmp_path / "model.safetensors").write_text(f"of epoch {epoch}")
        keep_epoch(tmp_path, epoch, keep=10)
        kept = sorted((tmp_path / "epochs").iterdir())
        assert len(kept) <= 10 and (epoch < 2 or len(kept) >= min(epoch, 5))
    assert [path.name for path in kept] == [f"epoch_{epoch:04}.safetensors" for epoch in (*range(16, 97, 16), 100)]
    assert kept[0].read_text() == "of epoch 16"
    keep_epoch(tmp_path, 101, keep=0)
    assert not list((tmp_path / "epochs").iterdir())
    for epoch in range(7, 1001, 7):  # of short epochs not every end is looked at
        keep_epoch(tmp_path, epoch, keep=10)
    assert 5 <= len(list((tmp_path / "epochs").iterdir())) <= 10


# A full disk


@pytest.mark.parametrize("what", ["model.safetensors", "metrics.jsonl"])
def test_a_full_disk_is_told_in_one_line_that_says_where(tmp_path, what):
    spec = Generator(width=4, blocks=1)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    metrics = Metrics(tmp_path, ("day", "night"), tensorboard=False)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limit[1]))
    where = tmp_path / what if what == "model.safetensors" else tmp_path
    words = rf"^cannot write {where}: \S.*; what was saved before is good$"
    try:
        with pytest.raises(Failed, match=words) as told, in_words(tmp_path):
            if what == "model.safetensors":
                save_model(tmp_path / what, Model({"ab": spec.build()}, ("day", "night")))
            else:
                for step in range(100):
                    metrics.losses(step, 1, 0.0, {"cycle/a": 1.0}, 2e-4, 1.0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert "\n" not in str(told.value) and not list(tmp_path.glob("*.safetensors"))


# The caller's process


def test_the_caller_is_left_as_it_was_and_hears_nothing_when_quiet(folders, run, capfd):  # noqa: F811
    def state():
        backends = torch.backends
        flags = backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32, backends.cudnn.benchmark
        return torch.get_num_threads(), flags, torch.distributed.is_initialized(), Image.MAX_IMAGE_PIXELS, os.getcwd()

    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)  # the run keeps to those that it began with
    try:
        before = state()
        went_on = go(folders, run, epochs=3, quiet=True)
        assert state() == before and capfd.readouterr() == ("", "")
    finally:
        torch.set_num_threads(threads)
    assert re.fullmatch(r"Run\(.*, day <-> night, 3 epochs, [\d:]+\)", repr(went_on))


def test_ends_of_epochs_take_little_of_the_time_but_the_last_is_always_shown(folders, tmp_path):  # noqa: F811
    for side, folder in zip("ab", folders, strict=True):
        (tmp_path / side).mkdir()
        shutil.copy(folder / "00.png", tmp_path / side)
    run = go((tmp_path / "a", tmp_path / "b"), tmp_path / "run", epochs=40)  # of one step each
    shown = [epoch for epoch, _ in run.stills]
    assert shown[0] == 1 and shown[-1] == 40 and len(shown) < 10
    assert [line["epoch"] for line in run.losses if line.get("end_of_epoch")] == [*range(1, 41)]
    weights = load_file(run.folder / "model.safetensors")
    newest = load_file(heads(run.folder)[-1].with_suffix(".safetensors"))
    assert all(torch.equal(weights[name], newest[name]) for name in weights)


# Signals, memory, processes


def test_a_second_signal_ends_at_once_and_what_is_ignored_stays_so():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with Stop() as stop:
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            os.kill(os.getpid(), signal.SIGINT)
            assert stop.signal == signal.SIGINT
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
                signal.sigtimedwait([], 1)
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "out of memory; what was saved before, if anything was, is good"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"), "a lower --batch"),
        (RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed by peer"), "a process of this run was lost"),
        (OSError(5, "Input/output error", "/run/x"), "cannot write /run/x: Input/output error; what was saved before"),
        (BrokenPipeError(32, "Broken pipe"), "cannot write standard output: Broken pipe"),
    ],
)
def test_what_breaks_a_run_is_one_line_that_says_what_helps(tmp_path, error, words):
    with pytest.raises(Failed, match=words), in_words(tmp_path):
        raise error
    with pytest.raises(RuntimeError, match=r"^a fault of ours$"), in_words(tmp_path):
        raise RuntimeError("a fault of ours")


def test_a_scored_run_goes_on_with_its_best(folders, tmp_path, capsys):  # noqa: F811
    pytest.importorskip("efficientnet_lite_pytorch", reason="the ruler lite0 is an extra")
    scored = {
        "score": "kid",
        "score_every": 1,
        "features": "lite0",
        "test_a": str(folders[0]),
        "test_b": str(folders[1]),
    }
    go(folders, tmp_path / "run", **scored)
    best = (tmp_path / "run" / "best.safetensors").read_bytes()
    had = checkpoint.load(tmp_path / "run").position.best
    # At next to no rate nothing gets better by more than it was.
    still = go(folders, tmp_path / "run", epochs=4, learning_rate=1e-30, **scored)
    after = checkpoint.load(tmp_path / "run").position
    assert after.best <= had and "scores begin anew" not in capsys.readouterr().out
    assert ((tmp_path / "run" / "best.safetensors").read_bytes() == best) == (after.best == had)
    assert [score["epoch"] for score in still.scores] == [1, 2, 3, 4]
    other = go(folders, tmp_path / "run", epochs=5, learning_rate=1e-30, **scored | {"score": "frechet"})
    assert "scores begin anew" in capsys.readouterr().out
    assert [(score["epoch"], score["kind"]) for score in other.scores] == [(5, "frechet")]
    assert checkpoint.load(tmp_path / "run").position.best != after.best
    go(folders, tmp_path / "run", epochs=9, learning_rate=1e-30, patience=1, **scored | {"score": "frechet"})
    capsys.readouterr()
    ended = go(folders, tmp_path / "run", epochs=9, learning_rate=1e-30, patience=1, **scored | {"score": "frechet"})
    assert ended.epoch < 9 and "early, 1 score in a row were no better" in capsys.readouterr().out
    tests = {"score": "frechet", "patience": 0, "test_a": str(folders[1])}
    last = go(folders, tmp_path / "run", epochs=ended.epoch + 1, **scored | tests)
    assert [score["epoch"] for score in last.scores] == [ended.epoch + 1]

"""Training end to end, in processes of its own: resume to the last bit, signals, and what goes wrong."""

import errno
import hashlib
import io
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from contextlib import nullcontext, suppress
from pathlib import Path

import numpy as np
import pytest
import torch
import torch._inductor.config
from patience import LONG
from PIL import Image
from safetensors.torch import load_file

import viceversa
from viceversa.device import why_not_compile
from viceversa.errors import BadInput, Failed, Interrupted
from viceversa.training import checkpoint
from viceversa.training.schedule import Schedule

SMALL = """
    --size 36 --crop 32 --width 4 --blocks 1 --discriminator-layers 2 --history 5 --epochs 4
    --decay-epochs 2 --seed 3 --precision fp32 --device cpu --log none
""".split()


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    source = np.random.default_rng(0)
    for name, tint in (("day", (255, 220, 160)), ("night", (60, 70, 120))):
        (root / name).mkdir()
        for n in range(12):
            pixels = source.random((6, 6, 1)) * np.array(tint)
            Image.fromarray(pixels.astype(np.uint8)).resize((48, 40)).save(root / name / f"{n:02}.png")
    return root / "day", root / "night"


def command(folders, out, *more):
    return [sys.executable, "-m", "viceversa", "train", *map(str, folders), "--out", str(out), *SMALL, *more]


def go(folders, out, *more, **options):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command(folders, out, *more), capture_output=True, text=True, env=environment, timeout=LONG, **options
    )


def start(folders, out):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command(folders, out), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


class Hearing(io.StringIO):
    """Standard output at which something happens when a line is printed that begins so, once: an event within a run."""

    def __init__(self, line, happens):
        super().__init__()
        self.line, self.happens = line, happens

    def write(self, text):
        if self.line and text.startswith(self.line):
            self.line = ""
            self.happens()
        return super().write(text)


def made(run: Path) -> dict[str, str]:
    """What a run has made, byte for byte: checksums of all tensors of its last checkpoint, and of its model."""
    newest = max((run / "checkpoint").glob("*.json"), key=lambda path: json.loads(path.read_text())["seconds"])
    files = {"checkpoint": newest.with_suffix(".safetensors"), "model": run / "model.safetensors"}
    return {
        f"{what} {name}": hashlib.sha256(tensor.numpy().tobytes()).hexdigest()
        for what, file in files.items()
        for name, tensor in load_file(file).items()
    }


def stills_alike(run: Path, other: Path) -> int:
    """How many epochs both runs show; their pictures are the same. (Not all are shown: see SHARE.)"""
    first, second = ({path.name: path.read_bytes() for path in r.glob("progress/epoch_*.webp")} for r in (run, other))
    both = first.keys() & second.keys()
    assert all(first[name] == second[name] for name in both)
    return len(both)


def times(run: Path, pattern: str) -> dict[Path, int]:
    """When the files that fit the pattern were written."""
    found = {}
    for path in run.glob(pattern):
        with suppress(FileNotFoundError):  # a temporary one, which has its real name by now
            found[path] = path.stat().st_mtime_ns
    return found


def until(process, run: Path, pattern: str):
    """Wait until a file that fits the pattern is written (again) in the folder of a run that goes on."""
    before = times(run, pattern)
    deadline = time.monotonic() + LONG
    while times(run, pattern).items() <= before.items():
        if process.poll() == 0:
            return  # over: `struck` sees to it
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.002)


def struck(folders, run: Path, events, number: int) -> str | None:
    """What a run said that got a signal at each of these events, and was started again in between; None where one was
    over before the signal: on a busy machine this process may come too late."""
    for event in events:
        process = start(folders, run)
        until(process, run, event)
        process.send_signal(number)
        said = process.communicate(timeout=LONG)[1]
        if process.returncode == 0:
            return None
        assert process.returncode == (-number if number == signal.SIGKILL else 128 + number), said
    return said


def struck_run(folders, root: Path, events, number: int) -> tuple[Path, str]:
    """A run into which the signals fell, at the tenth attempt at the latest, and what it said last."""
    for attempt in range(10):
        run = root / f"run {attempt}"
        if (said := struck(folders, run, events, number)) is not None:
            return run, said
    raise AssertionError("every run was over before the signal")


@pytest.fixture(scope="module")
def whole(folders, tmp_path_factory):
    """An undisturbed run of six epochs."""
    run = tmp_path_factory.mktemp("whole") / "run"
    result = go(folders, run)
    assert result.returncode == 0, result.stderr
    return run


def test_leaves_the_run_folder_of_the_design(whole):
    names = {p.name for p in whole.iterdir()}
    assert names == {
        "config.json", "images.json", "checkpoint", "epochs", "model.safetensors", "progress", "metrics.jsonl", ".lock"
    }  # fmt: skip
    films = {f"{name}.{ending}" for name in ("day2night", "night2day") for ending in ("gif", "webp")}
    progress = {p.name for p in (whole / "progress").iterdir()}
    assert {"epoch_0001.webp", "epoch_0006.webp", "layout.json", "day2night.gif", "night2day.gif"} <= progress
    assert progress - films <= {"layout.json", *(f"epoch_{epoch:04}.webp" for epoch in range(1, 7))}
    assert len(list((whole / "checkpoint").glob("*.safetensors"))) == 2
    lines = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    ends = [line for line in lines if line.get("end_of_epoch")]
    assert [line["epoch"] for line in ends] == [1, 2, 3, 4, 5, 6]
    assert [line["learning_rate"] for line in ends] == pytest.approx([2e-4] * 4 + [2e-4 * 2 / 3, 2e-4 / 3])
    config = json.loads((whole / "config.json").read_text())
    assert config["domains"] == ["day", "night"] and config["images"]["a"] == 8  # four are held out


EVENTS = ("config.json", "metrics.jsonl", "checkpoint/*.json", "progress/epoch_*.webp", "model.safetensors", "epochs/*")


def test_killed_three_times_at_random_it_ends_as_if_nothing_had_happened(folders, whole, tmp_path):
    run, _ = struck_run(folders, tmp_path, random.sample(EVENTS, 3), signal.SIGKILL)
    result = go(folders, run)
    assert result.returncode == 0, result.stderr
    assert made(run) == made(whole) and stills_alike(run, whole) >= 2
    assert not list(run.rglob("*.partial*"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted_it_saves_and_goes_on(folders, whole, tmp_path, number):
    run, said = struck_run(folders, tmp_path, ["checkpoint/*.json"], number)
    assert said.splitlines()[-1].startswith("viceversa: interrupted in epoch"), said
    assert not list(run.glob("progress/*.gif"))  # they take long: at the end of a run
    assert go(folders, run).returncode == 0
    assert made(run) == made(whole)


@pytest.mark.parametrize("interrupted", [False, True])
def test_a_reader_that_goes_away_ends_nothing(folders, tmp_path, monkeypatch, capfd, interrupted):
    """`| head`; and `| tee` at Ctrl-C, which ends tee, too: all is saved before the run ends."""

    def gone():
        if interrupted:
            os.kill(os.getpid(), signal.SIGINT)
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", said := Hearing("epoch 1/2, ", gone))
        with pytest.raises(Interrupted, match="all saved") if interrupted else nullcontext():
            viceversa.train(*folders, out=run, **{**PYTHON, "epochs": 2, "decay_epochs": 0})
    told = capfd.readouterr().err
    assert told.count("viceversa: ") == 1
    assert told.endswith("viceversa: cannot write standard output: Broken pipe; goes on without\n")
    position = checkpoint.load(run).position
    assert position.epochs > 1 if interrupted else (position.epochs, position.over) == (2, True)
    assert (run / "progress" / "day2night.gif").exists() != interrupted and "epoch 1/2" not in said.getvalue()


def test_the_program_ends_well_without_its_reader(folders, tmp_path):
    run = tmp_path / "run"
    process = subprocess.Popen(
        command(folders, run, "--epochs", "1", "--decay-epochs", "0"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read().count(b"cannot write standard output") == 1
    assert process.wait(240) == 0 and (run / "model.safetensors").exists()


@pytest.mark.parametrize("log", ["none", "tensorboard"])
def test_a_run_folder_that_is_moved_away_is_not_made_again(folders, tmp_path, monkeypatch, capfd, log):
    run, there = tmp_path / "run", tmp_path / "there"
    monkeypatch.setattr(sys, "stdout", Hearing("epoch 1/2, ", lambda: run.rename(there)))
    short = {**PYTHON, "epochs": 2, "decay_epochs": 0, "log": log}
    with pytest.raises(Failed, match=rf"^{run} was moved or removed while it trained") as told:
        viceversa.train(*folders, out=run, **short)
    assert "\n" not in str(told.value) and "Traceback" not in capfd.readouterr().err and not run.exists()
    assert viceversa.train(*folders, out=there, **short).epoch == 2


def test_a_finished_run_says_so_and_how_to_go_on(folders, whole):
    before = made(whole)
    result = go(folders, whole)
    assert result.returncode == 0 and "finished" in result.stdout and "--epochs" in result.stdout
    assert made(whole) == before


def test_other_settings_are_named(folders, whole):
    result = go(folders, whole, "--width", "8", "--cycle", "5")
    assert result.returncode == 2 and "--width 8 instead of --width 4" in result.stderr
    assert "Traceback" not in result.stderr and result.stderr.count("\n") == 1


def test_a_checkpoint_cut_in_half_is_told_and_the_older_one_used(folders, tmp_path):
    run = tmp_path / "run"
    assert go(folders, run, "--epochs", "2", "--decay-epochs", "0").returncode == 0
    newest = sorted((run / "checkpoint").glob("*.safetensors"))[-1]
    newest.write_bytes(newest.read_bytes()[: newest.stat().st_size // 2])
    result = go(folders, run, "--epochs", "2", "--decay-epochs", "0")
    assert result.returncode == 0 and "broken" in result.stdout and "older" in result.stdout
    assert "done" in result.stdout


def test_a_full_disk_keeps_the_previous_checkpoint(folders, tmp_path):
    run = tmp_path / "run"
    assert go(folders, run, "--epochs", "1", "--decay-epochs", "0").returncode == 0
    before = {p.name: p.read_bytes() for p in (run / "checkpoint").iterdir()}

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))

    result = go(folders, run, "--epochs", "3", "--decay-epochs", "0", preexec_fn=limit)
    assert result.returncode == 1 and "Traceback" not in result.stderr, result.stderr
    assert "cannot write" in result.stderr or "too large" in result.stderr
    assert {p.name: p.read_bytes() for p in (run / "checkpoint").iterdir()} == before
    assert go(folders, run, "--epochs", "3", "--decay-epochs", "0").returncode == 0


def test_a_loss_that_is_no_number_stops_and_keeps_the_model(folders, tmp_path):
    run = tmp_path / "run"
    assert go(folders, run, "--epochs", "1", "--decay-epochs", "0", "--learning-rate", "1e30").returncode == 1
    assert not (run / "model.safetensors").exists()
    with pytest.raises(Failed, match="is not a number in epoch 1"):
        viceversa.train(*folders, out=run, **{**PYTHON, "epochs": 1, "learning_rate": 1e30, "decay_epochs": 0})


@pytest.mark.parametrize("gradients", ["right", "twice"])
def test_what_is_compiled_is_compared_with_what_was_written(folders, tmp_path, monkeypatch, capsys, gradients):
    """By a compiler that is none: what it makes has the same values, and perhaps other gradients."""

    def compiled(parts):
        for part in parts if gradients == "twice" else ():
            part.register_forward_hook(lambda _, given, made: 2 * made - made.detach())

    monkeypatch.setattr("viceversa.training.setup.worth_compiling", lambda *_, **__: True)
    monkeypatch.setattr("viceversa.training.setup.why_not_compile", lambda device: None)
    monkeypatch.setattr("viceversa.training.setup.compile_parts", compiled)
    monkeypatch.setattr("viceversa.training.train.compile_parts", lambda parts: None)
    run = viceversa.train(*folders, out=tmp_path / "run", **{**PYTHON, "epochs": 1, "decay_epochs": 0})
    assert run.config["how"]["compile"] == (gradients == "right")
    assert ("compiler makes wrong gradients" in capsys.readouterr().out) == (gradients == "twice")


@pytest.mark.slow
def test_a_compiler_that_makes_wrong_gradients_is_not_used(folders, tmp_path, monkeypatch, capsys):
    if reason := why_not_compile(torch.device("cpu")):
        pytest.skip(f"torch.compile does not work here: {reason}")
    monkeypatch.setattr("viceversa.training.setup.worth_compiling", lambda *_, **__: True)
    choices = {**PYTHON, "epochs": 1, "decay_epochs": 0, "discriminator": "pixel"}  # the least to compile
    torch.compiler.reset()
    with torch._inductor.config.patch({"force_disable_caches": True, "cpp.inject_relu_bug_TESTING_ONLY": "accuracy"}):
        wrong = viceversa.train(*folders, out=tmp_path / "wrong", **choices)
    assert "compiler makes wrong gradients" in capsys.readouterr().out and not wrong.config["how"]["compile"]
    torch.compiler.reset()  # this process keeps what it compiled
    right = viceversa.train(*folders, out=tmp_path / "right", **choices)
    assert right.config["how"]["compile"]


PYTHON = {
    "size": 36, "crop": 32, "width": 4, "blocks": 1, "discriminator_layers": 2, "history": 5, "seed": 3,
    "precision": "fp32", "device": "cpu", "log": "none",
}  # fmt: skip


def test_scores_choose_the_best_epoch_and_leave_the_weights_alone(folders, tmp_path):
    pytest.importorskip("efficientnet_lite_pytorch", reason="the ruler lite0 is an extra")
    day, night = folders
    tests = {"test_a": day, "test_b": night}
    choices = {**PYTHON, "epochs": 3, "decay_epochs": 1}
    plain = viceversa.train(day, night, out=tmp_path / "plain", **tests, **choices)
    scored = viceversa.train(
        day, night, out=tmp_path / "scored", score="kid", features="lite0", score_every=1, **tests, **choices
    )
    assert made(plain.folder) == made(scored.folder)
    assert [score["epoch"] for score in scored.scores] == [1, 2, 3, 4]
    best = min(scored.scores, key=lambda score: score["mean"])
    again = viceversa.evaluate(
        scored.folder / "best.safetensors", day, night, features="lite0", device="cpu", precision="fp32"
    )
    assert again["night"]["kid"] == pytest.approx(best["b"], abs=1e-6)
    assert again["day"]["kid"] == pytest.approx(best["a"], abs=1e-6)


def test_patience_stops_a_run_whose_score_gets_no_better(folders, tmp_path):
    pytest.importorskip("efficientnet_lite_pytorch", reason="the ruler lite0 is an extra")
    day, night = folders
    run = viceversa.train(
        day, night, out=tmp_path / "run", test_a=day, test_b=night, score="kid", features="lite0", score_every=1,
        patience=1, **{**PYTHON, "epochs": 40, "decay_epochs": 0, "learning_rate": 1e-12},
    )  # fmt: skip
    assert run.epoch < 40


def test_who_looks_on_is_given_the_run_at_each_end_and_may_end_it(folders, tmp_path):
    seen, choices = [], PYTHON | {"epochs": 200, "decay_epochs": 0, "out": tmp_path / "run"}

    def look(run):
        seen.append((run.epoch, len(run.losses) > 0, viceversa.load(run).model.info["training"]["epoch"]))
        return run.epoch >= 2

    run = viceversa.train(*folders, on_epoch=look, **choices)
    assert [epoch for epoch, *_ in seen] == [epoch for *_, epoch in seen] and all(has for _, has, _ in seen)
    assert 2 <= run.epoch == seen[-1][0] < 200 and list((run.folder / "progress").glob("*.gif"))
    more = choices | {"epochs": run.epoch + 1}
    assert viceversa.train(*folders, on_epoch=lambda run: None, **more).epoch == run.epoch + 1  # which goes on


def test_minutes_replace_the_epochs(folders, tmp_path):
    began = time.monotonic()
    run = viceversa.train(*folders, out=tmp_path / "run", minutes=0.05, **PYTHON)
    *before, last = [line["seconds"] for line in run.losses]
    assert all(seconds < 3 for seconds in before) and last >= 3 and run.seconds <= time.monotonic() - began
    rates = [line["learning_rate"] for line in run.losses]
    assert rates == sorted(rates, reverse=True) and max(rates) <= 2e-4
    clock = Schedule(epochs=4, decay_epochs=4, minutes=0.05, start=2e-4, steps_per_epoch=8)
    assert [clock.learning_rate(0, seconds) for seconds in (0, 1.5, 2.25, 3)] == pytest.approx([2e-4, 2e-4, 1e-4, 0])
    image = viceversa.load(run)(Image.new("RGB", (21, 13)), to="night")
    assert image.size == (21, 13)


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({"crop": 40}, "larger than --size"),
        ({"crop": 30}, "multiples of 4"),
        ({"generator": "unet"}, "multiples of 128"),
        ({"channels": (1, 3)}, "--identity"),
        ({"device": "cuda:7"}, "cuda:7"),
        ({"device": "potato"}, "potato"),
        ({"epochs": 0, "decay_epochs": 0}, "nothing to train"),
        ({"minutes": 0}, "--minutes"),
        ({"ema": 1.5}, "--ema"),
        ({"colour": 1}, "colour"),
        ({"out": Path(__file__)}, "is a file"),
        ({"out": Path(__file__).parent}, "no run folder"),
    ],
)
def test_what_cannot_be_trained_is_said_before_anything_is_written(folders, tmp_path, choices, words):
    out = tmp_path / "run"
    with pytest.raises(BadInput, match=words):
        viceversa.train(*folders, **{"out": out, **PYTHON, **choices})
    assert not out.exists()


def test_gray_and_colour_domains(folders, tmp_path):
    run = viceversa.train(
        *folders, out=tmp_path / "run", channels=(1, 3), **{**PYTHON, "epochs": 1, "decay_epochs": 0, "identity": 0}
    )
    model = viceversa.load(run)
    assert model(np.zeros((16, 16, 1), np.uint8), to="night").shape == (16, 16, 3)


def test_log_likelihood_average_pixel_and_nearest(folders, tmp_path):
    run = viceversa.train(
        *folders, out=tmp_path / "run", adversarial="log-likelihood", ema=0.9, discriminator="pixel",
        upsample="nearest", batch=2, checkpoint_activations=True,
        **{**PYTHON, "epochs": 1, "decay_epochs": 1, "log": "tensorboard"},
    )  # fmt: skip
    assert all(np.isfinite(list(line["loss"].values())).all() for line in run.losses)
    assert list((run.folder / "tensorboard").iterdir())

"""metrics.jsonl and TensorBoard say the same, and a resumed run takes back what its checkpoint does not know."""

import io
import json
import threading
import time

import numpy as np
import pytest
from patience import LONG
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from viceversa.training.checkpoint import Position
from viceversa.training.metrics import Metrics, read

NAMES = ("day", "night")
MEANS = {"adversarial/ab": 0.5, "cycle/a": 1.25, "discriminator/b": 0.1 + 0.2}


def train(run, steps, at=None, tensorboard=False, scale=1.0):
    metrics = Metrics(run, NAMES, tensorboard, at)
    for step in steps:
        means = {key: scale * value for key, value in MEANS.items()}
        metrics.losses(step, 1 + step // 10, 0.5 * step, means, 2e-4, 12.5, end_of_epoch=step % 10 == 0)
    return metrics


def board(run):
    accumulator = EventAccumulator(str(run / "tensorboard"), size_guidance={"images": 0})
    accumulator.Reload()
    return accumulator


def test_lines_are_as_described(tmp_path):
    metrics = train(tmp_path, [5, 10])
    metrics.score(10, 1, 5.0, "kid", "lite0", 0.125, 0.25)
    metrics.warning(10, 1, 5.0, "Schön\u2028ist anders")
    metrics.score(10, 1, 5.0, "kid", "lite0", 0.5, 0.5, first=True)
    metrics.close()
    lines = (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    losses = {"adversarial/ab": 0.5, "cycle/a": 1.25, "discriminator/b": 0.3}
    speed = {"learning_rate": 2e-4, "images_per_second": 12.5}
    assert [json.loads(line) for line in lines] == [
        {"step": 5, "epoch": 1, "seconds": 2.5, "loss": losses, **speed},
        {"step": 10, "epoch": 2, "seconds": 5.0, "loss": losses, **speed, "end_of_epoch": True},
        {"step": 10, "epoch": 1, "seconds": 5.0,
         "score": {"kind": "kid", "features": "lite0", "a": 0.125, "b": 0.25, "mean": 0.1875}},
        {"step": 10, "epoch": 1, "seconds": 5.0, "warning": "Schön\u2028ist anders"},
        {"step": 10, "epoch": 1, "seconds": 5.0,
         "score": {"kind": "kid", "features": "lite0", "a": 0.5, "b": 0.5, "mean": 0.5}, "first": True},
    ]  # fmt: skip
    assert read(tmp_path) == [json.loads(line) for line in lines]
    assert not (tmp_path / "tensorboard").exists()


def test_each_line_is_on_the_disk_at_once(tmp_path):
    metrics = train(tmp_path, [1, 2])
    assert [entry["step"] for entry in read(tmp_path)] == [1, 2]
    metrics.close()


def test_a_run_without_numbers_reads_as_none(tmp_path):
    assert read(tmp_path) == []


@pytest.mark.parametrize("torn", ['{"step": 7, "epoch": 1, "los', '{"step"', "\x00" * 20, "[]"])
def test_what_a_kill_left_of_a_line_is_dropped(tmp_path, torn):
    train(tmp_path, [5, 6]).close()
    with open(tmp_path / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write(torn)
    assert [entry["step"] for entry in read(tmp_path)] == [5, 6]
    train(tmp_path, [7], Position(step=6, lines=2)).close()
    whole = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in whole] == [5, 6, 7]


def test_half_a_character_is_dropped_too(tmp_path):
    train(tmp_path, [5]).close()
    with open(tmp_path / "metrics.jsonl", "ab") as file:
        file.write('{"step": 6, "warning": "é'.encode()[:-1])
    assert [entry["step"] for entry in read(tmp_path)] == [5]


def test_a_resumed_run_has_the_lines_of_an_undisturbed_one(tmp_path):
    train(tmp_path / "once", range(1, 31)).close()
    train(tmp_path / "twice", range(1, 25), scale=3).close()  # killed; its checkpoint was of step 0
    train(tmp_path / "twice", range(1, 18)).close()  # killed; its checkpoint was of step 10
    train(tmp_path / "twice", range(11, 31), Position(step=10, lines=10)).close()
    once, twice = ((tmp_path / run / "metrics.jsonl").read_bytes() for run in ("once", "twice"))
    assert once == twice


def test_steps_that_count_from_another_place_lose_no_line(tmp_path):
    """Three processes made step 30 of what is step 90 to one: steps alone would cut away the first 60."""
    train(tmp_path, range(31, 91)).close()
    train(tmp_path, range(91, 93), Position(step=30, lines=60)).close()
    assert [entry["step"] for entry in read(tmp_path)] == [*range(31, 93)]


def test_a_checkpoint_that_counted_no_lines_cuts_by_its_step(tmp_path):
    train(tmp_path, range(1, 18)).close()
    train(tmp_path, [11], Position(step=10, lines=None)).close()
    assert [entry["step"] for entry in read(tmp_path)] == [*range(1, 12)]


def test_tensorboard_has_the_numbers_under_the_names_of_the_domains(tmp_path):
    metrics = train(tmp_path, [5], tensorboard=True)
    metrics.score(5, 1, 2.5, "kid", "lite0", 0.125, 0.25)
    metrics.warning(5, 1, 2.5, "something")
    metrics.close()
    found = board(tmp_path)
    values = {tag: found.Scalars(tag)[-1].value for tag in found.Tags()["scalars"]}
    assert values == pytest.approx(
        {
            "loss/adversarial/day2night": 0.5, "loss/cycle/day": 1.25, "loss/discriminator/night": 0.3,
            "learning_rate": 2e-4, "images_per_second": 12.5, "epoch": 1,
            "score/kid/day": 0.125, "score/kid/night": 0.25, "score/kid/mean": 0.1875,
        }
    )  # fmt: skip
    assert found.Tags()["tensors"] == ["warning/text_summary"]


def test_tensorboard_forgets_what_comes_after_the_checkpoint(tmp_path):
    train(tmp_path, range(1, 8), tensorboard=True, scale=3).close()
    train(tmp_path, range(5, 10), Position(step=4, lines=4), tensorboard=True).close()
    events = board(tmp_path).Scalars("loss/cycle/day")
    assert [(event.step, event.value) for event in events] == [(n, 3.75 if n < 5 else 1.25) for n in range(1, 10)]


def test_what_tensorboards_thread_meets_is_raised_without_a_traceback(tmp_path, monkeypatch):
    heard = []
    monkeypatch.setattr(threading, "excepthook", heard.append)
    metrics = train(tmp_path / "run", [1], tensorboard=True)
    deadline = time.monotonic() + LONG
    with pytest.raises(FileNotFoundError), metrics:
        (tmp_path / "run").rename(tmp_path / "there")
        while time.monotonic() < deadline:
            metrics.losses(2, 1, 1.0, MEANS, 2e-4, 12.5)
    assert heard == [] and threading.excepthook == heard.append


def test_tensorboard_has_the_pictures(tmp_path):
    y, x = np.mgrid[:60, :90].astype(np.uint8)
    grid = np.stack([2 * x, 3 * y, x + y], 2)
    metrics = Metrics(tmp_path, NAMES, True)
    metrics.pictures(3, {"ab": grid, "ba": grid[::-1]})
    metrics.close()
    found = board(tmp_path)
    assert found.Tags()["images"] == ["progress/day2night", "progress/night2day"]
    (event,) = found.Images("progress/night2day")
    image = Image.open(io.BytesIO(event.encoded_image_string))
    assert event.step == 3 and (event.width, event.height) == (90, 60) and image.format == "JPEG"
    assert np.abs(np.asarray(image, int) - grid[::-1]).mean() < 4

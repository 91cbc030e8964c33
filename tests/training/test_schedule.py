"""The learning rate is the authors' table, and the clock keeps its proportions."""

import json
from pathlib import Path

import pytest

from viceversa.training.schedule import Schedule

GOLDEN = Path(__file__).parents[1] / "golden"
PAPER = Schedule(epochs=100, decay_epochs=100, minutes=None, start=2e-4, steps_per_epoch=7)


def test_learning_rate_table_is_the_authors():
    table = json.loads((GOLDEN / "golden.json").read_text())["learning_rate"]["values_epoch_1_based"]
    assert [PAPER.learning_rate(7 * e, 0.0) for e in range(200)] == table
    assert [PAPER.learning_rate(7 * e + 6, 0.0) for e in range(200)] == table  # constant within an epoch


def test_epochs_count_from_one():
    assert [PAPER.epoch(step) for step in (0, 1, 7, 8, 14)] == [1, 1, 1, 2, 2]
    assert PAPER.fraction(7 * 200 - 1, 0.0) < 1 == PAPER.fraction(7 * 200, 0.0)


def test_the_clock_replaces_the_epochs_and_keeps_their_proportion():
    clock = Schedule(epochs=3, decay_epochs=1, minutes=2, start=1.0, steps_per_epoch=7)
    assert clock.learning_rate(10**6, 90.0) == 1.0  # three quarters of the time are at the full rate
    assert clock.learning_rate(0, 105.0) == pytest.approx(0.5)
    assert clock.learning_rate(0, 120.0) == pytest.approx(0.0)
    assert clock.fraction(10**9, 119.0) < 1 == clock.fraction(0, 120.0)
    assert clock.seconds_left(0, 90.0, 1.0) == 30.0
    steady = Schedule(epochs=1, decay_epochs=0, minutes=2, start=1.0, steps_per_epoch=7)
    assert [steady.learning_rate(0, seconds) for seconds in (0.0, 60.0, 119.0)] == [1.0, 1.0, 1.0]

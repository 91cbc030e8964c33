"""What a newcomer sees first: photos by a model that comes along, then Earth, then a report of both."""

import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from viceversa.config import Demo, make
from viceversa.demo import PHOTOS, STRIP, TILES, WIDTH, learn_earth, photo, write_tiles
from viceversa.training.runs import read_run


@pytest.mark.timeout(900)
def test_the_demo_shows_photos_then_learns_earth_and_reports(tmp_path):
    command = [sys.executable, "-m", "viceversa", "demo", "--device", "cpu"]
    done = subprocess.run([*command, "--out", tmp_path / "demo"], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    assert done.stdout.index("leuven-night.jpg") < done.stdout.index("run folder") < done.stdout.index("report:")
    for name in PHOTOS:
        kinds = ("day", "night", "day-again", "winter", "painted")
        day, night, _, winter, painted = (
            np.asarray(Image.open(tmp_path / "demo/photos" / f"{name}-{kind}.jpg")) for kind in kinds
        )
        assert night.shape == winter.shape == painted.shape == day.shape
        assert night.mean() < 0.7 * day.mean() < painted.mean() * 0.9
        assert winter.mean() > day.mean() and saturation(winter) < 0.7 * saturation(day)
    ours, transfer, nothing = (
        [float(number) for number in re.findall(r"[\d.]+", done.stdout.split(name, 1)[1].split("\n", 1)[0])]
        for name in ("│ viceversa", "│ transfer of colours", "│ doing nothing")
    )
    # By night chips part by as much as seeds do, 0.4 dB: docs/quality.md has a table of them.
    assert ours[0] > transfer[0] - 0.5 > nothing[0] and ours[1] > transfer[1] and ours[2] > transfer[2]
    page = (tmp_path / "demo/report.html").read_text(encoding="utf-8")
    assert "transfer of colours" in page and "leuven, night" in page
    again = subprocess.run([*command, "--out", tmp_path / "demo"], capture_output=True, text=True)
    assert again.returncode == 0 and "is finished" in again.stdout


def test_the_demo_learns_as_long_as_it_is_told(tmp_path):
    section = learn_earth(make(Demo, out=tmp_path, minutes=0.01, device="cpu"))
    assert [row[0] for row in section.rows] == ["viceversa", "transfer of colours", "doing nothing"]
    run = read_run(tmp_path / "earth")
    assert run.settings["minutes"] == 0.01 and run.step < 144


def saturation(pixels: np.ndarray) -> float:
    """How far a pixel's colours are from one another, of its light."""
    return float(np.ptp(pixels.astype(int), axis=2).mean() / pixels.mean())


def test_the_two_earths_lie_over_each_other():
    day, night = photo("earth-blue-marble.jpg"), photo("earth-night.jpg")
    assert day.shape == night.shape == (WIDTH // 2, WIDTH, 3)


def test_each_place_but_the_strip_is_learned_from(tmp_path):
    columns = np.zeros((WIDTH // 2, WIDTH, 3), np.uint8) + np.linspace(0, 255, WIDTH, dtype=np.uint8)[:, None]
    write_tiles(tmp_path, columns, columns)
    for name in ("day", "night"):
        tiles = [np.asarray(Image.open(path)) for path in sorted((tmp_path / name).iterdir())]
        seen = np.unique(np.concatenate([tile[0, :, 0] for tile in tiles]))
        of_strip = columns[0, STRIP, 0]
        assert not ((seen > of_strip[0] + 1) & (seen < of_strip[-1] - 1)).any()
        assert len(tiles) == TILES and seen.min() < 5 and seen.max() > 250

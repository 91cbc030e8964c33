"""What a newcomer sees first: photos by a model that comes along, then Earth, then a report of both."""

import subprocess
import sys

import numpy as np
from PIL import Image

from viceversa.demo import PHOTOS, ROWS, STRIP, WIDTH, in_pieces, photo


def test_the_demo_shows_photos_then_learns_earth_and_reports(tmp_path):
    command = [sys.executable, "-m", "viceversa.cli", "demo", "--minutes", "0.02", "--device", "cpu"]
    done = subprocess.run([*command, "--out", tmp_path / "demo"], capture_output=True, text=True, timeout=500)
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
    page = (tmp_path / "demo/report.html").read_text(encoding="utf-8")
    assert "transfer of colours" in page and "leuven, night" in page
    again = subprocess.run([*command, "--out", tmp_path / "demo"], capture_output=True, text=True)
    assert again.returncode == 0 and "is finished" in again.stdout


def saturation(pixels: np.ndarray) -> float:
    """How far a pixel's colours are from one another, of its light."""
    return float(np.ptp(pixels.astype(int), axis=2).mean() / pixels.mean())


def test_the_two_earths_lie_over_each_other():
    day, night = photo("earth-blue-marble.jpg"), photo("earth-night.jpg")
    assert day.shape == night.shape == (WIDTH // 2, WIDTH, 3)


def test_the_strip_in_pieces_is_whole_again():
    strip = photo("earth-blue-marble.jpg")[ROWS, STRIP]
    seen = []

    def model(pixels, to, size):
        seen.append(pixels.shape)
        return pixels

    assert np.array_equal(in_pieces(model, strip, "night"), strip)
    assert len(set(seen)) == 1 < len(seen) and seen[0][0] < strip.shape[0]

"""By tiles equals the whole: every kind of generator, number format and shape, within the memory that is promised."""

import math
import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from viceversa.errors import BadInput
from viceversa.model.frozen import shared
from viceversa.model.networks import Generator, initialise
from viceversa.translation import norms, tiles
from viceversa.translation.norms import Moments, prepared

CPU = torch.device("cpu")
KINDS = {
    "paper": Generator(width=4, blocks=2),
    "nearest": Generator(width=4, blocks=2, upsample="nearest"),
    "antialias": Generator(width=4, blocks=1, antialias=True),
    "affine": Generator(width=4, blocks=1, norm="instance-affine"),
    "batch": Generator(width=4, blocks=1, norm="batch"),
    "gray to colour": Generator(width=4, blocks=1, channels_in=1),
    "sees": Generator(width=4, blocks=1, sees=True),
}


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    """Tiles of 128 pixels (the least), so that images of a few hundred have several each way."""
    monkeypatch.setattr(tiles, "TILE", 1 << 12)


def network(spec, dtype):
    random = torch.Generator().manual_seed(0)
    made = spec.build().eval()
    initialise(made, random)
    for layer in made.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(generator=random)
            layer.running_var.uniform_(0.5, 2, generator=random)
        if spec.norm == "instance-affine" and hasattr(layer, "apply_statistics"):
            layer.weight.data.uniform_(0.5, 2, generator=random)
            layer.bias.data.normal_(generator=random)
    return prepared(made.to(dtype), CPU, dtype)


def picture(height, width, channels=3, dtype=torch.float32):
    """Structures of all sizes: other statistics in every tile."""
    random = torch.Generator().manual_seed(1)
    sides = [(height // n + 1, width // n + 1) for n in (1, 8, 64)]
    layers = [torch.randn(1, channels, *side, generator=random) for side in sides]
    image = sum(nn.functional.interpolate(layer, (height, width), mode="bilinear") for layer in layers)
    return image.clamp(-2, 2).div(2).to(dtype, memory_format=torch.channels_last)


def seen_in(spec, image):
    """What a generator that sees is told; nothing for the others."""
    return [shared(CPU).see(image.float())[0]] if spec.sees else []


def decibels(a, b):
    return float(10 * torch.log10(4 / (a.double() - b.double()).square().mean().clamp(min=1e-30)))


@pytest.mark.parametrize("most", [math.inf, 2.0], ids=["all kept", "little kept"])
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_tiles_equal_the_whole(kind, most):
    spec = KINDS[kind]
    made = network(spec, torch.float64)
    for height, width in ((300, 392), (8, 700), (264, 8)):
        image = picture(height, width, spec.channels_in, torch.float64)
        seen = seen_in(spec, image)
        whole = made(image, *seen)
        tiled = tiles.translate(made, image, *seen, plan=tiles.Plan(most, torch.float64, torch.float64))
        assert tiled.shape == whole.shape
        assert (tiled - whole).abs().max() < 1e-12


@torch.no_grad()
def test_without_float64_as_on_apples_gpus(monkeypatch):
    assert norms.precise(torch.device("mps")) == torch.float32
    monkeypatch.setattr(norms, "precise", lambda device: torch.float32)
    made, image = network(KINDS["paper"], torch.float32), picture(300, 392)
    tiled = tiles.translate(made, image, plan=tiles.Plan(2.0, torch.float32, torch.float32))
    assert decibels(tiled, made(image)) > 60


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@torch.no_grad()
def test_in_the_formats_of_chips_too(dtype):
    made, image = network(KINDS["paper"], dtype), picture(520, 648, dtype=dtype)
    whole = made(image)
    tiled = tiles.translate(made, image, plan=tiles.Plan(2.0, dtype, dtype))
    assert decibels(tiled, whole) > 50
    # No seam: along the borders of the tiles the two differ no more than 0.5 of 255 in the mean.
    difference = (tiled.float() - whole.float()).abs() * 127.5
    borders = list(range(128, 520, 128))
    assert max(difference[:, :, n - 1 : n + 1].mean() for n in borders) < 0.5
    assert max(difference[:, :, :, n - 1 : n + 1].mean() for n in borders) < 0.5


@torch.no_grad()
def test_float16_keeps_float32_to_60_decibels():
    made, image = network(KINDS["paper"], torch.float32), picture(300, 392)
    tiled = tiles.translate(made, image, plan=tiles.Plan(2.0, torch.float16, torch.float32))
    assert decibels(tiled, made(image)) > 60


@torch.no_grad()
def test_statistics_of_its_own_would_show():
    """The guard of the tests above: a tile that is translated alone does look different."""
    made, image = network(KINDS["paper"], torch.float32), picture(300, 392)
    corner = made(image[:, :, :128, :128])
    assert decibels(corner[:, :, :100, :100], made(image)[:, :, :100, :100]) < 40


def test_moments_do_not_depend_on_the_parts_or_their_order():
    image = picture(300, 260, 5) * 3 + 7
    whole, parts = Moments(), Moments()
    whole.add(image)
    for part in (image[:, :, 128:, :128], image[:, :, :128], image[:, :, 128:, 128:]):
        parts.add(part)
    for one, other in zip(whole.read(), parts.read(), strict=True):
        assert torch.equal(one.float(), other.float())
    variance, mean = torch.var_mean(image.double(), (0, 2, 3), correction=0)
    torch.testing.assert_close(whole.read(), (mean, variance), rtol=3e-5, atol=1e-6)


def test_as_much_is_kept_as_fits():
    made = network(Generator(width=16, blocks=1), torch.float32)
    plans = [
        tiles.Plan(math.inf, torch.float32, torch.float32),
        tiles.Plan(8.0, torch.float32, torch.float32),
        tiles.Plan(8.0, torch.float16, torch.float32),
    ]
    needs = [tiles.tiled_bytes(made.model, 4000, 6000, plan) for plan in plans]
    whole = tiles.whole_bytes(made.spec, 4000, 6000, torch.float32, CPU)
    assert whole > needs[0] > needs[1] > needs[2] > tiles.WORKING
    for need, plan in zip([whole, *needs], [None, *plans], strict=True):
        assert tiles.choose(made, 4000, 6000, torch.float32, CPU, need) == plan
    with pytest.raises(BadInput, match=r"6000x4000 takes .* even by tiles.*raise --memory, or use --size"):
        tiles.choose(made, 4000, 6000, torch.float32, CPU, needs[-1] - 1)


def test_what_no_size_can_help_is_told_so():
    made = network(Generator(width=4, blocks=1), torch.float32)
    with pytest.raises(BadInput, match=r"168 MB even for the smallest image, and may take 100 MB: raise --memory$"):
        tiles.choose(made, 32, 32, torch.float32, CPU, 1e8)


def test_a_unet_says_what_it_needs():
    made = network(Generator(kind="unet", width=4, halvings=5), torch.float32)
    with pytest.raises(BadInput, match=r"a U-Net cannot go by tiles.*raise --memory, or use --size"):
        tiles.choose(made, 4096, 4096, torch.float32, CPU, 2e8)


MEASURE = """
import threading, time, torch
from pathlib import Path
from viceversa.translation import tiles
from viceversa.translation.norms import prepared
from viceversa.model.networks import Generator

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

def peak(function):
    highest, running = [resident()], True
    start = highest[0]
    def watch():
        while running:
            highest.append(resident())
            time.sleep(0.001)
    thread = threading.Thread(target=watch)
    thread.start()
    function()
    running = False
    thread.join()
    return max(highest) - start

tiles.TILE, tiles.WORKING = tiles.TILE // 4, tiles.WORKING // 4
cpu, dtype = torch.device("cpu"), torch.float32
made = prepared(Generator(width=32, blocks=1).build(), cpu, dtype)
image = torch.randn(1, 3, 1024, 1024).to(memory_format=torch.channels_last)
plan = tiles.Plan(16.0, dtype, dtype)
with torch.no_grad():
    made(image[:, :, :256, :256])
    tiled = peak(lambda: tiles.translate(made, image, plan=plan))
    whole = peak(lambda: made(image))
print(tiled, tiles.tiled_bytes(made.model, 1024, 1024, plan))
print(whole, tiles.whole_bytes(made.spec, 1024, 1024, dtype, cpu))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_is_what_was_estimated():
    # Large blocks go back to the system at once, so that what is resident is what is in use.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(1 << 18)}
    command = [sys.executable, "-c", MEASURE]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    (tiled, tiled_estimate), (whole, whole_estimate) = (map(float, line.split()) for line in done.stdout.splitlines())
    assert 0.6 * tiled_estimate < tiled < tiled_estimate
    assert 0.6 * whole_estimate < whole < whole_estimate
    assert tiled < 0.6 * whole

"""The README's commands and its Python run as they stand there, on small images and small networks."""

import os
import re
import shlex
import subprocess
import sys
import urllib.request
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from patience import LONG
from PIL import Image
from safetensors.torch import load_file

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
COMMANDS = [line for kind, block in BLOCKS if not kind for line in block.splitlines() if line.startswith("viceversa ")]
SMALL = """
    --size 36 --crop 32 --width 4 --blocks 1 --discriminator-layers 2 --device cpu --seed 1 --log
    none
""".split()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with everything that the README speaks of."""
    root = tmp_path_factory.mktemp("readme")
    source = np.random.default_rng(0)
    for folder, count in (("photos/day", 6), ("photos/night", 6), ("test/day", 12), ("test/night", 12)):
        (root / folder).mkdir(parents=True)
        light = 255 if "day" in folder else 80
        for n in range(count):
            photo(source, light).save(root / folder / f"{n}.png")
    photo(source, 255).save(root / "photo.jpg")
    with av.open(str(root / "film.mp4"), "w") as film:
        stream = film.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        for _ in range(4):
            film.mux(stream.encode(av.VideoFrame.from_image(photo(source, 255).resize((48, 32)))))
        film.mux(stream.encode())
    weights = load_file(Path(__file__).parent / "golden" / "networks.safetensors")
    prefix = "resnet_9blocks.weight."
    generator = {k.removeprefix(prefix): v.float() for k, v in weights.items() if k.startswith(prefix)}
    for name in "AB":
        torch.save(generator, root / f"latest_net_G_{name}.pth")
    return root


def photo(source, light):
    return Image.fromarray((source.random((6, 6, 3)) * light).astype(np.uint8)).resize((48, 40))


def environment(place):
    return os.environ | {"OMP_NUM_THREADS": "1", "VICEVERSA_CACHE": str(place / "cache")}


def test_there_are_commands_to_run():
    assert {shlex.split(line)[1] for line in COMMANDS} == {
        "train", "data", "translate", "evaluate", "report", "import", "export", "models", "serve",
    }  # fmt: skip


def test_every_command_runs(place):
    """In order, as a reader would: each finds what the ones before it left."""
    for line in COMMANDS:
        words = shlex.split(line)[1:]
        if words[0] == "train":
            # The shorter of the README's runs is the first; the second resumes it, with --minutes.
            words = [w for w in words if w not in ("--minutes", "30")] + SMALL
            words += ["--epochs", "1", "--decay-epochs", "1"]
        if words[0] == "serve":
            serves(words, place)
            continue
        result = subprocess.run(
            [sys.executable, "-m", "viceversa", *words],
            cwd=place, env=environment(place), capture_output=True, text=True, timeout=LONG,
        )  # fmt: skip
        assert result.returncode == 0, f"{line}\n{result.stdout}\n{result.stderr}"
    made = {
        "horse2zebra.safetensors",
        "night.onnx",
        "night.mp4",
        "evening.mp4",
        "dusk.jpg",
        "runs/day2night/report.html",
        "translated/0.png",
    }
    assert all((place / name).exists() for name in made)


def serves(words, place):
    """It says where, answers there, and ends when told to."""
    command = [sys.executable, "-m", "viceversa", *words, "--port", "0"]
    with subprocess.Popen(command, cwd=place, env=environment(place), stdout=subprocess.PIPE, text=True) as server:
        try:
            lines = (re.search(r"http://[\w.:]+", line) for line in server.stdout)
            address = next(found[0] for found in lines if found)
            with urllib.request.urlopen(f"{address}/healthz", timeout=LONG) as answer:
                assert answer.status == 200
        finally:
            server.terminate()


def test_the_python_runs(place):
    (code,) = (block for kind, block in BLOCKS if kind == "python")
    small = "minutes=0.02, size=36, crop=32, width=4, blocks=1, discriminator_layers=2, device='cpu', log='none'"
    code = code.replace("minutes=30", small).replace("runs/day2night", "runs/python")
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=place, env=environment(place), capture_output=True, text=True, timeout=LONG
    )
    assert result.returncode == 0, result.stderr
    assert Image.open(place / "night.jpg").size == (48, 40)

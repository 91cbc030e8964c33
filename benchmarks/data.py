"""Memory and speed of the data: python benchmarks/data.py [--images 10000] [--side 286] [--crop 256]

Makes a few hundred JPEGs, names them again and again until there are `--images`, and loads them in a fresh
process for each place (memory, disk). Prints images a second, the most memory that was resident (RSS) and
anonymous (which no file backs, so that it cannot be dropped), and the time of one step's draws and crops.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image

from viceversa.data.store import Store, draw

PLACES = {"memory": 10**12, "disk": 0}


def gigabytes(field: str) -> float:
    """A field of /proc/self/status."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status[field].split()[0]) * 1024 / 1e9


def make_images(folder: Path, count: int) -> None:
    random = np.random.default_rng(0)
    for n in range(count):
        blotches = Image.fromarray(random.integers(0, 256, (18, 24, 3), np.uint8))
        blotches.resize((400, 300), Image.Resampling.BICUBIC).save(folder / f"{n}.jpg", quality=90)


def measure(folder: Path, count: int, side: int, crop: int, place: str) -> None:
    files = sorted(folder.glob("*.jpg"))
    paths = [files[n % len(files)] for n in range(count)]
    most = {"VmRSS": 0.0, "RssAnon": gigabytes("RssAnon")}
    before = most["RssAnon"]

    def look(done: int, total: int) -> None:
        if done % 100 == 0 or done == total:
            for field in most:
                most[field] = max(most[field], gigabytes(field))

    start = time.perf_counter()
    store = Store.load(
        paths, channels=3, size=side, resize="square", crop=crop, device=torch.device("cpu"),
        budget=PLACES[place], folder=folder, on_progress=look,
    )  # fmt: skip
    seconds = time.perf_counter() - start
    times = []
    for step in range(200):
        start = time.perf_counter()
        d = draw(1, step, count, count, 1)
        store.crops(d.index_a, d.crop_a)
        store.crops(d.index_b, d.crop_b)
        times.append(time.perf_counter() - start)
    look(0, 0)
    print(
        f"{store.place:>9}: {count} images of {side}x{side}, {store.pixels.nbytes / 1e9:.2f} GB; "
        f"{count / seconds:.0f} images/s; resident {most['VmRSS']:.2f} GB, anonymous {most['RssAnon']:.2f} GB "
        f"({before:.2f} before); draws and crops of a step (two of {crop}x{crop}) {1e3 * median(times):.2f} ms"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--side", type=int, default=286)
    parser.add_argument("--crop", type=int, default=256)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--place", choices=PLACES, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.place:
        measure(asked.folder, asked.images, asked.side, asked.crop, asked.place)
        return
    with tempfile.TemporaryDirectory() as folder:
        make_images(Path(folder), min(asked.images, 300))
        for place in PLACES:
            subprocess.run([sys.executable, __file__, *sys.argv[1:], "--folder", folder, "--place", place], check=True)


if __name__ == "__main__":
    main()

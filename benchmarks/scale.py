"""The Ray engine against the plain command, and the parts of the model of costs in docs/scale.md.

    python benchmarks/scale.py parts                 decode, network, encode: milliseconds of one core
    python benchmarks/scale.py engine --count 2000   plain against ray, and one worker against two
    python benchmarks/scale.py memory                1,000 against 10,000 images

Images a second are those of the middle 80% of the files written, so that start-up and end do not count; what is left of
the time is told apart. Nothing else should run on the machine.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil
from PIL import Image


def make_images(folder: Path, count: int, side: int) -> Path:
    """Pictures with structure, so that JPEG has something to do."""
    for n in range(count):
        draw = np.random.default_rng(n)
        small = Image.fromarray(draw.integers(0, 255, (side // 6, side // 6, 3), np.uint8))
        folder.mkdir(parents=True, exist_ok=True)
        small.resize((side, side), Image.Resampling.BICUBIC).save(folder / f"{n:05}.jpg", quality=90)
    return folder


def make_model(path: Path, width: int, blocks: int) -> Path:
    import torch

    from viceversa.model.file import Model, save_model
    from viceversa.model.networks import Generator, initialise

    generators = {way: Generator(width=width, blocks=blocks).build() for way in ("ab", "ba")}
    for generator in generators.values():
        initialise(generator, torch.Generator().manual_seed(0))
    save_model(path, Model(generators, ("day", "night")))
    return path


class Watched:
    """The most memory and the processor seconds of a process and all below it, looked at every second."""

    def __init__(self, process: psutil.Process):
        self.process, self.most, self.seconds = process, 0, dict[int, float]()

    def look(self) -> None:
        total = 0
        for each in [self.process, *self.process.children(recursive=True)]:
            try:
                total += each.memory_full_info().uss  # its own, not what it shares
                times = each.cpu_times()
                self.seconds[each.pid] = times.user + times.system
            except psutil.Error:
                continue
        self.most = max(self.most, total)


def run(*arguments: object) -> dict[str, float]:
    """One command: seconds in all, of the images, processor seconds, and the most memory."""
    command = [sys.executable, "-m", "viceversa", "translate", *map(str, arguments)]
    began = time.monotonic()
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    watched, over = Watched(psutil.Process(process.pid)), threading.Event()

    def watch() -> None:
        while not over.wait(1.0):
            try:
                watched.look()
            except psutil.Error:
                return

    watcher = threading.Thread(target=watch)
    watcher.start()
    error = process.communicate()[1]
    over.set()
    watcher.join()
    if process.returncode:
        sys.exit(error)
    busy = sum(watched.seconds.values())
    return {"all": time.monotonic() - began, "busy": busy, "memory": watched.most}


def rate(out: Path) -> float:
    """Images a second, in the middle 80% of those that were written."""
    times = np.sort([path.stat().st_mtime for path in out.rglob("*.jpg")])
    first, last = int(0.1 * len(times)), int(0.9 * len(times))
    return float((last - first) / max(times[last] - times[first], 1e-3))


def parts(side: int) -> None:
    import torch

    from viceversa.data import pictures
    from viceversa.translation.translator import load

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        path = next(make_images(Path(folder, "in"), 1, side).iterdir())
        data = path.read_bytes()
        picture = pictures.read(data)
        print(f"{side} px, {len(data) / 1000:.0f} kB")
        for name, action in (("decode", lambda: pictures.read(data)), ("encode", lambda: pictures.encode(picture, 80))):
            print(f"  {name}: {1000 * quickest(action):.1f} ms")
        for width, blocks in ((64, 9), (32, 6)):
            translator = load(make_model(Path(folder, "m.safetensors"), width, blocks), precision="fp32")
            torch.set_num_threads(1)
            took = quickest(lambda translator=translator: translator(picture.pixels, to="night"), 3)
            print(f"  network, width {width}, {blocks} blocks: {1000 * took:.0f} ms")


def quickest(action: object, times: int = 9) -> float:
    """Processor seconds of this process: others on the machine do not count."""
    took = []
    for _ in range(times):
        began = time.process_time()
        action()
        took.append(time.process_time() - began)
    return min(took)


def engine(count: int, side: int, width: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        source, model = make_images(root / "in", count, side), make_model(root / "m.safetensors", width, 6)
        given = (model, source, "--to", "night", "--device", "cpu")
        ways = {"plain": (), "ray, 2 workers": ("--workers", 2), "ray, 1 worker": ("--workers", 1)}
        for name, more in ways.items():
            result = run(*given, "-o", root / name, *(("--engine", "ray", *more) if more else ()))
            speed = rate(root / name)
            print(f"{name}: {speed:.1f} images/s; {result['all']:.0f} s in all, {result['all'] - count / speed:.0f} of "
                  f"them start-up and end; {result['busy']:.0f} processor seconds", flush=True)  # fmt: skip


def memory(counts: tuple[int, ...], side: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        model = make_model(root / "m.safetensors", 4, 1)
        for count in counts:
            source = make_images(root / f"in{count}", count, side)
            result = run(model, source, "--to", "night", "-o", root / f"out{count}", "--engine", "ray", "--workers", 1)
            print(f"{count} images: {result['memory'] / 2**20:.0f} MiB", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["parts", "engine", "memory"])
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--side", type=int, default=0)
    parser.add_argument("--width", type=int, default=32)
    asked = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count()))
    if asked.what == "parts":
        parts(asked.side or 256)
    elif asked.what == "engine":
        engine(asked.count, asked.side or 128, asked.width)
    else:
        memory((1000, 10_000), asked.side or 16)

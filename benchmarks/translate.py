"""Speed and memory of translating, with the paper's generator and random weights.

    python benchmarks/translate.py photos [--photos 200] [--side 256] [--device cpu]
    python benchmarks/translate.py video [--frames 60]
    python benchmarks/translate.py tiles [--sides 3000 2000] [--memory 1GB]
    python benchmarks/translate.py large [--sides 6000 4000] [--memory 4GB]

photos: images a second of `viceversa translate` on a folder of JPEGs, planning and loading the model included,
against a plain loop (open, float32, eager, batch 1, save), start-up apart, in turns in one process.
video: frames a second of a film of 256x256 with sound, frame by frame and --steady.
tiles: time, most resident memory, PSNR and difference along the borders of tiles against the whole image; each
in a fresh process. A whole image that does not fit is left out.
large: time and most resident memory of one photo by the generator of the recipe `photo` (a pyramid that sees), and by
the paper's, by tiles; each in a fresh process.
"""

import argparse
import contextlib
import io
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image

from viceversa.config import Train, Translate, make
from viceversa.device import free
from viceversa.model.file import Model, load_model, save_model
from viceversa.model.networks import initialise
from viceversa.training.settings import generators
from viceversa.translation.command import command_translate
from viceversa.translation.films import translate_film
from viceversa.translation.norms import BLOCK
from viceversa.translation.tiles import whole_bytes
from viceversa.translation.translator import load

ROUNDS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("photos", "video", "tiles", "large", "one"))
    parser.add_argument("--photos", type=int, default=200)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--sides", type=int, nargs=2, default=(3000, 2000), help="width and height")
    parser.add_argument("--memory", default="1GB")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--folder", type=Path, help="for `one`: where things lie")
    asked = parser.parse_args()
    if asked.what == "one":
        one(asked)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_model(folder / "model.safetensors")
        {"photos": photos, "video": video, "tiles": tiles, "large": large}[asked.what](asked, folder)


def make_model(path: Path, recipe: str = "paper") -> None:
    """As training writes it: with the size that was trained on, from which large photos are shown from farther away."""
    s = make(Train, a=".", recipe=recipe)
    network = generators(s)[0].build().eval()
    initialise(network, torch.Generator().manual_seed(0))
    image = {"size": s.size, "crop": s.crop, "resize": s.resize}
    save_model(path, Model({"ab": network}, ("day", "night"), {"image": image}))


def picture(width: int, height: int, seed: int = 0) -> np.ndarray:
    """Blotches, as photos have them, and some grain."""
    random = np.random.default_rng(seed)
    blotches = Image.fromarray(random.integers(0, 256, (height // 16 + 1, width // 16 + 1, 3), np.uint8))
    grain = random.integers(0, 16, (height, width, 1), np.uint8)
    return np.asarray(blotches.resize((width, height), Image.Resampling.BICUBIC)) // 2 + 60 + grain


def photos(asked: argparse.Namespace, folder: Path) -> None:
    (folder / "in").mkdir()
    for n in range(asked.photos):
        Image.fromarray(picture(asked.side, asked.side, n)).save(folder / f"in/{n:05}.jpg", quality=90)
    device = load(folder / "model.safetensors", device=asked.device).device
    network = load_model(folder / "model.safetensors").generators["ab"].to(device)
    files = sorted((folder / "in").iterdir())
    plain_loop(network, device, files[:5], folder)
    command(asked, folder, "warm-up")
    speeds: dict[str, list[float]] = {"plain loop": [], "viceversa": []}
    for n in range(ROUNDS):
        speeds["plain loop"].append(asked.photos / plain_loop(network, device, files, folder))
        speeds["viceversa"].append(asked.photos / command(asked, folder, f"out{n}"))
    for name, values in speeds.items():
        print(f"{name}: {median(values):.2f} images/s ({min(values):.2f} to {max(values):.2f})")
    ratio = median(speeds["viceversa"]) / median(speeds["plain loop"])
    print(f"{ratio:.2f} times, {asked.photos} photos of {asked.side}x{asked.side}, {device}")


@torch.no_grad()
def plain_loop(network: torch.nn.Module, device: torch.device, files: list[Path], folder: Path) -> float:
    (folder / "plain").mkdir(exist_ok=True)
    start = time.perf_counter()
    for file in files:
        pixels = np.asarray(Image.open(file).convert("RGB"))
        batch = (torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1).to(device)
        translated = ((network(batch)[0] + 1) * 127.5).round().clamp(0, 255).byte()
        Image.fromarray(translated.permute(1, 2, 0).cpu().numpy()).save(folder / "plain" / file.name, quality=80)
    return time.perf_counter() - start


def command(asked: argparse.Namespace, folder: Path, out: str) -> float:
    start = time.perf_counter()
    with contextlib.redirect_stderr(io.StringIO()):
        command_translate(Translate(
            model=str(folder / "model.safetensors"), inputs=(str(folder / "in"),), out=folder / out,
            device=asked.device, precision=asked.precision,
        ))  # fmt: skip
    return time.perf_counter() - start


def video(asked: argparse.Namespace, folder: Path) -> None:
    import av

    with av.open(str(folder / "film.mp4"), "w") as film:
        stream = film.add_stream("h264", 30)
        stream.width, stream.height, stream.pix_fmt = asked.side, asked.side, "yuv420p"
        for n in range(asked.frames):
            shown = np.roll(picture(asked.side, asked.side), n, axis=1)
            film.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(shown))))
        film.mux(stream.encode())

    translator = load(folder / "model.safetensors", device=asked.device, precision=asked.precision)
    for steady in (False, True, False, True):  # the first of each warms up
        start = time.perf_counter()
        translate_film(translator, folder / "film.mp4", folder / "out.mp4", steady=steady)
        seconds = time.perf_counter() - start
        name = "steady" if steady else "frame by frame"
        print(f"{name}: {asked.frames / seconds:.2f} frames/s of {asked.side}x{asked.side}")


def tiles(asked: argparse.Namespace, folder: Path) -> None:
    width, height = asked.sides
    Image.fromarray(picture(width, height)).save(folder / "in.png", compress_level=1)
    translator = load(folder / "model.safetensors", device=asked.device, precision=asked.precision)
    spec = translator.model.spec("ab")
    need = whole_bytes(spec, height, width, translator.dtype, translator.device)
    ways = {"by tiles": asked.memory}
    if need < 0.7 * free(translator.device):
        ways["whole"] = f"{need * 1.01:.0f}"
    results = {}
    for name, memory in ways.items():
        seconds, most = apart(asked, folder, memory)
        results[name] = seconds, np.load(folder / "out.npy")
        print(f"{width}x{height} {name} (--memory {memory}): {seconds:.1f} s, {most:.2f} GB resident at most")
    if "whole" in results:
        difference = np.abs(results["by tiles"][1].astype(float) - results["whole"][1])
        seams = [difference[n - 1 : n + 1].mean() for n in range(BLOCK, height, BLOCK)]
        seams += [difference[:, n - 1 : n + 1].mean() for n in range(BLOCK, width, BLOCK)]
        psnr = 10 * np.log10(255**2 / max(np.square(difference).mean(), 1e-10))
        ratio = results["by tiles"][0] / results["whole"][0]
        print(f"{psnr:.1f} dB, {max(seams):.3f} of 255 along borders at most, {ratio:.2f} times the time")


def large(asked: argparse.Namespace, folder: Path) -> None:
    width, height = asked.sides
    Image.fromarray(picture(width, height)).save(folder / "in.png", compress_level=1)
    for recipe in ("photo", "paper"):
        make_model(folder / "model.safetensors", recipe)
        seconds, most = apart(asked, folder, asked.memory)
        print(f"{width}x{height} by {recipe}: {seconds:.1f} s, {most:.2f} GB resident at most", flush=True)


def apart(asked: argparse.Namespace, folder: Path, memory: str) -> tuple[float, float]:
    """`one` in a fresh process: seconds, and most resident memory in GB."""
    command = [sys.executable, __file__, "one", "--folder", folder, "--memory", memory]
    command += ["--precision", asked.precision, "--device", asked.device]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds, most = map(float, done.stdout.split())
    return seconds, most


def one(asked: argparse.Namespace) -> None:
    """A fresh process: translate in.png, print seconds and gigabytes."""
    memory = asked.memory
    translator = load(asked.folder / "model.safetensors", device=asked.device, precision=asked.precision, memory=memory)
    translator(np.zeros((64, 64, 3), np.uint8))
    pixels = np.asarray(Image.open(asked.folder / "in.png"))
    start = time.perf_counter()
    translated = translator(pixels)
    seconds = time.perf_counter() - start
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    print(seconds, int(status["VmHWM"].split()[0]) * 1024 / 1e9)
    np.save(asked.folder / "out.npy", translated)


if __name__ == "__main__":
    main()

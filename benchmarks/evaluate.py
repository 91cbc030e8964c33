"""Time of evaluating 1,000 translated images against 1,000 real ones with Inception features, on a CPU.

    python benchmarks/evaluate.py [--images 1000] [--threads 2]

Ours: `viceversa.evaluate(fake=..., real=...)`, the first time, and again when the features of the real folder
are kept. Against it the way of pytorch-fid: batches of 50 from a data loader, the network with batch norm as
a step of its own in float32, covariances, and SciPy's matrix square root. Both print the distance they found.
The published weights are fetched if they can be; random ones of the same layout take as long.
"""

import argparse
import hashlib
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy import linalg
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/evaluation"))
import inception_layout

from viceversa.data.download import Download, fetch
from viceversa.errors import BadInput
from viceversa.evaluation import features
from viceversa.evaluation.evaluate import evaluate


class Folder(torch.utils.data.Dataset):
    def __init__(self, folder: Path):
        self.files = sorted(folder.iterdir())

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number: int) -> torch.Tensor:
        pixels = np.array(Image.open(self.files[number]).convert("RGB"))
        return torch.from_numpy(pixels).permute(2, 0, 1).float().div(255)


def plain_features(folder: Path, state: dict[str, torch.Tensor], threads: int) -> np.ndarray:
    loader = torch.utils.data.DataLoader(Folder(folder), batch_size=50, num_workers=threads)
    found = []
    with torch.no_grad():
        for batch in loader:
            x = F.interpolate(batch, (299, 299), mode="bilinear", align_corners=False)
            found.append(inception_layout.forward(state, 2 * x - 1).numpy())
    return np.concatenate(found).astype(np.float64)


def plain_frechet(x: np.ndarray, y: np.ndarray) -> float:
    c, d = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = linalg.sqrtm(c @ d)
    return float(np.sum((x.mean(0) - y.mean(0)) ** 2) + np.trace(c) + np.trace(d) - 2 * np.trace(root.real))


def pictures(folder: Path, count: int, seed: int) -> Path:
    """256 x 256 JPEGs of smooth noise: about the size of files of test images."""
    folder.mkdir()
    random = np.random.default_rng(seed)
    for number in range(count):
        coarse = random.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((256, 256), Image.Resampling.BICUBIC).save(folder / f"{number:05d}.jpg")
    return folder


def weights(cache: Path) -> tuple[Download, dict[str, torch.Tensor]]:
    """Those of pytorch-fid, or random ones laid out like them where there is no network."""
    try:
        return features.INCEPTION, features.named_tensors(fetch(features.INCEPTION))
    except BadInput as missing:
        print(f"random Inception weights, which take as long ({missing})")
    path = cache / "weights" / "random.pth"
    path.parent.mkdir(parents=True, exist_ok=True)
    state = inception_layout.random_weights()
    torch.save(state, path)
    return Download("http://localhost/random.pth", hashlib.sha256(path.read_bytes()).hexdigest()), state


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    choices = parser.parse_args()
    torch.set_num_threads(choices.threads)

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        os.environ["VICEVERSA_CACHE"] = str(folder / "cache")
        source, state = weights(folder / "cache")
        features.INCEPTION = source
        fake = pictures(folder / "fake", choices.images, 0)
        real = pictures(folder / "real", choices.images, 1)
        print(f"{choices.images} and {choices.images} images of 256 x 256, {choices.threads} threads")

        seconds = {}
        for name in ("ours", "ours, real features kept"):
            start = time.perf_counter()
            numbers = evaluate(fake=fake, real=real, device="cpu")
            seconds[name] = time.perf_counter() - start
            print(f"{name}: {seconds[name]:.1f} s, Frechet distance {numbers['frechet']:.4f}, KID {numbers['kid']:.6f}")
        start = time.perf_counter()
        x, y = (plain_features(f, state, choices.threads) for f in (fake, real))
        middle = time.perf_counter()
        distance = plain_frechet(x, y)
        plain = time.perf_counter() - start
        print(f"pytorch-fid's way: {plain:.1f} s ({middle - start:.1f} s features), Frechet distance {distance:.4f}")
        print(
            f"pairs apart, ours is {plain / seconds['ours, real features kept']:.2f} times as fast with kept features"
        )
        print(f"ours is {plain / seconds['ours']:.2f} times as fast")


if __name__ == "__main__":
    main()

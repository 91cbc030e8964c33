"""Is bf16 as good as fp32? Train the same small CycleGAN with several seeds in each format, and compare the scores.

    python benchmarks/precision.py ROOT --precision bf16 fp32 --seeds 3 --epochs 12

ROOT holds trainA, trainB, testA, testB. The score is KID (unbiased, all test images) by the offline ruler lite0,
mean of both directions, of the last epoch. The two groups should overlap.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

import viceversa
from viceversa.device import choose_device, describe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("--precision", nargs="+", default=["bf16", "fp32"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--size", type=int, default=72)
    parser.add_argument("--crop", type=int, default=64)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--blocks", type=int, default=3)
    parser.add_argument("--device", default="auto")
    o = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for precision in o.precision:
            scores = []
            for seed in range(o.seeds):
                run = viceversa.train(
                    o.root, out=Path(folder) / f"{precision}-{seed}", seed=seed, precision=precision, log="none",
                    epochs=o.epochs // 2, decay_epochs=o.epochs - o.epochs // 2, resize="short", size=o.size,
                    crop=o.crop, width=o.width, blocks=o.blocks, discriminator_layers=2, device=o.device,
                    score="kid", score_every=o.epochs, features="lite0",
                )  # fmt: skip
                scores.append(run.scores[-1]["mean"])
            rows.append((precision, scores))
    print(f"\n{describe(choose_device(o.device))}; {o.root.name}, {o.epochs} epochs, crop {o.crop}, width {o.width}")
    for precision, scores in rows:
        each = ", ".join(f"{score:.4f}" for score in scores)
        print(f"{precision}: KID (lite0) {each}; mean {statistics.mean(scores):.4f}")


if __name__ == "__main__":
    main()

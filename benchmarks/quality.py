"""How good the pictures get in equal time: `paper` as the authors' code runs it, `paper` here, `photo`, ...

    python benchmarks/quality.py ROOT [--minutes 30] [--recipes plain paper photo] [--seeds 1] [--out runs/quality]
        [--features lite0 squeezenet] [--lpips FOLDER] [--threads 2]

ROOT has trainA, trainB, testA and testB. Every recipe trains for the same time on the same cores, one after the
other (a run that was ended goes on); then the model of each kept epoch is measured on all test images: KID in both
directions by every ruler, and the structure kept. Printed: a row for each model, with the untranslated pictures
above, so that both "how good after M minutes" and "how long until a KID is reached" can be read off. `plain` is the
paper's recipe by the authors' step (benchmarks/reference.py): eager, float32, one forward a call.

`--features squeezenet` looks for its weights in the folder of --lpips, or fetches them.
"""

import argparse
import statistics
import time
from pathlib import Path

import torch
from reference import Reference

import viceversa
from viceversa.config import Train, make
from viceversa.data.folders import find_sources
from viceversa.data.store import Store, draw
from viceversa.device import describe
from viceversa.model.cyclegan import build
from viceversa.model.file import Model, load_model, save_model
from viceversa.model.networks import PatchDiscriminator
from viceversa.training.schedule import schedule_of
from viceversa.training.settings import generators


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--recipes", nargs="+", default=["plain", "paper", "photo"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1])
    parser.add_argument("--out", type=Path, default=Path("runs/quality"))
    parser.add_argument("--features", nargs="+", default=["lite0", "squeezenet"])
    parser.add_argument("--lpips", type=Path)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    o = parser.parse_args()
    torch.set_num_threads(o.threads)
    print(f"{describe(torch.device('cpu'))}, torch {torch.__version__}, {o.minutes:g} minutes each", flush=True)

    last: dict[str, list[list[float]]] = {}
    for recipe in o.recipes:
        for seed in o.seeds:
            folder = o.out / f"{recipe}-{seed}"
            if recipe == "plain":
                train_plain(o.root, folder, o.minutes, seed)
            else:
                viceversa.train(
                    o.root, out=folder, recipe=recipe, minutes=o.minutes, seed=seed, names=("a", "b"), log="none",
                    quiet=True, device="cpu",
                )  # fmt: skip
    print(
        "| recipe, seed | minutes | steps |" + "".join(f" {f} to b | {f} to a |" for f in o.features) + " structure |"
    )
    print("|" + "---|" * (4 + 2 * len(o.features)))
    untranslated = [
        viceversa.evaluate(fake=o.root / "testA", real=o.root / "testB", features=f, lpips=o.lpips)["kid"]
        for f in o.features
    ]
    print("| untranslated | | |" + "".join(f" {kid:.3f} | {kid:.3f} |" for kid in untranslated) + " |", flush=True)
    for recipe in o.recipes:
        for seed in o.seeds:
            folder = o.out / f"{recipe}-{seed}"
            for file in [*sorted((folder / "epochs").glob("*.safetensors")), folder / "model.safetensors"]:
                row, training = measure(file, o.root, o.features, o.lpips), load_model(file).info["training"]
                numbers = "".join(f" {value:.3f} |" for value in row)
                print(
                    f"| {recipe}, {seed} | {training['seconds'] / 60:.1f} | {training['step']} |{numbers}", flush=True
                )
            last.setdefault(recipe, []).append(row)
    for recipe, rows in last.items():
        spread = [(statistics.mean(c), max(c) - min(c)) for c in zip(*rows, strict=True)]
        print(f"{recipe}, the last of {len(rows)}: " + ", ".join(f"{m:.3f} (range {r:.3f})" for m, r in spread))


def measure(file: Path, root: Path, rulers: list[str], lpips: Path | None) -> list[float]:
    """KID to b and to a by each ruler, then the structure kept, over both directions."""
    row: list[float] = []
    for ruler in rulers:
        found = viceversa.evaluate(file, root / "testA", root / "testB", features=ruler, lpips=lpips, device="cpu")
        row += [found[domain]["kid"] for domain in ("b", "a")]
    return [*row, statistics.mean(found[domain]["structure"] for domain in ("b", "a"))]


def train_plain(root: Path, folder: Path, minutes: float, seed: int) -> None:
    """The paper's recipe by the authors' step. The clock counts training alone, as everywhere here."""
    target = folder / "model.safetensors"
    if target.exists():
        return
    s = make(Train, a=root, seed=seed, minutes=minutes)
    sources = find_sources(s.a)
    stores = [
        Store.load(p, channels=3, size=s.size, resize=s.resize, crop=s.crop, device=torch.device("cpu"))
        for p in (sources.a, sources.b)
    ]
    counts = len(stores[0].paths), len(stores[1].paths)
    schedule = schedule_of(s, counts, 1)
    model = build(*generators(s), lambda c: PatchDiscriminator(c, s.width), history=s.history, crop=s.crop, seed=seed)
    reference = Reference(model)
    began, step, seconds = time.monotonic(), 0, 0.0
    while seconds < 60 * minutes:
        rate = schedule.learning_rate(step, seconds)
        for optimizer in (reference.adam_g, reference.adam_d):
            optimizer.param_groups[0]["lr"] = rate
        d = draw(seed, step, *counts, 1)
        reference.step(stores[0].crops(d.index_a, d.crop_a), stores[1].crops(d.index_b, d.crop_b))
        step, seconds = step + 1, time.monotonic() - began
    for name in ("ab", "ba"):
        getattr(model, name).load_state_dict(getattr(reference, name).state_dict())
    info = {
        "image": {"size": s.size, "crop": s.crop, "resize": s.resize},
        "training": {"step": step, "seconds": seconds},
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_model(target, Model(model.generators(), ("a", "b"), info))


if __name__ == "__main__":
    main()

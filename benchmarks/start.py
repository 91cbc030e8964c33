"""What --start brings: a model goes on with other images, beside training on these from nothing, by the same ruler.

python benchmarks/start.py ROOT MODEL --recipe photo --steps 300 1500 --features squeezenet
(ROOT with trainA, trainB, testA, testB, named as MODEL's domains are; RUNS/start and RUNS/nothing are resumed.)
"""

import argparse
import math
from pathlib import Path

import viceversa
from viceversa.data.folders import find


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("model")
    parser.add_argument("--recipe", default="photo")
    parser.add_argument("--steps", type=int, nargs=2, default=(300, 1500), help="from the model; from nothing")
    parser.add_argument("--features", default="squeezenet")
    parser.add_argument("--runs", type=Path, default=Path("runs/start-from"))
    parser.add_argument("--seed", type=int, default=1)
    o, flags = parser.parse_known_args()
    more = dict(zip((flag.lstrip("-").replace("-", "_") for flag in flags[::2]), map(number, flags[1::2]), strict=True))
    names = viceversa.load(o.model).domains
    an_epoch = max(len(find(str(o.root / f"train{side}")).paths) for side in "AB")
    print("| | steps | minutes | to " + " | to ".join(names[::-1]) + f" | ({o.features}, KID; lower is better)")
    print("|---|---|---|---|---|")
    for name, steps, start in (("from the model", o.steps[0], o.model), ("from nothing", o.steps[1], None)):
        run = viceversa.train(
            o.root, names=names, out=o.runs / name.split()[-1], recipe=o.recipe, start=start, seed=o.seed,
            epochs=math.ceil(steps / an_epoch), decay_epochs=0, quiet=True, **more,
        )  # fmt: skip
        told = viceversa.load(run).model.info["training"]
        print(f"| {name} | {told['step']} | {told['seconds'] / 60:.1f} | {scores(run, o, names)} |", flush=True)
    print(f"| the model, as it is | 0 | 0 | {scores(o.model, o, names)} |")


def scores(model: object, o: argparse.Namespace, names: tuple[str, str]) -> str:
    found = viceversa.evaluate(model, o.root / "testA", o.root / "testB", features=o.features)
    return " | ".join(f"{found[name]['kid']:.4f}" for name in names[::-1])


def number(text: str) -> object:
    """A flag's value in Python: a number where it is one."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


if __name__ == "__main__":
    main()

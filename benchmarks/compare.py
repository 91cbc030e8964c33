"""Do two revisions train alike, to the last bit? For changes that claim to change nothing.

    python benchmarks/compare.py HEAD~1 HEAD            from anywhere in the repository; also tags, branches
    python benchmarks/compare.py main .                 a dot: the working tree as it is

Each revision is checked out into a temporary folder and run by a process of its own: the step, eager, in float64
and float32, and then the whole of `viceversa train` (float32), from one seed on the same made-up pictures.
Losses and weights (optimizers, histories and averages too) are compared bit by bit. Exit code 1: they differ.
"""

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any

PROGRAM = "import sys; from viceversa.cli import main; sys.exit(main())"  # of any revision
SMALL = {"width": 4, "blocks": 2, "crop": 32, "batch": 1, "ema": 0.0, "identity": 5.0, "generator": "resnet"}
CASES: dict[str, dict[str, Any]] = {
    "paper": {},
    "paper, no identity": {"identity": 0.0},
    "U-Net": {"generator": "unet", "crop": 128},
    "moving average": {"ema": 0.99},
    "batch of 2": {"batch": 2},
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("revisions", nargs=2, metavar="REVISION")
    parser.add_argument("--steps", type=int, default=6, help="of each case and format")
    o = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        first, second = (results(name, Path(scratch) / str(n), o.steps) for n, name in enumerate(o.revisions))
    equal = True
    for case in first:
        equal &= tell(case, first[case], second[case])
    print("equal to the last bit" if equal else "NOT equal")
    return 0 if equal else 1


def results(revision: str, scratch: Path, steps: int) -> dict[str, dict[str, Any]]:
    """By case, what a revision computes: tensors by name."""
    from safetensors.torch import load_file

    scratch.mkdir()
    out = scratch / "results"
    out.mkdir()
    here = Path(__file__).resolve().parent
    root = Path(subprocess.run(["git", "rev-parse", "--show-toplevel"], cwd=here, check=True, capture_output=True,
                               text=True).stdout.strip())  # fmt: skip
    tree = root if revision == "." else scratch / "tree"
    if revision != ".":
        subprocess.run(["git", "worktree", "add", "-q", "--detach", tree, revision], cwd=root, check=True)
    try:
        environment = os.environ | {"PYTHONPATH": str(tree / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
        code = f"import sys; sys.path.insert(0, {str(here)!r}); import compare; compare.compute({str(out)!r}, {steps})"
        subprocess.run([sys.executable, "-c", code], env=environment, cwd=scratch, check=True)
    finally:
        if revision != ".":
            subprocess.run(["git", "worktree", "remove", "--force", tree], cwd=root, check=True)
    return {path.stem: load_file(path) for path in sorted(out.glob("*.safetensors"))}


def tell(case: str, first: dict[str, Any], second: dict[str, Any]) -> bool:
    """A line about a case: equal, or what differs first and by how much at most."""
    import torch

    if first.keys() != second.keys():
        print(f"{case:32} NOT equal: only in one of them: {sorted(first.keys() ^ second.keys())[:4]}")
        return False
    wrong = [name for name in first if not torch.equal(first[name], second[name])]
    losses = sum(name.startswith("loss") for name in first)
    if not wrong:
        print(f"{case:32} equal: {losses} losses, {len(first) - losses} tensors")
        return True
    most = max(float((first[name].double() - second[name].double()).abs().max()) for name in wrong)
    print(f"{case:32} NOT equal: {len(wrong)} of {len(first)} differ, by {most:.3g} at most, {wrong[0]} for one")
    return False


# In the process of a revision: only names that both revisions have, wherever they stand.


def compute(out: str, steps: int) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    torch.set_num_threads(1)
    for case, what in CASES.items():
        for dtype in (torch.float64, torch.float32):
            made = steps_of(SMALL | what, steps, dtype)
            save_file(made, Path(out) / f"{case}, {str(dtype).removeprefix('torch.')}.safetensors")
        run = train(SMALL | what, case)
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        made = load_file(sorted((run / "checkpoint").glob("*.safetensors"))[-1])
        for line in lines:
            if line.get("end_of_epoch"):
                losses = {k: v for k, v in line["loss"].items() if what.get("identity", 1) or "identity" not in k}
                made |= {f"loss {line['epoch']} {k}": torch.tensor(v) for k, v in losses.items()}
        save_file(made, Path(out) / f"{case}, viceversa train.safetensors")


def module(*names: str) -> Any:
    """The first of the modules that this revision has."""
    for name in names:
        try:
            return importlib.import_module(f"viceversa.{name}")
        except ModuleNotFoundError as missing:
            if not str(missing.name).startswith("viceversa"):
                raise
    raise SystemExit(f"this revision has none of {names}")


def steps_of(what: dict[str, Any], steps: int, dtype: Any) -> dict[str, Any]:
    """Losses of some steps on random pictures, and all that the model and its optimizers hold after them."""
    import torch

    method, networks = module("model.cyclegan", "cyclegan"), module("model.networks", "networks")
    spec = networks.Generator(kind=what["generator"], width=what["width"], blocks=what["blocks"], halvings=7)
    crop, batch = what["crop"], what["batch"]
    model = method.build(
        spec, spec, lambda c: networks.PatchDiscriminator(c, what["width"], 2), history=3, crop=crop, seed=1,
        ema=what["ema"],
    ).to(dtype)  # fmt: skip
    model = model.to(memory_format=torch.channels_last)
    optimizers = method.adam(model, 2e-4)
    weights = method.Weights(identity=what["identity"])
    random = torch.Generator().manual_seed(2)
    made = {}
    for n in range(steps):
        a, b = (torch.rand(2, batch, 3, crop, crop, dtype=torch.float64, generator=random) * 2 - 1).to(dtype)
        a, b = (x.contiguous(memory_format=torch.channels_last) for x in (a, b))
        draws = torch.rand(2, batch, 2, generator=random)
        losses = method.step(model, a, b, *draws, optimizers, weights, nullcontext)
        if isinstance(losses, torch.Tensor):  # before it was a dict
            losses = dict(zip(method.LOSSES, losses.unbind(), strict=True))
            losses = {k: v for k, v in losses.items() if what["identity"] or "identity" not in k}
        made |= {f"loss {n} {name}": value for name, value in losses.items()}
    states = [o.state[p] for o in optimizers for g in o.param_groups for p in g["params"]]
    made |= {f"adam {n} {name}": value for n, state in enumerate(states) for name, value in state.items()}
    return {name: value.detach().contiguous().clone() for name, value in (made | model.state_dict()).items()}


def train(what: dict[str, Any], case: str) -> Path:
    """Two epochs of the command itself on made-up pictures; returns the run folder."""
    import numpy as np
    from PIL import Image

    random, root = np.random.default_rng(0), Path("pictures")
    for domain in ("day", "night"):
        (root / domain).mkdir(parents=True, exist_ok=True)
        for n in range(8):
            Image.fromarray(random.integers(0, 256, (160, 160, 3), np.uint8)).save(root / domain / f"{n}.png")
    run = Path(case)
    choices = {
        "size": what["crop"] + 8, "discriminator-layers": 2, "history": 3, "epochs": 1, "decay-epochs": 1, "seed": 3,
        "precision": "fp32", "device": "cpu", "log": "none", "out": run, **what,
    }  # fmt: skip
    flags = [text for name, value in choices.items() for text in (f"--{name}", str(value))]
    command = [sys.executable, "-c", PROGRAM, "train", str(root / "day"), str(root / "night"), *flags]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    if done.returncode:
        raise SystemExit(f"viceversa train failed for {case}: {done.stdout}{done.stderr}")
    return run


if __name__ == "__main__":
    sys.exit(main())

"""What the tests of several processes run under torchrun: python -m torch.distributed.run ... worker.py WHAT OUT."""

import hashlib
import json
import os
import signal
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file

import viceversa
from viceversa import distributed
from viceversa.cli import main
from viceversa.data.store import Store, draw
from viceversa.model.cyclegan import Weights, adam, build, step
from viceversa.model.networks import Generator, PatchDiscriminator

STEPS = 12


SPEC = Generator(width=4, blocks=1)
PYRAMID = replace(SPEC, kind="pyramid", levels=1, guided=True, sees=True, upsample="nearest")


def some_steps(out: str, recipe: str) -> None:
    """Steps on a global batch of two, however many processes share it; rank 0 saves losses and weights."""
    distributed.init("cpu")
    spec, projected, steps, side = (PYRAMID, 0.7, 3, 64) if recipe == "photo" else (SPEC, 0.0, STEPS, 32)
    model = build(
        spec,
        spec,
        lambda c: PatchDiscriminator(c, 4, 2),
        history=50,
        crop=side,
        seed=1,
        projected=projected > 0,
        tint=projected > 0,
    ).double()
    model = model.to(memory_format=torch.channels_last)
    optimizers = adam(model, 2e-4)
    photos = torch.rand(2, 6, 3, side, side, dtype=torch.double, generator=torch.Generator().manual_seed(2)) * 2 - 1
    rows = []
    for n in range(steps):
        d = draw(5, n, 6, 6, 2).part(distributed.rank(), distributed.world())
        a, b = photos[0][d.index_a], photos[1][d.index_b]
        losses = step(
            model, a, b, d.chance_a, d.chance_b, optimizers, Weights(projected=projected, tint=projected), nullcontext
        )
        rows.append(distributed.mean(torch.stack([*losses.values()])))
    if distributed.rank() == 0:
        tensors = {k: v for k, v in model.state_dict().items() if not k.startswith("history")}
        save_file({k: v.contiguous().clone() for k, v in tensors.items()} | {"losses": torch.stack(rows)}, out)
    distributed.close()


def other_settings(out: str, day: str, night: str) -> None:
    """Every rank asks for something else."""
    distributed.init("cpu")
    try:
        viceversa.train(day, night, out=out, size=36, crop=32, width=4 + distributed.rank(), blocks=1, device="cpu")
    except viceversa.BadInput as wrong:
        print(f"said: {wrong}", flush=True)
        sys.exit(2)


def other_images(out: str, days: str, night: str) -> None:
    """Every rank has a folder of its own."""
    distributed.init("cpu")
    day = f"{days}/{distributed.rank()}/day"
    try:
        viceversa.train(day, night, out=out, size=36, crop=32, width=4, blocks=1, device="cpu")
    except viceversa.BadInput as wrong:
        print(f"said: {wrong}", flush=True)
        sys.exit(2)


def shared_images(out: str, photos: str) -> None:
    """The images of a folder by a store that the processes share; each tells how it came by them. One is broken."""
    distributed.init("cpu")
    told: list[int] = []
    paths = sorted(Path(photos).iterdir())
    store = Store.load(
        paths, channels=3, size=40, resize="short", crop=32, device=torch.device("cpu"), folder=Path(out),
        on_progress=lambda done, all: told.append(done),
    )  # fmt: skip
    address, name = store.pixels.data_ptr(), ""
    for line in Path("/proc/self/maps").read_text().splitlines():
        low, high = (int(part, 16) for part in line.split()[0].split("-"))
        name = " ".join(line.split()[3:5]) if low <= address < high else name  # device and inode
    digest = hashlib.sha256(store.pixels.numpy().tobytes() + repr(store.layout.tolist()).encode()).hexdigest()
    print(json.dumps([store.place, len(told), name, digest, len(store.skipped), len(store.paths)]), flush=True)
    try:
        Store.load(paths[:3], channels=3, size=40, resize="none", crop=320, device=torch.device("cpu"))
    except viceversa.BadInput as wrong:
        print(f"said: {wrong}", flush=True)
    distributed.close()


def struck(victim: str, *arguments: str) -> None:
    """`viceversa train`, in which one of torchrun's processes is killed when the first checkpoint has been written."""
    write = sys.stdout.write

    def heard(text: str) -> int:
        if text.startswith("checkpoints take") and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
            children = Path(f"/proc/{os.getppid()}/task/{os.getppid()}/children").read_text().split()
            os.kill(int(children[int(victim)]), signal.SIGKILL)
        return write(text)

    sys.stdout.write = heard  # type: ignore[method-assign]
    sys.exit(main(["train", *arguments]))


if __name__ == "__main__":
    {
        "store": shared_images, "steps": some_steps, "settings": other_settings, "images": other_images,
        "struck": struck,
    }[sys.argv[1]](*sys.argv[2:])  # fmt: skip

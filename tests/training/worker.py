"""What the tests of several processes run under torchrun: python -m torch.distributed.run ... worker.py WHAT OUT."""

import sys
from contextlib import nullcontext
from dataclasses import replace

import torch
from safetensors.torch import save_file

import viceversa
from viceversa import distributed
from viceversa.data.store import draw
from viceversa.model.cyclegan import Weights, adam, build, step
from viceversa.model.networks import Generator, PatchDiscriminator

STEPS = 12


SPEC = Generator(width=4, blocks=1)
PYRAMID = replace(SPEC, kind="pyramid", levels=1, sees=True, upsample="nearest")


def some_steps(out: str, recipe: str) -> None:
    """Steps on a global batch of two, however many processes share it; rank 0 saves losses and weights."""
    distributed.init("cpu")
    spec, projected, steps, side = (PYRAMID, 0.7, 3, 64) if recipe == "photo" else (SPEC, 0.0, STEPS, 32)
    model = build(
        spec, spec, lambda c: PatchDiscriminator(c, 4, 2), history=50, crop=side, seed=1, projected=projected > 0
    ).double()
    model = model.to(memory_format=torch.channels_last)
    optimizers = adam(model, 2e-4)
    photos = torch.rand(2, 6, 3, side, side, dtype=torch.double, generator=torch.Generator().manual_seed(2)) * 2 - 1
    rows = []
    for n in range(steps):
        d = draw(5, n, 6, 6, 2).part(distributed.rank(), distributed.world())
        a, b = photos[0][d.index_a], photos[1][d.index_b]
        losses = step(model, a, b, d.chance_a, d.chance_b, optimizers, Weights(projected=projected), nullcontext)
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


if __name__ == "__main__":
    {"steps": some_steps, "settings": other_settings, "images": other_images}[sys.argv[1]](*sys.argv[2:])

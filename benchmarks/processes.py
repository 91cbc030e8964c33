"""Images a second of several processes against one, a thread each: python benchmarks/processes.py [--processes 2]

Each process makes the step of the paper's networks at batch 1; gradients are averaged over gloo. The two are timed in
turn, several times; `ratio` is that of the medians. Not compiled, so that it starts at once: the exchange costs the
same either way.
"""

import argparse
import functools
import os
import statistics
import subprocess
import sys
import time

import torch

from viceversa import distributed
from viceversa.device import autocast, choose_dtype, describe
from viceversa.model.cyclegan import Weights, adam, build, step
from viceversa.model.networks import Generator, PatchDiscriminator


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--blocks", type=int, default=9)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    o = parser.parse_args()
    if o.worker:
        work(o)
        return
    seconds = {count: [] for count in (1, o.processes)}
    for _ in range(o.rounds):
        for count, found in seconds.items():
            found.append(launch(count))
    one, many = (statistics.median(found) for found in seconds.values())
    print(f"{describe(torch.device('cpu'))}; {o.size} px, width {o.width}, {o.blocks} blocks, a thread a process")
    print(f"1 process    {1 / one:.3f} images/s, {one * 1e3:.0f} ms a step")
    print(f"{o.processes} processes  {o.processes / many:.3f} images/s, {many * 1e3:.0f} ms a step")
    print(f"ratio {o.processes * one / many:.2f}")


def launch(count: int) -> float:
    """Seconds a step with `count` processes."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    command = [*torchrun, __file__, "--worker", *sys.argv[1:]]
    result = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    if result.returncode:
        raise SystemExit(result.stderr)
    return float(result.stdout.split("seconds")[-1])


def work(o: argparse.Namespace) -> None:
    device = torch.device(distributed.init("cpu"))
    spec = Generator(width=o.width, blocks=o.blocks)
    model = build(spec, spec, lambda c: PatchDiscriminator(c, o.width), history=50, crop=o.size, seed=0)
    model = model.to(memory_format=torch.channels_last)
    optimizers = adam(model, 2e-4)
    context = functools.partial(autocast, device, choose_dtype("auto", device))
    a, b = (torch.rand(1, 3, o.size, o.size).contiguous(memory_format=torch.channels_last) * 2 - 1 for _ in range(2))
    times = []
    for _ in range(o.steps + 1):
        began = time.perf_counter()
        step(model, a, b, torch.rand(1, 2), torch.rand(1, 2), optimizers, Weights(), context)
        times.append(time.perf_counter() - began)
    slowest = max(distributed.everyone(statistics.median(times[1:])))
    if distributed.rank() == 0:
        print("seconds", slowest)
    distributed.close()


if __name__ == "__main__":
    main()

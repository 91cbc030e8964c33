"""One training step against the plain one of the recipe, in turn, in one process: `ratio` of the medians.

    python benchmarks/step.py --size 256                       the paper's step, as `viceversa train` makes it
    python benchmarks/step.py --size 128 --measures            what each measure brings, alone and together
    python benchmarks/step.py --size 256 --floor --profile     against the chip's floor; the ten largest kernels

The plain step is that of reference.py: eager, float32 (on a GPU with TF32 convolutions, PyTorch's default).
Ours is captured as one CUDA graph where there is a GPU. Times are of steady state: compilation is left out
and told apart. Images are random: the time of a step does not depend on them.
"""

import argparse
import contextlib
import functools
import statistics
import time
from collections.abc import Callable
from unittest import mock

import torch
from reference import Reference

from viceversa.device import (
    Graphed,
    autocast,
    choose_device,
    choose_dtype,
    compile_parts,
    describe,
    threads_for_cores,
    tune,
    why_not_compile,
)
from viceversa.model import cyclegan
from viceversa.model.cyclegan import CycleGAN, Optimizers, Weights, adam, build, step
from viceversa.model.networks import Generator, PatchDiscriminator

ALL = frozenset({"merged", "fused", "channels-last", "bf16", "compiled", "graph"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--blocks", type=int, default=9)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", choices=["auto", "fp32", "bf16"], default="auto")
    parser.add_argument("--rounds", type=int, default=0, help="steps of each that are timed (default: about a minute)")
    parser.add_argument("--checkpoint-activations", action="store_true")
    parser.add_argument("--measures", action="store_true", help="time each measure alone, and all but each")
    parser.add_argument(
        "--floor", action="store_true", help="compare with the chip's measured matrix rate and bandwidth"
    )
    parser.add_argument("--profile", action="store_true", help="print the ten largest kernels of our step")
    o = parser.parse_args()
    device = choose_device(o.device)
    torch.set_num_threads(threads_for_cores())
    tune(device)
    bf16 = choose_dtype(o.precision, device) == torch.bfloat16
    print(f"{describe(device)}, torch {torch.__version__}")
    print(f"{o.size} px, width {o.width}, {o.blocks} blocks, batch {o.batch}, {'bf16' if bf16 else 'fp32'}")
    on = ALL - ({"bf16"} if not bf16 else set()) - ({"graph"} if device.type != "cuda" else set())
    if reason := why_not_compile(device):
        print(f"not compiled: {reason}")
        on -= {"compiled"}

    plain = reference_step(o, device)
    if o.measures:
        rows = [("plain", frozenset()), *((f"+ {m}", frozenset({m})) for m in sorted(on))]
        rows += [*((f"all but {m}", on - {m}) for m in sorted(on)), ("all", on)]
    else:
        rows = [("all", on)]
    ratio = 0.0
    for name, measures in rows:
        began = time.perf_counter()
        ours = our_step(o, device, measures)
        ours()
        synchronize(device)
        first = time.perf_counter() - began
        theirs, mine = alternate(plain, ours, device, o.rounds)
        ratio = theirs / mine
        speed = f"{mine * 1e3:8.1f} ms a step, {o.batch / mine:7.2f} images/s, plain {theirs * 1e3:8.1f} ms"
        print(f"{name:20} {speed}, first step {first:5.1f} s, ratio {ratio:.2f}", flush=True)
        if device.type == "cuda":
            print(f"{'':20} peak memory {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB")
    if o.floor:
        tell_floor(o, device, mine, bf16)
    if o.profile:
        tell_kernels(ours, device)
    print(f"ratio {ratio:.2f}")


def networks(o: argparse.Namespace, recompute: bool = False) -> CycleGAN:
    spec, judge = Generator(width=o.width, blocks=o.blocks), functools.partial(PatchDiscriminator, width=o.width)
    return build(spec, spec, judge, history=50, crop=o.size, seed=0, recompute=recompute)


def images(o: argparse.Namespace, device: torch.device) -> list[torch.Tensor]:
    return [torch.rand(o.batch, 3, o.size, o.size, device=device) * 2 - 1 for _ in range(2)]


def reference_step(o: argparse.Namespace, device: torch.device) -> Callable[[], object]:
    reference = Reference(networks(o).to(device))
    a, b = images(o, device)
    return lambda: reference.step(a, b)


def our_step(o: argparse.Namespace, device: torch.device, on: frozenset[str]) -> Callable[[], object]:
    model = networks(o, o.checkpoint_activations).to(device)
    a, b = images(o, device)
    if "channels-last" in on:
        model = model.to(memory_format=torch.channels_last)
        a, b = (x.contiguous(memory_format=torch.channels_last) for x in (a, b))
    optimizers = adam(model, 2e-4, capturable="graph" in on)
    if "fused" not in on:
        groups = [x.param_groups[0]["params"] for x in optimizers]
        rate = torch.tensor(2e-4, device=device) if "graph" in on else 2e-4
        optimizers = Optimizers(*(torch.optim.Adam(g, rate, (0.5, 0.999), capturable="graph" in on) for g in groups))
    if "compiled" in on:
        compile_parts(model.parts())
    context = functools.partial(autocast, device, torch.bfloat16 if "bf16" in on else torch.float32)
    unmerged = mock.patch.object(cyclegan, "both", lambda network, x, y, *blind: (network(x), network(y)))

    def run(a: torch.Tensor, b: torch.Tensor, draws_a: torch.Tensor, draws_b: torch.Tensor) -> dict[str, torch.Tensor]:
        with contextlib.nullcontext() if "merged" in on else unmerged:
            return step(model, a, b, draws_a, draws_b, optimizers, Weights(), context)

    whole = Graphed(run, [next(model.ab.parameters())], device, print) if "graph" in on else run
    return lambda: whole(a, b, *torch.rand(2, o.batch, 2, device=device))


def alternate(plain: Callable, ours: Callable, device: torch.device, rounds: int) -> tuple[float, float]:
    """Median seconds of each, in turn; on a GPU several steps between two looks at the clock."""
    at_a_time = 10 if device.type == "cuda" else 1
    for _ in range(3):
        once(ours, device, at_a_time)
    estimate = once(plain, device, 1) + once(ours, device, 1)
    rounds = rounds or max(5, min(30, int(60 / estimate / at_a_time)))
    times = [(once(plain, device, at_a_time), once(ours, device, at_a_time)) for _ in range(rounds)]
    return statistics.median(t[0] for t in times), statistics.median(t[1] for t in times)


def once(function: Callable, device: torch.device, count: int) -> float:
    synchronize(device)
    began = time.perf_counter()
    for _ in range(count):
        function()
    synchronize(device)
    return (time.perf_counter() - began) / count


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def tell_floor(o: argparse.Namespace, device: torch.device, seconds: float, bf16: bool) -> None:
    """The two times that no version can beat: operations over matrix rate, and bytes over bandwidth."""
    dtype = torch.bfloat16 if bf16 else torch.float32
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        our_step(o, device, frozenset({"merged"}))()
    flops = counter.get_total_flops()
    n = 8192 if device.type == "cuda" else 2048
    x, y = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    rate = 2 * n**3 / min(once(lambda: x @ y, device, 5) for _ in range(5))
    source = torch.empty(2**30 if device.type == "cuda" else 2**28, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    bandwidth = 2 * source.nbytes / min(once(lambda: target.copy_(source), device, 3) for _ in range(5))
    parameters = sum(p.numel() for p in networks(o).parameters())
    moved = parameters * 4 * 7 + activations(o) * (2 if bf16 else 4)
    arithmetic, memory = flops / rate, moved / bandwidth
    print(f"operations {flops / 1e12:.2f} TFLOP at {rate / 1e12:.1f} TFLOP/s: {arithmetic * 1e3:.1f} ms")
    print(
        f"bytes      {moved / 1e9:.2f} GB at {bandwidth / 1e9:.0f} GB/s: {memory * 1e3:.1f} ms "
        "(each activation moved 4 times)"
    )
    print(f"step       {seconds * 1e3:.1f} ms: {seconds / max(arithmetic, memory):.1f} times the floor")


def activations(o: argparse.Namespace) -> int:
    """Numbers moved for activations: each convolution's output written and read, forward and backward, 6 passes."""
    outputs = 0

    def count(_module: torch.nn.Module, _inputs: object, output: torch.Tensor) -> None:
        nonlocal outputs
        outputs += output.numel()

    generator = Generator(width=o.width, blocks=o.blocks).build()
    for layer in generator.modules():
        if isinstance(layer, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
            layer.register_forward_hook(count)
    with torch.inference_mode():
        generator(torch.zeros(1, 3, o.size, o.size))
    return outputs * 6 * 4 * o.batch


def tell_kernels(ours: Callable, device: torch.device) -> None:
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profile:
        ours()
        synchronize(device)
    by = "self_cuda_time_total" if device.type == "cuda" else "self_cpu_time_total"
    print(profile.key_averages().table(sort_by=by, row_limit=10, max_name_column_width=70))


if __name__ == "__main__":
    main()

"""Networks, optimizers and the step, made ready: how it is computed, from the checkpoint or the start."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from .. import distributed
from ..config import Train
from ..data.folders import Sources
from ..data.store import Draws, Store, steps_per_epoch
from ..device import (
    Graphed,
    Threaded,
    available_cores,
    choose_dtype,
    compile_parts,
    threads_for_cores,
    tune,
    uncompiled,
    why_not_capture,
    why_not_compile,
    worth_compiling,
)
from ..model.cyclegan import CycleGAN, Optimizers, Weights, adam, build, step
from ..model.losses import least_squares, log_likelihood
from ..model.networks import PatchDiscriminator, PixelDiscriminator
from ..model.pyramid import PyramidGenerator
from ..terminal import Say, words
from . import checkpoint
from .checkpoint import Position, Saved
from .settings import generators

CPU_A_DAY = 4e16
"""Multiply-adds that a small machine trains through in a day."""
COLOURS_OF = 64
"""Images, evenly spread, whose colours count for those of a domain."""
WRONG = 0.2
"""So far from the true gradient, as a part of its norm, is no rounding: bf16's is 0.04, wrong ones were off by 0.9."""
Call = tuple[str, torch.Size, torch.dtype, bool, bool]
"""What is called, with what, and whether its input and its weights take gradients: each is compiled by itself."""
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def choose(
    s: Train, device: torch.device, sources: Sources, config: dict[str, Any] | None, say: Say
) -> tuple[dict[str, Any], dict[str, Any]]:
    """How this run computes: number format, compilation, threads; and what of it is kept for the next time.

    A resumed run computes as it did before, to the last bit, unless it is on another kind of device, --precision is
    another, or this machine cannot, which is not kept.
    """
    tune(device)
    kept = None if config is None or config["how"]["device"] != device.type else dict(config["how"])
    how = dict(kept or {})
    if not how:
        seconds = None if s.minutes is None else 60 * s.minutes
        if device.type == "cpu" and seconds is None and (days := work(s, sources) / CPU_A_DAY) > 1:
            say(
                f"this takes some {days:.0f} days on a CPU; --recipe photo --minutes 30 (or paint, for styles) gives "
                "pictures in half an hour"
            )
        compiled = worth_compiling(device, seconds=seconds, operations=work(s, sources))
        how = {"device": device.type, "compile": compiled, "threads": threads_for_cores()}
    if how["compile"] and (reason := why_not_compile(device)):
        say(f"not compiled, so slower than it could be: {reason}")
        how["compile"] = False
    if how["threads"] > available_cores():
        say(f"{words(available_cores(), 'thread')} instead of {how['threads']}: this machine has no more cores")
        how["threads"] = available_cores()
    torch.set_num_threads(how["threads"])
    kept = how if kept is None else kept
    dtype = "bf16" if choose_dtype(s.precision, device) == torch.bfloat16 else "fp32"
    if "precision" not in how or (config is not None and config["settings"]["precision"] != s.precision):
        how["precision"] = kept["precision"] = dtype
    elif how["precision"] == "bf16" and dtype == "fp32":
        say("fp32 instead of bf16, which this chip has not")
        how["precision"] = dtype
    how, kept = distributed.from_first((how, kept))
    return how, kept


def work(s: Train, sources: Sources) -> float:
    """Multiply-adds of the whole run, roughly: 1.1e12 a step at 256 px, width 64, 9 blocks (recipe, "Cost"); and some
    for each pixel that is seen, which a pyramid's own do not count for."""
    side = s.crop / (2**s.levels if s.generator == "pyramid" else 1)
    networks = 1.1e12 * (side / 256) ** 2 * (s.width / 64) ** 2 * (s.blocks + 4) / 13
    a_step = (networks + 4e6 * s.crop**2) * s.batch
    steps = steps_per_epoch(len(sources.a), len(sources.b), s.batch) * (s.epochs + s.decay_epochs)
    return float(a_step * steps)


def make_model(s: Train, device: torch.device) -> CycleGAN:
    """The networks on the device, in channels-last layout, which convolutions of bf16 and float32 like best."""

    def discriminator(channels: int) -> nn.Module | None:
        if s.discriminator == "none":
            return None
        if s.discriminator == "pixel":
            return PixelDiscriminator(channels, s.width, s.discriminator_norm)
        return PatchDiscriminator(channels, s.width, s.discriminator_layers, s.discriminator_norm)

    assert s.seed is not None
    model = build(
        *generators(s), discriminator, history=s.history, crop=s.crop, seed=s.seed, ema=s.ema,
        projected=s.projected > 0, recompute=s.checkpoint_activations, patch=s.patch, tint=s.tint > 0,
    )  # fmt: skip
    return model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def begin_with_colours(model: CycleGAN, stores: tuple[Store, Store]) -> None:
    """A pyramid begins with the colours of the domain that it translates to, not at gray: of few steps, many would go
    into that. (The paper's generators begin as in the paper.)
    """
    if isinstance(model.ab, PyramidGenerator):
        of_a, of_b = (colours_of(store) for store in stores)
        for way, source, target in (("ab", of_a, of_b), ("ba", of_b, of_a)):
            for network in {getattr(model, way), model.generators()[way]}:  # and its average, if it has one
                assert isinstance(network, PyramidGenerator)
                network.begin(source, target)


def colours_of(store: Store) -> Tensor:
    """(C, N): the pixels of images that are evenly spread over a domain."""
    index = torch.linspace(0, len(store.paths) - 1, min(len(store.paths), COLOURS_OF)).long()
    return store.crops(index, torch.full((len(index), 4), 0.5)).transpose(0, 1).flatten(1)


def resume(saved: Saved | None, model: CycleGAN, optimizers: Optimizers, say: Say) -> Position:
    """Where to go on: from the checkpoint, or the start."""
    distributed.must_agree("checkpoints", saved and saved.position.step)
    if saved is None:
        return Position(world=distributed.world())
    for line in saved.words:
        say(line)
    checkpoint.restore(model, optimizers, saved.tensors)
    at = saved.position
    if at.world != distributed.world():
        say(f"going on with {words(distributed.world(), 'process', 'processes')} instead of {at.world}")
    return replace(at, world=distributed.world())


def weights_of(s: Train) -> Weights:
    return Weights(
        cycle=s.cycle,
        identity=s.identity,
        projected=s.projected,
        tint=s.tint,
        adversarial=least_squares if s.adversarial == "least-squares" else log_likelihood,
    )


def compiles_rightly(
    model: CycleGAN, s: Train, stores: tuple[Store, Store], context: Callable[[], torch.autocast],
    device: torch.device, say: Say,
) -> bool:  # fmt: skip
    """Are the gradients of what is to be compiled, but for rounding, those of the networks as they were written? On a
    CPU that is the work of whatever C++ compiler is there, and such have got it wrong. Tried on copies.
    """
    if device.type != "cpu":
        return True
    trial, calls = deepcopy(model), dict[Call, nn.Module]()

    def remember(part: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        (x, *_), learns = inputs, next(part.parameters()).requires_grad
        calls.setdefault((repr(part), x.shape, x.dtype, x.requires_grad, learns), part)

    hooks = [part.register_forward_pre_hook(remember) for part in trial.parts()]
    index, chance = torch.zeros(s.batch, dtype=torch.long), torch.full((s.batch, 18), 0.5)
    a, b = (store.crops(index, chance[:, :4]) for store in stores)
    step(trial, a, b, chance, chance, adam(trial, s.learning_rate), weights_of(s), context)
    for hook in hooks:
        hook.remove()
    off = []
    for call, part in calls.items():
        compiled = deepcopy(part)
        compile_parts([compiled])
        pairs = zip(gradients(compiled, call, context), gradients(part, call, context), strict=True)
        off += [float((ours - true).norm() / true.norm().clamp(min=1e-12)) for ours, true in pairs]
    right = all(distributed.everyone(all(x < WRONG for x in off)))  # not so of what is not a number
    if not right:
        say("not compiled, so slower than it could be: this machine's C++ compiler makes wrong gradients")
    return right


def gradients(part: nn.Module, call: Call, context: Callable[[], torch.autocast]) -> list[Tensor]:
    """Of a random input and of the weights (of biases before a norm they are noise), for a random one of the output."""
    _, shape, dtype, takes, learns = call
    random = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=random).to(dtype, memory_format=torch.channels_last).requires_grad_(takes)
    part.requires_grad_(learns).zero_grad()
    with context():
        y = part(x)
    y.backward(torch.randn(y.shape, generator=random).to(y.dtype))
    return [t.grad for t in (x, *part.parameters()) if t.dim() > 1 and t.grad is not None]


def make_step(
    s: Train, model: CycleGAN, optimizers: Optimizers, stores: tuple[Store, Store],
    context: Callable[[], torch.autocast], device: torch.device, say: Say,
) -> Callable[[Draws], dict[str, Tensor]]:  # fmt: skip
    """Draws in, losses out. Images that live on the GPU are cropped inside the step, which is one CUDA graph. On a
    CPU a run by the clock takes as many threads as are quickest (by epochs its last bits count: it keeps its own).
    """
    weights = weights_of(s)
    store_a, store_b = stores

    def train_on(a: Tensor, b: Tensor, chance_a: Tensor, chance_b: Tensor) -> dict[str, Tensor]:
        a, b = (x.contiguous(memory_format=torch.channels_last) for x in (a, b))
        return step(model, a, b, chance_a, chance_b, optimizers, weights, context)

    def crop_and_train(
        index_a: Tensor, index_b: Tensor, crop_a: Tensor, crop_b: Tensor, chance_a: Tensor, chance_b: Tensor
    ) -> dict[str, Tensor]:
        return train_on(store_a.crops(index_a, crop_a), store_b.crops(index_b, crop_b), chance_a, chance_b)

    reason = why_not_capture(distributed.backend())
    if device.type == "cuda" and reason:
        say(f"the step is not captured as a CUDA graph, so slower than it could be: {reason}")
    changing = [next(network.parameters()) for network in (model.ab, model.ba)]

    def graphed(function: Callable[..., dict[str, Tensor]]) -> Callable[..., dict[str, Tensor]]:
        return Graphed(function, changing, device, say) if device.type == "cuda" and not reason else function

    def onto(x: Tensor) -> Tensor:
        # Elsewhere than on CUDA a copy that is not waited for reads memory that may be gone (x is a temporary).
        return x.to(device, non_blocking=device.type == "cuda")

    if store_a.on_device and store_b.on_device:
        whole = graphed(crop_and_train)

        def advance(d: Draws) -> dict[str, Tensor]:
            drawn = (d.index_a, d.index_b, d.crop_a, d.crop_b, d.chance_a, d.chance_b)
            return whole(*map(onto, drawn))
    else:
        after = graphed(train_on)

        def advance(d: Draws) -> dict[str, Tensor]:
            a, b = store_a.crops(d.index_a, d.crop_a), store_b.crops(d.index_b, d.crop_b)
            return after(onto(a), onto(b), onto(d.chance_a), onto(d.chance_b))

    threads = torch.get_num_threads()
    adapts = s.minutes is not None and device.type == "cpu" and distributed.world() == 1 and threads > 1
    return Threaded(advance, threads) if adapts else advance


def count_contrast(
    d: Draws, model: CycleGAN, stores: tuple[Store, Store], context: Callable[[], torch.autocast]
) -> None:
    """Of what the generators that are shown make of a step's images, once more."""
    a, b = stores[0].crops(d.index_a, d.crop_a), stores[1].crops(d.index_b, d.crop_b)
    with uncompiled(), context():
        model.update_contrast(*(x.contiguous(memory_format=torch.channels_last) for x in (a, b)))

"""What one process of a training run consists of, made ready: data, networks, optimizers, the compiled step."""

import platform
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .. import __version__, distributed
from ..config import Train
from ..data.folders import Sources, find_sources
from ..data.store import Draws, Store, steps_per_epoch
from ..device import (  # fmt: skip
    Graphed,
    autocast,
    choose_device,
    choose_dtype,
    compile_parts,
    describe,
    tune,
    use_available_cores,
    why_not_capture,
    why_not_compile,
    worth_compiling,
)
from ..errors import BadInput
from ..model.cyclegan import CycleGAN, Optimizers, Weights, adam, build, step
from ..model.losses import least_squares, log_likelihood
from ..model.networks import PatchDiscriminator, PixelDiscriminator
from ..terminal import progress_bar
from . import checkpoint, settings
from .checkpoint import Position
from .schedule import Schedule

Say = Callable[[str], None]


@dataclass
class Session:
    """Ready to train. `advance(draws)` makes one step and returns its losses by name, on the device."""

    settings: Train
    sources: Sources
    names: tuple[str, str]
    stores: tuple[Store, Store]
    model: CycleGAN
    optimizers: Optimizers
    advance: Callable[[Draws], dict[str, Tensor]]
    device: torch.device
    dtype: torch.dtype
    position: Position
    how: str
    """Device, format and compilation, for people."""

    @property
    def folder(self) -> Path:
        return self.settings.out

    @property
    def seed(self) -> int:
        assert self.settings.seed is not None  # drawn by settings.merged
        return self.settings.seed

    @property
    def batch(self) -> int:
        """Images of each domain a step, over all processes."""
        return self.settings.batch * distributed.world()

    @property
    def counts(self) -> tuple[int, int]:
        return len(self.stores[0].paths), len(self.stores[1].paths)

    @property
    def schedule(self) -> Schedule:
        s = self.settings
        return Schedule(
            epochs=s.epochs, decay_epochs=s.decay_epochs, minutes=s.minutes, start=s.learning_rate,
            steps_per_epoch=steps_per_epoch(*self.counts, self.batch),
        )  # fmt: skip

    def autocast(self) -> torch.autocast:
        return autocast(self.device, self.dtype)


def prepare(asked: Train, say: Say) -> Session:
    """Check, find and decode the images, build or resume. Raises BadInput before anything is written.

    Under torchrun every process comes here; what is wrong on one is raised on all.
    """
    try:
        device = choose_device(distributed.init(asked.device))
        settings.check(asked)
        config = settings.read_config(asked.out)
        wanted = settings.merged(asked, config)
        sources = find_sources(wanted.a, wanted.b, wanted.test_a, wanted.test_b, wanted.names)
        error = None
    except BadInput as wrong:
        error = str(wrong)
    distributed.together(error)

    # A seed that rank 0 drew is everybody's; every other difference is an error on all ranks.
    wanted = replace(wanted, seed=distributed.from_first(wanted.seed))
    distributed.must_agree("settings", {k: v for k, v in settings.plain(wanted).items() if k != "device"})
    use_available_cores()
    if config is not None and config["how"]["device"] == device.type:
        how = config["how"]  # a resumed run computes as it did before, to the last bit
        torch.set_num_threads(how["threads"])
    else:
        how = choose(wanted, device, sources, say)
    dtype = {"bf16": torch.bfloat16, "fp32": torch.float32}[how["precision"]]
    tune(device)

    stores = load(wanted, sources, device, say)
    distributed.must_agree("images", [[p.name for p in store.paths] for store in stores])
    counts = [len(store.paths) for store in stores]
    if distributed.world() * wanted.batch > max(counts):
        raise BadInput(
            f"{distributed.world()} processes with --batch {wanted.batch} need more than the {max(counts)} images "
            "of the larger set: start fewer processes"
        )
    model = make_model(wanted, device)
    optimizers = adam(model, wanted.learning_rate, capturable=device.type == "cuda")
    steps = steps_per_epoch(counts[0], counts[1], wanted.batch * distributed.world())
    position = resume(wanted, model, optimizers, steps, say)

    record = describe_run(wanted, sources, stores, device, how)
    if config is not None and config["images"] != record["images"]:
        raise BadInput(
            f"the images are not those this run began with ({config['images']} then, {record['images']} now): "
            "put them back, or name another --out"
        )
    if distributed.rank() == 0:
        settings.write_config(wanted.out, record)
    if how["compile"]:
        compile_parts(model.parts())
    advance = make_step(wanted, model, optimizers, stores, partial(autocast, device, dtype), device, say)
    return Session(
        settings=wanted, sources=sources, names=sources.names, stores=stores, model=model, optimizers=optimizers,
        advance=advance, device=device, dtype=dtype, position=position,
        how=f"{describe(device)}, {how['precision']}{', compiled' if how['compile'] else ''}",
    )  # fmt: skip


def choose(s: Train, device: torch.device, sources: Sources, say: Say) -> dict[str, Any]:
    """How this run computes: number format, compilation, threads. Kept in the run, so that a resume repeats it."""
    dtype = choose_dtype(s.precision, device)
    compiled = False
    seconds = None if s.minutes is None else 60 * s.minutes
    if worth_compiling(device, seconds=seconds, operations=work(s, sources)):
        reason = why_not_compile(device)
        compiled = reason is None
        if reason:
            say(f"not compiled, so slower than it could be: {reason}")
    how = {
        "device": device.type,
        "precision": "bf16" if dtype == torch.bfloat16 else "fp32",
        "compile": compiled,
        "threads": torch.get_num_threads(),
    }
    return dict(distributed.from_first(how))


def work(s: Train, sources: Sources) -> float:
    """Multiply-adds of the whole run, roughly: 1.1e12 a step at 256 px, width 64, 9 blocks (recipe, "Cost")."""
    a_step = 1.1e12 * (s.crop / 256) ** 2 * (s.width / 64) ** 2 * (s.blocks + 4) / 13 * s.batch
    steps = steps_per_epoch(len(sources.a), len(sources.b), s.batch) * (s.epochs + s.decay_epochs)
    return float(a_step * steps)


def load(s: Train, sources: Sources, device: torch.device, say: Say) -> tuple[Store, Store]:
    """Decode both domains; broken images are named, and left out."""
    stores = []
    for name, paths, channels in zip(sources.names, (sources.a, sources.b), s.channels, strict=True):
        with progress_bar(f"reading {name}", len(paths), silent=distributed.rank() != 0) as update:
            store = Store.load(
                paths, channels=channels, size=s.size, resize=s.resize, crop=s.crop, device=device, zoom=s.zoom,
                folder=s.out,
                on_progress=update,
            )  # fmt: skip
        for line in store.skipped:
            say(f"skipped: {line}")
        if store.skipped:
            say(f"{len(store.skipped)} broken images of {name} were left out")
        stores.append(store)
    return stores[0], stores[1]


def make_model(s: Train, device: torch.device) -> CycleGAN:
    """The networks on the device, in channels-last layout, which convolutions of bf16 and float32 like best."""

    def discriminator(channels: int) -> nn.Module | None:
        if s.discriminator == "none":
            return None
        if s.discriminator == "pixel":
            return PixelDiscriminator(channels, s.width)
        return PatchDiscriminator(channels, s.width, s.discriminator_layers)

    assert s.seed is not None
    ab, ba = settings.generators(s)
    model = build(
        ab,
        ba,
        discriminator,
        history=s.history,
        crop=s.crop,
        seed=s.seed,
        ema=s.ema,
        projected=s.projected > 0,
        recompute=s.checkpoint_activations,
    )
    return model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def resume(s: Train, model: CycleGAN, optimizers: Optimizers, steps: int, say: Say) -> Position:
    """Where to go on: the newest whole checkpoint, or the start. `steps`: those of an epoch, now."""
    saved = checkpoint.load(s.out)
    distributed.must_agree("checkpoints", saved and saved[0].step)
    if saved is None:
        return Position(world=distributed.world())
    position, tensors, words = saved
    for word in words:
        say(word)
    checkpoint.restore(model, optimizers, tensors)
    if position.world != distributed.world():
        say(f"going on with {distributed.world()} processes instead of {position.world}")
        position = replace(position, step=round(position.epochs * steps), world=distributed.world())
    return position


def make_step(
    s: Train, model: CycleGAN, optimizers: Optimizers, stores: tuple[Store, Store],
    context: Callable[[], torch.autocast], device: torch.device, say: Say,
) -> Callable[[Draws], dict[str, Tensor]]:  # fmt: skip
    """Draws in, losses out. Images that live on the GPU are cropped inside the step, which is one CUDA graph."""
    weights = Weights(
        cycle=s.cycle,
        identity=s.identity,
        projected=s.projected,
        adversarial=least_squares if s.adversarial == "least-squares" else log_likelihood,
    )
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

    return advance


def describe_run(
    s: Train, sources: Sources, stores: tuple[Store, Store], device: torch.device, how: dict[str, Any]
) -> dict[str, Any]:
    """RUN/config.json: what was asked, on what, and how it is computed."""
    tests = {"a": [str(p) for p in sources.test_a], "b": [str(p) for p in sources.test_b]}
    return {
        "settings": settings.plain(s),
        "domains": list(sources.names),
        "seed": s.seed,
        "precision": how["precision"],
        "how": how,
        "device": describe(device),
        "versions": {"viceversa": __version__, "torch": torch.__version__, "python": platform.python_version()},
        "images": {
            "a": len(stores[0].paths), "b": len(stores[1].paths), "test_a": len(tests["a"]), "test_b": len(tests["b"]),
        },
        "held_out": tests if sources.held_out else None,
        "skipped": [*stores[0].skipped, *stores[1].skipped],
    }  # fmt: skip

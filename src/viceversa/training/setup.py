"""Before the first step: what was asked against what the run folder holds, the images, the networks, the step."""

import hashlib
import json
import os
import platform
import secrets
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch import Tensor, nn

from .. import __version__, distributed
from ..config import OF_THIS_TIME, RECIPES, Train
from ..data.folders import Sources, find_sources, spread
from ..data.statistics import COLOURFUL, in_colour
from ..data.store import Draws, Store, steps_per_epoch
from ..device import (
    Graphed,
    choose_dtype,
    describe,
    threads_for_cores,
    tune,
    why_not_capture,
    why_not_compile,
    worth_compiling,
)
from ..errors import BadInput
from ..files import write_text
from ..model.cyclegan import CycleGAN, Optimizers, Weights, build, step
from ..model.losses import least_squares, log_likelihood
from ..model.networks import Generator, PatchDiscriminator, PixelDiscriminator, smallest_patch
from ..terminal import progress_bar, words
from . import checkpoint
from .checkpoint import Position, Saved

FOLDERS = ("a", "b", "test_a", "test_b")
CPU_A_DAY = 4e16
"""Multiply-adds that a small machine trains through in a day."""
FREE = frozenset(
    ("recipe", "start", "keep_lightness", "out", "epochs", "decay_epochs", "minutes", "score", "score_every",
     "patience", "features", "keep", "images", "device", "checkpoint_activations", "log",
     "engine", "address", "workers", *FOLDERS)
)  # fmt: skip
"""What may change midway without a word: it does not change what is trained, or how."""
TOLD = frozenset(("learning_rate", "batch", "precision", "cycle", "identity", "projected", "adversarial"))
"""What may change midway, is told, and kept in config.json. All else (networks, domains, images) may not change."""

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}

Say = Callable[[str], None]
Size = tuple[str, int]
"""A picture as it is known again: its file's name and size."""


# Settings


def check(s: Train) -> None:
    """Raise BadInput for settings that do not go together, before anything is read."""
    if s.engine != "local":
        raise BadInput(f"--engine {s.engine} is for the command line: viceversa train ... --engine {s.engine}")
    generator = generators(s)[0]
    if s.epochs + s.decay_epochs == 0:
        raise BadInput("--epochs 0 --decay-epochs 0: nothing to train; raise one of them")
    if s.identity and s.channels[0] != s.channels[1]:
        raise BadInput(
            f"--identity {s.identity:g} needs the same channels in both domains, not {s.channels[0]} and "
            f"{s.channels[1]}: use --identity 0"
        )
    if s.resize != "none" and s.crop > s.size:
        raise BadInput(f"--crop {s.crop} is larger than --size {s.size}: raise --size or lower --crop")
    if s.crop % generator.multiple:
        near = max(generator.multiple, s.crop // generator.multiple * generator.multiple)
        raise BadInput(
            f"--crop {s.crop}: the {s.generator} generator takes multiples of {generator.multiple}; use {near}"
        )
    least = max(generator.smallest, smallest_patch(s.discriminator_layers) if s.discriminator == "patch" else 1)
    if s.crop < least:
        raise BadInput(f"--crop {s.crop}: these networks take sides of {least} and more")
    if s.patch is not None and s.patch < least:
        raise BadInput(f"--patch {s.patch}: these networks take sides of {least} and more")


def generators(s: Train) -> tuple[Generator, Generator]:
    """What ab and ba are. A U-Net halves as often as the crop allows, 8 times at most (U-Net 256, U-Net 128)."""
    halvings = 8 if s.crop % 256 == 0 else 7
    a, b = s.channels
    ab = Generator(
        kind=s.generator, channels_in=a, channels_out=b, width=s.width, blocks=s.blocks, halvings=halvings,
        upsample=s.upsample, levels=s.levels if s.generator == "pyramid" else 0, sees=s.sees,
    )  # fmt: skip
    return ab, replace(ab, channels_in=b, channels_out=a)


def read_config(run: Path) -> dict[str, Any] | None:
    """RUN/config.json; None where no run was begun. Raises BadInput for a folder that holds something else."""
    if run.exists() and not run.is_dir():
        raise BadInput(f"--out {run} is a file: name a folder for the run")
    try:
        config: dict[str, Any] = json.loads((run / "config.json").read_text(encoding="utf-8"))
        config["settings"]["epochs"], config["seed"], config["how"]["threads"]
    except FileNotFoundError:
        if run.exists() and any(not p.name.startswith(".") for p in run.iterdir()):
            raise BadInput(
                f"--out {run} is no run folder (it has no config.json) and not empty: name another"
            ) from None
        return None
    except (ValueError, KeyError, TypeError):
        raise BadInput(f"--out {run}: its config.json is not one of viceversa train: name another folder") from None
    return config


def merged(asked: Train, config: dict[str, Any] | None) -> tuple[Train, dict[str, tuple[Any, Any]]]:
    """What was asked, completed by what the run holds; and what is told of as changed: (before, now) by name.

    Raises BadInput that names what differs and cannot change midway.
    """
    if config is None:
        return replace(asked, seed=secrets.randbelow(2**31) if asked.seed is None else asked.seed), {}
    held = {field.name: field.default for field in fields(Train)} | config["settings"]  # older runs know fewer
    held |= {"seed": config["seed"], "names": config["domains"]}  # drawn or found, where they were not given
    s = replace(
        asked,
        seed=config["seed"] if asked.seed is None else asked.seed,
        names=asked.names or (config["domains"][0], config["domains"][1]),
    )
    changed = {
        name: (held[name], value)
        for name, value in plain(s).items()
        if name not in FREE and not same(held[name], value)
    }
    # A second discriminator is a network: its weight may change, but it cannot come or go.
    refused = [n for n, (old, new) in changed.items() if n not in TOLD or (n == "projected" and not (old and new))]
    if refused:
        named = "; ".join(f"{flag(name)} is {changed[name][1]} but was {changed[name][0]}" for name in refused)
        raise BadInput(
            f"{asked.out} holds a run with other settings: {named}. Networks, domains and the preparation of images "
            "cannot change midway: give the same settings to go on, or another --out"
        )
    return s, changed


def everybodys(s: Train) -> Train:
    """A seed that rank 0 drew is everybody's; any other difference is raised in all processes."""
    s = replace(s, seed=distributed.from_first(s.seed))
    distributed.must_agree("settings", {name: value for name, value in plain(s).items() if name != "device"})
    return s


def in_words(changed: dict[str, tuple[Any, Any]]) -> list[str]:
    """What the person is told of as changed from here on."""
    return [f"from here on {flag(name)} is {new}, it was {old}" for name, (old, new) in changed.items()]


def own_settings(s: Train, config: dict[str, Any] | None) -> list[str]:
    """Words for what a run that goes on was begun with and nothing says otherwise, where it is no default."""
    if config is None:
        return []
    usual, now = plain(replace(Train(a=s.a), **RECIPES.get(s.recipe, {}))), plain(s)
    kept = [
        name
        for name, value in config["settings"].items()
        if name not in OF_THIS_TIME and name in now and same(now[name], value) and not same(usual[name], value)
    ]
    parts = [as_flag(name, now[name]) for name in kept]
    return [f"{s.out} goes on with its own settings: {' '.join(parts)}"] if parts else []


def same_ruler(s: Train, config: dict[str, Any] | None) -> bool:
    """Are scores made as this run's earlier ones were?"""
    return config is None or (config["settings"]["score"], config["settings"]["features"]) == (s.score, s.features)


def same(held: Any, value: Any) -> bool:
    return json.loads(json.dumps(held)) == value  # type: ignore[no-any-return]


def flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def as_flag(name: str, value: object) -> str:
    """A setting as it is given on the command line."""
    if isinstance(value, bool):
        return flag(name if value else f"no_{name}")
    return f"{flag(name)} {' '.join(map(str, value)) if isinstance(value, list) else value}"


def plain(s: Train) -> dict[str, Any]:
    """Settings as JSON gives them back: lists for tuples, folders by their full path."""
    values = json.loads(json.dumps(asdict(s), default=str))
    for name in FOLDERS:
        if values[name] is not None:
            values[name] = str(Path(values[name]).expanduser().absolute())
    return dict(values)


# How far it is to go


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Full learning rate for `epochs`, then linear to zero over `decay_epochs`.

    With `minutes` the clock tells how far the run is, and the two numbers give only the proportion.
    """

    epochs: int
    decay_epochs: int
    minutes: float | None
    start: float
    """Learning rate at the start."""
    steps_per_epoch: int

    @property
    def total(self) -> int:
        return self.epochs + self.decay_epochs

    def epoch(self, step: int) -> int:
        """The epoch, from 1, that the last of `step` steps belonged to."""
        return max(1, -(-step // self.steps_per_epoch))

    def fraction(self, step: int, seconds: float) -> float:
        """How much of the run is done, 0 to 1."""
        if self.minutes is not None:
            return min(1.0, seconds / (60 * self.minutes))
        return min(1.0, step / (self.total * self.steps_per_epoch))

    def seconds_left(self, step: int, seconds: float, seconds_a_step: float) -> float:
        if self.minutes is not None:
            return max(0.0, 60 * self.minutes - seconds)
        return (self.total * self.steps_per_epoch - step) * seconds_a_step

    def learning_rate(self, step: int, seconds: float) -> float:
        """For the next step, after `step` steps and `seconds` of training: the authors' formula, epochs from 1."""
        whole_epochs = step // self.steps_per_epoch
        epoch = 1 + (self.total * self.fraction(step, seconds) if self.minutes is not None else whole_epochs)
        return self.start * (1 - max(0.0, epoch - self.epochs) / (self.decay_epochs + 1))


def schedule_of(s: Train, counts: tuple[int, int], batch: int) -> Schedule:
    """For so many images of each domain; `batch`: of all processes. Raises BadInput where they are too few."""
    if batch > max(counts):
        raise BadInput(
            f"{words(distributed.world(), 'process', 'processes')} with --batch {s.batch} need more than the "
            f"{max(counts)} images of the larger set: start fewer processes, or lower --batch"
        )
    return Schedule(
        epochs=s.epochs, decay_epochs=s.decay_epochs, minutes=s.minutes, start=s.learning_rate,
        steps_per_epoch=steps_per_epoch(*counts, batch),
    )  # fmt: skip


def finished(s: Train, at: Position) -> str | None:
    """Why there is nothing more to train, and how to train on; None where there is more."""
    if at.due:
        return None
    if s.patience and at.worse >= s.patience:
        why, more = f"early, {words(at.worse, 'score')} in a row were no better", "a larger --patience, or --patience 0"
    elif s.minutes is not None and at.seconds >= 60 * s.minutes:
        why, more = "", "a larger --minutes"
    elif s.minutes is None and at.epochs >= s.epochs + s.decay_epochs:
        why, more = "", "a larger --epochs or --decay-epochs"
    else:
        return None
    far = f"{at.epochs:g} epochs, {at.seconds / 60:.1f} minutes"
    return f"{s.out} is finished{' ' * bool(why)}{why}: {far}. To train on, give {more}"


# This process


class Stop:
    """`with Stop() as stop:` ... `if stop.signal:` save and go. A second Ctrl-C ends at once.

    The handler of Ctrl-C, SIGTERM and SIGHUP (a lost connection) only sets a flag, which the work looks at
    between two steps. What is ignored (by nohup) stays ignored.
    """

    def __init__(self) -> None:
        self.signal = 0
        self.before: dict[int, Any] = {}

    def __enter__(self) -> "Stop":
        if threading.current_thread() is threading.main_thread():  # Python allows handlers nowhere else
            for number in (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", None)):
                if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                    self.before[number] = signal.signal(number, self.handle)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def handle(self, number: int, frame: FrameType | None) -> None:
        if self.signal:
            raise KeyboardInterrupt
        self.signal = number


@contextmanager
def alone_in(run: Path, say: Say) -> Iterator[None]:
    """The run folder for this process alone, from the first look to the end. Raises BadInput when it is taken.

    The lock is the operating system's: that of a process that died is gone with it. RUN/.holder.json tells who
    has it. What a killed process left half-written is removed. A folder that comes to nothing is not left.
    """
    if distributed.rank() != 0:
        yield
        return
    read_config(run)  # before anything is written into a folder that is something else
    made = [folder for folder in (run, *run.parents) if not folder.exists()]
    lock, holder = FileLock(run / ".lock"), run / ".holder.json"
    try:
        run.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            raise BadInput(
                f"--out {run} is being trained {told(holder)}: wait for it, end it, or name another folder"
            ) from None
        except (OSError, NotImplementedError) as error:
            if not os.access(run, os.W_OK):
                raise
            say(f"{run}: this file system has no locks ({error}); see that no other process trains into it")
        checkpoint.clean(run)
        who = {"host": socket.gethostname(), "process": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        write_text(holder, json.dumps(who))
    except OSError as error:
        raise BadInput(f"--out {run}: cannot write there ({error.strerror}): name another folder") from None
    try:
        yield
    finally:
        with suppress(OSError):
            holder.unlink()
        begun = (run / "config.json").exists()
        if not begun:
            with suppress(OSError):
                (run / ".lock").unlink()
        lock.release()
        with suppress(OSError):
            for folder in () if begun else made:
                folder.rmdir()


def told(holder: Path) -> str:
    """Who holds a run, in words."""
    try:
        who = json.loads(holder.read_text(encoding="utf-8"))
        return f"by process {who['process']} on {who['host']} since {who['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "by another process"


# Images


def find_images(s: Train, config: dict[str, Any] | None) -> tuple[Sources, dict[str, list[str]], list[str]]:
    """The images of both domains; the names, by domain, of what is kept out of training to serve as tests; and
    words about what is new. Raises BadInput, also where --out is among them.

    What was kept out once stays out, also when other images are there now, or tests have come of their own.
    """
    sources = find_sources(s.a, s.b, s.test_a, s.test_b, s.names, out=s.out)
    kept, said = {}, []
    for side, name in zip("ab", sources.names, strict=True):
        train, tests = list(getattr(sources, side)), list(getattr(sources, f"test_{side}"))
        before = set((config or {}).get("kept_out", {}).get(side, ()))
        own = tests_given(s, side)
        everything = train if own else sorted({*train, *tests})
        out = [path for path in everything if path.name in before]
        if own and before:
            said.append(
                f"{words(len(tests), 'test image')} of {name} came later and are used from here on; the {len(out)} "
                "that were kept out of training stay out of it"
            )
        if out and len(out) < len(everything):
            train, tests = [path for path in everything if path not in out], tests if own else out
            new: dict[str, Any] = {side: train, f"test_{side}": tests}
            sources = replace(sources, **new)
        kept[side] = sorted(before) if own else [path.name for path in tests]
    return sources, kept, said


def tests_given(s: Train, side: str) -> bool:
    """Has a domain test images of its own: --test-a, or testA in the one folder that was given?"""
    in_root = s.b is None and (Path(s.a) / f"test{side.upper()}").is_dir()
    return getattr(s, f"test_{side}") is not None or in_root


def listing(sources: Sources) -> dict[str, list[Size]]:
    """The images of each kind, in order, as they are known again wherever they are moved."""
    kinds = ("a", "b", "test_a", "test_b")
    return {kind: [(path.name, size_of(path)) for path in getattr(sources, kind)] for kind in kinds}


def size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # a link whose file is gone: one of the broken
        return -1


def compare_images(s: Train, now: dict[str, list[Size]], names: tuple[str, str]) -> bool:
    """Are the test images those that the run had? Raises BadInput where the others are not, but for --images
    changed.
    """
    try:
        told = json.loads((s.out / "images.json").read_text(encoding="utf-8"))
        then = {kind: [(str(name), int(size)) for name, size in told[kind]] for kind in now}
    except (OSError, ValueError, KeyError, TypeError):
        return True  # a new run, or one begun by a viceversa that kept no such list
    differ = []
    for side, name in zip("ab", names, strict=True):
        if then[side] != now[side]:
            new, missing = Counter(now[side]) - Counter(then[side]), Counter(then[side]) - Counter(now[side])
            differ.append(f"{name}: {new.total()} new or changed, {missing.total()} missing")
    if differ and s.images != "changed":
        raise BadInput(
            f"the images are not those that {s.out} began with ({'; '.join(differ)}): put them back, or go on with "
            "them by --images changed"
        )
    return all(then[kind] == now[kind] for kind in ("test_a", "test_b"))


def same_everywhere(now: dict[str, list[Size]]) -> None:
    """Raise BadInput in all processes where they see other images: the first is named, not all are sent."""
    mine = [(side, *size) for side in "ab" for size in now[side]]
    low, high = 0, max(distributed.everyone(len(mine)))
    if agree(mine):
        return
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if agree(mine[low:middle]) else (low, middle)
    first = distributed.everyone(mine[low] if low < len(mine) else None)
    other = next(rank for rank, image in enumerate(first) if image != first[0])
    raise BadInput(
        f"the processes see different images: first number {low + 1}, which for rank 0 is {image_words(first[0])}, for "
        f"rank {other} {image_words(first[other])}; start all with the same data at the same paths"
    )


def agree(images: list[tuple[str, str, int]]) -> bool:
    digests = distributed.everyone(hashlib.sha256(repr(images).encode("utf-8", "surrogateescape")).hexdigest())
    return len(set(digests)) == 1


def image_words(image: tuple[str, str, int] | None) -> str:
    return "none" if image is None else f"{image[1]} ({image[2]:,} bytes)"


def load_images(s: Train, sources: Sources, device: torch.device, say: Say, silent: bool) -> tuple[Store, Store]:
    """Decode both domains; broken images are named, and left out."""
    stores = []
    for name, paths, channels in zip(sources.names, (sources.a, sources.b), s.channels, strict=True):
        with progress_bar(f"reading {name}", len(paths), silent=silent) as update:
            store = Store.load(
                paths, channels=channels, size=s.size, resize=s.resize, crop=s.crop, device=device, zoom=s.zoom,
                folder=s.out, on_progress=update,
            )  # fmt: skip
        for line in store.skipped[:10]:
            say(f"skipped: {line}")
        if store.skipped:
            say(f"{words(len(store.skipped), 'broken image')} of {name} were left out")
        for line in store.notes:
            say(f"{name}: {line}")
        stores.append(store)
    distributed.must_agree("numbers of images", [len(store.paths) for store in stores])
    return stores[0], stores[1]


def colour_words(s: Train, sources: Sources, known: dict[str, Any]) -> list[str]:
    """Colours that are not trained on, and channels that hold none: said, since a recipe may have chosen them."""
    said = []
    for name, paths, channels in zip(sources.names, (sources.a, sources.b), s.channels, strict=True):
        if channels == 1 and any(map(in_colour, spread(paths, 8))):
            said.append(f"images of {name} are in colour, and are taken as gray (--channels)")
        if channels == 3 and name in known and known[name]["ranges"]["colour"][1] < COLOURFUL:
            said.append(f"all images of {name} are gray: --channels with 1 for it would learn them as such")
    return said


# Networks, and the step


def choose(s: Train, device: torch.device, sources: Sources, config: dict[str, Any] | None, say: Say) -> dict[str, Any]:
    """How this run computes: number format, compilation, threads. A resumed run computes as it did before, to
    the last bit, unless it is on another kind of device or --precision is another.
    """
    tune(device)
    how = None if config is None or config["how"]["device"] != device.type else dict(config["how"])
    if how is None:
        compiled = False
        seconds = None if s.minutes is None else 60 * s.minutes
        if device.type == "cpu" and seconds is None and (days := work(s, sources) / CPU_A_DAY) > 1:
            say(
                f"this takes some {days:.0f} days on a CPU; --recipe photo --minutes 30 (or paint, for styles) gives "
                "pictures in half an hour"
            )
        if worth_compiling(device, seconds=seconds, operations=work(s, sources)):
            reason = why_not_compile(device)
            compiled = reason is None
            if reason:
                say(f"not compiled, so slower than it could be: {reason}")
        how = {"device": device.type, "compile": compiled, "threads": threads_for_cores()}
    torch.set_num_threads(how["threads"])
    if "precision" not in how or (config is not None and config["settings"]["precision"] != s.precision):
        how["precision"] = "bf16" if choose_dtype(s.precision, device) == torch.bfloat16 else "fp32"
    return dict(distributed.from_first(how))


def work(s: Train, sources: Sources) -> float:
    """Multiply-adds of the whole run, roughly: 1.1e12 a step at 256 px, width 64, 9 blocks (recipe, "Cost")."""
    side = s.crop / (2**s.levels if s.generator == "pyramid" else 1)
    a_step = 1.1e12 * (side / 256) ** 2 * (s.width / 64) ** 2 * (s.blocks + 4) / 13 * s.batch
    steps = steps_per_epoch(len(sources.a), len(sources.b), s.batch) * (s.epochs + s.decay_epochs)
    return float(a_step * steps)


def make_model(s: Train, device: torch.device) -> CycleGAN:
    """The networks on the device, in channels-last layout, which convolutions of bf16 and float32 like best."""

    def discriminator(channels: int) -> nn.Module | None:
        if s.discriminator == "none":
            return None
        if s.discriminator == "pixel":
            return PixelDiscriminator(channels, s.width)
        return PatchDiscriminator(channels, s.width, s.discriminator_layers)

    assert s.seed is not None
    model = build(
        *generators(s), discriminator, history=s.history, crop=s.crop, seed=s.seed, ema=s.ema,
        projected=s.projected > 0, recompute=s.checkpoint_activations, patch=s.patch,
    )  # fmt: skip
    return model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


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


def write_config(
    s: Train, sources: Sources, kept: dict[str, list[str]], images: dict[str, list[Size]],
    stores: tuple[Store, Store], device: torch.device, how: dict[str, Any], changes: list[dict[str, Any]],
) -> None:  # fmt: skip
    """RUN/config.json: what was asked, on what, how it is computed, what changed. RUN/images.json: on which images."""
    tests = {"a": [str(p) for p in sources.test_a], "b": [str(p) for p in sources.test_b]}
    config = {
        "settings": plain(s),
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
        "kept_out": kept,
        "skipped": [*stores[0].skipped, *stores[1].skipped],
        "changes": changes,
    }  # fmt: skip
    try:
        write_text(s.out / "images.json", json.dumps(images, separators=(",", ":")))
        write_text(s.out / "config.json", json.dumps(config, indent=1, default=str))
    except OSError as error:
        raise BadInput(f"--out {s.out}: cannot write there ({error.strerror}): name another folder") from None

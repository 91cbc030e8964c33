"""Training: `train`, and `run`, the run on one page. Prepare, then step; now and then look; show, score, save."""

import errno
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from .. import distributed, terminal
from ..config import Train, make
from ..data.folders import Sources, find_sources
from ..data.statistics import describe_store
from ..data.store import draw, load_test
from ..device import as_it_was, autocast, choose_device, compile_parts, describe, is_out_of_memory, uncompiled
from ..errors import Failed, Interrupted
from ..model.cyclegan import CycleGAN, adam, set_learning_rate
from ..model.file import BEST, MODEL, Model, save_model
from ..model.networks import describe as describe_network
from . import checkpoint, settings, setup
from .checkpoint import Position
from .display import Display, tell
from .images import colour_words, compare_images, image_counts, listing, load_images, same_everywhere
from .metrics import Metrics
from .process import GONE, Stop, alone_in
from .progress import Progress
from .runs import Run, read_run
from .schedule import finished, schedule_of
from .start import begin, read_start
from .watch import Watch, first_not_finite

if TYPE_CHECKING:
    from ..evaluation.scores import Scorer

LOG_EVERY = 10.0
"""Seconds between lines of metrics.jsonl within an epoch."""
COUNT_EVERY = 8
"""Steps between counts of contrast, for which pictures are translated once more."""
LOOK_EVERY = {"cpu": 1, "cuda": 20, "mps": 20}
"""Steps between looks at the losses and the clock: on a GPU each look waits for the device."""
SAVE_EVERY = 600.0
"""Seconds between checkpoints within an epoch."""
SHARE = 0.05
"""The part of the time that the ends of epochs may take: pictures, models and checkpoints."""
ROUNDING = 1e-6
"""Steps, far more than a product of floats is off by."""
NOT_FINITE = (
    "the loss {loss} or its gradient is not a number in epoch {epoch}: stopped, before any weight was changed by it; "
    "what {out} holds is from before. Go on with a lower --learning-rate, --precision fp32, or more "
    "varied images"
)
LOST_PROCESS = "a process of this run was lost"
OUT_OF_MEMORY = (
    "out of memory; what was saved before, if anything was, is good. Go on with a lower --batch or with "
    "--checkpoint-activations, or begin another --out with a smaller --crop or --width"
)


def train(
    a: str | Path, b: str | Path | None = None, *, quiet: bool = False,
    on_epoch: Callable[[Run], bool | None] | None = None, **choices: Any,
) -> Run:  # fmt: skip
    """Learn to translate between two folders of images, both ways; resumes a run found in `out`.

    `choices` are the fields of `config.Train`, which are the flags of `viceversa train`; `quiet` prints nothing.
    `on_epoch` is given the run whenever the end of an epoch is made, with its pictures, scores and model (of short
    epochs not of each: ends take a twentieth of the time at most); where it returns True the run ends there.
    Returns the run: `viceversa.load(run)` is its model. Raises BadInput, Failed, or Interrupted (everything is saved
    then). What it sets for the process (threads, TF32, cuDNN) is put back.
    """
    return run(make(Train, a=a, b=b, **choices), quiet, on_epoch)


def command_train(asked: Train) -> int:
    run(asked)
    return 0


def run(asked: Train, quiet: bool = False, on_epoch: Callable[[Run], bool | None] | None = None) -> Run:
    """Prepare, then train to the end, or until Ctrl-C, SIGTERM or SIGHUP: all is saved then."""
    with ExitStack() as stack:
        stack.enter_context(as_it_was())
        stack.enter_context(in_words(asked.out))

        # What is asked, what the folder holds, on what. What is wrong is said before anything is written.
        with distributed.agreed():
            device = choose_device(distributed.init(asked.device))
            first, silent = distributed.rank() == 0, quiet or distributed.rank() != 0
            say: terminal.Say = (lambda text: None) if silent else tell
            settings.check(asked)
            still_there = stack.enter_context(alone_in(asked.out, say))
            begun, saved = settings.read_config(asked.out), checkpoint.load(asked.out)
            config = begun if saved else None  # where nothing was trained yet, all may change
            s, changed = settings.merged(asked, begun, trained=saved is not None)
            why = finished(s, saved.position) if saved else None
            if why and settings.same_folders(s, begun):  # its images may be gone
                return as_it_is(s.out, why, changed, say)
            kept_out = (config or {}).get("kept_out")
            sources = find_sources(s.a, s.b, s.test_a, s.test_b, s.names, out=s.out, kept_out=kept_out)
            images = listing(sources)
            same_tests = saved is None or compare_images(s, images, sources.names)
            if why:
                return as_it_is(s.out, why, changed, say)
            weights = None if saved else read_start(s, sources.names)
        same_everywhere(images)
        s, names = settings.everybodys(s), sources.names
        assert s.seed is not None  # drawn by now

        # Images, networks, optimizers, the step.
        how, how_kept = setup.choose(s, device, sources, config, say)
        context = partial(autocast, device, setup.DTYPES[how["precision"]])
        stores = load_images(s, sources, device, say, silent)
        known = {name: describe_store(store) for name, store in zip(names, stores, strict=True)} if first else {}
        counts, batch = (len(stores[0].paths), len(stores[1].paths)), s.batch * distributed.world()
        schedule = schedule_of(s, counts, batch)
        model = setup.make_model(s, device)
        if saved is None:
            setup.begin_with_colours(model, stores)
        if weights:
            begin(weights, model, names, say)
        optimizers = adam(model, s.learning_rate, capturable=device.type == "cuda")
        at = setup.resume(saved, model, optimizers, say)
        at.features = "lite0" if s.projected else weights.features if weights else at.features
        as_now = partial(as_model, s, names, known, model, at)
        # Steps, as they would be had all been as they are now. A part of one is made again: a run is to reach its end.
        place = math.floor(at.epochs * schedule.steps_per_epoch + ROUNDING)
        began = time.monotonic()
        if how["compile"]:
            how["compile"] = setup.compiles_rightly(model, s, stores, context, device, say)
        if how["compile"]:
            compile_parts(model.parts())
        advance = setup.make_step(s, model, optimizers, stores, context, device, say)
        with distributed.agreed():
            if first:
                progress = Progress(s.out, names, *test_images(s, sources, 4, say))
                scorer = make_scorer(s, sources, device, how, say) if s.score != "none" else None
                watch = Watch(names)

        # What is told, and what is written before the first step.
        for line in (
            *sources.warnings,
            *settings.own_settings(s, begun),
            *settings.without_effect(s),
            *settings.own_ruler(s),
            *settings.in_words(changed),
            *colour_words(s, sources, known),
        ):
            say(line)
        if at.best is not None and not (same_tests and settings.same_ruler(s, config)):
            say("scores begin anew: test images, --score or --features are others than before")
            at.best, at.worse = None, 0
        say(f"{image_counts(sources, counts)}, {describe_network(model.ab)} each way")
        compiled = ", compiled" if how["compile"] else ""
        begins = f"seed {s.seed}; run folder {s.out}; {describe(device)}, {how['precision']}{compiled}"
        say(f"going on after epoch {place / schedule.steps_per_epoch:.2f}" if at.step else begins)
        if first:
            changes = [*((config or {}).get("changes") or ()), *([{"epochs": at.epochs, **changed}] if changed else [])]
            settings.write_config(s, sources, images, stores, device, how_kept, changes)
            metrics = stack.enter_context(Metrics(s.out, names, s.log == "tensorboard", saved and saved.position))
            if "learning_rate" not in changed and (rises := schedule.rise(metrics.rate, place, at.seconds)):
                say(rises)

        now = saved_at = time.monotonic()
        started, looked_back_at, took = began - at.seconds, -math.inf, 0.0
        recent, epoch = Sums(), Sums()
        done, size_told = schedule.fraction(place, at.seconds) >= 1, saved is not None
        at.due |= not at.over and (done or bool(s.patience and at.worse >= s.patience))
        with Stop() as stop, Display(str(s.out), names, silent) as display:
            while at.due or not done:
                if not at.due:  # else an end, of an epoch or of the run, was cut off or is asked for: it is made now
                    # Step.
                    rate = schedule.learning_rate(place, at.seconds)
                    set_learning_rate(optimizers, rate)
                    draws = draw(s.seed, place, *counts, batch).part(distributed.rank(), distributed.world())
                    losses = advance(draws)
                    if model.counts_contrast and place % COUNT_EVERY == 0:
                        setup.count_contrast(draws, model, stores, context)
                    recent.add(losses)
                    epoch.add(losses)
                    at.step, place = at.step + 1, place + 1
                    ended = place % schedule.steps_per_epoch == 0
                    if not ended and place % LOOK_EVERY[device.type]:
                        continue

                    # Now and then look. Rank 0's clock decides for all, and a signal to one stops all.
                    means, number = recent.means(), schedule.epoch(place)
                    if wrong := first_not_finite(means):
                        raise Failed(NOT_FINITE.format(loss=wrong, epoch=number, out=s.out))
                    now = time.monotonic()
                    late, worth = now - saved_at > SAVE_EVERY, now - looked_back_at >= took / SHARE
                    clocks = distributed.everyone((now - started, recent.age(), late, worth, stop.signal))
                    at.seconds, age, late, worth, _ = clocks[0]
                    signal = max(clock[-1] for clock in clocks)
                    at.epochs, speed = place / schedule.steps_per_epoch, recent.speed(batch)
                    fraction = schedule.fraction(place, at.seconds)
                    done = fraction >= 1
                    at.due = done or (ended and (worth or (s.score != "none" and number % s.score_every == 0)))
                    at.over = False
                    display.update(
                        step=place, steps=None if s.minutes else schedule.total * schedule.steps_per_epoch,
                        epoch=number, epochs=None if s.minutes else schedule.total, fraction=fraction,
                        seconds=at.seconds, images_per_second=speed, learning_rate=rate, losses=means,
                        seconds_left=schedule.seconds_left(place, at.seconds, age / recent.steps),
                    )  # fmt: skip
                    over_epoch = epoch.means() if ended or done else means
                    if age > LOG_EVERY or ended or done or signal:
                        if first:
                            lately = over_epoch if ended else means
                            metrics.losses(at.step, number, at.seconds, lately, rate, speed, ended)
                        recent = Sums()
                    if ended or done:
                        if first:
                            warn(display, metrics, at, number, watch.losses(number, over_epoch))
                        epoch = Sums()

                    # Save, before what takes long and can be done again.
                    if at.due or late or signal:
                        still_there()
                        at.lines = metrics.lines if first else None
                        size = checkpoint.save(s.out, model, optimizers, at, as_now(number))
                        saved_at = time.monotonic()
                        if size and not size_told:
                            display.say(
                                f"checkpoints take {size / 1e6:.0f} MB each; the newest {checkpoint.KEPT} are kept"
                            )
                            size_told = True
                    if signal:
                        raise Interrupted(signal, f"interrupted in epoch {number}, all saved: the same command goes on")

                if at.due:  # the end of an epoch, or of the run within one: pictures, words, scores, the model
                    number = schedule.epoch(place)
                    if first:
                        still_there()
                        with uncompiled(), model.in_use() as translators:
                            shown = progress.show(number, **translators, device=device, forward=context)
                        display.picture(shown.still)
                        metrics.pictures(at.step, shown.grids)
                        warn(display, metrics, at, number, watch.pictures(number, shown.pairs))
                        if scorer and (number % s.score_every == 0 or done):
                            score(scorer, model, s.out, names, as_now, at, number, metrics, display)
                        save_model(s.out / MODEL, as_now(number))
                        checkpoint.keep_epoch(s.out, number, s.keep)
                    at.best, at.worse = distributed.from_first((at.best, at.worse))
                    if s.patience and at.worse >= s.patience:
                        display.say(f"stopped: {s.patience} scores in a row were no better (--patience)")
                        done = True
                    if on_epoch and distributed.from_first(on_epoch(read_run(s.out)) if first else None):
                        display.say("stopped: on_epoch said so")
                        done = True
                    at.due, at.over = False, done
                    if first:
                        if done:
                            progress.film()
                        at.lines = metrics.lines
                        checkpoint.mark(s.out, at)
                    looked_back_at = time.monotonic()
                    took = looked_back_at - now
        say(f"done: {s.out / MODEL}")
    return read_run(s.out)


def as_it_is(out: Path, why: str, changed: dict[str, tuple[Any, Any]], say: terminal.Say) -> Run:
    """A run with nothing left to do."""
    for line in (why, *settings.unused(changed)):
        say(line)
    return read_run(out)


def score(
    scorer: "Scorer", model: CycleGAN, out: Path, names: tuple[str, str], as_now: Callable[..., Model], at: Position,
    epoch: int, metrics: Metrics, display: Display,
) -> None:  # fmt: skip
    """best.safetensors follows the mean of both directions (lower is better); `at` counts the scores that do not."""
    with uncompiled():
        found = scorer.score(**model.translators())
    first = at.best is None
    better = at.best is None or found["mean"] < at.best
    at.best, at.worse = (found["mean"], 0) if better else (at.best, at.worse + 1)
    if better:
        save_model(out / BEST, as_now(epoch, found))
    metrics.score(at.step, epoch, at.seconds, found["kind"], found["features"], found["a"], found["b"], first)
    display.say(
        f"epoch {epoch}: {found['kind']} ({found['features']}) {found['b']:.4f} to {names[1]}, {found['a']:.4f} to "
        f"{names[0]}" + (", the best so far" if better else "")
    )


def warn(display: Display, metrics: Metrics, at: Position, epoch: int, words: list[str]) -> None:
    """What the watch says: on the display and in metrics.jsonl."""
    for line in words:
        display.warn(line)
        metrics.warning(at.step, epoch, at.seconds, line)


def as_model(
    s: Train, names: tuple[str, str], known: dict[str, Any], model: CycleGAN, at: Position, epoch: int,
    scores: dict[str, Any] | None = None,
) -> Model:  # fmt: skip
    """The generators that are shown, and what a model file tells of them."""
    training = {"step": at.step, "epoch": epoch, "seconds": round(at.seconds, 1), "seed": s.seed, "recipe": s.recipe}
    if at.features:
        training["features"] = at.features  # what it was trained against, which is no ruler for it
    lightness = {"keep_lightness": True} if s.keep_lightness else {}
    info = {
        "image": {"size": s.size, "crop": s.crop, "resize": s.resize} | lightness,
        "training": training,
        "scores": scores or {},
        "statistics": known,
    }
    return Model(model.generators(), names, info)


def test_images(s: Train, sources: Sources, count: int, say: terminal.Say) -> list[list[np.ndarray]]:
    """At most `count` pictures of each domain that are not trained on, as the networks are to see them."""
    found = []
    for name, paths, channels in zip(sources.names, (sources.test_a, sources.test_b), s.channels, strict=True):
        pictures = load_test(paths, channels=channels, resize=s.resize, crop=s.crop, count=count)
        if broken := min(count, len(paths)) - len(pictures):
            say(f"{terminal.words(broken, 'test image')} of {name} cannot be read; viceversa data names broken ones")
        found.append(pictures)
    return found


def make_scorer(s: Train, sources: Sources, device: torch.device, how: dict[str, Any], say: terminal.Say) -> "Scorer":
    from ..evaluation.scores import Scorer

    assert s.score != "none"
    a, b = test_images(s, sources, sys.maxsize, say)
    return Scorer(a, b, s.features, s.score, device, setup.DTYPES[how["precision"]])


@dataclass
class Sums:
    """Sums of losses on the device, so that no step waits for the host."""

    total: dict[str, Tensor] = field(default_factory=dict)
    steps: int = 0
    began: float = field(default_factory=time.monotonic)

    def add(self, losses: dict[str, Tensor]) -> None:
        self.total = {name: self.total[name] + loss if self.total else loss for name, loss in losses.items()}
        self.steps += 1

    def means(self) -> dict[str, float]:
        """By name, over all processes. Waits for the device."""
        means = distributed.mean(torch.stack([*self.total.values()])) / self.steps
        return dict(zip(self.total, means.tolist(), strict=True))

    def age(self) -> float:
        return time.monotonic() - self.began

    def speed(self, batch: int) -> float:
        """Images of each domain a second."""
        return self.steps * batch / max(self.age(), 1e-9)


@contextmanager
def in_words(out: Path) -> Iterator[None]:
    """A full disk or its like (TensorBoard's writer tells later what its thread met), out of memory, or a lost process,
    in one line that says what helps; and the process group is left."""
    group_was_there = distributed.is_running()
    try:
        yield
    except (Failed, Interrupted):
        raise
    except OSError as error:
        if error.errno is None:
            raise
        file = os.fsdecode(error.filename or ("standard output" if error.errno == errno.EPIPE else out))
        if error.errno == errno.ENOENT and out in Path(file).parents and not (out / "config.json").exists():
            raise Failed(GONE.format(run=out)) from None
        raise Failed(f"cannot write {file}: {error.strerror}; what was saved before is good") from None
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            raise Failed(OUT_OF_MEMORY) from None
        if distributed.is_communication_error(error):
            raise Failed(f"{LOST_PROCESS}; the last checkpoint is good ({error})") from None
        raise
    finally:
        if not group_was_there:
            distributed.close()

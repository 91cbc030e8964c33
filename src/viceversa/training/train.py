"""Training: `train`, and the loop. Resume, step, log, show, save."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import distributed
from ..config import Train, make
from ..data.store import draw
from ..device import as_it_was
from ..errors import Failed, Interrupted
from ..model.cyclegan import set_learning_rate
from ..model.networks import describe
from . import checkpoint
from .checkpoint import Position
from .display import Display
from .reading import Run, read_run
from .record import Record
from .settings import merged, read_config
from .setup import Session, prepare
from .signals import Stop

LOG_EVERY = 10.0
"""Seconds between lines of metrics.jsonl within an epoch."""
LOOK_EVERY = {"cpu": 1, "cuda": 20, "mps": 20}
"""Steps between looks at the losses and the clock: on a GPU each look waits for the device."""
OUT_OF_MEMORY = (
    "out of memory: lower --crop, --batch or --width, or add --checkpoint-activations; what was saved is good"
)


def train(a: str | Path, b: str | Path | None = None, **choices: Any) -> Run:
    """Learn to translate between two folders of images, both ways; resumes a run found in `out`.

    `choices` are the fields of `config.Train`, which are the flags of `viceversa train`. Returns the run:
    `viceversa.load(run)` is its model. Raises BadInput, Failed, or Interrupted (everything is saved then).
    """
    return run(make(Train, a=a, b=b, **choices))


def command_train(settings: Train) -> int:
    run(settings)
    return 0


@as_it_was()
def run(settings: Train) -> Run:
    """Prepare, then train to the end, or until Ctrl-C or SIGTERM."""
    group_was_there = distributed.is_running()
    try:
        if finished(settings):
            say(finished_already(settings))
            return read_run(settings.out)
        session = prepare(settings, say)
        introduce(session)
        with Stop() as stop, Display(str(settings.out), session.names, silent=distributed.rank() != 0) as display:
            loop(session, Record(session, display), display, stop)
        say(f"done: {settings.out / 'model.safetensors'}")
    except (Failed, Interrupted):
        raise
    except torch.OutOfMemoryError:
        raise Failed(OUT_OF_MEMORY) from None
    except RuntimeError as error:  # the CPU's allocator has no exception of its own
        if "can't allocate memory" in str(error) or "not enough memory" in str(error):
            raise Failed(OUT_OF_MEMORY) from None
        if distributed.is_communication_error(error):
            raise Failed(f"a process of this run was lost; the last checkpoint is good ({error})") from None
        raise
    finally:
        if not group_was_there:
            distributed.close()
    return read_run(settings.out)


def loop(session: Session, record: Record, display: Display, stop: Stop) -> None:
    """Step after step, until the schedule is done. Raises Interrupted, with all saved, when told to stop."""
    schedule, step = session.schedule, session.position.step
    seconds = session.position.seconds
    started = time.monotonic() - seconds
    recent, epoch = Sums(), Sums()
    done = False
    while not done:
        rate = schedule.learning_rate(step, seconds)
        set_learning_rate(session.optimizers, rate)
        draws = draw(session.seed, step, *session.counts, session.batch)
        losses = session.advance(draws.part(distributed.rank(), distributed.world()))
        recent.add(losses)
        epoch.add(losses)
        step += 1

        ended = step % schedule.steps_per_epoch == 0
        if not ended and step % LOOK_EVERY[session.device.type]:
            continue
        means = recent.means()
        record.look(means)
        speed = recent.speed(session.batch)
        # Rank 0's clock decides for all, and a signal to one stops all.
        clocks = distributed.everyone((time.monotonic() - started, record.late(), recent.age(), stop.signal))
        seconds, late, age, _ = clocks[0]
        signal = max(clock[-1] for clock in clocks)
        done = schedule.done(step, seconds)
        left = schedule.seconds_left(step, seconds, age / recent.steps)
        by_clock = schedule.minutes is not None
        display.update(
            step=step, steps=None if by_clock else schedule.total * schedule.steps_per_epoch,
            epoch=schedule.epoch(step), epochs=None if by_clock else schedule.total,
            fraction=schedule.fraction(step, seconds), seconds=seconds, seconds_left=left, images_per_second=speed,
            learning_rate=rate, losses=means,
        )  # fmt: skip
        if age > LOG_EVERY or ended or done or signal:
            record.losses(step, seconds, epoch.means() if ended else means, rate, speed, ended)
            recent = Sums()
        if ended or done:
            record.epoch(step, seconds, epoch.means(), whole=not done)
            done = done or record.position.finished
            recent, epoch = Sums(), Sums()
        if ended or done or signal:
            record.film(final=done or signal > 0)
        if ended or done or late or signal:
            record.save(step, seconds)
        if signal and not done:
            record.close()
            raise Interrupted(
                signal, f"interrupted in epoch {schedule.epoch(step)}, all saved: the same command goes on"
            )
    record.close()


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


def introduce(session: Session) -> None:
    """What is about to be trained, in a few lines."""
    s, (a, b) = session.settings, session.names
    count_a, count_b = session.counts
    say(f"{a} ({count_a} images) <-> {b} ({count_b} images), {describe(session.model.ab)} each way")
    for words in session.sources.warnings:
        say(words)
    if session.position.step:
        say(f"going on after epoch {session.position.epochs:.2f}")
    else:
        say(f"seed {session.seed}; run folder {s.out}; {session.how}")


def finished(s: Train) -> bool:
    """Has this very run been trained to its end? Told from the newest checkpoint, before any image is read."""
    config, position = read_config(s.out), checkpoint.newest(s.out)
    if config is None or position is None:
        return False
    merged(s, config)  # raises BadInput for other settings
    enough = position.seconds >= 60 * s.minutes if s.minutes else position.epochs >= s.epochs + s.decay_epochs
    return position.finished or enough


def finished_already(s: Train) -> str:
    done = checkpoint.newest(s.out) or Position()
    more = "a larger --minutes" if s.minutes is not None else "a larger --epochs or --decay-epochs"
    early = " early, its score was no longer getting better" if done.finished else ""
    far = f"{done.epochs:g} epochs, {done.seconds / 60:.1f} minutes"
    return f"{s.out} is finished{early}: {far}. To train on, give {more}"


def say(text: str) -> None:
    if distributed.rank() == 0:
        print(text, flush=True)

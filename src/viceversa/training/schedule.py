"""How far a run is, how far it is to go, and the learning rate on the way (section 4)."""

from dataclasses import dataclass

from .. import distributed
from ..config import Train
from ..data.store import steps_per_epoch
from ..errors import BadInput
from ..terminal import words
from .checkpoint import Position


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
        """For the next step, after `step` steps and `seconds` of training: by the authors' formula, in which the
        first epoch to come after so many at the full rate has less already; by the clock, gradually from there on.
        """
        if self.minutes is not None:
            past = self.total * self.fraction(step, seconds) - self.epochs
            return self.start * (1 - max(0.0, past) / max(1, self.decay_epochs))
        epoch = 1 + step // self.steps_per_epoch
        return self.start * (1 - max(0, epoch - self.epochs) / (self.decay_epochs + 1))

    def rise(self, before: float | None, step: int, seconds: float) -> str | None:
        """Words for a run that had come down to a lower rate, and is to go on for longer."""
        now = self.learning_rate(step, seconds)
        if before is None or now <= 1.001 * before:  # metrics.jsonl has it rounded
            return None
        return f"the learning rate rises again, from {before:.2g} to {now:.2g}: the end, where it falls, is later now"


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
    """Why there is nothing more to do, and how to train on; None where there is more, if only the end to be made."""
    if at.due or not at.over:
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

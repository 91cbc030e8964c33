"""How far a run is, and the learning rate there: by epochs, or by the clock."""

from dataclasses import dataclass


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

    def done(self, step: int, seconds: float) -> bool:
        return self.fraction(step, seconds) >= 1

    def seconds_left(self, step: int, seconds: float, seconds_a_step: float) -> float:
        if self.minutes is not None:
            return max(0.0, 60 * self.minutes - seconds)
        return (self.total * self.steps_per_epoch - step) * seconds_a_step

    def learning_rate(self, step: int, seconds: float) -> float:
        """For the next step, after `step` steps and `seconds` of training."""
        whole_epochs = step // self.steps_per_epoch
        by_clock = self.minutes is not None
        epoch = 1 + (self.total * self.fraction(step, seconds) if by_clock else whole_epochs)
        return learning_rate(epoch, self.epochs, self.decay_epochs, self.start)


def learning_rate(epoch: float, epochs: int, decay_epochs: int, start: float) -> float:
    """Constant for `epochs`, then linear to zero over `decay_epochs` (the authors' formula).

    `epoch` counts from 1; between whole epochs it may be a fraction.
    """
    return start * (1 - max(0.0, epoch - epochs) / (decay_epochs + 1))

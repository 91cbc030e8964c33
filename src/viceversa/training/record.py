"""What a run leaves behind as it goes: numbers, pictures, words, scores, checkpoints, the model."""

import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import distributed
from ..data.store import load_test
from ..device import uncompiled
from ..errors import Failed
from ..model.file import Model, save_model
from . import checkpoint
from .display import Display
from .metrics import Metrics
from .progress import Progress
from .setup import Session
from .watch import Watch, first_not_finite

if TYPE_CHECKING:
    from ..evaluation.scores import Scorer

SAVE_EVERY = 600.0
"""Seconds between checkpoints within an epoch."""


class Record:
    """Writes RUN; on ranks above 0 it writes nothing, but keeps the same position.

    What belongs to a step is written before its checkpoint: a resumed run cuts back to that and repeats it.
    """

    def __init__(self, session: Session, display: Display):
        self.s, self.display = session, display
        self.position = session.position
        self.saved_at = time.monotonic()
        self.writes = distributed.rank() == 0
        self.size_told = False
        if not self.writes:
            return
        t = session.settings
        self.metrics = Metrics(t.out, session.names, t.log == "tensorboard", session.position.step)
        self.progress = Progress(t.out, session.names, *(self.test_images(side) for side in "ab"))
        self.watch = Watch(session.names)
        self.scorer = self.make_scorer() if t.score != "none" else None

    def test_images(self, side: str, count: int = 4) -> list[np.ndarray]:
        t, at = self.s.settings, "ab".index(side)
        paths = (self.s.sources.test_a, self.s.sources.test_b)[at]
        return load_test(
            paths, channels=t.channels[at], size=t.size, resize=t.resize, crop=t.crop, count=min(count, len(paths))
        )

    def make_scorer(self) -> "Scorer":
        from ..evaluation.scores import Scorer

        t = self.s.settings
        assert t.score != "none"
        a, b = (self.test_images(side, count=sys.maxsize) for side in "ab")
        return Scorer(a, b, t.features, t.score, self.s.device, self.s.dtype)

    def look(self, means: dict[str, float]) -> None:
        """Stop, with everything good kept, when a loss is not a number."""
        wrong = first_not_finite(means)
        if wrong:
            epoch = self.s.schedule.epoch(self.position.step + 1)
            raise Failed(
                f"the loss {wrong} is not a number in epoch {epoch}: stopped; checkpoint and model in "
                f"{self.s.folder} are from before. Lower --learning-rate, use --precision fp32, or more varied images"
            )

    def losses(
        self,
        step: int,
        seconds: float,
        means: dict[str, float],
        rate: float,
        images_per_second: float,
        ended: bool,
    ) -> None:
        if self.writes:
            epoch = self.s.schedule.epoch(step)
            self.metrics.losses(step, epoch, seconds, means, rate, images_per_second, end_of_epoch=ended)

    def epoch(self, step: int, seconds: float, means: dict[str, float], whole: bool) -> None:
        """At the end of an epoch (or of the run within one): pictures, words, scores, the model."""
        if self.writes:
            number = self.s.schedule.epoch(step)
            translators = self.s.model.translators()
            with uncompiled():
                shown = self.progress.show(number, **translators, device=self.s.device, forward=self.s.autocast)
            self.metrics.pictures(step, shown.grids)
            for words in (*self.watch.losses(number, means), *self.watch.pictures(number, shown.pairs)):
                self.display.warn(words)
                self.metrics.warning(step, number, seconds, words)
            if self.scorer and (number % self.s.settings.score_every == 0 or not whole):
                self.score(step, number, seconds)
            self.save_model(step, seconds)
        stop, best, worse = distributed.from_first((self.position.finished, self.position.best, self.position.worse))
        self.position = replace(self.position, finished=stop, best=best, worse=worse)

    def score(self, step: int, epoch: int, seconds: float) -> None:
        """best.safetensors follows the mean of both directions (lower is better); patience counts the others."""
        t = self.s.settings
        assert self.scorer is not None
        with uncompiled():
            score = self.scorer.score(**self.s.model.translators())
        features = score["features"]
        self.metrics.score(step, epoch, seconds, t.score, features, score["a"], score["b"])
        better = self.position.best is None or score["mean"] < self.position.best
        if better:
            self.position = replace(self.position, best=score["mean"], worse=0)
            self.save_model(step, seconds, "best", score)
        else:
            self.position = replace(self.position, worse=self.position.worse + 1)
        a, b = self.s.names
        self.display.say(
            f"epoch {epoch}: {t.score} ({features}) {score['b']:.4f} to {b}, {score['a']:.4f} to {a}"
            + (", the best so far" if better else "")
        )
        if t.patience and self.position.worse >= t.patience:
            self.display.say(f"stopped: {t.patience} scores in a row were no better (--patience)")
            self.position = replace(self.position, finished=True)

    def save_model(self, step: int, seconds: float, name: str = "model", scores: dict[str, Any] | None = None) -> None:
        t = self.s.settings
        info = {
            "image": {"size": t.size, "crop": t.crop, "resize": t.resize},
            "training": {
                "step": step,
                "epoch": self.s.schedule.epoch(step),
                "seconds": round(seconds, 1),
                "seed": t.seed,
            },
            "scores": scores or {},
        }
        save_model(t.out / f"{name}.safetensors", Model(self.s.model.generators(), self.s.names, info))

    def late(self) -> bool:
        """Is it time for a checkpoint within an epoch?"""
        return time.monotonic() - self.saved_at > SAVE_EVERY

    def save(self, step: int, seconds: float) -> None:
        """A checkpoint; called by all ranks."""
        self.position = replace(
            self.position, step=step, epochs=step / self.s.schedule.steps_per_epoch, seconds=seconds,
            world=distributed.world(),
        )  # fmt: skip
        size = checkpoint.save(self.s.folder, self.s.model, self.s.optimizers, self.position)
        self.saved_at = time.monotonic()
        if size and not self.size_told:
            self.size_told = True
            self.display.say(f"checkpoints take {size / 1e6:.0f} MB each; the newest {checkpoint.KEPT} are kept")

    def film(self, final: bool) -> None:
        """Both films of all epochs; before the checkpoint, after which a run may be finished."""
        if self.writes:
            self.progress.film(final)

    def close(self) -> None:
        if self.writes:
            self.metrics.close()

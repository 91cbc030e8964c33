"""The numbers of a run: metrics.jsonl, a JSON object a line, and the same for TensorBoard."""

import json
import threading
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..data.pictures import Picture, encode
from ..files import write_text
from .checkpoint import Position

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


def read(run: Path) -> list[dict[str, Any]]:
    """All whole lines of RUN/metrics.jsonl, oldest first; none where there is no such file.

    Each has "step", "epoch" and "seconds", and one of "loss", "score" and "warning".
    """
    try:
        lines = (run / "metrics.jsonl").read_text(encoding="utf-8", errors="replace").split("\n")
    except FileNotFoundError:
        return []
    return [entry for entry in map(parse, lines) if entry is not None]


def parse(line: str) -> dict[str, Any] | None:
    """A line of metrics.jsonl; None for what a killed process left of one."""
    try:
        entry = json.loads(line)
    except json.JSONDecodeError:
        return None
    return entry if isinstance(entry, dict) and "step" in entry else None


class Metrics:
    """Writes RUN/metrics.jsonl and, if asked, RUN/tensorboard/.

    What was written by a process that was killed before its next checkpoint is taken back: the checkpoint knows
    how many lines there were when it was saved (`at`; none where a run begins). Steps would not do: with another
    number of processes, or another batch, they count from another place. `seconds` are those of training.
    """

    def __init__(self, run: Path, names: tuple[str, str], tensorboard: bool, at: Position | None = None):
        self.path = run / "metrics.jsonl"
        at = at or Position(lines=0)
        kept = read(run)[: at.lines]
        if at.lines is None:  # a checkpoint of before they were counted
            kept = [entry for entry in kept if entry["step"] <= at.step]
        write_text(self.path, "".join(line(entry) for entry in kept))
        self.lines = len(kept)
        rates = [entry["learning_rate"] for entry in kept if "learning_rate" in entry]
        self.rate: float | None = rates[-1] if rates else None
        """The learning rate of the last step that was written of before."""
        self.file = open(self.path, "a", encoding="utf-8", buffering=1)  # noqa: SIM115 (line by line, until close)
        self.names = dict(zip("ab", names, strict=True))
        self.board = board(run / "tensorboard", at.step) if tensorboard else None

    def __enter__(self) -> "Metrics":
        self.hook, threading.excepthook = threading.excepthook, self.on_error
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            with suppress(OSError) if error else nullcontext():  # what ends the run is told, not what follows from it
                self.close()
        finally:
            threading.excepthook = self.hook

    def on_error(self, told: threading.ExceptHookArgs) -> None:
        """What TensorBoard's own thread met comes again where it is written to: one line, not a traceback, too."""
        if not type(told.thread).__module__.startswith("tensorboard."):
            self.hook(told)

    def losses(
        self, step: int, epoch: int, seconds: float, means: Mapping[str, float], learning_rate: float,
        images_per_second: float, end_of_epoch: bool = False,
    ) -> None:  # fmt: skip
        """Mean losses since the last such line, by their keys ("cycle/a")."""
        now = {"learning_rate": learning_rate, "images_per_second": images_per_second}
        ended = {"end_of_epoch": True} if end_of_epoch else {}
        self.write(step, epoch, seconds, loss=dict(means), **now, **ended)
        self.scalars(step, {f"loss/{self.tag(key)}": value for key, value in means.items()})
        self.scalars(step, {**now, "epoch": epoch})

    def score(
        self, step: int, epoch: int, seconds: float, kind: str, features: str, a: float, b: float, first: bool = False
    ) -> None:
        """Score of the translations into each domain, and their mean. `first`: those before are not to be compared."""
        values = {"a": a, "b": b, "mean": (a + b) / 2}
        begins = {"first": True} if first else {}
        self.write(step, epoch, seconds, score={"kind": kind, "features": features, **values}, **begins)
        self.scalars(step, {f"score/{kind}/{self.names.get(k, k)}": value for k, value in values.items()})

    def warning(self, step: int, epoch: int, seconds: float, text: str) -> None:
        """A sentence of the watch."""
        self.write(step, epoch, seconds, warning=text)
        if self.board:
            self.board.add_text("warning", text, step)

    def pictures(self, step: int, grids: Mapping[str, np.ndarray]) -> None:
        """The grids of `progress.Shown`, for TensorBoard only, as JPEG: a tenth of the bytes of PNG."""
        if self.board is None:
            return
        from tensorboard.compat.proto.summary_pb2 import Summary

        for direction, pixels in grids.items():
            height, width, _ = pixels.shape
            jpeg = encode(Picture(pixels, format="JPEG"))
            image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=jpeg)
            value = Summary.Value(tag=f"progress/{self.tag(direction)}", image=image)
            writer = self.board.file_writer
            assert writer is not None  # until close
            writer.add_summary(Summary(value=[value]), step)

    def close(self) -> None:
        self.file.close()
        if self.board:
            self.board.close()

    def write(self, step: int, epoch: int, seconds: float, **what: Any) -> None:
        self.file.write(line({"step": step, "epoch": epoch, "seconds": seconds, **what}))
        self.lines += 1

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        if self.board:
            for tag, value in values.items():
                self.board.add_scalar(tag, value, step)

    def tag(self, key: str) -> str:
        """A key in the person's names: cycle/a -> cycle/day, adversarial/ab -> adversarial/day2night."""
        *kind, domains = key.split("/")
        return "/".join([*kind, "2".join(self.names[domain] for domain in domains)])


def line(entry: Mapping[str, Any]) -> str:
    return json.dumps(rounded(entry), ensure_ascii=False) + "\n"


def rounded(value: Any) -> Any:
    """Numbers to seven significant digits, which is what a float32 holds."""
    if isinstance(value, Mapping):
        return {key: rounded(inner) for key, inner in value.items()}
    return float(f"{value:.7g}") if isinstance(value, float) else value


def board(folder: Path, step: int) -> "SummaryWriter":
    from torch.utils.tensorboard import SummaryWriter  # slow to import

    return SummaryWriter(folder, purge_step=step + 1)

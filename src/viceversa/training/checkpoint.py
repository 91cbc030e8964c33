"""Save and resume: everything that a run needs to go on as if nothing had happened.

RUN/checkpoint/step_000001234.safetensors holds networks, optimizers, histories and moving averages;
step_000001234.json, written last, says where in the run that was: a checkpoint without it does not count.
There are no random states to keep: all randomness comes from (seed, step). RUN/epochs keeps models of some epochs.
"""

import json
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from .. import distributed
from ..errors import BadInput
from ..files import remove_leftovers, replacing, write_text
from ..model.cyclegan import CycleGAN, Optimizers
from ..model.file import MODEL, Model, by_epoch, epoch_path, write_tensors

FORMAT = 1
KEPT = 2
COUNTED = (".contrast", ".light")
"""What checkpoints of before 2026-12 lack: it is counted from here on, then."""


@dataclass(kw_only=True)
class Position:
    """Where a run is. There is one: the loop moves it on, and checkpoints keep it."""

    step: int = 0
    """Steps made in all, whatever the batch and the number of processes were."""
    epochs: float = 0.0
    """Epochs done, with the fraction of the one begun: it is the same with another batch or number of processes."""
    seconds: float = 0.0
    """Time spent training, all resumes together."""
    world: int = 1
    """How many processes trained."""
    due: bool = False
    """Is the end of this epoch (pictures, scores, the model) still to be done?"""
    lines: int | None = None
    """How many lines metrics.jsonl had; None in checkpoints of before it was kept."""
    best: float | None = None
    """The best score so far."""
    worse: int = 0
    """How many scores in a row were no better."""
    over: bool = False
    """Was the end of the run (the model, its pictures and films) made here?"""
    features: str | None = None
    """The features that it, or what it started from, was trained against."""


class Saved(NamedTuple):
    """A checkpoint as it was read, and words about newer ones that are broken."""

    position: Position
    tensors: dict[str, Tensor]
    words: list[str]


def save(run: Path, model: CycleGAN, optimizers: Optimizers, at: Position, shown: Model) -> int:
    """Write a checkpoint, whole or not at all, and keep the newest two. Returns its bytes.

    Called by all processes (each has histories of its own); rank 0 writes. `shown` describes the generators,
    so that a checkpoint can be used as a model.
    """
    histories = {
        name: distributed.to_first(shortest(value))
        for name, value in model.state_dict().items()
        if name.startswith("history_")
    }
    if distributed.rank() != 0:
        return 0
    path = checkpoint_path(run, at.step)
    averages = {way: f"average_{way}" for way in shown.generators} if model.ema else {}
    moments = {f"{prefix}{name}": x for prefix, o, p in trained(optimizers) for name, x in o.state[p].items()}
    write_tensors(path, model.state_dict() | histories | moments, shown, averages)
    mark(run, at)
    for old in found(run)[:-KEPT]:
        for one in (old.with_suffix(".json"), old):
            with suppress(OSError):
                one.unlink()
    return path.stat().st_size


def shortest(history: Tensor) -> Tensor:
    """In bf16 where that loses nothing: fakes that were made in bf16."""
    short = history.to(torch.bfloat16)
    exact = history.dtype == torch.float32 and torch.equal(short.float(), history)
    return short if all(distributed.everyone(exact)) else history


def mark(run: Path, at: Position) -> None:
    """Say where in the run its newest checkpoint is: its JSON, without its tensors."""
    path = checkpoint_path(run, at.step)
    head = {"format": FORMAT, **asdict(at), "bytes": path.stat().st_size}
    write_text(path.with_suffix(".json"), json.dumps(head, indent=1))


def checkpoint_path(run: Path, step: int) -> Path:
    return run / "checkpoint" / f"step_{step:09d}.safetensors"


def found(run: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    return sorted(path.with_suffix(".safetensors") for path in (run / "checkpoint").glob("step_*.json"))


def load(run: Path) -> Saved | None:
    """The newest whole checkpoint; None where none was ever written.

    Raises BadInput where there were some and none can be read, or only a newer viceversa can: to begin again
    would write over what there is.
    """
    words: list[str] = []
    for path in reversed(found(run)):
        try:
            return Saved(read_position(path), load_file(path), words)
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            if isinstance(error, BadInput):
                raise
            words.append(f"the checkpoint {path.name} is broken ({error}); an older one is used")
    there = sorted(path.name for path in (run / "checkpoint").glob("step_*"))
    if words:
        raise BadInput(
            f"no checkpoint of {run} can be read ({', '.join(there)}): put a copy of one back, or name another --out"
        )
    if (run / MODEL).exists():
        raise BadInput(
            f"{run} has a {MODEL} but no checkpoint to go on from: put {run / 'checkpoint'} back, or name another --out"
        )
    return None


def read_position(path: Path) -> Position:
    """What newer versions may have added is left out. Raises one of many errors for what is not whole."""
    head = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    if head.get("format", 1) > FORMAT:
        raise BadInput(f"{path} was written by a newer viceversa (format {head['format']}): upgrade to go on with it")
    if path.stat().st_size != head["bytes"]:
        raise ValueError("cut short")
    known = {field.name for field in fields(Position)}
    at = Position(**{"step": head["step"], **{name: value for name, value in head.items() if name in known}})
    # Older versions did not say; and a model that is gone can be made again.
    return replace(at, over=head.get("over", True) and (path.parents[1] / MODEL).exists())


def clean(run: Path) -> None:
    """Remove what a killed process left half-written. Only for the one who holds the run."""
    remove_leftovers(run)
    for path in (run / "checkpoint").glob("step_*.safetensors"):
        if not path.with_suffix(".json").exists():
            path.unlink()


def trained(optimizers: Optimizers) -> Iterator[tuple[str, torch.optim.Optimizer, Tensor]]:
    """What the names of a parameter's tensors in a checkpoint begin with, its optimizer, and itself."""
    for which, optimizer in optimizers._asdict().items():
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        for n, parameter in enumerate(parameters):
            yield f"optimizer.{which}.{n}.", optimizer, parameter


def restore(model: CycleGAN, optimizers: Optimizers, tensors: dict[str, Tensor]) -> None:
    """Put a checkpoint into model and optimizers, in place, in their own memory layout.

    Fused Adam reads memory as it lies, so a moment must have the strides of its parameter. With another
    number of processes than saved, each takes the histories of one that was. Raises BadInput.
    """
    rank = distributed.rank()
    with torch.no_grad():
        for name, value in model.state_dict().items():
            saved = tensors.get(name)
            if saved is None and name.endswith(COUNTED):
                continue
            if saved is not None and name.startswith("history_"):
                saved = saved[rank % len(saved)]
            if saved is None or saved.shape != value.shape:
                raise BadInput(f"the checkpoint does not fit the networks of this run ({name}): name another --out")
            value.copy_(saved)
        for prefix, optimizer, parameter in trained(optimizers):
            if f"{prefix}step" not in tensors:  # saved before the first step
                continue
            on_device = optimizer.param_groups[0]["capturable"] or optimizer.param_groups[0]["fused"]
            optimizer.state[parameter] = {
                "step": tensors[f"{prefix}step"].to(parameter.device if on_device else "cpu"),
                "exp_avg": torch.empty_like(parameter).copy_(tensors[f"{prefix}exp_avg"]),
                "exp_avg_sq": torch.empty_like(parameter).copy_(tensors[f"{prefix}exp_avg_sq"]),
            }


def keep_epoch(run: Path, epoch: int, keep: int) -> None:
    """Keep RUN/model.safetensors as that of its epoch, RUN/epochs/epoch_0040.safetensors, `keep` at most.

    The newest of each stretch of so many epochs; as the run goes on stretches become twice as long, so that they
    stay evenly spread, also where the ends of some epochs are passed over.
    """
    every = 1
    while keep and -(-epoch // every) > keep:
        every *= 2
    if keep:
        with replacing(epoch_path(run, epoch)) as temporary:
            shutil.copyfile(run / MODEL, temporary)
    kept = by_epoch(run / "epochs", "safetensors")
    newest = {-(-number // every): number for number, _ in kept}
    for number, path in kept:
        if not keep or number != newest[-(-number // every)]:
            path.unlink(missing_ok=True)

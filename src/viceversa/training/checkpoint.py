"""Save and resume: everything that a run needs to go on as if nothing had happened.

RUN/checkpoint/step_000001234.safetensors holds networks, optimizers, histories and moving averages;
step_000001234.json, written last, says where in the run that was: a checkpoint without it does not count.
There are no random states to keep: all randomness comes from (seed, step).
"""

import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from .. import distributed
from ..errors import Failed
from ..files import replacing, write_text
from ..model.cyclegan import CycleGAN, Optimizers

KEPT = 2


@dataclass(frozen=True, kw_only=True)
class Position:
    """Where a run is."""

    step: int = 0
    epochs: float = 0.0
    """Epochs done, with the fraction of the one begun: it is the same with another number of processes."""
    seconds: float = 0.0
    """Time spent training, all resumes together."""
    world: int = 1
    """How many processes trained."""
    finished: bool = False
    best: float | None = None
    """The best score so far."""
    worse: int = 0
    """How many scores in a row were no better."""


def save(run: Path, model: CycleGAN, optimizers: Optimizers, position: Position) -> int:
    """Write a checkpoint, whole or not at all, and keep the newest two. Returns its bytes.

    Called by all processes (each has histories of its own); rank 0 writes.
    """
    histories = {
        name: distributed.to_first(value) for name, value in model.state_dict().items() if name.startswith("history_")
    }
    if distributed.rank() != 0:
        return 0
    tensors = model.state_dict() | histories | optimizer_tensors(optimizers)
    # safetensors takes neither channels-last nor shared memory.
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    target = run / "checkpoint" / f"step_{position.step:09d}.safetensors"
    try:
        with replacing(target) as temporary:
            save_file(tensors, temporary)
        size = target.stat().st_size
        write_text(target.with_suffix(".json"), json.dumps({**asdict(position), "bytes": size}, indent=1))
    except (OSError, SafetensorError) as error:
        why = getattr(error, "strerror", None) or error
        raise Failed(f"cannot write the checkpoint {target}: {why}; the previous one is good") from None
    for old in found(run)[:-KEPT]:
        remove(old)
    return size


def newest(run: Path) -> Position | None:
    """Where the newest checkpoint was, without reading its tensors."""
    for path in reversed(found(run)):
        with suppress(OSError, ValueError, KeyError, TypeError):
            return read_position(path)
    return None


def read_position(path: Path) -> Position:
    """Raises one of many errors for a checkpoint that is not whole."""
    head = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    if path.stat().st_size != head.pop("bytes"):
        raise ValueError("cut short")
    return Position(**head)


def load(run: Path) -> tuple[Position, dict[str, Tensor], list[str]] | None:
    """The newest whole checkpoint: where it was, its tensors, and words about newer ones that are broken."""
    said: list[str] = []
    for path in reversed(found(run)):
        try:
            return read_position(path), load_file(path), said
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            said.append(f"the checkpoint {path.name} is broken ({error}); an older one is used")
    return None


def found(run: Path) -> list[Path]:
    """The checkpoints of a run, oldest first; what a killed process left half-written is removed on the way."""
    folder = run / "checkpoint"
    for path in folder.glob(".*.partial.*"):
        remove(path)
    for path in folder.glob("step_*.safetensors"):
        if not path.with_suffix(".json").exists():
            remove(path)
    return sorted(path.with_suffix(".safetensors") for path in folder.glob("step_*.json"))


def remove(path: Path) -> None:
    for one in (path.with_suffix(".json"), path):
        with suppress(OSError):
            one.unlink()


def optimizer_tensors(optimizers: Optimizers) -> dict[str, Tensor]:
    return {
        f"optimizer.{which}.{n}.{name}": value
        for which, optimizer in zip(("generators", "discriminators"), optimizers, strict=True)
        for n, parameter in enumerate(parameters(optimizer))
        for name, value in optimizer.state[parameter].items()
    }


def parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def restore(model: CycleGAN, optimizers: Optimizers, tensors: dict[str, Tensor]) -> None:
    """Put a checkpoint into model and optimizers, in place, in their own memory layout.

    Fused Adam reads memory as it lies, so a moment must have the strides of its parameter. With another
    number of processes than saved, each takes the histories of one that was.
    """
    rank = distributed.rank()
    with torch.no_grad():
        for name, value in model.state_dict().items():
            saved = tensors[name]
            value.copy_(saved[rank % len(saved)] if name.startswith("history_") else saved)
        for which, optimizer in zip(("generators", "discriminators"), optimizers, strict=True):
            for n, parameter in enumerate(parameters(optimizer)):
                prefix = f"optimizer.{which}.{n}."
                if f"{prefix}step" not in tensors:  # saved before the first step
                    continue
                on_device = optimizer.param_groups[0]["capturable"] or optimizer.param_groups[0]["fused"]
                optimizer.state[parameter] = {
                    "step": tensors[f"{prefix}step"].to(parameter.device if on_device else "cpu"),
                    "exp_avg": torch.empty_like(parameter).copy_(tensors[f"{prefix}exp_avg"]),
                    "exp_avg_sq": torch.empty_like(parameter).copy_(tensors[f"{prefix}exp_avg_sq"]),
                }

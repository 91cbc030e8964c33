"""Several processes: a handful of functions over torch.distributed, and no wrapper around the model.

Every function does nothing in a single process, so that the rest of the code need not ask.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from .errors import BadInput

BUCKET = 25 * 2**20
"""Bytes that are averaged in one call: large enough for the network's bandwidth, small enough to overlap."""
OF_THIS_ONE = ("op.preamble", "ncclInvalid")
"""In errors of gloo and NCCL that no process was lost for: other sizes than the peer's, calls that make no sense."""


def init(device: str = "auto") -> str:
    """Join the processes that torchrun started; returns the device for this one.

    A process group that already exists (Slurm, Ray, a test) is taken as it is.
    """
    launched = "RANK" in os.environ and "WORLD_SIZE" in os.environ
    if not dist.is_initialized() and not launched:
        return device
    local = int(os.environ.get("LOCAL_RANK", "0"))
    on_gpu = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    if on_gpu:
        if local >= torch.cuda.device_count():
            raise BadInput(
                f"process {local} on this node has no GPU of its own ({torch.cuda.device_count()} here): "
                "start fewer processes (torchrun --nproc-per-node)"
            )
        device = f"cuda:{local}"
        torch.cuda.set_device(local)
    if not dist.is_initialized():
        # Long enough for what rank 0 does alone (pictures, scores); a dead peer is noticed at once all the same.
        timeout = timedelta(minutes=20)
        store, rank, world = next(dist.rendezvous("env://", timeout=timeout))  # type: ignore[attr-defined]
        # Workers that torchrun starts again meet at the same store: they must not find the dead ones' addresses.
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        store = dist.PrefixStore(f"attempt {attempt}", store)  # type: ignore[attr-defined]
        backend = "nccl" if on_gpu else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=timeout)
    return device


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def backend() -> str | None:
    """nccl, gloo, ...; None for a single process."""
    return dist.get_backend() if world() > 1 else None


def is_running() -> bool:
    return dist.is_initialized()


def close() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def is_communication_error(error: BaseException) -> bool:
    """Is it another process that is missing, rather than something wrong in this one? Gloo, which works between
    CPUs, raises plain RuntimeErrors, and says only where in its source it was."""
    gloo = isinstance(error, RuntimeError) and "gloo/transport/" in str(error)
    return (gloo or isinstance(error, dist.DistError)) and not any(word in str(error) for word in OF_THIS_ONE)


def mean_gradients(gradients: list[Tensor]) -> None:
    """Average them over the processes, in place, in buckets that are in flight together."""
    if world() == 1:
        return
    flights = []
    for bucket in buckets(gradients, BUCKET):
        # What is sent is the memory as it lies: channels-last gradients must not be permuted on the way.
        flat = torch.cat([memory(g) for g in bucket])
        flights.append((bucket, flat, dist.all_reduce(flat, async_op=True)))
    for bucket, flat, flight in flights:
        flight.wait()  # type: ignore[union-attr]
        flat /= world()
        for gradient, part in zip(bucket, flat.split([g.numel() for g in bucket]), strict=True):
            memory(gradient).copy_(part)


def memory(x: Tensor) -> Tensor:
    """A flat view of a dense tensor in the order in which it lies in memory."""
    return x.as_strided((x.numel(),), (1,), x.storage_offset())


def buckets(tensors: list[Tensor], size: int) -> list[list[Tensor]]:
    """Split a list of tensors into runs of at most `size` bytes (or one tensor)."""
    runs: list[list[Tensor]] = []
    room = 0
    for tensor in tensors:
        room -= tensor.nbytes
        if room < 0 or not runs:
            runs.append([])
            room = size - tensor.nbytes
        runs[-1].append(tensor)
    return runs


def mean(x: Tensor) -> Tensor:
    """The mean of `x` over the processes."""
    if world() == 1:
        return x
    x = x.clone()
    dist.all_reduce(x)
    return x / world()


def everyone(value: Any) -> list[Any]:
    """The plain values (numbers, strings, lists) of all processes, by rank."""
    if world() == 1:
        return [value]
    values: list[Any] = [None] * world()
    dist.all_gather_object(values, value)
    return values


def peers() -> list[int]:
    """The ranks of the processes on this machine, this one's among them."""
    machines = everyone(socket.gethostname())
    return [r for r, machine in enumerate(machines) if machine == machines[rank()]]


def to_first(x: Tensor) -> Tensor:
    """(...) of each process -> (world, ...) by rank on rank 0, (0, ...) elsewhere."""
    if world() == 1:
        return x[None]
    parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(world() if rank() == 0 else 0)]
    dist.gather(x.contiguous(), parts or None)
    return torch.stack(parts) if parts else x[None][:0]


def from_first(value: Any) -> Any:
    """What rank 0 has, everywhere."""
    return everyone(value)[0]


def must_agree(what: str, value: Any) -> None:
    """Raise BadInput on all ranks, where their values differ: no rank is left waiting."""
    values = everyone(value)
    others = [r for r, v in enumerate(values) if v != values[0]]
    if others:
        raise BadInput(
            f"the processes have different {what}: rank 0 has {values[0]}, rank {others[0]} {values[others[0]]}; "
            "start all of them with the same command, and the same data at the same paths"
        )


@contextmanager
def agreed() -> Iterator[None]:
    """What is wrong in one process is raised in all, so that none is left waiting."""
    error = None
    try:
        yield
    except BadInput as wrong:
        error = str(wrong)
    errors = [e for e in everyone(error) if e]
    if errors:
        raise BadInput(errors[0])

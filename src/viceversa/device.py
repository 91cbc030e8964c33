"""Which device and which number format; what a chip can do; compilation, and capture as a CUDA graph."""

import math
import os
import platform
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor, nn

from .config import Precision, checked
from .errors import BadInput, first_line


def choose_device(name: str) -> torch.device:
    """auto: the current CUDA GPU, else Apple's, else the CPU. Raises BadInput for a device that is not there."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise BadInput(f"--device {name}: no such kind of device; use auto, cpu, cuda, cuda:1 or mps") from None
    if device.type == "cuda":
        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= found:
            there = f"{found} CUDA GPU{'s' * (found != 1)}" if found else "no CUDA GPU"
            raise BadInput(f"--device {name}: this machine has {there}; use --device cpu or auto")
        return torch.device("cuda", device.index or 0)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise BadInput("--device mps: this machine has no Apple GPU; use --device cpu or auto")
    if device.type not in ("cpu", "mps"):
        raise BadInput(f"--device {name}: not supported; use auto, cpu, cuda, cuda:1 or mps")
    return device


def has_bf16(device: torch.device) -> bool:
    """Does this chip multiply bf16 matrices in hardware?"""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return False


def choose_dtype(precision: str, device: torch.device) -> torch.dtype:
    """auto: bf16 where the chip has it, fp32 elsewhere. Raises BadInput for a format the chip has not."""
    checked("precision", precision, Precision)
    if precision == "bf16" and not has_bf16(device):
        raise BadInput(f"--precision bf16: this chip ({device}) cannot; use --precision fp32 or auto")
    return torch.bfloat16 if precision == "bf16" or (precision == "auto" and has_bf16(device)) else torch.float32


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """The one autocast context; does nothing in float32 and float64. No cast cache: CUDA graphs forbid it."""
    enabled = dtype in (torch.bfloat16, torch.float16)
    return torch.autocast(device.type, dtype if enabled else None, enabled=enabled, cache_enabled=False)


def wide(x: Tensor) -> Tensor:
    """In float32 at least: losses, statistics and what is seen are, whatever the networks compute in."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def describe(device: torch.device) -> str:
    """A name for people: "cuda: NVIDIA H200", "cpu: Intel(R) Xeon(R) ..., 2 threads"."""
    if device.type == "cuda":
        return f"cuda: {torch.cuda.get_device_name(device)}"
    if device.type == "cpu":
        threads = torch.get_num_threads()
        return f"cpu: {cpu_name()}, {threads} thread{'s' * (threads != 1)}"
    return device.type


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def threads_for_cores() -> int:
    """As many threads as now, but no more than there are `available_cores`."""
    return min(torch.get_num_threads(), available_cores())


def available_cores() -> int:
    """Cores that this process may use: a container's share is less than the machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(OSError, ValueError):  # cgroup v2: "max 100000" or "200000 100000"
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="utf-8").split()
        cores = min(cores, max(1, round(int(quota) / int(period))))
    return cores


def on_available_cores() -> AbstractContextManager[None]:
    """Compute with `threads_for_cores`, and leave the caller's number as it was."""
    return on_threads(threads_for_cores())


@contextmanager
def on_threads(number: int) -> Iterator[None]:
    """Compute with so many threads, and leave the caller's number as it was."""
    before = torch.get_num_threads()
    if number == before:
        yield
        return
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def is_out_of_memory(error: BaseException) -> bool:
    """PyTorch tells it in one class on GPUs, and in words on CPUs."""
    words = ("not enough memory", "can't allocate memory", "could not create a memory", "out of memory")
    known = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return known or (isinstance(error, RuntimeError) and any(word in str(error).lower() for word in words))


def tune(device: torch.device) -> None:
    """Settings for fixed shapes on a GPU: TF32 for float32 convolutions and products, the fastest of cuDNN's
    algorithms. The GPU becomes the current one: streams and graphs are made on that."""
    if device.type == "cuda":
        torch.cuda.set_device(device)
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True


@contextmanager
def as_it_was() -> Iterator[None]:
    """Put back what the work within sets for the whole process: threads, the settings of `tune`, the current GPU."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    threads, flags = torch.get_num_threads(), (matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark)
    gpu = torch.cuda.current_device() if torch.cuda.is_initialized() else None
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark = flags
        if gpu is not None:
            torch.cuda.set_device(gpu)


def worth_compiling(device: torch.device, *, seconds: float | None = None, operations: float = 0.0) -> bool:
    """Is a run of so many seconds, or else multiply-adds, long enough to pay back a minute of compiling?"""
    if device.type not in ("cpu", "cuda"):
        return False
    a_second = {"cpu": 1e12, "cuda": 5e12}[device.type]  # of a small one
    return (operations / a_second if seconds is None else seconds) > 400


@lru_cache(maxsize=4)
def why_not_compile(device: torch.device) -> str | None:
    """None where torch.compile works here; else why not, in a line. Found out by compiling a small function."""
    try:
        torch.compile(lambda x: x.sin() + 1, dynamic=False)(torch.zeros(64, device=device))
    except Exception as error:  # whatever is missing: a compiler, headers, Triton, a writable folder
        return first_line(error)[:160]
    return None


def compile_parts(parts: Iterable[nn.Module]) -> None:
    """Compile each module in place; equal ones (residual blocks, both directions) share the compiled code."""
    # One entry a shape and role: batches of one and two, with and without gradients, both directions.
    torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
    for part in parts:
        part.compile(dynamic=False)


@contextmanager
def uncompiled() -> Iterator[None]:
    """Run compiled modules as they were written: for a few images, compiling again would not pay."""
    with torch.compiler.set_stance("force_eager"):
        yield


def why_not_capture(backend: str | None) -> str | None:
    """None where a step on a GPU can be one CUDA graph; else why not, in a line. `backend`: of the process group."""
    if backend not in (None, "nccl"):
        return f"{backend} averages gradients on the host; start the processes with NCCL"
    if os.environ.get("CUDA_LAUNCH_BLOCKING", "0") != "0":
        return "CUDA_LAUNCH_BLOCKING is set"
    if torch.is_anomaly_enabled():
        return "autograd's anomaly detection looks at every value"
    return None


class Graphed:
    """A function of tensors on a GPU, captured as one CUDA graph after three ordinary calls.

    The function must return scalars by name, wait for nothing, and change state in place only; `changing` are
    tensors that each call changes. Where it cannot be captured, or the graph changes nothing, `say` is told once
    and calls go on as before. Raises torch.OutOfMemoryError.
    """

    def __init__(
        self, function: Callable[..., dict[str, Tensor]], changing: Iterable[Tensor], device: torch.device,
        say: Callable[[str], None], cuda: Any = torch.cuda,
    ):  # fmt: skip
        self.function, self.changing, self.device, self.say, self.cuda = function, list(changing), device, say, cuda
        self.stream = cuda.Stream(device)
        self.calls, self.captures = 0, True
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, *inputs: Tensor) -> dict[str, Tensor]:
        with self.cuda.device(self.device):
            self.calls += 1
            if self.captures and self.calls <= 3:
                return self.aside(inputs)
            if self.captures and self.graph is None:
                self.capture(inputs)
            return self.replay(inputs) if self.captures else self.function(*inputs)

    def aside(self, inputs: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """An ordinary call on the stream of the capture, for what libraries set up at their first use."""
        self.stream.wait_stream(self.cuda.current_stream())
        with self.cuda.stream(self.stream):
            losses = self.function(*inputs)
        self.cuda.current_stream().wait_stream(self.stream)
        return losses

    def capture(self, inputs: tuple[Tensor, ...]) -> None:
        self.inputs = [x.clone() for x in inputs]
        graph, before = self.cuda.CUDAGraph(), self.cuda.current_stream()
        try:
            # thread_local: NCCL's own threads may do meanwhile what a capture forbids.
            with self.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"):
                losses = self.function(*self.inputs)
                self.names, self.losses = list(losses), torch.stack(list(losses.values()))
            self.graph = graph
        except RuntimeError as error:
            # Where a capture broke, ending it fails too, and is what is raised: the cause lies beneath.
            if any(isinstance(each, torch.OutOfMemoryError) for each in (error, error.__context__)):
                raise
            self.give_up(str(error.__context__ or error).partition("\n")[0])
        finally:
            self.cuda.set_stream(before)  # torch leaves its own behind when ending a capture fails

    def replay(self, inputs: tuple[Tensor, ...]) -> dict[str, Tensor]:
        assert self.graph is not None
        for kept, new in zip(self.inputs, inputs, strict=True):
            kept.copy_(new, non_blocking=True)
        before = [x.detach().clone() for x in self.changing]
        self.graph.replay()
        if self.changing and all(map(torch.equal, before, self.changing)):
            self.give_up("its graph is empty")
            return self.function(*inputs)
        self.changing = []  # looked at once: it waits for the device
        return dict(zip(self.names, self.losses.clone().unbind(), strict=True))

    def give_up(self, reason: str) -> None:
        self.captures, self.graph = False, None
        self.say(f"the step is not captured as a CUDA graph, so slower than it could be: {reason}")


class Threaded:
    """A function on a CPU, called again and again, with as many threads as are quickest just then.

    Beside another program that keeps a core busy, threads wait for each other at every operation: two then take up to
    thirty times as long as one. So now and then a few calls are made with half as many, with twice as many (up to
    `most`) and with one, the surer ones first; trials take about a tenth of the time at most. The last bits of a result
    may change with the number: this is for runs by the clock alone.
    """

    EVERY = 60.0
    """Seconds to the next trial; twice as many each time that it changes nothing."""
    CALLS = 4
    """How many are timed with each number, but no longer than LONG seconds."""
    LONG = 10.0

    def __init__(self, function: Callable[..., Any], most: int, clock: Callable[[], float] = time.monotonic):
        self.function, self.most, self.clock = function, most, clock
        self.plan = self.numbers()
        self.next = next(self.plan)

    def __call__(self, *inputs: Any) -> Any:
        number, trial = self.next
        if torch.get_num_threads() != number:
            torch.set_num_threads(number)
        began = self.clock()
        with uncompiled() if trial else nullcontext():  # compiled code is of one number, and takes a minute to make
            result = self.function(*inputs)
        self.next = self.plan.send(self.clock() - began)
        return result

    def numbers(self) -> Generator[tuple[int, bool], float, None]:
        """Threads for the next call, and whether it is one of a trial; is sent the seconds that it took."""
        number, pause, seconds = self.most, self.EVERY, dict[int, float]()
        while True:
            began = self.clock()
            for tried in (max(1, number // 2), number, min(2 * number, self.most), 1):
                if tried not in seconds:
                    best = min(seconds.values(), default=math.inf)
                    first = yield tried, True  # sets up threads, so it counts only where it is far too long
                    took = [first] if first > self.CALLS * best else []
                    while len(took) < self.CALLS and sum(took) < min(self.LONG, self.CALLS * best):
                        took.append((yield tried, True))
                    seconds[tried] = sum(took) / len(took)
            quickest = min(seconds, key=seconds.__getitem__)
            if seconds[quickest] < 0.9 * seconds[number]:
                number, pause = quickest, self.EVERY
                continue
            pause = max(pause, 10 * (self.clock() - began))
            yield number, False  # which may have to compile
            since, usual = self.clock(), math.inf
            lately = deque([math.inf] * self.CALLS, self.CALLS)
            while self.clock() < since + pause:
                lately.append((yield number, False))
                usual = min(usual, sum(lately))
                if sum(lately) > 1.5 * usual and self.clock() > since + pause / 4:  # others have come
                    pause = self.EVERY / 2
                    break
            pause, seconds = 2 * pause, {}


def free(device: torch.device) -> float:
    """Bytes that can be taken: on a GPU; or in memory, by this process of those on this machine."""
    if device.type == "cuda":
        # What PyTorch holds without using it is free to PyTorch, though not to others.
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return float(torch.cuda.mem_get_info(device)[0] + kept)
    available = psutil.virtual_memory().available
    with suppress(OSError, ValueError):  # a container's limit (cgroup v2); "max" is none
        group = Path("/sys/fs/cgroup")
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        used = int((group / "memory.current").read_text()) - int(stat["inactive_file"])
        available = min(available, int((group / "memory.max").read_text()) - used)
    return float(available) / int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # set by torchrun

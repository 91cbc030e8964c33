"""Which device and which number format; what a chip can do; compilation, and capture as a CUDA graph."""

import os
import platform
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn

from .config import Precision, checked
from .errors import BadInput


def choose_device(name: str) -> torch.device:
    """auto: the first CUDA GPU, else Apple's, else the CPU. Raises BadInput for a device that is not there."""
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


def describe(device: torch.device) -> str:
    """A name for people: "cuda: NVIDIA H200", "cpu: Intel(R) Xeon(R) ..., 2 threads"."""
    if device.type == "cuda":
        return f"cuda: {torch.cuda.get_device_name(device)}"
    if device.type == "cpu":
        return f"cpu: {cpu_name()}, {torch.get_num_threads()} threads"
    return device.type


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def use_available_cores() -> None:
    """No more threads than cores that this process may use: a container's share is less than the machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(OSError, ValueError):  # cgroup v2: "max 100000" or "200000 100000"
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="utf-8").split()
        cores = min(cores, max(1, round(int(quota) / int(period))))
    torch.set_num_threads(min(torch.get_num_threads(), cores))


def tune(device: torch.device) -> None:
    """Settings for fixed shapes: TF32 for float32 convolutions and products, the fastest of cuDNN's algorithms."""
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True


@lru_cache(maxsize=4)
def why_not_compile(device: torch.device) -> str | None:
    """None where torch.compile works here; else why not, in a line. Found out by compiling a small function."""
    try:
        torch.compile(lambda x: x.sin() + 1, dynamic=False)(torch.zeros(64, device=device))
    except Exception as error:  # whatever is missing: a compiler, headers, Triton, a writable folder
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return lines[0][:160]
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


class Graphed:
    """A function of tensors on a GPU, captured as one CUDA graph after three ordinary calls.

    The function must return a dict of tensors, wait for nothing, and change state in place only. Where it cannot be
    captured, `say` is told once and calls go on as before.
    """

    def __init__(self, function: Callable[..., dict[str, Tensor]], say: Callable[[str], None]):
        self.function, self.say = function, say
        self.before_capture = 3
        self.graph: torch.cuda.CUDAGraph | None = None
        self.inputs: list[Tensor] = []

    def __call__(self, *inputs: Tensor) -> dict[str, Tensor]:
        if self.graph is None and self.before_capture == 0:
            self.capture(inputs)
        if self.graph is None:
            self.before_capture -= 1
            return self.aside(inputs)
        for kept, new in zip(self.inputs, inputs, strict=True):
            kept.copy_(new, non_blocking=True)
        self.graph.replay()
        return {name: value.clone() for name, value in self.output.items()}

    def aside(self, inputs: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """An ordinary call, on a stream of its own as captures ask for."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            output = self.function(*inputs)
        torch.cuda.current_stream().wait_stream(stream)
        return output

    def capture(self, inputs: tuple[Tensor, ...]) -> None:
        self.inputs = [x.clone() for x in inputs]
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                self.output = self.function(*self.inputs)
            self.graph = graph
        except RuntimeError as error:
            self.before_capture = -1  # never again
            self.say(f"the step could not be captured as a CUDA graph ({str(error).splitlines()[0]}); going on without")


def free(device: torch.device) -> float:
    """Bytes that can be taken: on a GPU; or in memory, by this process of those on this machine."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2  # where no one tells better
    with suppress(OSError):
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        available = 1024 * int(lines["MemAvailable"].split()[0])
    with suppress(OSError, ValueError):  # a container's limit (cgroup v2); "max" is none
        group = Path("/sys/fs/cgroup")
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        used = int((group / "memory.current").read_text()) - int(stat["inactive_file"])
        available = min(available, int((group / "memory.max").read_text()) - used)
    return available / int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # set by torchrun

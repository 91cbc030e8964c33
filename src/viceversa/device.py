"""Which device and which number format; what a chip can do."""

import torch

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
    if precision == "bf16" and not has_bf16(device):
        raise BadInput(f"--precision bf16: this chip ({device}) cannot; use --precision fp32 or auto")
    return torch.bfloat16 if precision == "bf16" or (precision == "auto" and has_bf16(device)) else torch.float32


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """The one autocast context; does nothing in float32 and float64. No cast cache: CUDA graphs forbid it."""
    enabled = dtype in (torch.bfloat16, torch.float16)
    return torch.autocast(device.type, dtype if enabled else None, enabled=enabled, cache_enabled=False)

"""How much memory is free, and where a large tensor of integers goes: device, memory, or a mapped file."""

import os
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..device import free
from ..errors import BadInput

DEVICE_SHARE = 0.25
"""The part of free GPU memory that one tensor may take: training needs the rest."""
MEMORY_SHARE = 0.4
"""The part of available memory that one tensor may take."""


def allocate(
    shape: tuple[int, int],
    dtype: torch.dtype,
    device: torch.device,
    budget: int | None = None,
    folder: Path | None = None,
) -> tuple[Tensor, str]:
    """An unwritten tensor (uint8 or int16) in the best place where it fits, and words for that place.

    `budget`: bytes that may be taken on the device or in memory; by default a part of what is free there.
    Beyond it: in a file in `folder`, of which only the mapping is left and which goes with the process.
    Raises BadInput when the disk has no room.
    """
    need = shape[0] * shape[1] * dtype.itemsize
    if device.type != "cpu" and need <= (free(device) * DEVICE_SHARE if budget is None else budget):
        return torch.empty(shape, dtype=dtype, device=device), "on the device"
    if need <= (free(torch.device("cpu")) * MEMORY_SHARE if budget is None else budget):
        return torch.empty(shape, dtype=dtype), "in memory"
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            if hasattr(os, "posix_fallocate"):  # room that is only promised would end in SIGBUS
                os.posix_fallocate(file.fileno(), 0, need)
        except OSError as error:
            where = folder or tempfile.gettempdir()
            raise BadInput(f"{where}: no room for {need / 1e9:.1f} GB of images: {error.strerror}") from None
        mapped = np.memmap(file, np.int16 if dtype == torch.int16 else np.uint8, "w+", shape=shape)
    return torch.from_numpy(mapped), "on disk"

"""Medical pictures (DICOM) by pydicom: stored numbers to what was measured, and that to 16 bit."""

import io
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BadInput

PALETTE = "PALETTE COLOR"


def is_dicom(source: Path | bytes) -> bool:
    """By the mark after the preamble (PS3.10, 7.1)."""
    if isinstance(source, bytes):
        return source[128:132] == b"DICM"
    with open(source, "rb") as file:
        return file.read(132)[128:] == b"DICM"


def header(path: Path) -> tuple[int, int, bool]:
    """Height, width, and whether it is gray."""
    file = _pydicom().dcmread(path, stop_before_pixels=True)
    gray = int(file.SamplesPerPixel) == 1 and file.PhotometricInterpretation != PALETTE
    return int(file.Rows), int(file.Columns), gray


def decode(data: bytes) -> tuple[np.ndarray, tuple[str, ...]]:
    """(N, H, W, 1) uint16, or (N, H, W, 3) uint8 for colour; and what a person should know of the numbers.

    What was measured, such as Hounsfield units, is slope times stored number plus intercept (PS3.3, C.7.6.16).
    The file's window, or else the whole range that it can hold (the same for all slices), becomes 0 to 65535.
    """
    pydicom = _pydicom()
    file = pydicom.dcmread(io.BytesIO(data))
    stored, samples = file.pixel_array, file.SamplesPerPixel  # colour comes as RGB
    if file.PhotometricInterpretation == PALETTE:
        stored, samples = pydicom.pixels.apply_color_lut(stored, file)[..., :3], 3
    stored = stored.reshape(-1, file.Rows, file.Columns, samples)
    if samples == 3:
        bits = 8 * stored.itemsize if file.PhotometricInterpretation == PALETTE else file.BitsStored
        return (stored.astype(np.float64) * (255 / (2**bits - 1))).round().astype(np.uint8), ()
    slope, intercept = float(file.get("RescaleSlope") or 1), float(file.get("RescaleIntercept") or 0)
    centre, width = _first(file.get("WindowCenter")), _first(file.get("WindowWidth"))
    if centre is not None and width is not None and width > 1:
        low, high = centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2  # PS3.3, C.11.2.1.2.1
    else:
        bottom = -(2 ** (file.BitsStored - 1)) if file.PixelRepresentation else 0
        low, high = (slope * (bottom + n) + intercept for n in (0, 2**file.BitsStored - 1))
    share = ((stored * slope + intercept - low) / (high - low)).clip(0, 1)
    if file.PhotometricInterpretation == "MONOCHROME1":  # the lowest is white
        share = 1 - share
    return (share * 65535).round().astype(np.uint16), (f"values from {low:g} to {high:g}, brought to 0 to 65535",)


def _first(value: Any) -> float | None:
    """Windows may be several, of which the first is the usual one."""
    if value is None or value == "":
        return None
    return float(value[0] if hasattr(value, "__getitem__") and not isinstance(value, str) else value)


def _pydicom() -> Any:
    try:
        import pydicom
    except ImportError:
        raise BadInput("DICOM is read by pydicom: pip install 'viceversa[dicom]'") from None
    return pydicom

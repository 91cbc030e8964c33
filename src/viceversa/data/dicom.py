"""Medical pictures (DICOM) by pydicom: stored numbers to what was measured, and that to 16 bit."""

import io
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BadInput

PALETTE = "PALETTE COLOR"
RULES = (
    "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence",
    "WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence",
)  # fmt: skip
"""What makes a measured value of a stored number, and what of the values is to be seen (PS3.3, C.11.1 and C.11.2)."""
VALUES = re.compile(r"values from (\S+) to (\S+), brought to 0 to 65535")
CURVED = "values brought to 0 to 65535 by a curve of the file's own"
DEEPER = "more than 8 bits a colour, of which 8 are read"


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


def decode(data: bytes) -> list[tuple[np.ndarray, tuple[str, ...]]]:
    """The frames: (H, W, 1) uint16, or (H, W, 3) uint8 for colour; and what a person should know of their numbers.

    What was measured, such as Hounsfield units, is slope times stored number plus intercept, or stands in a table.
    The file's window, or its table of what is to be seen, or else the whole range that it can hold (the same for
    all slices), becomes 0 to 65535.
    """
    pydicom = _pydicom()
    file = pydicom.dcmread(io.BytesIO(data))
    _check_readable(file)
    stored, samples = file.pixel_array, file.SamplesPerPixel  # colour comes as RGB
    if file.PhotometricInterpretation == PALETTE:
        stored, samples = pydicom.pixels.apply_color_lut(stored, file)[..., :3], 3
    stored = stored.reshape(-1, file.Rows, file.Columns, samples)
    if samples == 3:
        bits = 8 * stored.itemsize if file.PhotometricInterpretation == PALETTE else file.BitsStored
        colours = (stored.astype(np.float64) * (255 / (2**bits - 1))).round().astype(np.uint8)
        return [(frame, (DEEPER,) if bits > 8 else ()) for frame in colours]
    return [_seen(frame, file, _rules(file, n)) for n, frame in enumerate(stored)]


def together(notes: Iterable[str]) -> str:
    """One for several of a kind (see `kind`)."""
    first, *others = dict.fromkeys(notes)
    if not others:
        return first
    ends = [float(end) for note in (first, *others) for end in VALUES.findall(note)[0]]
    return (
        f"values from {min(ends):g} to {max(ends):g}, brought to 0 to 65535 in ranges that differ: "
        "slices of one series are then scaled differently"
    )


def kind(note: str) -> str:
    """What notes have in common that differ in their numbers alone."""
    return VALUES.pattern if VALUES.match(note) else note


def _check_readable(file: Any) -> None:
    """Raise BadInput for what pydicom alone does not decompress."""
    syntax = file.file_meta.TransferSyntaxUID
    try:
        decoder = _pydicom().pixels.get_decoder(syntax)
    except NotImplementedError:
        raise BadInput(f"DICOM in {syntax.name} is not read; save it uncompressed") from None
    if not decoder.is_available:
        needed = next(text for text in decoder.missing_dependencies if text.startswith("pylibjpeg"))
        packages = " ".join(re.findall(r"[\w-]+(?=>=)", needed))
        raise BadInput(f"DICOM in {syntax.name} needs more than pydicom: pip install {packages}")


def _rules(file: Any, number: int) -> dict[str, Any]:
    """Of a frame: the file's own, or those of all frames or of this one, where several are in it (C.7.6.16)."""
    shared = file.get("SharedFunctionalGroupsSequence") or []
    own = file.get("PerFrameFunctionalGroupsSequence") or []
    rules: dict[str, Any] = {}
    for group in (file, *shared[:1], *own[number : number + 1]):
        values, windows = (group.get(f"{name}Sequence") or [] for name in ("PixelValueTransformation", "FrameVOILUT"))
        for told in (group, *values[:1], *windows[:1]):
            rules |= {rule: told.get(rule) for rule in RULES if told.get(rule) not in (None, "")}
    return rules


def _seen(stored: np.ndarray, file: Any, rules: dict[str, Any]) -> tuple[np.ndarray, tuple[str, ...]]:
    """(H, W, 1) stored numbers -> uint16, and what was done."""
    bottom = -(2 ** (file.BitsStored - 1)) if file.PixelRepresentation else 0
    if tables := rules.get("ModalityLUTSequence"):
        values, low, high = _by_table(stored, tables[0])
    else:
        slope, intercept = float(rules.get("RescaleSlope") or 1), float(rules.get("RescaleIntercept", 0))
        values = stored * slope + intercept
        low, high = sorted(slope * (bottom + n) + intercept for n in (0, 2**file.BitsStored - 1))
    centre, width, curve = _first(rules.get("WindowCenter")), _first(rules.get("WindowWidth")), ""
    function = rules.get("VOILUTFunction")
    if centre is not None and width is not None and function not in ("LINEAR_EXACT", "SIGMOID"):
        centre, width = centre - 0.5, width - 1  # C.11.2.1.2.1
    if centre is not None and width is not None and width > 0:
        low, high = centre - width / 2, centre + width / 2
        curve = "SIGMOID" if function == "SIGMOID" else ""
    elif tables := rules.get("VOILUTSequence"):
        values, low, high = _by_table(values, tables[0])
        curve = "VOI LUT"
    share = (values - low) / (high - low)
    share = (1 + np.tanh(2 * share - 1)) / 2 if curve == "SIGMOID" else share.clip(0, 1)  # C.11.2.1.3.1
    if file.PhotometricInterpretation == "MONOCHROME1":  # the lowest is white
        share = 1 - share
    note = f"{CURVED} ({curve})" if curve else f"values from {low:g} to {high:g}, brought to 0 to 65535"
    return (share * 65535).round().astype(np.uint16), (note,)


def _by_table(numbers: np.ndarray, table: Any) -> tuple[np.ndarray, float, float]:
    """Through a lookup table (C.11.1.1), and the range that it can hold; what lies outside of it takes its ends.

    (pydicom's own loses all but the last 8 bits of numbers where a table's entries have 8.)
    """
    count, first, bits = table.LUTDescriptor
    data = table.LUTData
    if isinstance(data, bytes):
        wide, little = len(data) >= 2 * (count or 2**16), table.original_encoding[1] is not False
        data = np.frombuffer(data, ("<u2" if little else ">u2") if wide else np.uint8)
    entries = np.asarray(data, np.float64)
    which = np.rint(numbers).astype(np.int64) - first
    return entries[which.clip(0, len(entries) - 1)], 0, 2**bits - 1


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

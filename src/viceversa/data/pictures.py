"""Read and write one picture: formats, 8 and 16 bit, orientation, colour profile, transparency, limits."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from ..errors import BadInput
from ..files import write_bytes
from . import profiles, sixteen

SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif"))
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF")
LONGEST_SIDE = {"JPEG": 65_500, "WEBP": 16_383, "GIF": 65_535}
WITHOUT_ALPHA = ("JPEG", "BMP")

# The largest single cameras make 150 megapixels and stitched panoramas a few hundred; 500 take 1.5 GB as
# RGB. Pillow refuses, before it decodes, what has more than twice this, and only warns above it.
LARGEST = 500_000_000
Image.MAX_IMAGE_PIXELS = LARGEST // 2
# Pillow warns of odd metadata; what matters becomes a BadImage. Not catch_warnings: threads share filters.
warnings.filterwarnings("ignore", module=r"PIL\.")

ORIENTATION = 274
DESCRIPTIVE = frozenset(
    (270, 271, 272, 282, 283, 296, 305, 306, 315, 18246, 18249, 33432, 34665, 34853, *range(40091, 40096))
)
"""EXIF tags that tell of the photograph. Others tell of the file's layout (a TIFF's EXIF holds these too)."""


class BadImage(BadInput):
    """A file that is no image, is broken, or is of a kind that is not read. Says which and why."""


@dataclass(frozen=True)
class Picture:
    """One picture, upright and in sRGB."""

    pixels: np.ndarray
    """(H, W, C) uint8 or uint16, C = 1 or 3."""
    alpha: np.ndarray | None = None
    """(H, W), of the same dtype, where the source had transparency."""
    exif: bytes | None = None
    """Its orientation is 1: the pixels are upright. Without the thumbnail."""
    icc: bytes | None = None
    """The sRGB profile where the source had a profile, from which the pixels were converted."""
    format: str = "PNG"
    """Pillow's name: JPEG, PNG, WEBP, TIFF, BMP, GIF."""


@dataclass(frozen=True)
class Header:
    """What a file says of itself before it is decoded."""

    height: int
    width: int
    """As stored: the camera's orientation may still exchange the two."""
    dtype: type[np.uint8] | type[np.uint16]


def read(source: Path | bytes, channels: Literal[1, 3] | None = 3) -> Picture:
    """Decode a file, or the bytes of one; the first frame of several. Raises BadImage.

    `channels`: 3 makes gray RGB, 1 makes colour gray (by Rec. 601, as Pillow), None leaves gray at 1.
    """
    with _telling(source):
        data = source.read_bytes() if isinstance(source, Path) else source
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            pixels, alpha, icc = _decode_16(image, data) if sixteen.is_16_bit(image) else _decode_8(image)
            exif, orientation = _exif(image)  # after decoding: Pillow itself turns TIFFs as it loads them
            format = "JPEG" if image.format == "MPO" else str(image.format)  # phones' JPEG with a depth map
    pixels = _to_channels(_upright(pixels, orientation), channels)
    return Picture(pixels, None if alpha is None else _upright(alpha, orientation), exif, icc, format)


def header(path: Path) -> Header:
    """Size and depth without decoding, in a fraction of a millisecond. Raises BadImage."""
    with _telling(path), Image.open(path, formats=FORMATS) as image:
        return Header(image.height, image.width, np.uint16 if sixteen.is_16_bit(image) else np.uint8)


def write(path: Path, picture: Picture, quality: int = 90) -> None:
    """Write `picture` in its format, complete or not at all. See `encode`."""
    write_bytes(path, encode(picture, quality))


def encode(picture: Picture, quality: int = 90) -> bytes:
    """The bytes of a file in `picture.format`; `quality` from 1 to 100 is for JPEG and WebP.

    16 bit stay so in PNG and TIFF and are rounded elsewhere; JPEG and BMP hold no transparency, BMP and GIF
    no EXIF. Raises BadInput for a picture that is too large for its format.
    """
    height, width = picture.pixels.shape[:2]
    longest = LONGEST_SIDE.get(picture.format, 2**31 - 1)
    if max(height, width) > longest:
        raise BadInput(f"{picture.format} holds at most {longest} pixels a side, not {width}x{height}; choose PNG")
    profile = _profile(picture)
    if picture.format == "TIFF":
        if picture.alpha is not None:  # gray with alpha goes as RGBA: of 16 bit, hardly anything reads it
            picture = replace(picture, pixels=_to_channels(picture.pixels, 3))
        return sixteen.encode_tiff(_with_alpha(picture), picture.exif, profile)
    if picture.pixels.dtype == np.uint16 and picture.format == "PNG":
        return sixteen.encode_png(_with_alpha(picture), picture.exif, profile)
    stored = sixteen.to_8_bit(picture.pixels if picture.format in WITHOUT_ALPHA else _with_alpha(picture))
    image = Image.fromarray(stored[..., 0] if stored.shape[2] == 1 else stored)
    options = {"exif": picture.exif, "icc_profile": profile, "quality": quality}
    out = io.BytesIO()
    image.save(out, picture.format, **{name: value for name, value in options.items() if value is not None})
    return out.getvalue()


def to_tensor(pixels: np.ndarray) -> Tensor:
    """(H, W, C) or (N, H, W, C), uint8 or uint16 -> (N, C, H, W) float32 in [-1, 1], channels last."""
    half = np.iinfo(pixels.dtype).max / 2
    batch = pixels if pixels.ndim == 4 else pixels[None]
    return scale(torch.from_numpy(batch.astype(np.float32)), half).permute(0, 3, 1, 2)


def scale(values: Tensor, half: float) -> Tensor:
    """0 to 2 * `half` -> [-1, 1] exactly at both ends, and the same bits on every device.

    Written as a subtraction and a product, since a GPU replaces division by a product itself.
    """
    return (values - half) * (1 / half)


def to_pixels(images: Tensor, dtype: type[np.uint8] | type[np.uint16] | np.dtype = np.uint8) -> np.ndarray:
    """(N, C, H, W) in [-1, 1] -> (N, H, W, C) uint8 or uint16, rounded to the nearest, not truncated."""
    half = np.iinfo(dtype).max / 2
    levels = images.detach().float().clamp(-1, 1).mul(half).add(half).round()
    return levels.permute(0, 2, 3, 1).cpu().contiguous().numpy().astype(dtype)


@contextmanager
def _telling(source: Path | bytes) -> Iterator[None]:
    """Whatever goes wrong inside becomes a BadImage that names the file."""
    name = source if isinstance(source, Path) else "the image"
    try:
        yield
    except (BadImage, MemoryError):
        raise
    except UnidentifiedImageError:
        raise BadImage(f"{name}: not an image that can be read ({', '.join(FORMATS)})") from None
    except Image.DecompressionBombError:
        raise BadImage(f"{name}: larger than {LARGEST // 10**6} megapixels; make it smaller") from None
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise BadImage(f"{name}: {error.strerror}") from None
    except Exception as error:  # decoders raise nearly anything when a file is broken
        raise BadImage(
            f"{name}: broken, or of a kind that is not read ({str(error) or type(error).__name__})"
        ) from None


Decoded = tuple[np.ndarray, np.ndarray | None, bytes | None]
"""Pixels (H, W, C) in sRGB, alpha (H, W), profile."""


def _decode_8(image: Image.Image) -> Decoded:
    if image.mode in ("I", "F"):
        raise ValueError("32 bits a channel; save it with 8 or 16")
    image.load()
    profile = image.info.get("icc_profile")
    gray = image.mode in ("1", "L", "LA", "La")
    alpha = None
    if image.has_transparency_data:
        image = image.convert("LA" if gray and image.mode != "1" else "RGBA")
        alpha = np.array(image.getchannel("A"))
    image = image if image.mode == "CMYK" else image.convert("L" if gray else "RGB")
    image, icc = profiles.to_srgb(image, profile)
    pixels = np.array(image)
    return (pixels[..., None] if gray else pixels), alpha, icc


def _decode_16(image: Image.Image, data: bytes) -> Decoded:
    stored = sixteen.decode(image, data)
    has_alpha = stored.shape[2] in (2, 4)
    pixels, icc = profiles.to_srgb_16(stored[..., : stored.shape[2] - has_alpha], image.info.get("icc_profile"))
    return pixels, stored[..., -1] if has_alpha and image.mode != "RGBX" else None, icc


def _exif(image: Image.Image) -> tuple[bytes | None, int]:
    """The EXIF to keep, and the orientation that remains to be applied. Broken EXIF is ignored."""
    exif, orientation = None, 1
    with suppress(Exception):  # Pillow's parser raises nearly anything
        tags = image.getexif()
        orientation = tags.get(ORIENTATION, 1)
        for tag in set(tags) - DESCRIPTIVE - {ORIENTATION}:
            del tags[tag]
        if tags:
            tags[ORIENTATION] = 1
            exif = tags.tobytes()
    return exif, orientation


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Apply an EXIF orientation from 1 to 8 to (H, W, ...)."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _to_channels(pixels: np.ndarray, channels: int | None) -> np.ndarray:
    """Gray to RGB or RGB to gray, where that is asked for."""
    if channels == 3 and pixels.shape[2] == 1:
        return pixels.repeat(3, axis=2)
    if channels == 1 and pixels.shape[2] == 3:
        red, green, blue = (pixels[..., n].astype(np.uint32) for n in range(3))
        gray = (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16  # as Pillow; fits for 16 bit too
        return gray.astype(pixels.dtype)[..., None]
    return pixels


def _with_alpha(picture: Picture) -> np.ndarray:
    """(H, W, C): 1 gray, 2 gray with alpha, 3 RGB, 4 RGBA."""
    if picture.alpha is None:
        return picture.pixels
    return np.concatenate([picture.pixels, picture.alpha[..., None]], axis=2)


def _profile(picture: Picture) -> bytes | None:
    """An RGB profile must not be put into a gray file, where sRGB's curve is understood anyway."""
    return picture.icc if picture.pixels.shape[2] == 3 else None

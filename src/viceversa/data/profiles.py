"""Embedded colour profiles: pixels to sRGB, 8 bit by LittleCMS, 16 bit by the profile's curves and matrix."""

import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

from .sixteen import to_8_bit

LEVELS = np.linspace(0, 1, 65536)


@lru_cache(maxsize=1)
def srgb() -> bytes:
    """An sRGB profile, the same bytes every time (LittleCMS puts the time of day into bytes 24 to 36)."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return profile[:24] + bytes((7, 230, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0)) + profile[36:]


def to_srgb(image: Image.Image, profile: bytes | None) -> tuple[Image.Image, bytes | None]:
    """An L, RGB or CMYK image and its profile -> an L or RGB image in sRGB, and sRGB's profile.

    Without a profile, or with one that is broken or made for another kind of image, only CMYK is converted,
    by plain arithmetic, and there is no profile.
    """
    plain = image.convert("RGB") if image.mode == "CMYK" else image
    if profile is None:
        return plain, None
    try:
        transform = _transform(profile, image.mode)
    except (ImageCms.PyCMSError, OSError, ValueError):
        return plain, None
    if transform is None:
        return plain, srgb()
    converted = transform.apply(image)
    return (converted.getchannel(0) if image.mode == "L" else converted), srgb()


def to_srgb_16(pixels: np.ndarray, profile: bytes | None) -> tuple[np.ndarray, bytes | None]:
    """The same for (H, W, C) uint16, C = 1 or 3, which LittleCMS cannot be given through Pillow.

    Profiles made of curves and a matrix (Display P3, Adobe RGB, ProPhoto, grays) are computed here, to the
    last of the 16 bits. Of profiles made of tables, the change that LittleCMS makes in 8 bit is added to the
    16 bit pixels: the colour is right to 8 bit, and fine gradations stay.
    """
    if profile is None:
        return pixels, None
    mode = "L" if pixels.shape[2] == 1 else "RGB"
    try:
        transform = _transform(profile, mode)
        if transform is None:
            return pixels, srgb()
        tags = _tags(profile)
        if "A2B0" in tags or ("kTRC" if mode == "L" else "rTRC") not in tags:
            return _add_8_bit_change(pixels, transform, mode), srgb()
        return _by_curves(pixels, tags), srgb()
    except (ImageCms.PyCMSError, OSError, ValueError, LookupError, np.linalg.LinAlgError):
        return pixels, None


@lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """None when it would change no colour by more than rounding: sRGB pictures keep their very bits."""
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    target = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    transform = ImageCms.ImageCmsTransform(source, target, mode, "RGB")
    if mode == "CMYK":
        return transform
    steps = np.linspace(0, 255, 18).round().astype(np.uint8)
    cube = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(18, -1, 3)
    sample = Image.fromarray(cube).convert(mode)
    change = np.asarray(transform.apply(sample)).astype(int) - np.asarray(sample.convert("RGB"))
    return transform if abs(change).max() > 1 else None


def _add_8_bit_change(pixels: np.ndarray, transform: ImageCms.ImageCmsTransform, mode: str) -> np.ndarray:
    small = to_8_bit(pixels)
    converted = np.asarray(transform.apply(Image.fromarray(small[..., 0] if mode == "L" else small)))
    change = converted[..., : pixels.shape[2]].astype(np.int32) - small
    changed: np.ndarray = (pixels + 257 * change).clip(0, 65535).astype(np.uint16)
    return changed


def _by_curves(pixels: np.ndarray, tags: dict[str, bytes]) -> np.ndarray:
    """Each channel through its curve to linear light, linear light through a matrix to that of sRGB."""
    if pixels.shape[2] == 1:
        gray: np.ndarray = _encode(_curve(tags["kTRC"]))[pixels]
        return gray
    curves = [_curve(tags[name]).astype(np.float32) for name in ("rTRC", "gTRC", "bTRC")]
    matrix = (np.linalg.inv(_primaries(_tags(srgb()))) @ _primaries(tags)).astype(np.float32)
    flat = pixels.reshape(-1, 3)
    converted = np.empty_like(flat)
    for start in range(0, len(flat), 2**20):  # in blocks: floats of 100 megapixels would take gigabytes
        block = flat[start : start + 2**20]
        linear = np.stack([curve[block[:, n]] for n, curve in enumerate(curves)], axis=1)
        converted[start : start + 2**20] = _encode(linear @ matrix.T)
    return converted.reshape(pixels.shape)


def _encode(linear: np.ndarray) -> np.ndarray:
    """Linear light to sRGB's uint16 (IEC 61966-2-1)."""
    linear = linear.clip(0, 1)
    bent = 1.055 * linear ** (1 / 2.4) - 0.055
    return (np.where(linear <= 0.0031308, 12.92 * linear, bent) * 65535).round().astype(np.uint16)


def _tags(profile: bytes) -> dict[str, bytes]:
    """The tag table of an ICC profile (ICC.1:2022, 7.3)."""
    entries = np.frombuffer(profile, ">u4", 3 * int.from_bytes(profile[128:132], "big"), 132).reshape(-1, 3)
    return {
        entry[:1].tobytes().decode("latin-1"): profile[int(entry[1]) : int(entry[1]) + int(entry[2])]
        for entry in entries
    }


def _primaries(tags: dict[str, bytes]) -> np.ndarray:
    """Red, green and blue in XYZ under D50, as columns (10.31)."""
    return np.stack([np.frombuffer(tags[name], ">i4", 3, 8) / 65536 for name in ("rXYZ", "gXYZ", "bXYZ")], axis=1)


def _curve(tag: bytes) -> np.ndarray:
    """A tone curve (10.6 and 10.18): the linear light of each of the 65536 levels."""
    if tag[:4] == b"curv":
        table = np.frombuffer(tag, ">u2", int.from_bytes(tag[8:12], "big"), 12)
        if len(table) < 2:
            return LEVELS ** (table[0] / 256 if len(table) else 1.0)
        return np.interp(LEVELS, np.linspace(0, 1, len(table)), table / 65535)
    if tag[:4] != b"para":
        raise ValueError("a tone curve is neither curv nor para")
    kind = int.from_bytes(tag[8:10], "big")
    gamma, a, b, c, d, e, f = 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0
    match kind, *(np.frombuffer(tag, ">i4", (1, 3, 4, 5, 7)[kind], 12) / 65536):
        case 0, gamma:
            pass
        case 1, gamma, a, b:
            d = -b / a
        case 2, gamma, a, b, e:
            d, f = -b / a, e
        case 3, gamma, a, b, c, d:
            pass
        case 4, gamma, a, b, c, d, e, f:
            pass
    return np.where(d <= LEVELS, (a * LEVELS + b).clip(0) ** gamma + e, c * LEVELS + f)

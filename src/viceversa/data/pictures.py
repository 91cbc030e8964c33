"""Read and write one picture: formats, 8 and 16 bit, orientation, colour profile, transparency, limits."""

import io
import stat
import threading
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError, features
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from ..errors import BadInput
from ..files import write_bytes
from ..terminal import words
from . import dicom, profiles, sixteen, xmp

ENDINGS = {
    "JPEG": ".jpg .jpeg .jpe .jfif", "PNG": ".png .apng", "WEBP": ".webp", "TIFF": ".tif .tiff", "BMP": ".bmp",
    "GIF": ".gif", "AVIF": ".avif", "JPEG2000": ".jp2 .j2k .jpc .jpf .jpx .j2c", "PPM": ".ppm .pgm .pbm .pnm",
    "TGA": ".tga .icb .vda .vst", "DIB": ".dib", "PCX": ".pcx", "SGI": ".sgi .rgb .rgba .bw", "QOI": ".qoi",
    "PSD": ".psd", "DDS": ".dds", "SUN": ".ras", "HEIF": ".heic .heif .hif", "DICOM": ".dcm .dicom",
}  # fmt: skip
"""What is read, by Pillow's names: formats that hold a picture as such, and not a document or a plot."""
OTHERS = {
    "AVIF": ("a Pillow that was built with it", features.check("avif")),
    "JPEG2000": ("a Pillow that was built with it", features.check("jpg_2000")),
    "HEIF": ("pip install 'viceversa[heic]'", find_spec("pillow_heif") is not None),
    "DICOM": ("pip install 'viceversa[dicom]'", find_spec("pydicom") is not None),
}
"""What some of them need, and whether it is there."""
FORMATS = tuple(name for name in ENDINGS if name not in ("HEIF", "DICOM"))
HERE = [name for name in ENDINGS if name not in OTHERS or OTHERS[name][1]]
SUFFIXES = frozenset(ending for name in HERE for ending in ENDINGS[name].split())
NEEDED = {ending: OTHERS[name][0] for name in OTHERS for ending in ENDINGS[name].split() if ending not in SUFFIXES}
"""What is needed to read the endings that cannot be read."""
WRITTEN = tuple(name for name in "JPEG PNG WEBP TIFF BMP GIF AVIF JPEG2000 PPM TGA".split() if name in HERE)
STAND_INS = {"MPO": "JPEG", "HEIF": "JPEG", "DIB": "BMP"}
"""What is written for a format that is not; PNG for others. (MPO is phones' JPEG with a depth map.)"""
LONGEST_SIDE = {"JPEG": 65_500, "WEBP": 16_383, "GIF": 65_535, "AVIF": 65_535, "TGA": 65_535}
WITHOUT_ALPHA = ("JPEG", "BMP", "PPM")
MOVING = ("GIF", "PNG", "WEBP", "AVIF")
LONGEST = {"exif": 65_533, "xmp": 65_504}
"""Bytes of a segment of a JPEG."""
WITH_METADATA = ("JPEG", "PNG", "WEBP", "TIFF", "AVIF")

# The largest single cameras make 150 megapixels and stitched panoramas a few hundred; 500 take 1.5 GB as
# RGB. Pillow refuses, before it decodes, what has more than twice its limit, and only warns above it.
LARGEST = 500_000_000

ORIENTATION, NEW_SUBFILE_TYPE = 274, 254
COLOUR_SPACE, PIXELS_ACROSS, PIXELS_DOWN = 40961, 40962, 40963
PLACE = frozenset((33550, 33922, 34264, 34735, 34736, 34737))
"""A place on Earth (GeoTIFF 1.1, 7)."""
DESCRIPTIVE = PLACE | {
    270, 271, 272, 282, 283, 296, 305, 306, 315, 18246, 18249, 33432, 34665, 34853, *range(40091, 40096), 42112, 42113
}  # fmt: skip
"""EXIF tags that tell of the photograph. Others tell of the file's layout (a TIFF's EXIF holds these too)."""

SEVERAL = "several pictures in one file, of which the first is taken"
COLOURED = 0.03
"""How far apart the channels of a picture in colour are on average, as a part of all values."""
AS_GRAY = "in colour, and taken as gray (--channels of the training)"
SIGNED = "signed values, to which 32768 is added"
DEEPER = dicom.DEEPER
UNNAMED = "a fourth band of which nothing is said (ExtraSamples), taken for transparency"
MISFIT = "a colour profile that is broken, or of another kind of picture, left out"
INKS = "CMYK without a profile, to RGB by plain arithmetic"
ELSEWHERE = "the place on Earth, told of pixels of another size, left out"


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
    """Pillow's name, one of WRITTEN: the source's own where it can be."""
    signed: bool = False
    """The source held 16 bit with a sign, and 32768 was added; a gray TIFF is written so again."""
    dpi: sixteen.Dpi | None = None
    size: tuple[int, int] | None = None
    """Height and width that it was read with."""
    notes: tuple[str, ...] = ()
    """What was changed or left out in reading, in words that are the same for each file of a kind."""
    xmp: bytes | None = None
    """As `xmp.of` gives it."""


@dataclass(frozen=True)
class Header:
    """What a file says of itself before it is decoded."""

    height: int
    width: int
    """As stored: the camera's orientation may still exchange the two."""
    dtype: type[np.uint8] | type[np.uint16]


def read(source: Path | bytes, channels: Literal[1, 3] | None = 3) -> Picture:
    """Decode a file, or the bytes of one; the first of several pictures (which is noted). Raises BadImage.

    `channels`: 3 makes gray RGB, 1 makes colour gray (by Rec. 601, as Pillow), None leaves gray at 1.
    """
    return _read(source, channels, all_pages=False)[0]


def read_all(source: Path | bytes, channels: Literal[1, 3] | None = 3) -> list[Picture]:
    """All pages of a TIFF or frames of a DICOM file, as `read`. Of an animation, the first picture."""
    return _read(source, channels, all_pages=True)


def _read(source: Path | bytes, channels: int | None, all_pages: bool) -> list[Picture]:
    with _telling(source):
        data = source.read_bytes() if isinstance(source, Path) else source
        if dicom.is_dicom(data):
            frames = dicom.decode(data)
            several = len(frames) > 1
            frames = frames if all_pages else frames[:1]
            notes = tuple(by_kind((Path(), of_one) for _, of_one in frames))
            pictures = [Picture(frame, notes=notes) for frame, _ in frames]
        else:
            with _opened(data) as image:
                pages = _pages(image, data)
                several = len(pages) > 1 or (image.format in MOVING and getattr(image, "is_animated", False))
                pictures = [_decode(image, data, page) for page in (pages if all_pages else pages[:1])]
        if several and len(pictures) == 1:
            pictures = [replace(pictures[0], notes=(*pictures[0].notes, SEVERAL))]
        if channels == 1:
            pictures = [replace(p, notes=(*p.notes, AS_GRAY)) if is_coloured(p.pixels) else p for p in pictures]
        return [replace(picture, pixels=to_channels(picture.pixels, channels)) for picture in pictures]


def header(path: Path) -> Header:
    """Size and depth without decoding, in a fraction of a millisecond. Raises BadImage."""
    with _telling(path):
        try:
            with _opened(path) as image:
                if image.format == "TIFF" and _is_copy(image):  # what is read is a later one
                    image.seek(_pages(image, path.read_bytes())[0])
                return Header(image.height, image.width, np.uint16 if sixteen.is_16_bit(image) else np.uint8)
        except UnidentifiedImageError:
            if not dicom.is_dicom(path):
                raise
            height, width, gray = dicom.header(path)
            return Header(height, width, np.uint16 if gray else np.uint8)


def write(path: Path, picture: Picture | Sequence[Picture], quality: int = 90) -> tuple[str, ...]:
    """Write `picture` in its format, complete or not at all; tells what the format could not hold. See `encode`."""
    try:
        data, notes = encoded(picture, quality)
    except (BadInput, MemoryError):
        raise
    except Exception as error:  # a fault of ours, or an encoder's: the other pictures go on
        raise BadInput(f"{path}: cannot be written ({type(error).__name__}: {error}); choose another format") from error
    write_bytes(path, data)
    return notes


def encode(picture: Picture | Sequence[Picture], quality: int = 90) -> bytes:
    """The bytes of a file in `picture.format`; `quality` from 1 to 100 is for JPEG, WebP and AVIF.

    16 bit stay so in PNG and TIFF and are rounded elsewhere; JPEG, BMP and PPM hold no transparency, and some
    formats no EXIF, or no long one. Several pictures are pages of a TIFF. Raises BadInput for a picture that is
    too large for its format.
    """
    return encoded(picture, quality)[0]


def encoded(picture: Picture | Sequence[Picture], quality: int) -> tuple[bytes, tuple[str, ...]]:
    pages = [picture] if isinstance(picture, Picture) else list(picture)
    first = pages[0]
    height, width = first.pixels.shape[:2]
    longest = LONGEST_SIDE.get(first.format, 2**31 - 1)
    if max(height, width) > longest:
        raise BadInput(f"{first.format} holds at most {longest} pixels a side, not {width}x{height}; choose PNG")
    if len(pages) > 1 and first.format != "TIFF":
        raise BadInput(f"{first.format} holds one picture, not {len(pages)}; choose TIFF")
    fitting, notes = zip(*map(_fitting, pages), strict=True)
    try:
        return _by_format(fitting, quality), notes[0]
    except Exception:  # metadata of others may hold anything; if it is not that, it comes again
        if all(page.exif is None and page.xmp is None for page in fitting):
            raise
        bare = [replace(page, exif=None, xmp=None) for page in fitting]
        return _by_format(bare, quality), (*notes[0], f"metadata that {first.format} cannot hold, left out")


def _fitting(picture: Picture) -> tuple[Picture, tuple[str, ...]]:
    """Without what its format cannot hold, and what that is. (Rounding is done in writing.)"""
    format, notes = picture.format, []
    if picture.alpha is not None and format in WITHOUT_ALPHA:
        notes.append(f"transparency, which {format} does not hold, left out")
        picture = replace(picture, alpha=None)
    if picture.pixels.dtype == np.uint16 and format not in ("PNG", "TIFF"):
        notes.append(f"16 bits, rounded to the 8 of {format}")
    if picture.exif:
        exif, moved = _of_pixels(picture.exif, picture)
        picture, notes = replace(picture, exif=exif), notes + [ELSEWHERE] * moved
    if picture.xmp and picture.size not in (None, picture.pixels.shape[:2]):
        notes.append("XMP, told of pixels of another size, left out")
        picture = replace(picture, xmp=None)
    for held, called in (("exif", "metadata"), ("xmp", "XMP")):
        length = len(getattr(picture, held) or b"")
        long = format == "JPEG" and length > LONGEST[held]
        if length and (long or format not in WITH_METADATA):
            size = f" of more than {LONGEST[held] // 1000} kB" if long else ""
            notes.append(f"{called}{size}, which {format} does not hold, left out")
            without: dict[str, Any] = {held: None}
            picture = replace(picture, **without)
    return picture, tuple(notes)


def _of_pixels(exif: bytes, picture: Picture) -> tuple[bytes, bool]:
    """EXIF that tells of the pixels as they are; and whether it told where on Earth those of another size lie."""
    with suppress(Exception):  # what is broken is told when it is written
        tags = Image.Exif()
        tags.load(exif)
        height, width = picture.pixels.shape[:2]
        inner, true = tags.get_ifd(sixteen.EXIF_IFD), {PIXELS_ACROSS: width, PIXELS_DOWN: height}
        if picture.icc is not None:
            true[COLOUR_SPACE] = 1  # sRGB
            inner.pop(sixteen.INTEROPERABILITY_IFD, None)  # which says Adobe RGB
        inner.update({tag: value for tag, value in true.items() if tag in inner})
        moved = PLACE & set(tags) if picture.size not in (None, (height, width)) else set()
        for tag in moved:
            del tags[tag]
        return tags.tobytes(), bool(moved)
    return exif, False


def _by_format(pages: Sequence[Picture], quality: int) -> bytes:
    picture, profile = pages[0], _profile(pages[0])
    if picture.format == "TIFF":
        return sixteen.encode_tiff([_tiff_page(page) for page in pages])
    if picture.pixels.dtype == np.uint16 and picture.format == "PNG":
        return sixteen.encode_png(_with_alpha(picture), picture.exif, profile, picture.dpi, picture.xmp)
    image = to_pil(_with_alpha(picture))
    options: dict[str, Any] = {"exif": picture.exif, "icc_profile": profile, "quality": quality, "dpi": picture.dpi}
    if picture.xmp and picture.format == "PNG":
        options["pnginfo"] = PngInfo()
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", picture.xmp.decode())
    else:
        options["xmp"] = picture.xmp
    out = io.BytesIO()
    image.save(out, picture.format, **{name: value for name, value in options.items() if value is not None})
    return out.getvalue()


def _tiff_page(page: Picture) -> sixteen.Page:
    profile = _profile(page)
    if page.alpha is not None:  # gray with alpha goes as RGBA: of 16 bit, hardly anything reads it
        page = replace(page, pixels=to_channels(page.pixels, 3))
    stored = _with_alpha(page)
    return sixteen.Page(stored, page.exif, profile, page.signed and stored.shape[2] == 1, page.dpi, page.xmp)


def on_white(picture: Picture) -> np.ndarray:
    """Its pixels where nothing is transparent: what lies hidden under a cut-out's alpha is no part of it."""
    if picture.alpha is None:
        return picture.pixels
    most = np.iinfo(picture.pixels.dtype).max
    alpha = picture.alpha[..., None].astype(np.uint32)  # which holds 65535 squared, and a half more
    mixed: np.ndarray = (picture.pixels * alpha + most * (most - alpha) + most // 2) // most
    return mixed.astype(picture.pixels.dtype)


def told(notes: Iterable[tuple[Path, Sequence[str]]]) -> list[str]:
    """A line for each kind of note: how many pictures, which is the first of them, and what it is."""
    return [
        f"{words(len(paths), 'picture')} ({paths[0]}{' and others' if len(paths) > 1 else ''}): {note}"
        for note, paths in by_kind(notes).items()
    ]


def by_kind(notes: Iterable[tuple[Path, Sequence[str]]]) -> dict[str, list[Path]]:
    """The pictures of each kind of note; those that differ in their numbers alone become one, of all numbers."""
    kinds: dict[str, tuple[dict[str, None], list[Path]]] = {}
    for path, of_one in notes:
        for note in of_one:
            alike, paths = kinds.setdefault(dicom.kind(note), ({}, []))
            alike[note] = None
            paths.append(path)
    return {dicom.together(alike): paths for alike, paths in kinds.values()}


def to_pil(pixels: np.ndarray, alpha: np.ndarray | None = None) -> Image.Image:
    """(H, W, C) or (H, W), and alpha (H, W), if any, as an image of 8 bit: Pillow has no colour of 16."""
    eight = sixteen.to_8_bit(pixels)
    image = Image.fromarray(eight[..., 0] if eight.shape[2:] == (1,) else eight)
    if alpha is not None:
        image.putalpha(to_pil(alpha))
    return image


def to_tensor(pixels: np.ndarray) -> Tensor:
    """(H, W, C) or (N, H, W, C), uint8 or uint16 -> (N, C, H, W) float32 in [-1, 1], channels last."""
    half = np.iinfo(pixels.dtype).max / 2
    batch = pixels if pixels.ndim == 4 else pixels[None]
    return scale(torch.from_numpy(batch.astype(np.float32)), half).permute(0, 3, 1, 2)


def scale(values: Tensor, half: float) -> Tensor:
    """0 to 2 * `half` -> [-1, 1] exactly at both ends, and the same bits on every device; in place.

    Written as a subtraction and a product, since a GPU replaces division by a product itself.
    """
    return values.sub_(half).mul_(1 / half)


def to_pixels(images: Tensor, dtype: type[np.uint8] | type[np.uint16] | np.dtype = np.uint8) -> np.ndarray:
    """(N, C, H, W) in [-1, 1] -> (N, H, W, C) uint8 or uint16, rounded to the nearest, not truncated."""
    half = np.iinfo(dtype).max / 2
    levels = images.detach().float().clamp(-1, 1).mul_(half).add_(half).round_()
    if dtype == np.uint8:
        levels = levels.to(torch.uint8)  # a quarter of the bytes to turn round
    return levels.permute(0, 2, 3, 1).cpu().contiguous().numpy().astype(dtype, copy=False)


class _Limits:
    """What of Pillow and of `warnings` is changed while anybody reads."""

    lock = threading.Lock()
    readers = 0
    pixels: int | None = None
    filter: Any = None


@contextmanager
def own_limits() -> Iterator[None]:
    """Pillow's limit of size at LARGEST, and without its warnings of size and of odd metadata.

    Both are the whole process's (warnings' own context manager forgets that there are threads): the first
    who reads changes them, the last one puts back what was there.
    """
    with _Limits.lock:
        if _Limits.readers == 0:
            _Limits.pixels, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, LARGEST // 2
            warnings.filterwarnings("ignore", module=r"PIL\.")
            _Limits.filter = warnings.filters[0]
        _Limits.readers += 1
    try:
        yield
    finally:
        with _Limits.lock:
            _Limits.readers -= 1
            if _Limits.readers == 0:
                Image.MAX_IMAGE_PIXELS = _Limits.pixels
                with suppress(ValueError):
                    cast(list, warnings.filters).remove(_Limits.filter)


@contextmanager
def _telling(source: Path | bytes) -> Iterator[None]:
    """Whatever goes wrong inside becomes a BadImage that names the file: others go on."""
    name = source if isinstance(source, Path) else "the image"
    try:
        if isinstance(source, Path) and not stat.S_ISREG(mode := source.stat().st_mode) and not stat.S_ISDIR(mode):
            raise BadInput("a pipe or a device, no file")  # which may keep a reader waiting for ever
        with own_limits():
            yield
    except BadInput as error:
        raise BadImage(f"{name}: {error}") from None
    except UnidentifiedImageError:
        raise BadImage(f"{name}: not an image that can be read ({', '.join(ENDINGS)})") from None
    except Image.DecompressionBombError:
        raise BadImage(f"{name}: larger than {LARGEST // 10**6} megapixels; make it smaller") from None
    except MemoryError:
        raise BadImage(f"{name}: too large for the memory that is free") from None
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise BadImage(f"{name}: {error.strerror}") from None
    except Exception as error:  # decoders raise nearly anything when a file is broken
        why = f"{type(error).__name__}: {error}".rstrip(": ").replace("\n", " ")
        raise BadImage(f"{name}: broken, or of a kind that is not read ({why})") from None


@contextmanager
def _opened(source: Path | bytes) -> Iterator[Image.Image]:
    """By Pillow, or by pillow-heif, which turns the picture upright itself."""
    with open(source, "rb") if isinstance(source, Path) else io.BytesIO(source) as file:
        head = file.read(32)
        file.seek(0)
        brands = {head[n : n + 4] for n in range(8, 32, 4)} if head[4:8] == b"ftyp" else set()
        if brands & {b"heic", b"heix", b"mif1"} and not brands & {b"avif", b"avis"}:  # ISO 23008-12, 10.2
            if not OTHERS["HEIF"][1]:
                raise BadInput(f"HEIC is read by pillow-heif: {OTHERS['HEIF'][0]}")
            from pillow_heif import HeifImageFile

            image: Image.Image = HeifImageFile(file)
            if image.width * image.height > LARGEST:
                raise Image.DecompressionBombError
        else:
            try:
                image = Image.open(file, formats=FORMATS)
            except UnidentifiedImageError:
                if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
                    file.seek(0)
                    raise BadInput(sixteen.why_not(file)) from None
                raise
        with image:
            yield image


def _pages(image: Image.Image, data: bytes) -> list[int]:
    """The numbers of the pictures in a TIFF: not of smaller copies and masks (NewSubfileType, TIFF 6.0)."""
    pages: list[int] = []
    if image.format == "TIFF":
        with Image.open(io.BytesIO(data), formats=["TIFF"]) as again:
            for number in range(2**16):
                try:
                    again.seek(number)
                except Exception as error:
                    if isinstance(error, EOFError) or len(pages) < 2:
                        break  # the end, or behind the only picture something that is none
                    raise
                if not _is_copy(again):
                    pages.append(number)
    return pages or [0]


def _is_copy(image: Image.Image) -> bool:
    """Is this page of a TIFF a smaller copy, or a mask, of another?"""
    return bool(int(image.tag_v2.get(NEW_SUBFILE_TYPE, 0)) & 0b101)  # type: ignore[attr-defined]


def _decode(image: Image.Image, data: bytes, page: int) -> Picture:
    if image.format == "TIFF":
        image.seek(page)
    in_16 = sixteen.is_16_bit(image)
    pixels, alpha, icc = _decode_16(image, data) if in_16 else decode_8(image)
    exif, orientation = _exif(image)  # after decoding: Pillow itself turns TIFFs as it loads them
    pixels = _upright(pixels, orientation)
    format = STAND_INS.get(str(image.format), str(image.format))
    signed, (packet, left_out) = sixteen.is_signed(image), xmp.of(image, in_srgb=icc is not None)
    notes = {
        SIGNED: signed,
        DEEPER: not in_16 and sixteen.is_deeper(image, data),
        UNNAMED: sixteen.is_unnamed(image),
        INKS: image.mode == "CMYK" and "icc_profile" not in image.info,
        MISFIT: "icc_profile" in image.info and icc is None,
        sixteen.bands_left_out(image): True,
        left_out: True,
    }
    return Picture(
        pixels, None if alpha is None else _upright(alpha, orientation), exif, icc,
        format if format in WRITTEN else "PNG", signed, _dpi(image), pixels.shape[:2],
        tuple(note for note, so in notes.items() if note and so), packet,
    )  # fmt: skip


def _dpi(image: Image.Image) -> sixteen.Dpi | None:
    """As the file says: at most what a JPEG can say, and more than the 1 that Pillow says where a TIFF says nothing."""
    with suppress(Exception):
        across, down = map(float, image.info["dpi"])
        return (across, down) if 1 < across < 65535 and 1 < down < 65535 else None
    return None


Decoded = tuple[np.ndarray, np.ndarray | None, bytes | None]
"""Pixels (H, W, C) in sRGB, alpha (H, W), profile."""


def decode_8(image: Image.Image) -> Decoded:
    """Of Pillow's modes of 8 bit; orientation is not looked at. Raises BadInput for others."""
    if image.mode in ("I", "F"):
        raise BadInput("32 bits a channel; scale it to 0 to 65535 and save it as uint16")
    if sixteen.is_signed(image):
        raise BadInput("signed values of 8 bit; save it with 16")
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
    if image.format == "TIFF" and stored.shape[2] > 1:
        stored = stored[..., : 4 if image.mode == "RGBA" else 3]
    has_alpha = stored.shape[2] in (2, 4)
    if has_alpha and sixteen.is_multiplied(image):
        alpha = stored[..., -1:].astype(np.uint32)
        colours = (stored[..., :-1].astype(np.uint32) * 65535 + alpha // 2) // alpha.clip(1)
        stored = np.concatenate([colours.clip(max=65535).astype(np.uint16), stored[..., -1:]], axis=2)
    pixels, icc = profiles.to_srgb_16(stored[..., : stored.shape[2] - has_alpha], image.info.get("icc_profile"))
    return pixels, stored[..., -1] if has_alpha else None, icc


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
            tags.bigtiff = False  # whatever it was read from: in EXIF, offsets have 32 bits
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


def is_coloured(pixels: np.ndarray) -> bool:
    """Is colour to be seen in (H, W, C)? By a sixty-fourth of its pixels, and not where a scanner's gray is tinted."""
    few = pixels[::8, ::8].astype(np.float32)
    return bool(np.ptp(few, axis=2).mean() > COLOURED * np.iinfo(pixels.dtype).max)


def to_channels(pixels: np.ndarray, channels: int | None) -> np.ndarray:
    """Gray to RGB or RGB to gray, where that is asked for."""
    if channels == 3 and pixels.shape[2] == 1:
        return pixels.repeat(3, axis=2)
    if channels == 1 and pixels.shape[2] == 3:
        red, green, blue = (pixels[..., n].astype(np.uint32) for n in range(3))
        gray = (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16  # as Pillow; fits for 16 bit too
        return gray.astype(pixels.dtype)[..., None]
    return pixels


def resized(image: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Bicubic, by Pillow, as the authors do; 16 bit through floats. (H, W, C) -> (*shape, C)."""

    def one(plane: np.ndarray) -> np.ndarray:
        return np.array(Image.fromarray(plane).resize(shape[::-1], Image.Resampling.BICUBIC))

    if image.shape[:2] == shape:
        return image
    if image.dtype == np.uint8:
        return one(image if image.shape[2] == 3 else image[..., 0]).reshape(*shape, -1)
    planes = [one(image[..., n].astype(np.float32)) for n in range(image.shape[2])]
    return np.stack(planes, axis=-1).round().clip(0, 65535).astype(np.uint16)


def luminance(x: Tensor) -> Tensor:
    """By Rec. 601, as pictures are read as gray: (B, 3 or 1, H, W) -> (B, 1, H, W)."""
    weights = x.new_tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    return x if x.shape[1] == 1 else (x * weights).sum(1, keepdim=True)


def _with_alpha(picture: Picture) -> np.ndarray:
    """(H, W, C): 1 gray, 2 gray with alpha, 3 RGB, 4 RGBA."""
    if picture.alpha is None:
        return picture.pixels
    return np.concatenate([picture.pixels, picture.alpha[..., None]], axis=2)


def _profile(picture: Picture) -> bytes | None:
    """An RGB profile must not be put into a gray file, where sRGB's curve is understood anyway."""
    return picture.icc if picture.pixels.shape[2] == 3 else None

"""Files of 16 bits a channel, of which Pillow silently keeps 8: PNG and PPM by FFmpeg, TIFF with Pillow's tags."""

import io
import struct
import zlib
from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import accumulate
from typing import Any, BinaryIO, NamedTuple

import av
import av.container
import av.error
import numpy as np
from PIL import Image, TiffImagePlugin

from ..errors import BadInput
from ..terminal import words

LAYOUTS = {1: "gray16", 2: "ya16", 3: "rgb48", 4: "rgba64"}
"""FFmpeg's names of the pixel formats by channels, less the order of the bytes (be, le)."""
WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 256, 257, 258, 259, 262
STRIPS, BANDS, STRIP_ROWS, STRIP_BYTES = 273, 277, 278, 279
PLANAR_CONFIGURATION, PREDICTOR, TILE_WIDTH, TILE_LENGTH, TILES, TILE_BYTES = 284, 317, 322, 323, 324, 325
X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT, EXTRA_SAMPLES, SAMPLE_FORMAT = 282, 283, 296, 338, 339
EXIF_IFD, GPS_IFD, INTEROPERABILITY_IFD, ICC_PROFILE, XMP = 34665, 34853, 40965, 34675, 700
Tags = TiffImagePlugin.ImageFileDirectory_v2
Dpi = tuple[float, float]
"""Pixels to an inch, across and down."""


def to_8_bit(levels: np.ndarray) -> np.ndarray:
    """uint16 -> uint8, rounded: 257 steps to one. uint8 stays as it is."""
    return levels if levels.dtype == np.uint8 else ((levels.astype(np.uint32) + 128) // 257).astype(np.uint8)


def is_16_bit(image: Image.Image) -> bool:
    """As stored. (CMYK of 16 bit is read in 8: nothing that reads it whole is at hand.)"""
    if image.format == "TIFF":
        return image.mode.startswith("I;16") or (16 in _tags(image).get(BITS, ()) and image.mode != "CMYK")
    if image.format == "PPM":
        told = (each for tile in getattr(image, "tile", ()) for each in tile.args)  # the largest value, among others
        return image.mode == "I" or any(isinstance(each, int) and each > 255 for each in told)
    return image.mode.startswith("I;16") or (image.format == "PNG" and ";16" in str(getattr(image, "tile", "")))


def is_signed(image: Image.Image) -> bool:
    return 2 in _tags(image).get(SAMPLE_FORMAT, ())


def is_multiplied(image: Image.Image) -> bool:
    """Are a TIFF's colours multiplied by its alpha already? Of 8 bit, Pillow divides them again."""
    return 1 in _tags(image).get(EXTRA_SAMPLES, ())


def is_deeper(image: Image.Image, data: bytes) -> bool:
    """Does a file that Pillow reads in 8 bit hold more? Of formats that hold the number near their beginning."""
    if image.format == "TIFF":
        return 16 in _tags(image).get(BITS, ())
    mark, place, mask, least = {
        "JPEG2000": (b"\xff\x51", 40, 0x7F, 8),  # SIZ: Ssiz, bits less one (ISO 15444-1, A.5.1)
        "AVIF": (b"av1C", 6, 0x40, 1),  # high_bitdepth (AV1 in ISO files, 2.3.3)
        "HEIF": (b"hvcC", 21, 0x07, 1),  # bit_depth_luma_minus8 (ISO 14496-15, 8.3.3.1)
    }.get(str(image.format), (b"", 0, 0, 0))
    at = data.find(mark)
    return bool(mark) and 0 <= at < len(data) - place and data[at + place] & mask >= least


def _tags(image: Image.Image) -> Mapping[int, Any]:
    return getattr(image, "tag_v2", {})


def bands_left_out(image: Image.Image) -> str:
    """Of a TIFF with more bands than those of its colour and of an alpha that is said to be one."""
    bands, read = _tags(image).get(BANDS, 1), sum(band != "X" for band in image.getbands())
    first = "the first is" if read == 1 else f"the first {read} are"
    return f"{bands} bands, of which {first} read" if bands > read else ""


def is_unnamed(image: Image.Image) -> bool:
    """Has a TIFF a fourth band of which it says nothing? TIFF 6.0 leaves it open; libtiff and Pillow call it alpha."""
    return image.mode == "RGBA" and image.format == "TIFF" and EXTRA_SAMPLES not in _tags(image)


def why_not(file: BinaryIO) -> str:
    """What of a TIFF it is that Pillow does not read, and what to do."""
    header = file.read(8)
    if header[:4] == b"MM\0+":
        return "a BigTIFF in big-endian order; save it in little-endian order"
    tags = Tags(header + (file.read(8) if header[2:3] == b"+" else b""))
    file.seek(tags.next)
    tags.load(file)
    if BITS not in tags:
        raise ValueError("cut off")
    bands, bits, kinds = tags.get(BANDS, 1), max(tags[BITS]), tags.get(SAMPLE_FORMAT, (1,))
    if 3 in kinds or bits > 16:
        advice = "scale the values to 0 to 65535 and save them as uint16"
    elif 2 in kinds:
        advice = "add 32768 to the values and save them as uint16"
    elif bands > 1:
        advice = "save one of them as gray, or three as RGB"
    else:
        advice = "save it with 8 or 16"
    kind = " of floating point" if 3 in kinds else " with signs" if 2 in kinds else ""
    return f"a TIFF of another layout ({words(bands, 'band')} of {words(bits, 'bit')}{kind}); {advice}"


def decode(image: Image.Image, data: bytes) -> np.ndarray:
    """An opened PNG, TIFF or PPM of 16 bit, and its file -> (H, W, C) uint16, C = 1 to 4 (alpha last) and more for
    further bands of a TIFF, as stored. Of signed values, 32768 more. Raises ValueError or OSError for what is broken.
    """
    tags = _tags(image)
    if not image.mode.startswith("I"):
        if isinstance(image, TiffImagePlugin.TiffImageFile):
            return _decode_colour(image.tag_v2, data)
        return _decode_packed(data, str(image.format))
    image.load()
    gray = np.asarray(image)[..., None]
    gray = (gray.astype(np.int32) + 32768 if is_signed(image) else gray).astype(np.uint16)
    if tags.get(BITS) == (12,):
        gray = gray << 4 | gray >> 8
    if (clear := image.info.get("transparency")) is not None:  # of a PNG: the level that is not to be seen
        return np.concatenate([gray, np.where(gray == clear, 0, 65535).astype(np.uint16)], axis=2)
    return 65535 - gray if tags.get(PHOTOMETRIC) == 0 else gray  # 0: white is zero


def _decode_colour(tags: Tags, data: bytes) -> np.ndarray:
    """A TIFF's bands by Pillow, which keeps 16 bit of gray alone: side by side as one wide picture, where they are
    stored so; planes one by one; tiles one below the other."""
    width, height, tiled = tags[WIDTH], tags[HEIGHT], TILE_WIDTH in tags
    wide, high = (tags[TILE_WIDTH], tags[TILE_LENGTH]) if tiled else (width, min(tags.get(STRIP_ROWS, height), height))
    planes = tags[BANDS] if tags.get(PLANAR_CONFIGURATION, 1) == 2 else 1
    starts, sizes = (tags[TILES], tags[TILE_BYTES]) if tiled else (tags[STRIPS], tags[STRIP_BYTES])
    across, down = -(-width // wide), -(-height // high)
    if len(starts) != planes * across * down or wide * high > (width + 4096) * (height + 4096):
        raise ValueError("strips or tiles that do not fit the picture")
    parts = [data[start : start + size] for start, size in zip(starts, sizes, strict=True)]
    bands, each = tags[BANDS] // planes, across * down
    rows = each * high if tiled else height
    stored = np.concatenate([
        _decode_gray(tags, parts[n * each : (n + 1) * each], rows, wide * bands, high).reshape(rows, wide, bands)
        for n in range(planes)
    ], axis=2)  # fmt: skip
    if tags.get(PREDICTOR) == 2:
        np.add.accumulate(stored, axis=1, out=stored)  # modulo 2^16
    if tiled:
        stored = stored.reshape(down, across, high, wide, -1).swapaxes(1, 2)
        stored = stored.reshape(down * high, across * wide, -1)[:height, :width]
    return stored


def _decode_gray(tags: Tags, strips: Sequence[bytes], height: int, width: int, rows: int) -> np.ndarray:
    """Strips of so many rows each, compressed as the TIFF of these tags, as a picture (H, W) of one band."""
    sizes = list(map(len, strips))
    directory = Tags(prefix=tags.prefix)
    directory.update({256: width, 257: height, BITS: 16, COMPRESSION: tags.get(COMPRESSION, 1), PHOTOMETRIC: 1})
    directory.update({BANDS: 1, STRIPS: tuple(accumulate(sizes[:-1], initial=0)), STRIP_ROWS: rows})
    directory[STRIP_BYTES] = tuple(sizes)
    file = io.BytesIO()
    directory.save(file)
    with TiffImagePlugin.TiffImageFile(io.BytesIO(file.getvalue() + b"".join(strips))) as image:
        return np.asarray(image).astype(np.uint16, copy=False)


def _decode_packed(data: bytes, format: str) -> np.ndarray:
    """By FFmpeg, which refuses what is truncated."""
    channels = {name: count for count, name in LAYOUTS.items()}
    try:
        container = av.open(io.BytesIO(data), format=f"{format.lower()}_pipe")
        assert isinstance(container, av.container.InputContainer)
        with container:
            frame = next(container.decode(video=0))
        count, order = channels[frame.format.name[:-2]], frame.format.name[-2:]
    except KeyError:
        raise ValueError("an unknown layout of 16 bit") from None
    except av.error.FFmpegError as error:
        raise ValueError(error.strerror) from None
    rows = np.frombuffer(bytes(frame.planes[0]), {"be": ">u2", "le": "<u2"}[order]).reshape(frame.height, -1)
    return rows[:, : frame.width * count].reshape(frame.height, frame.width, count).astype(np.uint16)


def encode_png(
    stored: np.ndarray, exif: bytes | None, profile: bytes | None, dpi: Dpi | None = None, xmp: bytes | None = None
) -> bytes:
    """(H, W, C) uint16, C = 1 to 4 -> a PNG. FFmpeg writes the pixels; what tells of them is put in after."""
    height, width, channels = stored.shape
    frame = av.VideoFrame(width, height, LAYOUTS[channels] + "be")
    rows = np.zeros((height, frame.planes[0].line_size // 2), ">u2")
    rows[:, : width * channels] = stored.reshape(height, -1)
    frame.planes[0].update(rows.tobytes())
    encoder = av.CodecContext.create("png", "w")
    encoder.width, encoder.height, encoder.pix_fmt = width, height, frame.format.name
    encoder.time_base, encoder.options = Fraction(1), {"pred": "paeth"}
    png = b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])
    chunks = _chunk(b"iCCP", b"sRGB\0\0" + zlib.compress(profile)) if profile else b""
    chunks += _chunk(b"pHYs", struct.pack(">2IB", *(round(each / 0.0254) for each in dpi), 1)) if dpi else b""
    chunks += _chunk(b"eXIf", exif.removeprefix(b"Exif\0\0")) if exif else b""
    chunks += _chunk(b"iTXt", b"XML:com.adobe.xmp" + bytes(5) + xmp) if xmp else b""
    after_header = 33  # signature and IHDR
    return png[:after_header] + chunks + png[after_header:]


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


class Page(NamedTuple):
    """What is stored of one picture of a TIFF."""

    stored: np.ndarray
    """(H, W, C) uint8 or uint16, C = 1, 3 or 4."""
    exif: bytes | None
    profile: bytes | None
    signed: bool = False
    """Of 16 bit: take 32768 away again."""
    dpi: Dpi | None = None
    """Where the EXIF does not tell it."""
    xmp: bytes | None = None


def encode_tiff(pages: Sequence[Page]) -> bytes:
    """Pillow's tags and one deflated strip for each page. Raises BadInput beyond 4 GB, where offsets end."""
    out = bytearray(b"II*\0" + bytes(4))
    link = 4  # where the offset of the next directory is to stand
    for page in pages:
        out += bytes(len(out) % 2)
        start = len(out)
        directory, strip = _tiff_page(page, start)
        if start + len(directory) + len(strip) >= 2**32:
            raise BadInput("TIFF holds at most 4 GB; choose PNG, or write fewer pages")
        struct.pack_into("<I", out, link, start)
        link = start + 2 + 12 * int.from_bytes(directory[:2], "little")
        out += directory
        out += strip
    return bytes(out)


def _tiff_page(page: Page, start: int) -> tuple[bytes, bytes]:
    """The directory that is to stand at `start`, and the strip that is to follow it."""
    stored = page.stored ^ np.uint16(0x8000) if page.signed else page.stored
    height, width, channels = stored.shape
    change = stored.astype(stored.dtype.newbyteorder("<"))
    change[:, 1:] -= stored[:, :-1]  # horizontal differences (predictor 2), modulo 2^8 or 2^16
    strip = zlib.compress(change.tobytes())
    tags = Tags(prefix=b"II")
    if page.exif is not None:
        source = Image.Exif()
        source.load(page.exif)
        tags.update(source)
        for group in {EXIF_IFD, GPS_IFD} & set(source):
            inner = source.get_ifd(group)
            tags[group] = {tag: value for tag, value in inner.items() if tag != INTEROPERABILITY_IFD}
    if page.dpi and X_RESOLUTION not in tags:
        tags.update({X_RESOLUTION: page.dpi[0], Y_RESOLUTION: page.dpi[1], RESOLUTION_UNIT: 2})
    if page.profile is not None:
        tags[ICC_PROFILE] = page.profile
    if page.xmp is not None:
        tags[XMP] = page.xmp
    tags.update({WIDTH: width, HEIGHT: height, BITS: (8 * stored.itemsize,) * channels, BANDS: channels})
    tags.update({STRIPS: 0, STRIP_ROWS: height, STRIP_BYTES: len(strip), COMPRESSION: 8, PREDICTOR: 2})
    tags.update({PHOTOMETRIC: 1 if channels == 1 else 2, PLANAR_CONFIGURATION: 1})
    if channels == 4:
        tags[EXTRA_SAMPLES] = 2
    if page.signed:
        tags[SAMPLE_FORMAT] = 2
    return tags.tobytes(start), strip  # Pillow counts the strip's offset, 273, from the directory's end

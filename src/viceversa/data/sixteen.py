"""Files of 16 bits a channel, of which Pillow silently keeps 8: PNG by FFmpeg, TIFF with Pillow's tags."""

import io
import struct
import zlib
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import av
import av.container
import av.error
import numpy as np
from PIL import Image, TiffImagePlugin

from ..errors import BadInput

LAYOUTS = {1: "gray16", 2: "ya16", 3: "rgb48", 4: "rgba64"}
"""FFmpeg's names of the pixel formats by channels, less the order of the bytes (be, le)."""
BITS, PHOTOMETRIC, PLANAR_CONFIGURATION, TILE_WIDTH, EXTRA_SAMPLES, SAMPLE_FORMAT = 258, 262, 284, 322, 338, 339
EXIF_IFD, GPS_IFD, INTEROPERABILITY_IFD, ICC_PROFILE = 34665, 34853, 40965, 34675


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


def decode(image: Image.Image, data: bytes, page: int = 0) -> np.ndarray:
    """An opened PNG, TIFF or PPM of 16 bit, its file, and the page of a TIFF that is to be read -> (H, W, C)
    uint16, C = 1 to 4 (alpha last), as stored. Of signed values, 32768 more.

    Raises ValueError or OSError for what is broken, and for colour in tiles or planes, of which FFmpeg would
    make noise without a word.
    """
    tags = _tags(image)
    if image.mode.startswith("I"):
        image.load()
        gray = np.asarray(image)[..., None]
        gray = (gray.astype(np.int32) + 32768 if is_signed(image) else gray).astype(np.uint16)
        if tags.get(BITS) == (12,):
            gray = gray << 4 | gray >> 8
        return 65535 - gray if tags.get(PHOTOMETRIC) == 0 else gray  # 0: white is zero
    if TILE_WIDTH in tags or tags.get(PLANAR_CONFIGURATION, 1) != 1:
        raise ValueError("16 bit in tiles or planes; save it in strips")
    return _decode_packed(_from_page(data, page) if page else data, str(image.format))


def _from_page(data: bytes, page: int) -> bytes:
    """The same TIFF, beginning with that page (FFmpeg's own option for it fails)."""
    order = "<" if data[:2] == b"II" else ">"
    (place,) = struct.unpack_from(order + "I", data, 4)
    for _ in range(page):
        (entries,) = struct.unpack_from(order + "H", data, place)
        (place,) = struct.unpack_from(order + "I", data, place + 2 + 12 * entries)
    return data[:4] + struct.pack(order + "I", place) + data[8:]


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


def encode_png(stored: np.ndarray, exif: bytes | None, profile: bytes | None) -> bytes:
    """(H, W, C) uint16, C = 1 to 4 -> a PNG. FFmpeg writes the pixels; EXIF and profile are put in after."""
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
    chunks += _chunk(b"eXIf", exif.removeprefix(b"Exif\0\0")) if exif else b""
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
    tags = TiffImagePlugin.ImageFileDirectory_v2(prefix=b"II")
    if page.exif is not None:
        source = Image.Exif()
        source.load(page.exif)
        tags.update(source)
        for group in {EXIF_IFD, GPS_IFD} & set(source):
            inner = source.get_ifd(group)
            tags[group] = {tag: value for tag, value in inner.items() if tag != INTEROPERABILITY_IFD}
    if page.profile is not None:
        tags[ICC_PROFILE] = page.profile
    tags.update({256: width, 257: height, 258: (8 * stored.itemsize,) * channels, 259: 8, 277: channels})
    tags.update({262: 1 if channels == 1 else 2, 273: 0, 278: height, 279: len(strip), 284: 1, 317: 2})
    if channels == 4:
        tags[EXTRA_SAMPLES] = 2
    if page.signed:
        tags[SAMPLE_FORMAT] = 2
    return tags.tobytes(start), strip  # Pillow counts the strip's offset, 273, from the directory's end

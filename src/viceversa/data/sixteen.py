"""Files of 16 bits a channel, of which Pillow silently keeps 8: PNG by FFmpeg, TIFF with Pillow's tags."""

import io
import struct
import zlib
from fractions import Fraction

import av
import av.container
import av.error
import numpy as np
from PIL import Image, TiffImagePlugin

LAYOUTS = {1: "gray16", 2: "ya16", 3: "rgb48", 4: "rgba64"}
"""FFmpeg's names of the pixel formats by channels, less the order of the bytes (be, le)."""
BITS, PHOTOMETRIC, PLANAR_CONFIGURATION, TILE_WIDTH, EXTRA_SAMPLES = 258, 262, 284, 322, 338
EXIF_IFD, GPS_IFD, INTEROPERABILITY_IFD, ICC_PROFILE = 34665, 34853, 40965, 34675


def to_8_bit(levels: np.ndarray) -> np.ndarray:
    """uint16 -> uint8, rounded: 257 steps to one. uint8 stays as it is."""
    return levels if levels.dtype == np.uint8 else ((levels.astype(np.uint32) + 128) // 257).astype(np.uint8)


def is_16_bit(image: Image.Image) -> bool:
    """As stored. (CMYK of 16 bit is read in 8: nothing that reads it whole is at hand.)"""
    if image.format == "TIFF":
        return 16 in getattr(image, "tag_v2", {}).get(BITS, ()) and image.mode != "CMYK"
    return image.format == "PNG" and ";16" in str(getattr(image, "tile", ""))


def decode(image: Image.Image, data: bytes) -> np.ndarray:
    """An opened PNG or TIFF of 16 bit, and its file -> (H, W, C) uint16, C = 1 to 4 (alpha last), as stored.

    Raises ValueError or OSError for what is broken, and for colour in tiles or planes, of which FFmpeg would
    make noise without a word.
    """
    tags = getattr(image, "tag_v2", {})
    if image.mode.startswith("I"):
        image.load()
        gray = np.asarray(image).astype(np.uint16)[..., None]
        return 65535 - gray if tags.get(PHOTOMETRIC) == 0 else gray  # 0: white is zero
    if TILE_WIDTH in tags or tags.get(PLANAR_CONFIGURATION, 1) != 1:
        raise ValueError("16 bit in tiles or planes; save it in strips")
    return _decode_packed(data, str(image.format))


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


def encode_tiff(stored: np.ndarray, exif: bytes | None, profile: bytes | None) -> bytes:
    """(H, W, C) uint8 or uint16, C = 1, 3 or 4 -> a TIFF: Pillow's tags and one deflated strip."""
    height, width, channels = stored.shape
    change = stored.astype(stored.dtype.newbyteorder("<"))
    change[:, 1:] -= stored[:, :-1]  # horizontal differences (predictor 2), modulo 2^8 or 2^16
    strip = zlib.compress(change.tobytes())
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    if exif is not None:
        source = Image.Exif()
        source.load(exif)
        tags.update(source)
        for group in {EXIF_IFD, GPS_IFD} & set(source):
            inner = source.get_ifd(group)
            tags[group] = {tag: value for tag, value in inner.items() if tag != INTEROPERABILITY_IFD}
    if profile is not None:
        tags[ICC_PROFILE] = profile
    tags.update({256: width, 257: height, 258: (8 * stored.itemsize,) * channels, 259: 8, 277: channels})
    tags.update({262: 1 if channels == 1 else 2, 273: 0, 278: height, 279: len(strip), 284: 1, 317: 2})
    if channels == 4:
        tags[EXTRA_SAMPLES] = 2
    out = io.BytesIO()
    tags.save(out)  # counts the strip's offset, 273, from its end
    return out.getvalue() + strip

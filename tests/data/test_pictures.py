"""One picture: what is read is what was stored, upright, in sRGB; what is wrong is said in one line."""

import io
import itertools
import os
import re
import struct
import subprocess
import sys
import threading
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps, TiffImagePlugin

from viceversa.data import pictures, sixteen
from viceversa.data.pictures import BadImage, Picture
from viceversa.data.profiles import srgb
from viceversa.errors import BadInput


def noise(height, width, channels, dtype=np.uint8, seed=0):
    most = np.iinfo(dtype).max
    return np.random.default_rng(seed).integers(0, most, (height, width, channels), dtype, endpoint=True)


def smooth(height, width, channels=3):
    """A gentle gradient, on which lossy formats are nearly exact."""
    y, x = np.mgrid[:height, :width]
    planes = [80 + 100 * x / width, 60 + 100 * y / height, 90 + 50 * (x + y) / (height + width)]
    return np.stack(planes[:channels], axis=-1).round().astype(np.uint8)


def file_of(image, format, **options):
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def exif(orientation=1):
    tags = Image.Exif()
    tags[271], tags[274] = "A maker", orientation
    tags.get_ifd(34665).update({36867: "2020:02:02 20:20:20", 33434: 0.01})
    tags.get_ifd(34853).update({1: "N"})
    return tags.tobytes()


def parsed(data):
    tags = Image.Exif()
    tags.load(data)
    return tags


# Formats and depths


@pytest.mark.parametrize("format", pictures.WRITTEN)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_format_is_read_as_pillow_reads_it(format, channels):
    pixels = smooth(21, 34, channels)
    data = file_of(Image.fromarray(pixels[..., 0] if channels == 1 else pixels), format)
    picture = pictures.read(data)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    assert picture.format == format and picture.pixels.dtype == np.uint8
    assert np.array_equal(picture.pixels, expected)
    assert picture.alpha is None and picture.icc is None
    assert np.abs(picture.pixels.astype(int) - pixels).max() < 16


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("transparent", [False, True])
def test_png_and_tiff_keep_all(tmp_path, format, dtype, channels, transparent):
    alpha = noise(37, 53, 1, dtype, seed=1)[..., 0] if transparent else None
    picture = Picture(noise(37, 53, channels, dtype), alpha, exif(), srgb(), format)
    pictures.write(tmp_path / "x", picture)
    back = pictures.read(tmp_path / "x", channels=3 if channels == 3 else 1)
    assert back.pixels.dtype == dtype and np.array_equal(back.pixels, picture.pixels)
    assert (back.alpha is None) if alpha is None else np.array_equal(back.alpha, alpha)
    assert back.icc == (srgb() if channels == 3 else None)
    tags = parsed(back.exif)
    assert tags[271] == "A maker" and tags.get_ifd(34853)[1] == "N"
    assert tags.get_ifd(34665)[36867] == "2020:02:02 20:20:20" and float(tags.get_ifd(34665)[33434]) == 0.01
    with Image.open(tmp_path / "x") as image:  # others can read it too
        image.load()
        assert image.size == (53, 37)
        assert format == "PNG" or image.getexif()[271] == "A maker"


@pytest.mark.parametrize("format", ["JPEG", "WEBP"])
def test_jpeg_and_webp_keep_exif_and_profile(format):
    back = pictures.read(pictures.encode(Picture(smooth(20, 30), None, exif(), srgb(), format)))
    assert back.icc == srgb() and parsed(back.exif).get_ifd(34665)[36867] == "2020:02:02 20:20:20"


def test_16_bit_files_of_others(tmp_path):
    gray = noise(20, 30, 1, np.uint16)
    for format in ("PNG", "TIFF"):
        data = file_of(Image.fromarray(gray[..., 0]), format)
        assert np.array_equal(pictures.read(data, channels=None).pixels, gray)
        assert np.array_equal(pictures.read(data).pixels, gray.repeat(3, axis=2))
    rgb = noise(20, 30, 3, np.uint16)
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in rgb)
    assert np.array_equal(pictures.read(png(30, 20, 16, 2, zlib.compress(lines))).pixels, rgb)


def tiff_16(pixels, order="<", strips=1, **tags):
    """Deflated, by differences (predictor 2), in either byte order and any number of strips."""
    height, width, channels = pixels.shape
    change = pixels.copy()
    change[:, 1:] -= pixels[:, :-1]
    parts = [zlib.compress(part.astype(order + "u2").tobytes()) for part in np.array_split(change, strips)]
    directory = TiffImagePlugin.ImageFileDirectory_v2(prefix={"<": b"II", ">": b"MM"}[order])
    directory.update({256: width, 257: height, 258: (16,) * channels, 259: 8, 262: 2, 277: channels, 317: 2})
    directory.update({278: height // strips, 279: tuple(map(len, parts))})
    directory.update({273: tuple(sum(map(len, parts[:n])) for n in range(strips))})
    directory.update({int(tag.removeprefix("tag")): value for tag, value in tags.items()})
    out = io.BytesIO()
    directory.save(out)
    return out.getvalue() + b"".join(parts)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("strips", [1, 4])
def test_16_bit_tiffs_in_strips(order, strips):
    rgb = noise(40, 30, 3, np.uint16)
    assert np.array_equal(pictures.read(tiff_16(rgb, order, strips)).pixels, rgb)


def test_white_may_be_zero():
    gray = noise(9, 9, 1, np.uint16)
    assert np.array_equal(pictures.read(tiff_16(gray, tag262=0), channels=1).pixels, 65535 - gray)
    small = Image.fromarray(gray.astype(np.uint8)[..., 0])
    inverted = file_of(small, "TIFF", tiffinfo={262: 0})
    assert np.array_equal(pictures.read(inverted, channels=1).pixels[..., 0], np.asarray(small))


def tiff_parts(pixels, order="<", planes=False, tile=None, strip=0, packed=True, **tags):
    """Of 16 bit, in planes or not, in tiles (height, width) or strips of so many rows; deflated or not."""
    height, width, bands = pixels.shape
    high, wide = tile or (strip or height, width)
    padded = pixels if tile is None else np.pad(pixels, ((0, -height % high), (0, -width % wide), (0, 0)))
    parts = []
    for plane in np.split(padded, bands, axis=2) if planes else [padded]:
        for top, left in itertools.product(range(0, height, high), range(0, width, wide)):
            part = plane[top : top + high, left : left + wide]
            change = np.diff(part, axis=1, prepend=np.zeros_like(part[:, :1])) if packed else part
            parts.append(change.astype(order + "u2").tobytes())
    parts = [zlib.compress(part) for part in parts] if packed else parts
    directory = TiffImagePlugin.ImageFileDirectory_v2(prefix={"<": b"II", ">": b"MM"}[order])
    directory.update({256: width, 257: height, 258: (16,) * bands, 259: 8 if packed else 1, 262: 2, 277: bands})
    directory.update({284: 2 if planes else 1, 317: 2 if packed else 1})
    sizes = tuple(map(len, parts))
    starts = itertools.accumulate(sizes[:-1], initial=0)
    if tile is None:
        directory.update({278: high, 279: sizes, 273: tuple(starts)})
    else:
        directory.update({322: wide, 323: high, 325: sizes, 324: (2**20,) * len(parts)})
    directory.update({int(tag.removeprefix("tag")): value for tag, value in tags.items()})
    if tile is not None:  # only the offsets of strips are counted from the directory's end
        out = io.BytesIO()
        directory.save(out)
        directory[324] = tuple(len(out.getvalue()) + start for start in starts)
    out = io.BytesIO()
    directory.save(out)
    return out.getvalue() + b"".join(parts)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("planes", [False, True])
@pytest.mark.parametrize("how", [{"tile": (16, 32)}, {"tile": (64, 64)}, {"strip": 7}, {}])
@pytest.mark.parametrize("packed", [True, False])
def test_16_bit_tiffs_in_strips_tiles_and_planes(order, planes, how, packed):
    rgb = noise(40, 50, 3, np.uint16)
    data = tiff_parts(rgb, order, planes, packed=packed, **how)
    assert np.array_equal(pictures.read(data).pixels, rgb)


def test_16_bit_tiffs_of_tiles_that_are_missing_or_too_large_are_told():
    rgb = noise(16, 16, 3, np.uint16)
    for tags in ({"tag257": 40}, {"tag322": 2**20, "tag323": 2**20}):
        with pytest.raises(BadImage, match="tiles that do not fit the picture"):
            pictures.read(tiff_parts(rgb, tile=(16, 16), **tags))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_fourth_band_is_transparency_only_where_it_is_said_to_be(dtype):
    """Red, green, blue and near infrared."""
    bands = noise(8, 9, 4, dtype)
    alpha = pictures.encode(Picture(bands[..., :3], bands[..., 3], format="TIFF"))
    tag, infrared = (struct.pack("<HHIHH", 338, 3, 1, kind, 0) for kind in (2, 0))
    assert alpha.count(tag) == 1
    other = pictures.read(alpha.replace(tag, infrared))
    assert np.array_equal(other.pixels, bands[..., :3]) and other.alpha is None
    assert other.notes == ("4 bands, of which the first 3 are read",)
    nothing = pictures.read(alpha.replace(tag, struct.pack("<HHII", 60000, 4, 1, 0)))
    assert np.array_equal(nothing.alpha, bands[..., 3]) and nothing.notes == (pictures.UNNAMED,)
    assert pictures.read(alpha).notes == () and np.array_equal(pictures.read(alpha).alpha, bands[..., 3])


def test_further_bands_of_8_bit_are_told():
    six = tiff_of([noise(6, 7, 6)], tag258=(8,) * 6, tag262=2, tag277=6, tag338=(0, 0, 0))
    assert pictures.read(six).notes == ("6 bands, of which the first 3 are read",)
    two = tiff_of([noise(6, 7, 2)], tag258=(8, 8), tag277=2, tag338=0)
    assert pictures.read(two, channels=None).notes == ("2 bands, of which the first is read",)


@pytest.mark.parametrize("page, tags, told", [
    (noise(4, 5, 4), {"tag338": (0, 0, 0)}, "4 bands of 8 bits); save one of them as gray, or three as RGB"),
    (noise(4, 5, 2, np.uint16), {"tag338": 2}, "2 bands of 16 bits); save one of them as gray, or three as RGB"),
    (np.ones((4, 5, 1)), {"tag339": 3}, "1 band of 64 bits of floating point); scale the values to 0 to 65535"),
    (np.ones((4, 5, 3), np.float32), {"tag339": (3, 3, 3)}, "3 bands of 32 bits of floating point); scale the values"),
    (noise(4, 5, 1, np.uint16), {"tag262": 0, "tag339": 2}, "1 band of 16 bits with signs); add 32768 to the values"),
])  # fmt: skip
def test_what_is_wrong_with_a_tiff_is_told_and_what_to_do(page, tags, told):
    bands = page.shape[2]
    with pytest.raises(BadImage, match=re.escape(f"the image: a TIFF of another layout ({told}")):
        pictures.read(tiff_of([page], **({"tag258": (8 * page.itemsize,) * bands, "tag277": bands} | tags)))
    with pytest.raises(BadImage, match="the image: a BigTIFF in big-endian order; save it in little-endian"):
        pictures.read(b"MM\0+\0\x08\0\0" + bytes(40))


def test_the_transparent_level_of_gray_png_of_16_bit():
    gray = noise(9, 9, 1, np.uint16)
    data = file_of(Image.fromarray(gray[..., 0]), "PNG")
    clear = struct.pack(">H", int(gray[3, 4, 0]))
    chunk = struct.pack(">I", 2) + b"tRNS" + clear + struct.pack(">I", zlib.crc32(b"tRNS" + clear))
    picture = pictures.read(data[:33] + chunk + data[33:], channels=None)
    assert np.array_equal(picture.pixels, gray)
    assert np.array_equal(picture.alpha, np.where(gray[..., 0] == gray[3, 4, 0], 0, 65535))


def png(width, height, depth, colour, data):
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def test_16_bit_rounds_to_8_where_the_format_has_8():
    levels = np.arange(65536, dtype=np.uint16).reshape(256, 256, 1)
    back = pictures.read(pictures.encode(Picture(levels, format="BMP")), channels=1).pixels
    assert back.dtype == np.uint8
    assert np.array_equal(back, np.rint(levels / 257))


def test_gray_of_16_bit_colour_is_as_fine_as_its_colour():
    gray = noise(9, 9, 1, np.uint16)
    data = pictures.encode(Picture(gray.repeat(3, axis=2)))
    assert np.array_equal(pictures.read(data, channels=1).pixels, gray)


def test_gray_is_pillows_gray():
    pixels = noise(40, 40, 3)
    gray = np.asarray(Image.fromarray(pixels).convert("L"))
    assert np.array_equal(pictures.read(pictures.encode(Picture(pixels)), channels=1).pixels[..., 0], gray)


def test_palette_one_bit_and_cmyk_become_rgb():
    pixels = smooth(20, 30)
    palette = Image.fromarray(pixels).quantize(16)
    assert np.array_equal(pictures.read(file_of(palette, "PNG")).pixels, np.asarray(palette.convert("RGB")))
    bits = Image.fromarray(pixels[..., 0]).convert("1")
    expected = np.asarray(bits).astype(np.uint8) * 255
    assert np.array_equal(pictures.read(file_of(bits, "PNG"), channels=None).pixels[..., 0], expected)
    cmyk = file_of(Image.fromarray(pixels).convert("CMYK"), "JPEG", quality=95)
    assert np.abs(pictures.read(cmyk).pixels.astype(int) - pixels).max() < 12


def test_transparency_is_kept_of_every_kind():
    pixels, alpha = smooth(20, 30), smooth(20, 30, 1)[..., 0]
    rgba = Image.fromarray(np.dstack([pixels, alpha]))
    for format in ("PNG", "TIFF", "WEBP"):
        picture = pictures.read(file_of(rgba, format, **({"lossless": True} if format == "WEBP" else {})))
        assert np.array_equal(picture.alpha, alpha) and np.array_equal(picture.pixels, pixels)
    gray = pictures.read(file_of(rgba.convert("LA"), "PNG"), channels=None)
    assert gray.pixels.shape == (20, 30, 1) and np.array_equal(gray.alpha, alpha)
    palette = Image.fromarray(pixels).quantize(4)
    picture = pictures.read(file_of(palette, "PNG", transparency=2))
    assert np.array_equal(picture.alpha, np.where(np.asarray(palette) == 2, 0, 255))
    hole = np.where(np.arange(30) < 10, 0, 255).astype(np.uint8)[None].repeat(20, axis=0)
    picture = pictures.read(pictures.encode(Picture(pixels, hole, format="GIF")))
    assert np.array_equal(picture.alpha, hole)
    for format in ("JPEG", "BMP"):
        assert pictures.read(pictures.encode(Picture(pixels, alpha, format=format))).alpha is None


@pytest.mark.parametrize("dtype, tolerance", [(np.uint8, 3), (np.uint16, 3)])
def test_colours_that_were_multiplied_by_alpha_are_as_they_were(dtype, tolerance):
    most = np.iinfo(dtype).max
    colours, alpha = noise(6, 7, 3, dtype), np.full((6, 7), most // 2, dtype)
    tied = (colours.astype(np.uint64) * alpha[..., None] // most).astype(dtype)
    data = pictures.encode(Picture(tied, alpha, format="TIFF"))
    free, bound = (struct.pack("<HHIHH", 338, 3, 1, kind, 0) for kind in (2, 1))  # ExtraSamples, TIFF 6.0
    assert data.count(free) == 1
    picture = pictures.read(data.replace(free, bound))
    assert np.abs(picture.pixels.astype(int) - colours).max() <= tolerance and np.array_equal(picture.alpha, alpha)


def test_the_first_frame_of_several_and_a_phones_jpeg():
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime")]
    for format in ("GIF", "TIFF", "WEBP", "MPO"):
        picture = pictures.read(file_of(frames[0], format, save_all=True, append_images=frames[1:]))
        assert picture.pixels.reshape(-1, 3).mean(0) == pytest.approx([255, 0, 0], abs=4)
        assert picture.format == ("JPEG" if format == "MPO" else format)


def test_one_pixel_is_an_image():
    for format in pictures.WRITTEN:
        data = pictures.encode(Picture(np.full((1, 1, 3), 200, np.uint8), format=format))
        assert pictures.read(data).pixels == pytest.approx(np.full((1, 1, 3), 200), abs=3)


# Orientation


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_orientation_is_applied_and_reset(format, orientation):
    image = Image.fromarray(smooth(20, 30))
    data = file_of(image, format, exif=exif(orientation), **({"lossless": True} if format == "WEBP" else {}))
    picture = pictures.read(data)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    assert np.array_equal(picture.pixels, expected)
    assert picture.pixels.shape == ((30, 20, 3) if orientation >= 5 else (20, 30, 3))
    tags = parsed(picture.exif)
    assert tags[274] == 1 and tags[271] == "A maker"
    assert not set(tags) & {256, 257, 273, 279}  # what told of the TIFF's layout is gone


@pytest.mark.parametrize("orientation", [1, 3, 6, 7])
@pytest.mark.parametrize("format", ["PNG", "TIFF"])
@pytest.mark.parametrize("channels", [1, 3])
def test_orientation_of_16_bit_with_alpha(format, orientation, channels):
    pixels = noise(20, 30, channels, np.uint16)
    stored = Picture(pixels, pixels[..., 0], exif(orientation), None, format)
    expected = np.asarray(turned(pixels[..., 0], orientation))
    picture = pictures.read(pictures.encode(stored), channels=1 if channels == 1 else 3)
    assert np.array_equal(picture.pixels[..., 0], expected) and np.array_equal(picture.alpha, expected)
    assert parsed(picture.exif)[274] == 1


def turned(plane, orientation):
    """By Pillow, plane for plane of bytes."""
    halves = []
    for shift in (0, 8):
        image = Image.fromarray((plane >> shift & 255).astype(np.uint8))
        image.getexif()[274] = orientation
        halves.append(np.asarray(ImageOps.exif_transpose(image)).astype(np.uint16) << shift)
    return halves[0] | halves[1]


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")  # viceversa's own filter, which pytest takes away
def test_broken_exif_is_ignored():
    data = file_of(Image.fromarray(smooth(8, 8)), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f" + bytes(20))
    assert pictures.read(data).pixels.shape == (8, 8, 3)


def exif_of_a_turned_photograph(colours):
    tags = Image.Exif()
    tags[274] = 6
    tags.get_ifd(34665).update({40961: colours, 40962: 30, 40963: 20, 40965: {1: "R03"}})
    return tags.tobytes()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_metadata_tells_of_the_pixels_as_they_are_written(format, dtype):
    """The size of the upright picture, and sRGB where colours have become so."""
    stored = Picture(smooth(20, 30).astype(dtype), None, exif_of_a_turned_photograph(65535), None, "PNG")
    for profile, colours in ((P3, 1), (None, 65535)):
        picture = pictures.read(with_profile(pictures.encode(stored), profile))
        written = parsed(pictures.read(pictures.encode(replace(picture, format=format))).exif).get_ifd(34665)
        assert [written[tag] for tag in (40961, 40962, 40963)] == [colours, 20, 30]
        assert not (profile and 40965 in written)
    half = replace(picture, pixels=picture.pixels[:15, :10], format=format)
    written = parsed(pictures.read(pictures.encode(half)).exif).get_ifd(34665)
    assert (written[40962], written[40963]) == (10, 15)


def with_profile(data, profile):
    """A PNG with this profile in place of none."""
    if profile is None:
        return data
    body = b"iCCPx\0\0" + zlib.compress(profile)
    return data[:33] + struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body)) + data[33:]


@pytest.mark.parametrize("source", ["JPEG", "PNG", "TIFF", "BMP"])
@pytest.mark.parametrize("target", ["JPEG", "PNG", "TIFF", "BMP"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_resolution_is_passed_on(source, target, dtype):
    picture = pictures.read(file_of(Image.fromarray(smooth(8, 9)), source, dpi=(300, 150)))
    out = pictures.encode(replace(picture, pixels=picture.pixels.astype(dtype), format=target))
    with Image.open(io.BytesIO(out)) as image:
        assert image.info["dpi"] == pytest.approx((300, 150), abs=0.1)
    silent = pictures.read(file_of(Image.fromarray(smooth(8, 9)), "TIFF"))
    with Image.open(io.BytesIO(pictures.encode(replace(silent, format="PNG")))) as image:
        assert "dpi" not in image.info


# Colour profiles


def tag(kind, body):
    return kind + bytes(4) + body


def s15(*values):
    return struct.pack(f">{len(values)}i", *(round(value * 65536) for value in values))


def icc(space, tags, pcs=b"XYZ "):
    """A small profile: header, tag table, tags."""
    table, body, offset = b"", b"", 132 + 12 * len(tags)
    for name, data in tags.items():
        data += bytes(-len(data) % 4)
        table += name + struct.pack(">II", offset + len(body), len(data))
        body += data
    size = offset + len(body)
    header = struct.pack(">I4sI4s4s4s12s4s", size, b"test", 0x02400000, b"mntr", space, pcs, bytes(12), b"acsp")
    header += bytes(28) + s15(0.9642, 1.0, 0.8249)
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


SRGB_CURVE = tag(b"para", struct.pack(">HH", 3, 0) + s15(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045))


def matrix_profile(curve, red, green, blue):
    columns = {b"rXYZ": red, b"gXYZ": green, b"bXYZ": blue}
    tags = {name: tag(b"XYZ ", s15(*column)) for name, column in columns.items()}
    return icc(b"RGB ", tags | dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve))


def gamma(value):
    return tag(b"curv", struct.pack(">IH", 1, round(value * 256)))


P3 = matrix_profile(
    SRGB_CURVE, (0.515121, 0.241196, -0.001053), (0.291977, 0.692245, 0.041885), (0.157104, 0.066574, 0.784073)
)
SRGB_PRIMARIES = (0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.7141)


def table_profile(space, corners):
    """A profile of tables (lut8, ICC.1:2001 6.5.8): the Lab colour at each corner, straight lines between."""
    inputs = {b"RGB ": 3, b"CMYK": 4}[space]
    body = struct.pack(">BBBB", inputs, 3, 2, 0) + s15(1, 0, 0, 0, 1, 0, 0, 0, 1) + bytes(range(256)) * inputs
    for corner in itertools.product((0, 1), repeat=inputs):
        light, a, b = corners(*corner)
        body += bytes((round(light * 2.55), round(a + 128), round(b + 128)))
    return icc(space, {b"A2B0": tag(b"mft1", body + bytes(range(256)) * 3)}, pcs=b"Lab ")


def linear(values):
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def srgb_of(light):
    light = np.clip(light, 0, 1)
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


# By way of XYZ, from the chromaticities under D65 (CSS Color 4, section 18), and not through a profile.
P3_TO_SRGB = np.array(
    [
        [3.24096994, -1.53738318, -0.49861076],
        [-0.96924364, 1.8759675, 0.04155506],
        [0.05563008, -0.20397696, 1.05697151],
    ]
) @ np.array(
    [[0.48657095, 0.26566769, 0.19821729], [0.22897456, 0.69173852, 0.07928691], [0.0, 0.04511338, 1.04394437]]
)


@pytest.mark.parametrize("dtype, tolerance", [(np.uint8, 1.01), (np.uint16, 30)])
def test_display_p3_becomes_srgb(dtype, tolerance):
    pixels = noise(30, 30, 3, dtype)
    most = np.iinfo(dtype).max
    picture = pictures.read(pictures.encode(Picture(pixels, icc=P3)))
    expected = most * srgb_of(linear(pixels / most) @ P3_TO_SRGB.T)
    assert picture.pixels.dtype == dtype and picture.icc == srgb()
    assert np.abs(picture.pixels - expected).max() <= tolerance
    assert np.abs(expected - pixels).max() > 0.1 * most


def test_16_bit_conversion_agrees_with_littlecms():
    small = noise(40, 40, 3)
    for profile in (P3, matrix_profile(gamma(2.2), *SRGB_PRIMARIES)):
        in_8 = pictures.read(pictures.encode(Picture(small, icc=profile))).pixels
        in_16 = pictures.read(pictures.encode(Picture(small.astype(np.uint16) * 257, icc=profile))).pixels
        assert np.abs(in_16 / 257 - in_8).max() < 0.75  # LittleCMS's own rounding is 0.5 and a little


@pytest.mark.parametrize(
    "curve, light",
    [
        (gamma(1.75), lambda x: x**1.75),
        (tag(b"curv", struct.pack(">I", 0)), lambda x: x),
        (tag(b"curv", struct.pack(">I3H", 3, 0, 16384, 65535)), lambda x: np.interp(x, [0, 0.5, 1], [0, 0.25, 1])),
        (tag(b"para", struct.pack(">HH", 0, 0) + s15(1.5)), lambda x: x**1.5),
        (tag(b"para", struct.pack(">HH", 1, 0) + s15(2, 1.25, -0.25)), lambda x: (1.25 * x - 0.25).clip(0) ** 2),
        (tag(b"para", struct.pack(">HH", 2, 0) + s15(2, 1, -0.2, 0.1)), lambda x: (x - 0.2).clip(0) ** 2 + 0.1),
        (SRGB_CURVE, linear),
        (
            tag(b"para", struct.pack(">HH", 4, 0) + s15(2, 0.8, 0.1, 0.5, 0.2, 0.05, 0.02)),
            lambda x: np.where(x >= 0.2, (0.8 * x + 0.1) ** 2 + 0.05, 0.5 * x + 0.02),
        ),
    ],
    ids=["gamma", "straight", "table", "power", "CIE 122", "IEC 61966-3", "sRGB", "all numbers"],
)
def test_every_kind_of_tone_curve_in_16_bit(curve, light):
    levels = np.arange(65536, dtype=np.uint16).reshape(256, 256, 1)
    expected = srgb_of(light(levels / 65535)) * 65535
    gray = pictures.read(png_with_profile(levels, icc(b"GRAY", {b"kTRC": curve})), channels=1)
    assert gray.icc == srgb() and np.abs(gray.pixels - expected).max() < 8  # s15.16 of the curve's numbers
    colour = Picture(levels.repeat(3, axis=2), icc=matrix_profile(curve, *SRGB_PRIMARIES))
    assert np.abs(pictures.read(pictures.encode(colour)).pixels - expected).max() < 40  # and of the primaries


def png_with_profile(levels, profile):
    return file_of(Image.fromarray(levels[..., 0]), "PNG", icc_profile=profile)


def test_gray_profile_in_8_bit():
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    picture = pictures.read(png_with_profile(levels, icc(b"GRAY", {b"kTRC": gamma(1.75)})), channels=None)
    assert picture.pixels.shape == (16, 16, 1) and picture.icc == srgb()
    assert np.abs(picture.pixels - 255 * srgb_of((levels / 255) ** 1.75)).max() <= 2  # LittleCMS is coarse near black


def test_cmyk_profile():
    paper = table_profile(b"CMYK", lambda c, m, y, k: (100 - 60 * k - 10 * (c + m + y), 0, 0))
    inks = np.zeros((8, 8, 4), np.uint8)
    inks[4:, :, 3] = 255
    data = file_of(Image.fromarray(inks, "CMYK"), "TIFF", icc_profile=paper)
    picture = pictures.read(data)
    assert picture.icc == srgb() and picture.pixels[:4].min() >= 254
    # L* 40 is 94, less where black is scaled to black (perceptual); plain arithmetic says 0
    assert picture.pixels[4:] == pytest.approx(np.full((4, 8, 3), 94), abs=6)


def test_profile_of_tables_keeps_fine_steps_in_16_bit():
    warm = table_profile(b"RGB ", lambda r, g, b: (100 * (0.3 * r + 0.6 * g + 0.1 * b), 0, 0))
    pixels = (30000 + np.arange(64, dtype=np.uint16)).reshape(1, 64, 1).repeat(3, axis=2)
    picture = pictures.read(pictures.encode(Picture(pixels, icc=warm)))
    small = pictures.read(pictures.encode(Picture((pixels // 257).astype(np.uint8), icc=warm)))
    assert picture.icc == srgb() and np.array_equal(np.diff(picture.pixels[0, :, 0]), np.ones(63))
    assert np.abs(picture.pixels / 257 - small.pixels).max() < 1.5
    assert np.abs(small.pixels.astype(int) - pixels // 257).max() > 2


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_broken_and_mismatched_profiles_are_ignored(dtype):
    pixels = noise(8, 8, 3, dtype)
    truncated = matrix_profile(gamma(2.2), *SRGB_PRIMARIES)[:150]
    gray = icc(b"GRAY", {b"kTRC": gamma(1.8)})
    for profile in (b"nonsense", bytes(500), truncated, gray):
        picture = pictures.read(pictures.encode(Picture(pixels, icc=profile)))
        assert np.array_equal(picture.pixels, pixels) and picture.icc is None and picture.notes == (pictures.MISFIT,)
    assert pictures.read(pictures.encode(Picture(pixels, icc=P3))).notes == ()  # what is documented is no news


def test_ink_without_a_profile_is_told():
    ink = Image.new("CMYK", (4, 4), (9, 9, 9, 9))
    assert pictures.read(file_of(ink, "JPEG")).notes == (pictures.INKS,)
    paper = table_profile(b"CMYK", lambda c, m, y, k: (100 - 100 * k, 0, 0))
    assert pictures.read(file_of(ink, "TIFF", icc_profile=paper)).notes == ()


def test_srgb_profiles_change_no_bit():
    pixels = noise(64, 64, 3)
    own = matrix_profile(SRGB_CURVE, *SRGB_PRIMARIES)
    picture = pictures.read(pictures.encode(Picture(pixels, icc=own)))
    assert np.array_equal(picture.pixels, pixels) and picture.icc == srgb()


# Pages, signs, places on Earth


def tiff_of(pages, copies=0, **tags):
    """Classic, uncompressed, little-endian, gray: as measuring instruments write it; the first are smaller `copies`."""
    out, link = bytearray(b"II*\0" + bytes(4)), 4
    for number, page in enumerate(pages):
        start = len(out)
        directory = TiffImagePlugin.ImageFileDirectory_v2(prefix=b"II")
        directory.update({254: int(number < copies), 256: page.shape[1], 257: page.shape[0]})
        directory.update({258: (8 * page.itemsize,), 259: 1, 262: 1, 277: 1})
        directory.update({273: 0, 278: page.shape[0], 279: page.nbytes})
        directory.update({int(tag.removeprefix("tag")): value for tag, value in tags.items()})
        body = directory.tobytes(start)
        struct.pack_into("<I", out, link, start)
        link = start + 2 + 12 * len(directory)
        out += body + page.tobytes()
    return bytes(out)


def test_signed_16_bit_keeps_its_order_and_is_written_so_again():
    """Hounsfield units: -1000 is air, and must not become white."""
    units = np.linspace(-1000, 2000, 20 * 30).round().astype(np.int16).reshape(20, 30)
    picture = pictures.read(tiff_of([units], tag339=2), channels=1)
    assert picture.pixels.dtype == np.uint16 and np.array_equal(picture.pixels[..., 0], units.astype(int) + 32768)
    assert picture.notes == (pictures.SIGNED,) and picture.format == "TIFF"
    with Image.open(io.BytesIO(pictures.encode(picture))) as again:
        assert np.array_equal(np.asarray(again), units)
    assert np.array_equal(pictures.read(pictures.encode(picture), channels=1).pixels, picture.pixels)
    in_colour = pictures.read(pictures.encode(pictures.read(tiff_of([units], tag339=2))))
    assert np.array_equal(in_colour.pixels[..., 2], units.astype(int) + 32768) and in_colour.notes == ()
    with pytest.raises(BadImage, match="signed values of 8 bit"):
        pictures.read(file_of(Image.new("L", (4, 4)), "TIFF", tiffinfo={339: 2}))
    with pytest.raises(BadImage, match="a TIFF of another layout"):
        pictures.read(tiff_16(noise(9, 9, 3, np.uint16), tag339=(2, 2, 2)))


def test_12_bit_is_spread_over_16():
    packed = bytes([0xFF, 0xF0, 0x00, 0x80, 0x00, 0x01])  # 4095, 0, 2048, 1
    data = tiff_of([np.zeros((1, 4), np.uint16)], tag258=(12,), tag279=6)[:-8] + packed
    assert pictures.read(data, channels=1).pixels.flatten().tolist() == [65535, 0, 2048 * 16 + 8, 16]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
def test_all_pages_of_a_tiff_are_read_and_written(tmp_path, dtype, channels):
    stack = [Picture(noise(13 + n, 21, channels, dtype, seed=n), None, exif(), None, "TIFF") for n in range(4)]
    pictures.write(tmp_path / "x.tif", stack)
    back = pictures.read_all(tmp_path / "x.tif", channels)
    assert len(back) == 4 and all(page.notes == () for page in back)
    for page, stored in zip(back, stack, strict=True):
        assert page.pixels.dtype == dtype and np.array_equal(page.pixels, stored.pixels)
        assert parsed(page.exif).get_ifd(34665)[36867] == "2020:02:02 20:20:20"
    with Image.open(tmp_path / "x.tif") as image:  # others read it too
        assert image.n_frames == 4
        if dtype == np.uint8:
            image.seek(2)
            assert np.array_equal(np.asarray(image).reshape(15, 21, channels), stack[2].pixels)
    first = pictures.read(tmp_path / "x.tif", channels)
    assert first.notes == (pictures.SEVERAL,) and np.array_equal(first.pixels, stack[0].pixels)
    with pytest.raises(BadInput, match="PNG holds one picture, not 4; choose TIFF"):
        pictures.encode([Picture(page.pixels) for page in stack])


def test_smaller_copies_and_masks_are_no_pages():
    whole, small = Image.fromarray(smooth(40, 60)), Image.fromarray(smooth(20, 30))
    small.encoderinfo = {"tiffinfo": {254: 1}}
    data = file_of(whole, "TIFF", save_all=True, append_images=[small])
    with Image.open(io.BytesIO(data)) as image:
        assert image.n_frames == 2
    (page,) = pictures.read_all(data)
    assert page.notes == () and page.pixels.shape == (40, 60, 3)


def test_a_header_is_that_of_the_picture_behind_its_smaller_copy(tmp_path):
    small, whole = noise(4, 5, 1), noise(8, 10, 1, np.uint16)
    (tmp_path / "x.tif").write_bytes(tiff_of([small, whole], copies=1))
    assert pictures.header(tmp_path / "x.tif") == pictures.Header(8, 10, np.uint16)
    assert np.array_equal(pictures.read(tmp_path / "x.tif", channels=1).pixels, whole)


def test_what_lies_behind_the_only_page_does_no_harm():
    """A pointer to a next directory that is none."""
    page = noise(5, 6, 1, np.uint16)
    data = bytearray(tiff_of([page]))
    (start,) = struct.unpack_from("<I", data, 4)
    (entries,) = struct.unpack_from("<H", data, start)
    for place in (3, len(data) - 1, 2**31):
        struct.pack_into("<I", data, start + 2 + 12 * entries, place)
        picture = pictures.read(bytes(data), channels=1)
        assert np.array_equal(picture.pixels, page) and picture.notes == ()


def test_a_place_on_earth_is_kept():
    place = {
        33550: (10.0, 10.0, 0.0),
        33922: (0.0, 0.0, 0.0, 500000.0, 4600000.0, 0.0),
        34735: (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32633),
        34736: (6378137.0, 298.25),
        34737: "WGS 84 / UTM zone 33N|",
        42113: "0",
    }
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    for number, value in place.items():
        tags[number] = value
    data = file_of(Image.fromarray(smooth(20, 30)), "TIFF", tiffinfo=tags)
    picture = pictures.read(data)
    for depth in (picture, Picture(noise(20, 30, 3, np.uint16), None, picture.exif, None, "TIFF")):
        with Image.open(io.BytesIO(pictures.encode(depth))) as again:
            assert {number: again.tag_v2.get(number) for number in place} == place
            assert again.tag_v2.tagtype[33922] == 12 and again.tag_v2.tagtype[34735] == 3  # doubles, shorts
    wider = replace(picture, pixels=np.concatenate([picture.pixels] * 2, axis=1))
    said = pictures.encoded([wider], 90)
    with Image.open(io.BytesIO(said[0])) as again:
        assert again.tag_v2[42113] == "0" and not set(place) - {42113} & set(again.tag_v2)
    assert said[1] == (pictures.ELSEWHERE,) and pictures.encoded(picture, 90)[1] == ()


def test_bigtiff_is_read_and_written():
    data = file_of(Image.fromarray(smooth(20, 30)), "TIFF", big_tiff=True, tiffinfo={270: "big"})
    assert data[2] == 43
    picture = pictures.read(data)
    again = pictures.read(pictures.encode(picture))
    assert np.array_equal(again.pixels, smooth(20, 30)) and parsed(again.exif)[270] == "big"


# More formats


@pytest.mark.parametrize("format, ending", [
    ("AVIF", ".avif"), ("JPEG2000", ".jp2"), ("PPM", ".ppm"), ("TGA", ".tga"), ("JPEG", ".jfif"), ("PCX", ".pcx"),
    ("SGI", ".sgi"), ("QOI", ".qoi"), ("DDS", ".dds"), ("DIB", ".dib"),
])  # fmt: skip
def test_what_pillow_reads_is_read(format, ending):
    assert ending in pictures.SUFFIXES
    picture = pictures.read(file_of(Image.fromarray(smooth(20, 30)), format))
    assert np.abs(picture.pixels.astype(int) - smooth(20, 30)).max() < 16 and picture.notes == ()
    again = pictures.read(pictures.encode(picture))
    assert again.format == picture.format in pictures.WRITTEN
    assert (picture.format == format) == (format in pictures.WRITTEN)


def test_16_bit_of_more_formats():
    rgb, gray = noise(11, 7, 3, np.uint16), noise(11, 7, 1, np.uint16)
    head = b"P6\n7 11\n65535\n", b"P5\n7 11\n65535\n"
    for start, pixels in zip(head, (rgb, gray), strict=True):
        read = pictures.read(start + pixels.astype(">u2").tobytes(), channels=None)
        assert read.pixels.dtype == np.uint16 and np.array_equal(read.pixels, pixels) and read.notes == ()
    data = file_of(Image.fromarray(gray[..., 0]), "JPEG2000")
    assert np.array_equal(pictures.read(data, channels=1).pixels, gray)


def test_depth_that_is_not_read_is_said():
    data = file_of(Image.fromarray(smooth(20, 30)), "JPEG2000")
    at = data.index(b"\xff\x51")
    deeper = data[: at + 40] + b"\x0b" + data[at + 41 :]  # 12 bits, says the header
    with Image.open(io.BytesIO(data)) as image:
        assert not sixteen.is_deeper(image, data) and sixteen.is_deeper(image, deeper)
    assert pictures.read(data).notes == ()


def test_heic_by_its_extra(tmp_path):
    pillow_heif = pytest.importorskip("pillow_heif", reason="the extra heic")
    tags = Image.Exif()
    tags[271], tags[274] = "A maker", 6
    file = pillow_heif.from_pillow(Image.fromarray(smooth(64, 96)))
    out = io.BytesIO()
    file.save(out, quality=95, exif=tags.tobytes())
    path = tmp_path / "IMG_1.HEIC"
    path.write_bytes(out.getvalue())
    picture = pictures.read(path)
    assert np.abs(picture.pixels.astype(int) - np.rot90(smooth(64, 96), -1)).mean() < 4
    assert picture.format == "JPEG" and parsed(picture.exif)[271] == "A maker" and parsed(picture.exif)[274] == 1
    assert pictures.header(path) == pictures.Header(*picture.pixels.shape[:2], np.uint8)
    path.write_bytes(out.getvalue()[:1000])
    with pytest.raises(BadImage, match=r"IMG_1\.HEIC: broken"):
        pictures.read(path)


# What a format cannot hold


def test_metadata_of_90_kb_does_not_keep_a_jpeg_from_being_written(tmp_path):
    tags = Image.Exif()
    tags[271] = "A maker"
    tags.get_ifd(34665)[37510] = b"x" * 90_000
    picture = Picture(smooth(20, 30), None, tags.tobytes(), None, "JPEG")
    said = pictures.write(tmp_path / "x.jpg", picture)
    assert said == ("metadata of more than 65 kB, which JPEG does not hold, left out",)
    assert pictures.read(tmp_path / "x.jpg").exif is None
    assert pictures.write(tmp_path / "x.png", replace(picture, format="PNG")) == ()
    assert parsed(pictures.read(tmp_path / "x.png").exif).get_ifd(34665)[37510] == b"x" * 90_000


def test_metadata_that_cannot_be_written_is_left_out_and_said(tmp_path):
    broken = Picture(smooth(20, 30), None, b"Exif\0\0MM\0*\0\0", None, "TIFF")
    assert pictures.write(tmp_path / "x.tif", broken) == ("metadata that TIFF cannot hold, left out",)
    assert np.array_equal(pictures.read(tmp_path / "x.tif").pixels, smooth(20, 30))


@pytest.mark.parametrize("format, losses", [
    ("PNG", ""), ("TIFF", ""), ("WEBP", "16 bits"), ("GIF", "16 bits metadata"),
    ("JPEG", "transparency 16 bits"), ("BMP", "transparency 16 bits metadata"),
])  # fmt: skip
def test_what_is_lost_is_said(tmp_path, format, losses):
    picture = Picture(noise(9, 9, 3, np.uint16), noise(9, 9, 1, np.uint16)[..., 0], exif(), None, format)
    said = pictures.write(tmp_path / "x", picture)
    assert [note.split(",")[0] for note in said] == re.findall(r"transparency|16 bits|metadata", losses)


def test_notes_of_many_are_told_by_kind():
    notes = [(Path("a"), ("x", "y")), (Path("b"), ()), (Path("c"), ("x",))]
    assert pictures.told(notes) == ["2 pictures (a and others): x", "1 picture (a): y"]


def test_notes_that_differ_in_their_numbers_are_one_kind():
    notes = [(Path(f"s{n}"), (f"values from {-100 + n} to {900 + 50 * n}, brought to 0 to 65535",)) for n in range(30)]
    assert pictures.told(notes) == [
        "30 pictures (s0 and others): values from -100 to 2350, brought to 0 to 65535 in ranges that differ: "
        "slices of one series are then scaled differently"
    ]
    assert pictures.told(notes[:1] * 2) == [
        "2 pictures (s0 and others): values from -100 to 900, brought to 0 to 65535"
    ]
    (told,) = pictures.by_kind(notes)
    assert list(pictures.by_kind([*notes, (Path("stack"), (told,))])) == [told]


# Medical pictures


def dicom_file(stored, **attributes):
    pydicom = pytest.importorskip("pydicom", reason="the extra dicom")
    file = pydicom.Dataset()
    file.file_meta = pydicom.dataset.FileMetaDataset()
    file.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    file.file_meta.MediaStorageSOPClassUID = pydicom.uid.CTImageStorage
    file.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    file.Rows, file.Columns = stored.shape[-3:-1]
    file.SamplesPerPixel = stored.shape[-1]
    file.BitsAllocated = file.BitsStored = 8 * stored.itemsize
    file.HighBit = file.BitsStored - 1
    file.PixelRepresentation = int(stored.dtype.kind == "i")
    file.PhotometricInterpretation = "MONOCHROME2"
    if stored.ndim == 4:
        file.NumberOfFrames = len(stored)
    for name, value in attributes.items():
        setattr(file, name, value)
    file.PixelData = stored.tobytes()
    out = io.BytesIO()
    pydicom.dcmwrite(out, file, enforce_file_format=True)
    return out.getvalue()


def test_dicom_becomes_what_was_measured(tmp_path):
    stored = np.linspace(-500, 2500, 64, dtype=np.int16).reshape(8, 8, 1)
    window = {"RescaleSlope": 2, "RescaleIntercept": -1024, "WindowCenter": [40, 400], "WindowWidth": [401, 1000]}
    path = tmp_path / "slice.dcm"
    path.write_bytes(dicom_file(stored, **window))
    picture = pictures.read(path, channels=1)
    units = stored * 2.0 - 1024
    expected = ((units - (40 - 0.5 - 200)) / 400).clip(0, 1) * 65535
    assert picture.pixels.dtype == np.uint16 and np.abs(picture.pixels - expected).max() <= 0.5
    assert picture.notes == ("values from -160.5 to 239.5, brought to 0 to 65535",) and picture.format == "PNG"
    assert pictures.header(path) == pictures.Header(8, 8, np.uint16)
    whole = pictures.read(dicom_file(stored, RescaleSlope=2, RescaleIntercept=-1024), channels=1)
    assert np.array_equal(whole.pixels, stored.astype(int) + 32768)  # the order of all, whatever this slice holds
    dark = pictures.read(dicom_file(stored, PhotometricInterpretation="MONOCHROME1"), channels=1)
    assert np.array_equal(dark.pixels, 65535 - whole.pixels)
    frames = np.arange(2 * 4 * 4, dtype=np.uint16).reshape(2, 4, 4, 1)
    pages = pictures.read_all(dicom_file(frames), channels=None)
    assert [page.pixels.tolist() for page in pages] == frames.tolist()
    assert pictures.SEVERAL in pictures.read(dicom_file(frames)).notes
    colour = noise(5, 6, 3)
    read = pictures.read(dicom_file(colour, PhotometricInterpretation="RGB", PlanarConfiguration=0))
    assert np.array_equal(read.pixels, colour) and read.notes == ()
    path.write_bytes(dicom_file(stored)[:-50])
    with pytest.raises(BadImage, match=r"slice\.dcm: broken"):
        pictures.read(path)


def test_dicom_in_colour_of_16_bit_and_by_a_palette(tmp_path):
    deep = noise(5, 6, 3, np.uint16)
    read = pictures.read(dicom_file(deep, PhotometricInterpretation="RGB", PlanarConfiguration=0))
    assert np.abs(read.pixels - deep / 257).max() <= 0.5
    table = np.array([[255, 0, 9], [0, 128, 255], [7, 7, 7], [1, 2, 3]], np.uint8)
    names = [f"{colour}PaletteColorLookupTable" for colour in ("Red", "Green", "Blue")]
    palette = {f"{name}Descriptor": [4, 0, 8] for name in names}
    palette |= {f"{name}Data": table[:, n].tobytes() for n, name in enumerate(names)}
    which = np.random.default_rng(0).integers(0, 4, (5, 3, 1), np.uint8)
    path = tmp_path / "ultrasound.dcm"
    path.write_bytes(dicom_file(which, PhotometricInterpretation="PALETTE COLOR", **palette))
    assert np.array_equal(pictures.read(path).pixels, table[which[..., 0]])
    assert pictures.header(path) == pictures.Header(5, 3, np.uint8)
    units = np.arange(16, dtype=np.int16).reshape(4, 4, 1)
    empty = pictures.read(dicom_file(units, RescaleSlope=None, RescaleIntercept=None), channels=1)
    assert np.array_equal(empty.pixels, units.astype(int) + 32768)


def sequence(**attributes):
    pydicom = pytest.importorskip("pydicom", reason="the extra dicom")
    item = pydicom.Dataset()
    for name, value in attributes.items():
        setattr(item, name, value)
    return [item]


def table(entries, bits=16, first=0, as_bytes=True):
    (item,) = sequence(ModalityLUTType="US")
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [len(entries), first, bits])
    vr, data = ("OW", entries.astype("<u2").tobytes()) if as_bytes else ("US", entries.tolist())
    item.add_new("LUTData", vr, data)
    return [item]


def group(slope, window=()):
    values = sequence(RescaleSlope=slope, RescaleIntercept=-10, RescaleType="HU")
    seen = dict(zip(("WindowCenter", "WindowWidth"), window, strict=False))
    windows = {"FrameVOILUTSequence": sequence(**seen)} if seen else {}
    return sequence(PixelValueTransformationSequence=values, **windows)


def brought(values, low, high):
    return ((values - low) / (high - low)).clip(0, 1) * 65535


def test_dicom_of_several_frames_has_rules_for_all_and_for_each():
    frames = noise(3, 4 * 5, 1, np.uint16).reshape(3, 4, 5, 1) >> 4
    pages = pictures.read_all(dicom_file(frames, SharedFunctionalGroupsSequence=group(2, (100, 401))), channels=1)
    for page, frame in zip(pages, frames, strict=True):
        assert np.abs(page.pixels - brought(frame * 2.0 - 10, -100.5, 299.5)).max() <= 0.5
        assert page.notes == ("values from -100.5 to 299.5, brought to 0 to 65535",)
    each = [*group(1, (50, 101)), *group(2), *group(3, (50, 101))]
    data = dicom_file(
        frames, SharedFunctionalGroupsSequence=group(9, (100, 401)), PerFrameFunctionalGroupsSequence=each
    )
    pages = pictures.read_all(data, channels=1)
    for page, frame, slope, ends in zip(pages, frames, (1, 2, 3), ((-0.5, 99.5), (-100.5, 299.5)) * 2, strict=False):
        assert np.abs(page.pixels - brought(frame * float(slope) - 10, *ends)).max() <= 0.5
        (note,) = page.notes
        assert note.startswith("values from -100.5 to 299.5, brought to 0 to 65535 in ranges that differ: slices")
    assert pictures.read(data).notes == ("values from -0.5 to 99.5, brought to 0 to 65535", pictures.SEVERAL)


def test_dicom_windows_of_other_functions():
    stored = np.arange(-32, 32, dtype=np.int16).reshape(8, 8, 1)
    window = {"WindowCenter": 4, "WindowWidth": 0.5}
    exact = pictures.read(dicom_file(stored, **window, VOILUTFunction="LINEAR_EXACT"), channels=1)
    assert np.abs(exact.pixels - brought(stored, 3.75, 4.25)).max() <= 0.5
    window = {"WindowCenter": 4, "WindowWidth": 20}
    curved = pictures.read(dicom_file(stored, **window, VOILUTFunction="SIGMOID"), channels=1)
    assert np.abs(curved.pixels - 65535 / (1 + np.exp(-4 * (stored - 4) / 20))).max() <= 0.5
    assert curved.notes == ("values brought to 0 to 65535 by a curve of the file's own (SIGMOID)",)


@pytest.mark.parametrize("as_bytes", [False, True])
def test_dicom_by_tables(as_bytes):
    stored = noise(8, 8, 1, np.uint16) >> 4
    falling = np.linspace(60000, 0, 4096).astype(np.uint16)
    measured = pictures.read(dicom_file(stored, ModalityLUTSequence=table(falling, as_bytes=as_bytes)), channels=1)
    assert np.array_equal(measured.pixels, falling[stored])
    coarse = np.arange(4096) // 16
    units = {"RescaleSlope": 1, "RescaleIntercept": -1000}
    seen = pictures.read(dicom_file(stored, **units, VOILUTSequence=table(coarse, 8, -900, as_bytes)), channels=1)
    assert np.array_equal(seen.pixels, coarse[(stored.astype(int) - 100).clip(0)] * 257)
    assert seen.notes == ("values brought to 0 to 65535 by a curve of the file's own (VOI LUT)",)


def test_dicom_of_falling_slope_keeps_the_order_of_what_was_measured():
    stored = np.arange(64, dtype=np.uint16).reshape(8, 8, 1)
    picture = pictures.read(dicom_file(stored, BitsStored=12, RescaleSlope=-1, RescaleIntercept=0), channels=1)
    assert np.abs(picture.pixels - brought(-1.0 * stored, -4095, 0)).max() <= 0.5
    assert picture.notes == ("values from -4095 to 0, brought to 0 to 65535",)


def test_dicom_in_colour_of_16_bit_says_that_8_are_read():
    deep = dicom_file(noise(5, 6, 3, np.uint16), PhotometricInterpretation="RGB", PlanarConfiguration=0)
    assert pictures.read(deep).notes == (pictures.DEEPER,)


def test_dicom_that_another_package_decompresses_names_it():
    pydicom = pytest.importorskip("pydicom", reason="the extra dicom")
    file = pydicom.dcmread(io.BytesIO(dicom_file(noise(5, 6, 1, np.uint16))))
    needs = {
        "1.2.840.10008.1.2.4.70": "pip install pylibjpeg pylibjpeg-libjpeg$",
        "1.2.840.10008.1.2.4.201": "pip install pylibjpeg pylibjpeg-openjpeg$",
        "1.2.840.10008.1.2.4.102": "DICOM in MPEG-4 .* is not read; save it uncompressed",
    }
    for syntax, told in needs.items():
        with suppress(NotImplementedError):
            if pydicom.pixels.get_decoder(syntax).is_available:
                pytest.skip("that package is here")
        file.file_meta.TransferSyntaxUID = syntax
        file.PixelData = pydicom.encaps.encapsulate([b"nothing"])
        file["PixelData"].VR = "OB"
        out = io.BytesIO()
        file.save_as(out)
        with pytest.raises(BadImage, match=told):
            pictures.read(out.getvalue())


# Bad input


@pytest.mark.parametrize("format", pictures.WRITTEN)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_truncated_files_are_told(tmp_path, format, dtype):
    path = tmp_path / "photo.x"
    whole = pictures.encode(Picture(noise(200, 300, 3, dtype), format=format))
    for part in (0.02, 0.5, 0.9):
        path.write_bytes(whole[: int(part * len(whole))])
        with pytest.raises(BadImage, match=r"photo\.x: ") as told:
            pictures.read(path)
        assert "\n" not in str(told.value)


def test_what_is_no_image_is_told(tmp_path):
    for content in (b"", b"hello", b"%!PS-Adobe-3.0 EPSF-3.0\n"):
        with pytest.raises(BadImage, match="not an image that can be read"):
            pictures.read(content)
    with pytest.raises(BadImage, match=r"gone\.png: No such file"):
        pictures.read(tmp_path / "gone.png")
    with pytest.raises(BadImage, match="directory"):
        pictures.read(tmp_path)
    with pytest.raises(BadImage, match="32 bits a channel"):
        pictures.read(file_of(Image.new("F", (4, 4)), "TIFF"))


def test_a_decompression_bomb_is_refused_before_decoding(tmp_path):
    path = tmp_path / "bomb.png"
    path.write_bytes(png(30000, 30000, 8, 2, zlib.compress(bytes(1000))))
    for look in (pictures.read, pictures.header):
        with pytest.raises(BadImage, match=r"bomb\.png: larger than 500 megapixels"):
            look(path)


def test_nothing_is_said_on_the_terminal(tmp_path):
    large = tmp_path / "large.png"
    large.write_bytes(png(17000, 17000, 8, 2, zlib.compress(bytes(1000))))  # Pillow would warn of its size
    odd = tmp_path / "odd.jpg"
    odd.write_bytes(file_of(Image.new("RGB", (8, 8)), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\0" + bytes(9)))
    cut = tmp_path / "cut.png"
    cut.write_bytes(pictures.encode(Picture(noise(50, 50, 3, np.uint16)))[:2000])
    code = f"""
from pathlib import Path
from viceversa.data import pictures
from viceversa.data import sixteen
print(pictures.header(Path({str(large)!r})).width, pictures.read(Path({str(odd)!r})).pixels.shape)
try:
    pictures.read(Path({str(cut)!r}))
except pictures.BadImage:
    print("told")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "17000 (8, 8, 3)\ntold\n" and done.stderr == ""


def test_the_callers_process_is_as_it_was():
    """Pillow's limit and the filter of warnings are put back, also when threads read and one of them fails."""
    good, limit = pictures.encode(Picture(noise(60, 60, 3))), Image.MAX_IMAGE_PIXELS
    inside = threading.Barrier(2)
    seen = []

    def read(file):
        with pictures.own_limits():
            inside.wait(60)
            seen.append(Image.MAX_IMAGE_PIXELS)
            pictures.read(file)

    with warnings.catch_warnings():
        before = list(warnings.filters)
        with ThreadPoolExecutor(2) as pool:
            one, other = pool.submit(read, good), pool.submit(read, good[:1000])
            one.result()
            with pytest.raises(BadImage):
                other.result()
        assert list(warnings.filters) == before
    assert Image.MAX_IMAGE_PIXELS == limit != pictures.LARGEST // 2 and seen == [pictures.LARGEST // 2] * 2


def test_a_surprise_is_that_files_own(tmp_path, monkeypatch):
    path = tmp_path / "odd.png"
    pictures.write(path, Picture(noise(9, 9, 3)))
    for surprise, why in {
        TypeError("wrong\nkind"): r"\(TypeError: wrong kind\)",
        MemoryError(): "too large for the memory",
    }.items():

        def fail(*_, surprise=surprise):
            raise surprise

        with monkeypatch.context() as patch, pytest.raises(BadImage, match=rf"odd\.png: .*{why}"):
            patch.setattr(Image.Image, "convert", fail)
            pictures.read(path)


@pytest.mark.parametrize("format, side", [("WEBP", 16384), ("JPEG", 65501)])
def test_too_large_for_the_format_is_told_and_the_old_file_stays(tmp_path, format, side):
    path = tmp_path / "old"
    path.write_bytes(b"old")
    with pytest.raises(BadInput, match=f"{format} holds at most {side - 1} pixels a side"):
        pictures.write(path, Picture(np.zeros((1, side, 3), np.uint8), format=format))
    assert path.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1
    pictures.write(path, Picture(np.zeros((1, side - 1, 3), np.uint8), format=format))
    assert pictures.read(path).pixels.shape == (1, side - 1, 3)


def test_quality_is_heard():
    for format in ("JPEG", "WEBP"):
        sizes = [len(pictures.encode(Picture(noise(64, 64, 3), format=format), quality)) for quality in (20, 95)]
        assert sizes[0] < sizes[1] / 2


def test_threads_read_the_same():
    files = [pictures.encode(Picture(noise(60, 60, 3, dtype, seed), icc=P3)) for seed in range(4) for dtype in
             (np.uint8, np.uint16)]  # fmt: skip
    alone = [pictures.read(file).pixels for file in files]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda file: pictures.read(file).pixels, files * 5))
    assert all(np.array_equal(x, y) for x, y in zip(together, alone * 5, strict=True))


def test_header_tells_size_and_depth(tmp_path):
    for dtype in (np.uint8, np.uint16):
        for channels, format in itertools.product((1, 3), ("PNG", "TIFF")):
            path = tmp_path / "x"
            pictures.write(path, Picture(noise(3, 5, channels, dtype), format=format))
            assert pictures.header(path) == pictures.Header(3, 5, dtype)


# Tensors


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_every_level_survives_the_way_to_a_tensor_and_back(dtype):
    most = np.iinfo(dtype).max
    levels = np.arange(most + 1, dtype=dtype).reshape(16, -1, 1).repeat(3, axis=2)
    tensor = pictures.to_tensor(levels)
    assert tensor.shape == (1, 3, 16, (most + 1) // 16) and tensor.dtype == torch.float32
    assert tensor.min() == -1 and tensor.max() == 1
    assert torch.allclose(tensor[0, 0].flatten(), torch.linspace(-1, 1, most + 1), atol=1e-6)
    assert np.array_equal(pictures.to_pixels(tensor, dtype)[0], levels)
    assert pictures.to_tensor(np.stack([levels, levels])).shape[0] == 2


def test_to_pixels_rounds_and_clips():
    values = torch.tensor([-2.0, -1 + 1.2 / 127.5, -1 + 1.8 / 127.5, 0.999, 3.0])
    pixels = pictures.to_pixels(values.view(1, 1, 1, 5).to(torch.bfloat16).float())
    assert pixels.shape == (1, 1, 5, 1) and pixels.flatten().tolist() == [0, 1, 2, 255, 255]


@pytest.mark.skipif(os.name != "posix", reason="named pipes")
def test_a_pipe_in_a_folder_keeps_nobody_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    for reads in (pictures.read, pictures.header):
        with pytest.raises(BadImage, match="a pipe or a device, no file"):
            reads(tmp_path / "pipe.png")


def packet(inside, attributes=""):
    said = f'<rdf:Description xmp:Rating="4"{attributes}/>{inside}'
    return f'<x:xmpmeta xmlns:x="adobe:ns:meta/">{said}</x:xmpmeta>'.encode()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("format", pictures.WRITTEN)
def test_xmp_is_kept_or_told(format, dtype):
    kept = packet("<r>\u00e9</r>")
    picture = Picture(noise(20, 30, 3, dtype), format=format, xmp=kept, exif=exif())
    data, notes = pictures.encoded(picture, 80)
    assert pictures.read(data).xmp == (kept if format in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF") else None)
    assert any("XMP" in note for note in notes) == (pictures.read(data).xmp is None)
    elsewhere = pictures.encoded(replace(picture, size=(10, 15)), 80)  # side by side, say
    assert pictures.read(elsewhere[0]).xmp is None and any("XMP" in note for note in elsewhere[1])


def test_xmp_tells_of_the_pixels_as_they_are():
    image, turned = Image.fromarray(smooth(20, 30)), ' tiff:Orientation="6" exif:ColorSpace="65535"'
    picture = pictures.read(file_of(image, "JPEG", xmp=packet("<xmp:Thumbnails>\n/9j</xmp:Thumbnails>", turned)))
    assert picture.pixels.shape == (30, 20, 3)
    assert picture.xmp == packet("", ' tiff:Orientation="1" exif:ColorSpace="65535"')
    picture = pictures.read(file_of(image, "JPEG", xmp=packet("", turned), icc_profile=srgb()))
    assert picture.xmp == packet("", ' tiff:Orientation="1" exif:ColorSpace="1"') and picture.icc


@pytest.mark.parametrize(
    ("given", "told"),
    [(packet("", ' hdrgm:Version="1.0"'), "gain map"), (packet("", ' GCamera:MotionPhoto="1"'), "a film"),
     (packet("", ' xmpNote:HasExtendedXMP="D1"'), "more data"), (b"\xff\xfe<\0x\0", "no text")],
)  # fmt: skip
def test_xmp_of_what_is_not_translated_is_left_out_and_told(given, told):
    picture = pictures.read(file_of(Image.fromarray(smooth(20, 30)), "JPEG", xmp=given))
    assert picture.xmp is None and len(picture.notes) == 1 and told in picture.notes[0]


def test_long_xmp_is_told_where_it_does_not_fit():
    picture = Picture(noise(20, 30, 3, np.uint8), format="JPEG", xmp=packet(" " * 70_000), exif=exif())
    data, notes = pictures.encoded(picture, 80)
    back = pictures.read(data)
    assert notes == ("XMP of more than 65 kB, which JPEG does not hold, left out",) and back.exif and not back.xmp
    assert pictures.read(pictures.encode(replace(picture, format="PNG"))).xmp == picture.xmp


def test_colours_that_are_taken_as_gray_are_told():
    coloured, gray = (pictures.encode(Picture(noise(32, 32, channels))) for channels in (3, 1))
    tinted = noise(32, 32, 1).repeat(3, axis=2)
    tinted[..., 2] -= tinted[..., 2] // 32  # a scanner's
    assert pictures.read(coloured, 1).notes == (pictures.AS_GRAY,) and pictures.read(coloured, 3).notes == ()
    assert pictures.read(gray, 1).notes == pictures.read(pictures.encode(Picture(tinted)), 1).notes == ()

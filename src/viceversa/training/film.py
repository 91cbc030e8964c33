"""Frames to a small GIF: one palette, a dither that stands still, and only what changed is stored again."""

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageColor

CLEAR = 255
"""Palette index of the transparent pixel, which lets the frame before show through."""
UNCHANGED = 6
"""A pixel that differs by no more than this (of 255) from what is shown stays as it is."""
DITHER = 10
"""Height of the dither's steps (of 255), about the distance of neighbouring colours of the palette."""
BAYER = np.array(
    [
        [0, 32, 8, 40, 2, 34, 10, 42], [48, 16, 56, 24, 50, 18, 58, 26],
        [12, 44, 4, 36, 14, 46, 6, 38], [60, 28, 52, 20, 62, 30, 54, 22],
        [3, 35, 11, 43, 1, 33, 9, 41], [51, 19, 59, 27, 49, 17, 57, 25],
        [15, 47, 7, 39, 13, 45, 5, 37], [63, 31, 55, 23, 61, 29, 53, 21],
    ]
)  # fmt: skip
"""The ordered dither of Bayer (1973): still pictures stay still, as error diffusion would not let them."""


def encode_gif(frames: Sequence[Image.Image], inks: Sequence[str], seconds: float = 8.0, linger: float = 2.5) -> bytes:
    """RGB frames of one size as an endless GIF of about `seconds`, whose last frame stays for `linger` more.

    The colours `inks` are kept as they are.
    """
    palette = shared_palette(frames, inks)
    indexed = []
    shown: np.ndarray | None = None
    for frame in frames:
        pixels = np.asarray(frame, np.int16)
        indices = to_indices(pixels, palette)
        if shown is not None:
            same = np.abs(pixels - shown).max(2) <= UNCHANGED
            indices[same] = CLEAR
            pixels = np.where(same[..., None], shown, pixels)
        shown = pixels
        image = Image.fromarray(indices)
        image.putpalette(palette.getpalette() or [])
        indexed.append(image)
    each = min(max(round(100 * seconds / len(frames)), 8), 60) * 10  # milliseconds, in hundredths of a second
    durations = [each] * (len(frames) - 1) + [each + round(1000 * linger)]
    film = io.BytesIO()
    indexed[0].save(
        film, "GIF", save_all=True, append_images=indexed[1:], duration=durations, loop=0,
        transparency=CLEAR, disposal=1, optimize=False,
    )  # fmt: skip
    return film.getvalue()


def shared_palette(frames: Sequence[Image.Image], inks: Sequence[str]) -> Image.Image:
    """A picture with the 255 colours that suit (up to eight of) the frames, and one index left for CLEAR."""
    some = [frames[round(n)] for n in np.linspace(0, len(frames) - 1, min(len(frames), 8))]
    pixels = np.concatenate([np.asarray(frame)[::5, ::5] for frame in some])
    kept = [value for ink in inks for value in ImageColor.getrgb(ink)]
    found = Image.fromarray(pixels).quantize(CLEAR - len(inks), Image.Quantize.MEDIANCUT, kmeans=1)
    colours = kept + (found.getpalette() or [])[: 3 * (CLEAR - len(inks))]
    palette = Image.new("P", (1, 1))
    palette.putpalette(colours + colours[:3] * (256 - len(colours) // 3))  # what is left repeats the first
    return palette


def to_indices(pixels: np.ndarray, palette: Image.Image) -> np.ndarray:
    """(H, W, 3) integers -> (H, W) uint8 indices of the nearest colours, dithered where they are not near."""
    height, width, _ = pixels.shape
    tiled = np.tile(BAYER, (height // 8 + 1, width // 8 + 1))[:height, :width, None]
    plain = nearest(pixels, palette)
    dithered = nearest(pixels + (tiled - 31.5) / 64 * DITHER, palette)
    colours = np.array(palette.getpalette(), np.int16).reshape(256, 3)
    near = np.abs(colours[plain] - pixels).max(2) <= 2
    return np.where(near, plain, dithered)


def nearest(pixels: np.ndarray, palette: Image.Image) -> np.ndarray:
    """(H, W, 3) -> (H, W) uint8 indices of the palette's nearest colours; never CLEAR."""
    image = Image.fromarray(np.clip(pixels, 0, 255).round().astype(np.uint8))
    indices = np.array(image.quantize(palette=palette, dither=Image.Dither.NONE))
    indices[indices == CLEAR] = 0  # the same colour
    return indices

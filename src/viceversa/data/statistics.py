"""What the images of a domain are like, in nine numbers each: so that `translate` can say that one does not fit.

Simple on purpose: they are kept in the model file, and no network must be at hand to compare with them.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .folders import spread
from .pictures import to_pil
from .store import Store

SIDE = 96
"""Short side at which images are looked at: the lines of a drawing are still there, noise is not."""
ENOUGH = 400
"""Images that are looked at of a domain: its lowest and highest values hardly move any more."""
FAR = 1.5
"""Standard deviations beyond the lowest or highest of training, summed over all nine, from which it is said: chosen on
five sets so that at most 2% of their own unseen images are remarked (docs/quality.md, benchmarks/unlike.py)."""
COLOURFUL = 0.05
"""What "colour" is of an image in which some is to be seen; scans and photographs in black and white are below."""
WORDS = {
    "light": ("darker", "lighter"),
    "contrast": ("with less contrast", "with more contrast"),
    "colour": ("grayer", "more colourful"),
    "blue": ("yellower", "bluer"),
    "red": ("greener", "redder"),
    "black": ("with less black", "with more black"),
    "white": ("with less white", "with more white"),
    "edges": ("smoother", "with more lines and edges"),
    "flat": ("with fewer even areas", "with larger even areas"),
}
"""What is measured, and how to say that an image has less or more of it than any that was trained on."""


def measure(image: NDArray, side: int = SIDE) -> NDArray[np.float64]:
    """The numbers of `WORDS` for an (H, W, 1 or 3) image, uint8 or uint16. Shares and the like by their square root,
    whose distribution has no long tail."""
    picture = to_pil(image).convert("RGB")
    scale = min(1.0, side / min(picture.size))
    small = picture.resize((round(picture.width * scale), round(picture.height * scale)), Image.Resampling.BOX)
    rgb = np.asarray(small, np.float64) / 255
    y = rgb @ (0.299, 0.587, 0.114)
    blue, red = (rgb[..., 2] - y) * 0.564, (rgb[..., 0] - y) * 0.713  # Cb and Cr
    edges = sum(np.abs(np.diff(y, axis=axis)).mean() if y.shape[axis] > 1 else 0.0 for axis in (0, 1))
    tones = np.bincount((y * 31.999).astype(int).ravel(), minlength=32)
    roots = np.sqrt([np.hypot(blue, red).mean(), (y < 0.1).mean(), (y > 0.9).mean(), edges])
    return np.array(
        [y.mean(), y.std(), roots[0], blue.mean(), red.mean(), roots[1], roots[2], roots[3], tones.max() / y.size]
    )


def describe(images: Iterable[NDArray], side: int = SIDE) -> dict[str, Any]:
    """Plain values for a model file: how many were looked at, at which size, and of each number the lowest, the
    highest and the standard deviation."""
    found = np.array([measure(image, side) for image in images])
    columns = zip(found.min(0), found.max(0), found.std(0), strict=True)
    ranges = {name: [round(float(n), 5) for n in column] for name, column in zip(WORDS, columns, strict=True)}
    return {"images": len(found), "side": side, "ranges": ranges}


def describe_store(store: Store) -> dict[str, Any]:
    """`describe` for what is trained on, as it is trained on; of many images, some evenly spread."""
    layout = store.layout.cpu()
    side = min(SIDE, int(layout[:, 1:].min()))
    return describe((stored(store, n) for n in spread(range(len(layout)), ENOUGH)), side)


def stored(store: Store, index: int) -> NDArray:
    """One image of a store, (H, W, C) uint8 or uint16."""
    start, height, width = store.layout[index].tolist()
    pixels = store.pixels[start : start + height * width].cpu().numpy().reshape(height, width, -1)
    return pixels.view(np.uint16) if pixels.dtype == np.int16 else pixels


def misfit(image: NDArray, known: Mapping[str, Any]) -> str:
    """In what an image lies far outside of what `describe` saw: "darker, with more black"; "" where it fits."""
    ranges = [known["ranges"][name] for name in WORDS]
    values = measure(image, known["side"])
    far = {}
    for name, value, (lowest, highest, deviation) in zip(WORDS, values, ranges, strict=True):
        below, above = lowest - value, value - highest
        far[WORDS[name][int(above > below)]] = max(float(below), float(above), 0.0) / (deviation + 0.01)
    if sum(far.values()) < FAR:
        return ""
    most = sorted(far, key=far.__getitem__, reverse=True)
    return ", ".join(word for word in most[:2] if far[word] > FAR / 4)


def remark(image: NDArray, statistics: Mapping[str, Any], domain: str, other: str) -> str:
    """A line about an image of `domain` that does not fit it, by a model file's info["statistics"]; "" where it fits,
    or where an older model file has none. `other`: the domain it is translated to."""
    if domain not in statistics or not (how := misfit(image, statistics[domain])):
        return ""
    line = f"unlike all {statistics[domain]['images']} images of {domain} that the model was trained on: {how}"
    if other in statistics and not misfit(image, statistics[other]):
        return f"{line}. It looks like {other} already: --to {domain}?"
    return line

"""Animated GIF and WebP in and out, through Pillow: lengths of frames, repetition and transparency are kept."""

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Self

import av
import numpy as np
from PIL import Image, ImageSequence

from ..errors import BadInput, Failed
from .movie import Clip, Frame, telling

SUFFIXES = frozenset((".gif", ".webp"))
UNSAID = 100
"""Milliseconds that browsers show a frame which names no length."""
SHORTEST = Fraction(20, 1000)
"""Of a GIF's frames: browsers show those that are shorter for a tenth of a second."""


def is_animated(path: Path) -> bool:
    """Does this GIF or WebP hold more than one frame? False for what is no picture."""
    try:
        with Image.open(path, formats=("GIF", "WEBP")) as image:
            return bool(getattr(image, "is_animated", False))
    except OSError:
        return False


@contextmanager
def read(source: Path) -> Iterator[Clip]:
    """Open an animation. Raises BadInput for a file that is none; Failed, while frames are read, for a broken one."""
    try:
        image = Image.open(source, formats=("GIF", "WEBP"))
    except OSError:
        raise BadInput(f"{source}: not a GIF or WebP, or a broken one") from None
    with image:
        total = getattr(image, "n_frames", 1)
        image.seek(0)
        rate = Fraction(1000, image.info.get("duration") or UNSAID)
        loop = image.info.get("loop")
        yield Clip(frames=decode(source, image), total=total, rate=rate, loop=loop)


def decode(source: Path, image: Image.Image) -> Iterator[Frame]:
    """The frames as they are shown, what is transparent upon white."""
    start = Fraction(0)
    try:
        for picture in ImageSequence.Iterator(image):
            shown = picture.convert("RGBA")
            length = Fraction(picture.info.get("duration") or UNSAID, 1000)
            white = Image.new("RGBA", shown.size, "white")
            pixels = np.asarray(Image.alpha_composite(white, shown).convert("RGB"))
            alpha = np.asarray(shown.getchannel("A"))
            yield Frame(pixels, start, length, alpha if alpha.min() < 255 else None)
            start += length
    except (OSError, EOFError, SyntaxError) as wrong:
        raise Failed(f"{source}: broken after {float(start):.1f} s ({wrong})") from None


class AnimationWriter:
    """Writes one GIF or WebP. A context: left well, the file gets its name; left by an exception, what was done
    is NAME.partial.gif. Raises BadInput for an unwritable target.
    """

    def __init__(self, target: Path, clip: Clip, quality: int):
        self.target, self.partial = target, target.with_name(f"{target.stem}.partial{target.suffix}")
        self.clip, self.quality = clip, quality
        self.notes: list[str] = []
        self.gif = target.suffix.lower() == ".gif"
        self.pictures: list[Image.Image] = []
        self.starts: list[Fraction] = []
        self.end = Fraction(0)
        try:
            self.partial.touch()
        except OSError as wrong:
            raise BadInput(f"{target}: cannot write there ({wrong.strerror})") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if not self.pictures:
            self.partial.unlink()
            return
        step = 10 if self.gif else 1  # milliseconds that the format counts in
        edges = [step * round(1000 * second / step) for second in (*self.starts, self.end)]
        options = {"loop": self.clip.loop} if self.clip.loop is not None else {} if self.gif else {"loop": 1}
        with telling(self.partial):
            self.pictures[0].save(
                self.partial,
                "GIF" if self.gif else "WEBP",
                save_all=True,
                append_images=self.pictures[1:],
                duration=[after - before for before, after in zip(edges[:-1], edges[1:], strict=True)],
                quality=self.quality,
                **options,
            )
        if kind is None:
            self.partial.replace(self.target)

    def write(self, frame: Frame) -> None:
        """Keep one frame; a GIF leaves out those that come too fast for it."""
        self.end = frame.start + frame.length
        if self.gif and self.starts and frame.start - self.starts[-1] < SHORTEST:
            return
        picture = Image.fromarray(frame.pixels[..., 0] if frame.pixels.shape[2] == 1 else frame.pixels)
        if frame.alpha is not None:
            picture.putalpha(Image.fromarray(frame.alpha))
        self.starts.append(frame.start)
        self.pictures.append(picture)

    def sound(self, packet: av.Packet) -> None:
        """These formats are silent."""

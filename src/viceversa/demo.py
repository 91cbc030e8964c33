"""The demo: city photos turned to night and back, to winter, and painted, by models that ship; then Earth learned live.

Earth by day <-> Earth by night are two NASA images that lie exactly over each other, so the truth is known. A
strip of the globe is never trained on; the demo translates it both ways and says how near the truth that came,
beside what doing nothing and a transfer of colours get.
"""

import time
from importlib.resources import files
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from .config import RECIPES, Demo, Train, make
from .data.pictures import Picture, encode, to_tensor
from .device import on_threads
from .evaluation.scores import psnr
from .files import write_bytes
from .pages.report import Figure, Section, write_report
from .training.train import run
from .translation.translator import Translator, load

PHOTOS = ("leuven", "china", "building")
WIDTH, HEIGHT = 2048, 1024
STRIP = slice(int(0.28 * WIDTH), int(0.40 * WIDTH))
"""Columns that are never trained on: the Americas' east, from Labrador to Patagonia."""
ROWS = slice(int(0.12 * HEIGHT), int(0.85 * HEIGHT))
"""Rows that are trained on, shown and measured: without the ice of the poles."""
REDUCED = 8
"""Trained on, and translated, at an eighth of the size: a crop then reaches from the far north to the far south, as the
strip does, which instance norm needs to tell land from sea (it takes away the mean colour of what it sees)."""
TILE: int = RECIPES["demo"]["size"]
TILES = 24
"""So many squares of each Earth are learned from. They overlap; each is as high as the strip."""

Pixels = np.ndarray
"""(H, W, 3) uint8, and what is computed of it."""


def command_demo(choices: Demo) -> int:
    report = choices.out / "report.html"
    if report.exists():
        print(f"{choices.out} is finished; its report is {report}. To begin anew, remove the folder or give --out")
        return 0
    photos = translate_photos(choices)
    strip = learn_earth(choices)
    print(f"report: {write_report([choices.out / 'earth'], out=report, extra=[photos, strip])}")
    return 0


def translate_photos(choices: Demo) -> Section:
    """City photos to night and back, to winter, and painted, at their own size, by the models that ship."""
    names = ("day2night", "summer2winter", "monet2photo")
    light, season, painter = (load(name, device=choices.device) for name in names)
    folder = choices.out / "photos"
    print(f"photos by day to night and back, to winter, and painted, by the bundled models {', '.join(names)}:")
    figures: list[list[Figure]] = []
    for name in PHOTOS:
        day = photo(f"{name}.jpg")
        began = time.monotonic()
        night = light(day, to="night")
        seconds = time.monotonic() - began
        pictures = {
            "day": day, "night": night, "day-again": light(night, to="day"), "winter": season(day, to="winter"),
            "painted": painter(day, to="monet"),
        }  # fmt: skip
        figures.append([])
        for kind, pixels in pictures.items():
            write_bytes(folder / f"{name}-{kind}.jpg", encoded(pixels, "JPEG"))
            figures[-1].append(Figure(image=encoded(pixels, "WEBP"), caption=f"{name}, {kind.replace('-', ' ')}"))
        height, width = day.shape[:2]
        print(f"  {folder / name}-night.jpg ({width}x{height}, {seconds:.1f} s)", flush=True)
    text = (
        "Three photos that the models have never seen, of other cities than the webcams day2night learned from, at "
        "their own size. Every pixel stays where it was: the model translates a small copy and carries the photo's own "
        "detail over. Winter is by summer2winter, which learned from landscapes, the last by monet2photo. viceversa "
        "translate day2night YOUR-PHOTO.jpg --to night does the same for yours; viceversa models lists them."
    )
    title = "By models that come along: day to night and back, winter, and painted"
    return Section(title=title, text=text, figures=figures)


def learn_earth(choices: Demo) -> Section:
    """Train on the globe but for a strip, translate that, and compare.

    By one thread: for so small a network a second is no gain, beside other programs it is a loss, and the last bits,
    from which runs part, are the same each time.
    """
    day, night = photo("earth-blue-marble.jpg"), photo("earth-night.jpg")
    folder = choices.out / "earth-images"
    write_tiles(folder, day, night)
    minutes = {} if choices.minutes is None else {"minutes": choices.minutes}
    with on_threads(1):
        run(make(
            Train, recipe="demo", a=folder / "day", b=folder / "night", test_a=folder / "day-strip",
            test_b=folder / "night-strip", out=choices.out / "earth", device=choices.device, **minutes,
        ))  # fmt: skip
    return compare(choices.out / "earth", day[ROWS, STRIP], night[ROWS, STRIP])


def photo(name: str) -> Pixels:
    """One of the images in assets."""
    with (files("viceversa") / "assets" / name).open("rb") as file:
        return np.asarray(Image.open(file).convert("RGB"))


def write_tiles(folder: Path, day: Pixels, night: Pixels) -> None:
    """Cut the globe into training images, the night's shifted against the day's, and the strip into test images."""
    for name, globe, shift in (("day", day, 0), ("night", night, TILE // 2)):
        # The globe is round: turned so that the strip lies at its end, all else is one piece.
        turned = np.roll(globe, -STRIP.stop, axis=1)[ROWS, : WIDTH - (STRIP.stop - STRIP.start)]
        trained = reduced(turned)[:TILE, shift:]
        for column, left in enumerate(np.linspace(0, trained.shape[1] - TILE, TILES).astype(int)):
            write_bytes(folder / name / f"{column:02}.png", encoded(trained[:, left : left + TILE], "PNG"))
        strip = globe[ROWS, STRIP]
        for row, top in enumerate(np.linspace(0, strip.shape[0] - strip.shape[1], 4).astype(int)):
            write_bytes(folder / f"{name}-strip/{row}.png", encoded(strip[top : top + strip.shape[1]], "PNG"))


def reduced(image: Pixels) -> Pixels:
    height, width = (side // REDUCED for side in image.shape[:2])
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BOX))


def compare(folder: Path, day: Pixels, night: Pixels) -> Section:
    """Translate the unseen strip, and print how near the truth it came."""
    model = load(folder)
    to_night, to_day = translate_strip(model, day, night)
    train_day, train_night = (colours(photo(n)) for n in ("earth-blue-marble.jpg", "earth-night.jpg"))
    by_colour_night = transfer(day, train_day, train_night)
    by_colour_day = transfer(night, train_night, train_day)
    headers = ("", "to night, PSNR", "to day, PSNR", "land or sea right")
    rows = [
        (
            name,
            f"{psnr(to_tensor(n), to_tensor(night)):.1f} dB",
            f"{psnr(to_tensor(d), to_tensor(day)):.1f} dB",
            f"{land_right(d, day):.1%}",
        )
        for name, n, d in (
            ("viceversa", to_night, to_day),
            ("transfer of colours", by_colour_night, by_colour_day),
            ("doing nothing", day, night),
        )
    ]
    table = Table(*headers, title="The strip that was never trained on")
    for row in rows:
        table.add_row(*row)
    Console().print(table)
    text = (
        "This strip of the globe, 28% to 40% of its width, was kept out of training. The two photographs lie exactly "
        "over each other, so the truth is known. PSNR: higher is nearer; a single colour says nothing and gets 26.5 dB "
        "by night. Land is where red exceeds 0.9 of blue. The transfer gives each channel the mean and deviation of "
        "the other domain (Reinhard et al. 2001). The pieces of it that stand epoch by epoch are seen from nearer than "
        "was learned from: ice along their upper edge is what stands there on a globe."
    )
    pictures = [
        ("day", day), ("translated to night", to_night), ("the true night", night),
        ("night", night), ("translated to day", to_day), ("the true day", day),
    ]  # fmt: skip
    figures = [Figure(image=encoded(pixels, "PNG"), caption=caption) for caption, pixels in pictures]
    return Section(
        title="Earth: the unseen strip beside the truth", text=text, headers=headers, rows=rows, figures=[figures]
    )


def translate_strip(model: Translator, day: Pixels, night: Pixels) -> tuple[Pixels, Pixels]:
    """To night, and to day: at twice the size that was trained on, of which the pyramid translates the half."""
    size = 2 * day.shape[1] // REDUCED
    return model(day, to="night", size=size), model(night, to="day", size=size)


def colours(globe: Pixels) -> tuple[Pixels, Pixels]:
    """Mean and deviation of each channel over what is trained on."""
    trained = np.delete(globe[ROWS], np.r_[STRIP], axis=1)
    return trained.mean((0, 1)), trained.std((0, 1))


def transfer(image: Pixels, source: tuple[Pixels, Pixels], target: tuple[Pixels, Pixels]) -> Pixels:
    """Bring each channel's mean and deviation to those of the other domain (Reinhard et al. 2001)."""
    moved = (image - source[0]) / source[1] * target[1] + target[0]
    pixels: Pixels = moved.round().clip(0, 255).astype(np.uint8)
    return pixels


def land_right(image: Pixels, truth: Pixels) -> float:
    """Share of the pixels that are land or ocean as in the truth."""
    return float(np.mean(is_land(image) == is_land(truth)))


def is_land(image: Pixels) -> Pixels:
    return image[..., 0] > 0.9 * image[..., 2]


def encoded(pixels: Pixels, kind: str) -> bytes:
    return encode(Picture(pixels, format=kind))

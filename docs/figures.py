"""The pictures of the README, computed from models: python docs/figures.py cities day2night
python docs/figures.py photos monet2photo --to monet
python docs/figures.py photos summer2winter --to winter
python docs/figures.py earth runs/demo/earth
python docs/figures.py drive day2night"""

import argparse
import shutil
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import viceversa
from viceversa.demo import PHOTOS, ROWS, STRIP, photo, translate_strip
from viceversa.translation.films import translate_film

DOCS = Path(__file__).parent
LABEL, PANEL = 34, 560


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("cities", "photos", "earth", "drive"))
    parser.add_argument("model")
    parser.add_argument("--to", help="photos: the domain to translate to")
    o = parser.parse_args()
    model = viceversa.load(o.model)
    if o.what == "drive":
        drive(model)
    elif o.what == "photos":
        photos = [photo(f"{name}.jpg") for name in PHOTOS]
        translated = [model(given, to=o.to) for given in photos]
        height = min(fitted(given).shape[0] for given in photos)
        rows = [[("", fitted(pixels)[:height]) for pixels in row] for row in (photos, translated)]
        save(DOCS / f"{o.model}.webp", rows)
    elif o.what == "earth":
        day, night = photo("earth-blue-marble.jpg")[ROWS, STRIP], photo("earth-night.jpg")[ROWS, STRIP]
        to_night, to_day = translate_strip(model, day, night)
        there = [("day", day), ("translated to night", to_night), ("the true night", night)]
        back = [("night", night), ("translated to day", to_day), ("the true day", day)]
        save(DOCS / "earth.webp", [there + back])
    else:
        a, b = model.domains
        rows = []
        for name in PHOTOS:
            given = photo(f"{name}.jpg")
            there = model(given, to=b)
            panels = {f"by {a}": given, f"translated to {b}": there, f"and back to {a}": model(there, to=a)}
            rows.append([(words, fitted(pixels)) for words, pixels in panels.items()])
        save(DOCS / f"{o.model}.webp", rows)


def drive(model: viceversa.Translator) -> None:
    """A film, of a crop that moves over a photo of a street, and what it becomes: both side by side."""
    street = Image.fromarray(photo("leuven.jpg"))
    width, height = 360, 240
    street = street.resize((round(street.width * 300 / street.height), 300), Image.Resampling.LANCZOS)
    ways = [(1 - np.cos(2 * np.pi * n / 24)) / 2 for n in range(24)]  # there and back, so that it can go on for ever
    corners = [(round(way * (street.width - width)), round((1 - way) * (300 - height))) for way in ways]
    frames = [street.crop((x, y, x + width, y + height)) for x, y in corners]
    with tempfile.TemporaryDirectory() as folder:
        day = Path(folder, "drive.webp")
        frames[0].save(day, save_all=True, append_images=frames[1:], duration=120, loop=0, quality=95)
        translate_film(model, day, Path(folder, "night.webp"), to=model.domains[1], quality=45, compare=True)
        shutil.copy(Path(folder, "night.compare.webp"), DOCS / "drive.webp")


def fitted(pixels: np.ndarray) -> np.ndarray:
    """At the width of a panel: rows of photos of different sizes are to line up."""
    height = round(pixels.shape[0] * PANEL / pixels.shape[1])
    return np.asarray(Image.fromarray(pixels).resize((PANEL, height), Image.Resampling.LANCZOS))


def save(path: Path, rows: list[list[tuple[str, np.ndarray]]]) -> None:
    """Rows of panels, the names of the first row above it, where it has any."""
    gap, label = 6, LABEL if any(name for name, _ in rows[0]) else 0
    width = sum(pixels.shape[1] + gap for _, pixels in rows[0]) - gap
    sheet = Image.new("RGB", (width, label + sum(row[0][1].shape[0] + gap for row in rows) - gap), "white")
    draw, top = ImageDraw.Draw(sheet), label
    for n, row in enumerate(rows):
        left = 0
        for name, pixels in row:
            if n == 0:
                draw.text((left + 4, label // 2), name, "#333", ImageFont.load_default(18), anchor="lm")
            sheet.paste(Image.fromarray(pixels), (left, top))
            left += pixels.shape[1] + gap
        top += row[0][1].shape[0] + gap
    sheet.save(path, quality=82, method=6)


if __name__ == "__main__":
    main()

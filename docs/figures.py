"""The pictures of the README, computed from models: python docs/figures.py earth runs/earth
python docs/figures.py photo runs/day2night --to night"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import viceversa
from viceversa.demo import ROWS, STRIP, earth, translate_strip

DOCS = Path(__file__).parent
LABEL = 34


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("earth", "photo"))
    parser.add_argument("model")
    parser.add_argument("--to", default="night")
    parser.add_argument("--size", type=int, default=None)
    o = parser.parse_args()
    model = viceversa.load(o.model)
    if o.what == "earth":
        day, night = earth("earth-blue-marble.jpg")[ROWS, STRIP], earth("earth-night.jpg")[ROWS, STRIP]
        to_night, to_day = translate_strip(model, day, night)
        there = [("day", day), ("translated to night", to_night), ("the true night", night)]
        back = [("night", night), ("translated to day", to_day), ("the true day", day)]
        save(DOCS / "earth.webp", there + back)
    else:
        photo = earth("china.jpg")
        save(DOCS / "photo.webp", [("by day", photo), (f"translated to {o.to}", model(photo, to=o.to, size=o.size))])


def save(path: Path, panels: list[tuple[str, np.ndarray]]) -> None:
    """The panels side by side, each with its name above."""
    height, gap = panels[0][1].shape[0], 6
    width = sum(pixels.shape[1] for _, pixels in panels) + gap * (len(panels) - 1)
    sheet = Image.new("RGB", (width, height + LABEL), "white")
    draw, left = ImageDraw.Draw(sheet), 0
    for name, pixels in panels:
        draw.text((left + 4, LABEL // 2), name, "#333", ImageFont.load_default(18), anchor="lm")
        sheet.paste(Image.fromarray(pixels), (left, LABEL))
        left += pixels.shape[1] + gap
    sheet.save(path, quality=85, method=6)


if __name__ == "__main__":
    main()

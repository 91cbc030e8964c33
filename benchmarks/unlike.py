"""How often `translate` says that a picture does not fit: on pictures of the domain, and on such as are not.

python benchmarks/unlike.py ROOT...    (each with trainA, trainB, testA, testB)
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from viceversa.data.folders import find, spread
from viceversa.data.pictures import read
from viceversa.data.statistics import ENOUGH, describe, misfit


def gray(image: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(image).convert("L").convert("RGB"))


def drawing(image: np.ndarray) -> np.ndarray:
    """Black lines on white paper."""
    lines = Image.fromarray(image).convert("L").filter(ImageFilter.FIND_EDGES).point(lambda v: 255 * (v < 40))
    return np.asarray(lines.convert("RGB"))


def false_colours(image: np.ndarray) -> np.ndarray:
    """As thermal cameras show heat: one channel rises while another falls."""
    light = np.asarray(Image.fromarray(image).convert("L"))
    return np.stack([light, 255 - light, light // 2], -1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("roots", nargs="+", type=Path)
    print_table(parser.parse_args().roots)


def print_table(roots: list[Path]) -> None:
    print("| trained on | images | its own, unseen | the other domain | in gray | as a drawing | in false colours |")
    print("|---|---|---|---|---|---|---|")
    for root in roots:
        for side in "AB":
            paths = spread(find(str(root / f"train{side}")).paths, ENOUGH)
            known = describe(read(path, 3).pixels for path in paths)
            own, other = (
                [read(path, 3).pixels for path in find(str(root / f"test{letter}")).paths[:80]]
                for letter in (side, "BA"["AB".index(side)])
            )
            changed = [[change(image) for image in own] for change in (gray, drawing, false_colours)]
            rates = [np.mean([bool(misfit(image, known)) for image in images]) for images in (own, other, *changed)]
            name = f"{root.name}, {side}"
            print(f"| {name} | {known['images']} | {' | '.join(f'{rate:.0%}' for rate in rates)} |", flush=True)


if __name__ == "__main__":
    main()

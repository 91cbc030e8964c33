"""`viceversa data`: look at two folders before training, and say what to do."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ..config import Data
from ..data.folders import Sources, find_sources, spread
from ..data.pictures import BadImage
from ..errors import BadInput
from ..files import write_text
from ..terminal import progress_bar
from .advice import Advice, advise
from .findings import Colours, Copies, Findings, Folder, Known, find
from .inspection import look_at_all, thumbnail
from .page import data_uri, figures, render

SHEET = 24
"""Pictures on a contact sheet."""
SHOWN = 12
"""Groups of copies, and pairs of test and training pictures, that the page shows."""
NAMES = 3
"""Files that the terminal names for a piece of advice."""
CLOSING = (
    "What no number tells: whatever is seen in one domain only will be painted in, or taken out. "
    "Do both show the same kind of things?"
)
STYLES = {"wrong": "bold red", "care": "bold yellow", "fine": "green"}
AXES = ("lightness L*", "green to red a*", "blue to yellow b*")


def command_data(command: Data) -> int:
    if command.out is not None and command.out.is_dir():
        raise BadInput(f"--out {command.out} is a folder: name the file to write, such as data.html")
    found = examine(command.a, command.b, command.test_a, command.test_b)
    advice = advise(found)
    console = Console(highlight=False, emoji=False)
    tell(found, advice, console)
    if command.out is None:
        console.print(Text(f"{CLOSING} See them side by side with -o data.html.", "dim"))
    else:
        write_text(command.out, page(found, advice))
        print(command.out)
    return 0


def examine(a: str, b: str | None = None, test_a: str | None = None, test_b: str | None = None) -> Findings:
    """Decode and compare all images of two domains, or of a folder with trainA and trainB.

    Raises BadInput for missing or empty folders, for one image only, and where none can be read.
    """
    sources = find_sources(a, b, test_a, test_b, hold_out=0)
    for paths, name in zip((sources.a, sources.b), sources.names, strict=True):
        if len(paths) < 2:
            raise BadInput(f"{paths[0].parent} holds one image of {name}: a domain needs many, some hundred at best")
    folders = look_at(sources)
    for folder in folders[:2]:
        if not folder.looks:
            raise BadInput(f"none of the {folder.count} images of {folder.domain} can be read: {folder.broken[0]}")
    return find(folders, sources.warnings)


def look_at(sources: Sources) -> list[Folder]:
    """Training of both domains, then test where there is any."""
    a, b = sources.names
    sets = [
        (a, "training", sources.a),
        (b, "training", sources.b),
        (a, "test", sources.test_a),
        (b, "test", sources.test_b),
    ]
    sets = [each for each in sets if each[2]]
    every = [path for _, _, paths in sets for path in paths]
    with progress_bar("looking at images", len(every)) as update:
        seen = iter(look_at_all(every, update))
    folders = []
    for domain, part, paths in sets:
        mine = [next(seen) for _ in paths]
        looks = [each for each in mine if not isinstance(each, BadImage)]
        folders.append(Folder(domain, part, looks, [each for each in mine if isinstance(each, BadImage)]))  # type: ignore[arg-type]
    return folders


# Terminal


def tell(found: Findings, advice: Sequence[Advice], console: Console) -> None:
    """Print the table of the folders, the colours, and the advice."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for header in HEADERS:
        table.add_column(header, justify="right" if header in NUMBERS else "left", no_wrap=header != "format")
    for row in rows(found):
        table.add_row(*map(Text, row))
    console.print(table)
    console.print(Text(colour_words(found.colours), "dim"))
    console.print()
    for each in advice:
        line = Table.grid(padding=(0, 1))
        line.add_row(Text(f"{each.level:5}", STYLES[each.level]), Text(each.text))
        console.print(line)
        for name in each.names[:NAMES]:
            console.print(Padding(Text(name, "dim", overflow="fold"), (0, 0, 0, 8)))
        if len(each.names) > NAMES:
            console.print(Padding(Text(f"and {len(each.names) - NAMES} more", "dim"), (0, 0, 0, 8)))
    console.print()


HEADERS = ("", "images", "size", "format", "gray", "16 bit", "broken", "scenes")
NUMBERS = {"images", "gray", "16 bit", "broken", "scenes"}


def rows(found: Findings) -> list[list[str]]:
    """A row of the table for each folder."""
    return [
        [
            folder.name, str(folder.count), folder.sizes, folder.formats, str(sum(look.gray for look in folder.looks)),
            str(sum(look.sixteen for look in folder.looks)), str(len(folder.broken)),
            f"~{found.scenes[folder.domain]}" if folder.part == "training" else "",
        ]
        for folder in found.folders
    ]  # fmt: skip


def colour_words(colours: Colours) -> str:
    """The distance of the domains in each axis of CIELAB, and that of two halves of one domain."""
    parts = [
        f"{axis} {figures(apart, 2)} ({figures(half, 2)})"
        for axis, apart, half in zip(AXES, colours.apart, colours.halves, strict=True)
    ]
    return (
        "Apart in colour, by the 1-Wasserstein distance of CIELAB histograms (between halves of one domain): "
        + ", ".join(parts)
    )


# Page


def page(found: Findings, advice: Sequence[Advice]) -> str:
    """One self-contained HTML page, with contact sheets."""
    return render(
        "data.html.j2",
        names=[folder.domain for folder in found.training],
        headers=HEADERS,
        numbers=NUMBERS,
        closing=CLOSING,
        rows=rows(found),
        colours=colour_rows(found.colours),
        advice=advice,
        sheets=[sheet(found, folder) for folder in found.folders],
        copies=[picture_row(found, copies) for copies in found.copies[:SHOWN]],
        more_copies=max(0, len(found.copies) - SHOWN),
        known=[known_rows(found, known) for known in found.known if known.pairs],
    )


def colour_rows(colours: Colours) -> list[list[str]]:
    a, b = colours.means
    columns = zip(AXES, a, b, colours.apart, colours.halves, strict=True)
    return [[axis, *(figures(float(value), 2) for value in values)] for axis, *values in columns]


def sheet(found: Findings, folder: Folder) -> dict[str, Any]:
    chosen = spread(folder.looks, SHEET)
    pictures = [small(found, look.path) for look in chosen]
    return {"name": folder.name, "count": folder.count, "pictures": pictures}


def picture_row(found: Findings, copies: Copies) -> dict[str, Any]:
    pictures = [{**small(found, look.path), "of": folder.name} for folder, look in copies.members[:6]]
    return {"kind": copies.kind, "count": len(copies.members), "pictures": pictures}


def known_rows(found: Findings, known: Known) -> dict[str, Any]:
    """Evenly spread over the pairs, from the most alike to the least."""
    chosen = spread(known.pairs, SHOWN)
    pairs = [{"test": small(found, t.path), "train": small(found, r.path), "bits": bits} for t, r, bits in chosen]
    return {"domain": known.domain, "scenes": known.scenes, "total": known.total, "pairs": pairs}


def small(found: Findings, path: Path) -> dict[str, Any]:
    image = thumbnail(path, 200)
    file = io.BytesIO()
    image.save(file, "WEBP", quality=80)
    return {"src": data_uri(file.getvalue()), "size": image.size, "name": found.short(path)}

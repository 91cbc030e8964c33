"""The numbers of an evaluation as a table: a row for each measure, a column for each direction and model."""

import io
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from rich.box import SIMPLE
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

Numbers = Mapping[str, Any]

ROWS: tuple[tuple[str, Callable[[Numbers], str]], ...] = (
    ("features", lambda n: n["features"]),
    ("KID, lower is better", lambda n: f"{n['kid']:.4f} ± {n['kid_std']:.4f}"),
    ("Frechet distance, lower", lambda n: f"{n['frechet']:.4g}"),
    ("structure kept, higher", lambda n: f"{n['structure']:.3f}"),
    ("diversity, 1 as the inputs", lambda n: f"{n['diversity']:.2f}"),
    ("round trip L1, lower", lambda n: f"{n['round_trip']['l1']:.4f}"),
    ("round trip LPIPS, lower", lambda n: f"{n['round_trip']['lpips']:.4f}"),
    ("pairs: PSNR in dB, higher", lambda n: f"{n['paired']['psnr']:.2f}"),
    ("pairs: SSIM, higher", lambda n: f"{n['paired']['ssim']:.4f}"),
    ("pairs: LPIPS, lower", lambda n: f"{n['paired']['lpips']:.4f}"),
    ("images, translated and real", lambda n: f"{n['n_fake']}, {n['n_real']}"),
    ("brought to size", lambda n: n["prepared"]),
)


def render(results: Numbers, width: int = 110) -> str:
    """The table and its notes, as text."""
    columns = list(headed(results))
    table = Table(box=SIMPLE, pad_edge=False, show_header=len(columns) > 1 or bool(columns[0][0]))
    table.add_column("")
    for heading, _ in columns:
        table.add_column("\n".join(heading), justify="right")
    for name, cell in ROWS:
        cells = [shown(cell, numbers) for _, numbers in columns]
        if any(cells):
            table.add_row(name, *cells)
    notes = dict.fromkeys(note for _, numbers in columns for note in numbers["notes"])
    console = Console(file=io.StringIO(), width=width)
    with console.capture() as captured:
        console.print(Group(table, *(Text(f"- {note}") for note in notes)))
    return "\n".join(line.rstrip() for line in captured.get().splitlines()).strip("\n")


def headed(results: Numbers, heading: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Numbers]]:
    """The objects of numbers, however deep, with the names of model and domain that they lie under."""
    if "n_fake" in results:
        yield heading, results
        return
    for name, inner in results.items():
        yield from headed(inner, (*heading, f"to {name}" if "n_fake" in inner else name))


def shown(cell: Callable[[Numbers], str], numbers: Numbers) -> str:
    """Empty where this was not measured."""
    try:
        return cell(numbers)
    except KeyError:
        return ""

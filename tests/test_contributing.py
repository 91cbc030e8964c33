"""CONTRIBUTING draws the house as it stands: every room and every module, and nothing else."""

import re
from pathlib import Path

import viceversa

SOURCE = Path(viceversa.__file__).parent
TEXT = (Path(__file__).parent.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| `([a-z]+/|\.)` \| (.*) \|$", TEXT, re.MULTILINE)


def test_every_module_stands_in_the_row_of_its_room():
    drawn = set()
    for room, words in ROWS:
        names = re.findall(r"`(\w+)`", words)
        drawn |= {name if room == "." else f"{room}{name}" for name in names}
    built = {
        path.relative_to(SOURCE).with_suffix("").as_posix()
        for path in SOURCE.rglob("*.py")
        if path.name != "__init__.py"
    }
    assert not built - drawn, "give these a place in the table of CONTRIBUTING.md"
    assert not drawn - built, "these are no modules (any more)"


def test_the_rooms_stand_as_the_imports_flow():
    """From what a person starts down to what everything rests on, as in tests/test_imports.py."""
    from test_imports import FLOW

    rooms = [room for room, _ in ROWS if room != "."]
    lines = [line.split() for line in FLOW.strip().splitlines()]
    height = {entry.removesuffix(".*") + "/": n for n, line in enumerate(lines) for entry in line}
    assert set(rooms) == {path.parent.name + "/" for path in SOURCE.glob("*/__init__.py")}
    assert [height[room] for room in rooms] == sorted(height[room] for room in rooms)

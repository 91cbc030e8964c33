"""`viceversa data`: what to do about what two folders hold: one table of advice, in the terminal or on a page."""

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

from PIL import Image
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ..config import Data, Train
from ..data import pictures
from ..data.folders import spread
from ..data.store import too_many
from ..files import write_text
from ..terminal import say, words
from .html import check_out, data_uri, figures, render
from .inspect import Colours, Copies, Findings, Folder, Known, examine

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

FEW, VERY_FEW = 200, 50
"""Training pictures of a domain. The smallest sets of the paper have 400 (facades) to 1,000 (horses)."""

SMALLEST = 24
"""The side that the paper's networks take at least."""
WIDE = 1.2
"""From this ratio of the sides on, a square resize squeezes a picture visibly."""

Level = Literal["wrong", "care", "fine"]
Scope = Literal["set", "warning", "folder", "note", "training", "test"]
"""What a sentence is about: both domains, what was found on the way to the files, a folder, a kind of its pictures,
the training pictures of a domain, its test pictures."""


def command_data(command: Data) -> int:
    if command.out is not None:
        check_out(command.out)
    found = examine(command.a, command.b, command.test_a, command.test_b)
    advice = advise(facts(found))
    console = Console(highlight=False, emoji=False)
    with console.capture() as told:
        tell(found, advice, console)
        if command.out is None:
            console.print(Text(f"{CLOSING} See them side by side with -o data.html.", "dim"))
    say("\n".join(line.rstrip() for line in told.get().rstrip().splitlines()))
    if command.out is not None:
        write_text(command.out, page(found, advice))
        say(str(command.out))
    return 0


# The table


@dataclass(frozen=True)
class Advice:
    """One piece of it. `wrong` needs doing before training, `care` wants thought, `fine` is good as it is."""

    level: Level
    text: str
    names: tuple[str, ...] = ()
    """Files that it is about."""


class Number(int):
    """{n} is 12, {n:image} "12 images", {n:picture is|pictures are} "1 picture is", {n:=is|are} the word alone."""

    def __format__(self, form: str) -> str:
        if not form:
            return str(int(self))
        one, _, many = form.removeprefix("=").partition("|")
        many = many or f"{one}s"
        return (one if self == 1 else many) if form.startswith("=") else words(int(self), one, many)


Row = tuple[Level, Scope, Callable[[Any], object], str, str]
"""How grave, about what, when, the sentence, and the fact that names files (or none)."""

TABLE: tuple[Row, ...] = (
    # what cannot be read
    ("wrong", "folder", lambda f: f.refused,
     "{broken} of {count:image} of {name} cannot be read: training refuses more than one in ten, and more than one.",
     "broken_files"),
    ("care", "folder", lambda f: f.broken and not f.refused,
     "{broken} of {count:image} of {name} cannot be read. Training leaves them out{limit}.", "broken_files"),
    ("fine", "set", lambda s: not s.broken, "Every image can be read.", ""),
    ("care", "warning", lambda w: True, "{text}.", ""),
    ("care", "note", lambda n: True, "{pictures} of {count:image} of {name}: {note}.", "files"),
    # how many
    ("wrong", "set", lambda s: s.fewest < VERY_FEW,
     "{counted}. That is too few: discriminators learn so few by heart, and the results fall apart. Collect some "
     "hundred of each, or cut several from large photos.", ""),
    ("care", "set", lambda s: VERY_FEW <= s.fewest < FEW,
     "{counted}. That can do for one kind of scene; some hundred more would help more than any setting.", ""),
    ("fine", "set", lambda s: s.fewest >= FEW, "{counted}: enough to begin with.", ""),
    ("care", "set", lambda s: s.times > 10,
     "{many} has {times:.0f} times as many images as {few}, whose images come up as much more often: watch for "
     "results that repeat them.", ""),
    # what is there twice
    ("wrong", "set", lambda s: s.shared,
     "{shared:image is|images are} in both domains, the same {shared:=file|files} and no {shared:=copy|copies}: "
     "{inside}{shared:=it|each} teaches that nothing needs to change. Delete none, but give folders that share none.",
     "shared_files"),
    ("wrong", "set", lambda s: s.across,
     "{across:picture is|pictures are} in both domains, exactly or nearly: each teaches that nothing needs to "
     "change. Take them out of one.", "across_files"),
    ("care", "training", lambda f: f.repeats,
     "{repeats} of the {good} training images of {domain} repeat another ({exact} exactly, {nearly} nearly): the set "
     "is smaller than it looks, and what is repeated weighs more.", "repeated_files"),
    ("fine", "set", lambda s: not s.copies and not s.shared, "No picture is there twice.", ""),
    # tests
    ("care", "set", lambda s: s.untested,
     "{untested_names} {untested:=has|have} no test images: training will hold out up to four for the progress "
     "pictures, and scores need more. Put fifty or more aside, of scenes that are not trained on.", ""),
    ("wrong", "test", lambda t: t.shared,
     "{shared} of {total:test image} of {domain} {shared:=is|are} trained on, the same {shared:=file|files} and no "
     "{shared:=copy|copies}. Delete none, but give folders that share none.", "shared_files"),
    ("wrong", "test", lambda t: t.copied,
     "{copied} of {total:test image} of {domain} {copied:=is|are} in training too, to the pixel. Take them out of one.",
     "copied_files"),
    ("care", "test", lambda t: t.near > t.exact,
     "{scenes} of {total:test image} of {domain} show a scene that is trained on, {nearly} of them in nearly the same "
     "picture. Pictures and scores will tell how well these places are translated, not how well new ones are. To "
     "learn that, split by place or camera, not by picture.", "known_files"),
    ("care", "test", lambda t: t.near == t.exact and t.scenes > t.total // 4,
     "{scenes} of {total:test image} of {domain} show a scene that is trained on. Pictures and scores will tell how "
     "well these places are translated, not how well new ones are. To learn that, split by place or camera, not by "
     "picture.", "known_files"),
    ("fine", "test", lambda t: t.near == 0 and t.scenes <= t.total // 4,
     "The test images of {domain} show other scenes than those trained on.", ""),
    # scenes
    ("care", "set", lambda s: s.narrow,
     "The training images show the same places again and again: {narrow}. Expect good results for these and weaker "
     "ones for others.", ""),
    # sizes
    ("care", "set", lambda s: s.small,
     f"{{smaller}} {{small:=is|are}} smaller than the crop of {Train.crop} and will be enlarged: nothing is "
     "gained by it.{fitting}", ""),
    ("care", "training", lambda f: f.short >= 2 * Train.size and not f.fitting,
     f"{{domain}} is large ({{sizes}}); resizing to {Train.size} throws detail away. Where detail is wanted: --resize "
     "none, with crops from the native size.", ""),
    ("care", "set", lambda s: s.squeezed,
     "Not square: {squeezed}. The paper's square resize squeezes them; --resize short keeps their shape.", ""),
    ("care", "set", lambda s: abs(s.upright_a - s.upright_b) > 0.3,
     "{upright_a:.0%} of {a} and {upright_b:.0%} of {b} are upright pictures: the domains are framed differently, "
     "and the discriminators will see it. Crop them alike.", ""),
    ("care", "set", lambda s: s.enlarged > 2,
     "{sharp} is {enlarged:.1f} times as large as {soft}: resized alike, one is sharper than the other, and sharpness "
     "is learned as a difference between the domains.", ""),
    # kinds
    ("fine", "training", lambda f: f.deep == f.good, "{deep:image} of {domain} have 16 bit.", ""),
    ("care", "training", lambda f: 0 < f.deep < f.good,
     "{deep:image} of {domain} {deep:=has|have} 16 bit and {shallow} {shallow:=has|have} 8: one of the two may show in "
     "the results.", ""),
    ("care", "training", lambda f: f.gray == f.good,
     "{domain} is gray: --channels with a 1 for it spares the networks two channels.", ""),
    ("care", "training", lambda f: 0 < f.gray < f.good,
     "{gray} of {good:image} of {domain} {gray:=is|are} gray among coloured ones: gray may appear in results.", ""),
    ("care", "training", lambda f: f.flat,
     "{flat} of {good:image} of {domain} {flat:=is|are} nearly one colour: there is little to learn from, and much to "
     "invent.", "flat_files"),
    # colours
    ("care", "set", lambda s: not s.differ,
     "In colour, {a} and {b} differ hardly more than two halves of one: what tells them apart must be texture, which "
     "is learned well, or shapes, which are not. Look whether the folders hold what you mean.", ""),
    ("fine", "set", lambda s: s.differ and s.gap > 5,
     "The domains differ clearly in colour; {light} is lighter than {dark} by {gap:.0f} of 100.", ""),
    ("fine", "set", lambda s: s.differ and s.gap <= 5, "The domains differ clearly in colour.", ""),
)  # fmt: skip


def advise(facts: Iterable[tuple[Scope, dict[str, Any]]]) -> list[Advice]:
    """What the table says of the facts, the gravest first. Whole numbers among them are put into words."""
    facts = [
        (scope, {name: Number(value) if type(value) is int else value for name, value in each.items()})
        for scope, each in facts
    ]
    given = [
        Advice(level, sentence.format_map(each), tuple(each[files]) if files else ())
        for level, about, when, sentence, files in TABLE
        for scope, each in facts
        if scope == about and when(SimpleNamespace(**each))
    ]
    return sorted(given, key=lambda advice: ("wrong", "care", "fine").index(advice.level))


# What the table asks for


def facts(found: Findings) -> Iterator[tuple[Scope, dict[str, Any]]]:
    """The numbers that advice.TABLE judges, for each thing that its rows are about."""

    def named(copies: Iterable[Copies]) -> list[str]:
        return [found.short(*(look.path for _, look in each.members)) for each in copies]

    both = about_both(found)
    for folder in found.folders:
        trained = folder.part == "training"
        yield "folder", {
            "name": folder.name, "count": folder.count, "broken": len(folder.broken),
            "broken_files": list(map(str, folder.broken)), "limit": ", up to one in ten, or one" if trained else "",
            "refused": trained and too_many(len(folder.broken), folder.count),
        }  # fmt: skip
        for note, paths in pictures.by_kind((look.path, look.notes) for look in folder.looks).items():
            yield "note", {
                "name": folder.name, "count": folder.count, "pictures": len(paths), "note": note,
                "files": [*map(found.short, paths)],
            }  # fmt: skip
    for text in found.warnings:
        if "in both" not in text and "trained on too" not in text:  # those are told with their names, below
            yield "warning", {"text": text}
    for folder in found.training:
        inside = [c for c in found.copies if c.domains == {folder.domain} and c.repeats(folder)]
        extra = sum(c.repeats(folder) for c in inside)
        exact = sum(c.repeats(folder) for c in inside if c.kind == "exact")
        counted = {kind: sum(getattr(look, kind) for look in folder.looks) for kind in ("sixteen", "gray", "flat")}
        yield "training", {
            "domain": folder.domain, "good": len(folder.looks), "repeats": extra, "exact": exact,
            "nearly": extra - exact, "repeated_files": named(inside),
            "short": folder.median("short"), "sizes": folder.sizes, "fitting": both["fitting"],
            "deep": counted["sixteen"], "shallow": len(folder.looks) - counted["sixteen"], "gray": counted["gray"],
            "flat": counted["flat"], "flat_files": [found.short(look.path) for look in folder.looks if look.flat],
        }  # fmt: skip
    for known in found.known:
        yield "test", {
            "domain": known.domain, "total": known.total, "exact": known.exact, "near": known.near,
            "nearly": known.near - known.exact, "scenes": known.scenes, "copied": len(known.twice),
            "copied_files": [found.short(t.path, r.path) for t, r in known.twice],
            "shared": len(known.shared), "shared_files": [found.short(look.path) for look in known.shared],
            "known_files": [found.short(t.path, r.path) for t, r, _ in known.pairs],
        }  # fmt: skip
    yield "set", both | {
        "across_files": named(c for c in found.copies if len(c.domains) > 1),
        "shared_files": [found.short(look.path) for look in found.shared],
    }  # fmt: skip


def about_both(found: Findings) -> dict[str, Any]:
    a, b = found.training
    few, many = sorted((a, b), key=lambda folder: len(folder.looks))
    soft, sharp = sorted((a, b), key=lambda folder: folder.median("short"))
    narrow = [f for f in (a, b) if sum(not look.flat for look in f.looks) >= 3 * found.scenes[f.domain] > 0]
    squeezed = [f for f in (a, b) if not 1 / WIDE < f.median("aspect") < WIDE]
    tested = {known.domain for known in found.known}
    untested = [f.domain for f in (a, b) if f.domain not in tested]
    small = [(f, sum(look.short < Train.crop for look in f.looks)) for f in (a, b)]
    side = int(soft.median("short"))
    short = " --resize short" if squeezed else ""
    fits = f" --size {int(1.12 * max(side, SMALLEST))} --crop {max(side // 4 * 4, SMALLEST)}{short} "
    fits += f"fits the median of {soft.domain}." if side >= SMALLEST else (
        f"enlarges least: no network takes less than {SMALLEST}. {soft.domain}, of {side} pixels (median of the short "
        "sides), is too small to learn much from: look for larger pictures."
    )  # fmt: skip
    apart, halves = found.colours.apart.max(), found.colours.halves.max()
    lightness = {folder.domain: float(mean[0]) for folder, mean in zip((a, b), found.colours.means, strict=True)}
    dark, light = sorted(lightness, key=lambda domain: lightness[domain])
    upright = [sum(look.aspect < 1 for look in folder.looks) / len(folder.looks) for folder in (a, b)]
    return {
        "a": a.domain, "b": b.domain, "broken": sum(len(folder.broken) for folder in found.folders),
        "fewest": len(few.looks), "few": few.domain, "many": many.domain, "times": len(many.looks) / len(few.looks),
        "counted": listed(f"{f.domain} has {words(len(f.looks), 'training image')}" for f in (a, b)),
        "across": sum(len(c.domains) > 1 for c in found.copies), "copies": len(found.copies),
        "shared": len(found.shared), "inside": inside(found),
        "untested": len(untested), "untested_names": listed(untested),
        "narrow": listed(f"{f.domain} about {words(found.scenes[f.domain], 'scene')}" for f in narrow),
        "squeezed": listed(f"{f.domain} (width / height {f.median('aspect'):.2f})" for f in squeezed),
        "small": sum(n for _, n in small), "fitting": fits if side < Train.crop else "",
        "smaller": listed(f"{n} of {words(len(f.looks), 'image')} of {f.domain}" for f, n in small if n),
        "upright_a": upright[0], "upright_b": upright[1],
        "enlarged": sharp.median("short") / soft.median("short"), "sharp": sharp.domain, "soft": soft.domain,
        "differ": apart >= 2 * halves and apart >= 2, "gap": lightness[light] - lightness[dark],
        "light": light, "dark": dark,
    }  # fmt: skip


def inside(found: Findings) -> str:
    """In words, which domain holds all of the other, as where one folder lies inside the other."""
    real = {look.real for look in found.shared}
    whole = [f.domain for f in found.training if all(look.real in real for look in f.looks)]
    if len(whole) != 1:
        return ""
    (other,) = (f.domain for f in found.training if f.domain != whole[0])
    return f"{other} holds all of {whole[0]} (does one folder lie inside the other?), and "


def listed(parts: Iterable[str]) -> str:
    """day, night and dusk."""
    *most, last = [*parts] or [""]
    return f"{', '.join(most)} and {last}" if most else last


# Terminal


def tell(found: Findings, advice: Sequence[Advice], console: Console) -> None:
    """Print the table of the folders, the colours, and the advice."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for header in HEADERS:
        table.add_column(
            header, justify="right" if header in NUMBERS else "left", no_wrap=header in NUMBERS, overflow="fold"
        )
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
    shown = [small(found, look.path) for look in chosen]
    return {"name": folder.name, "count": folder.count, "pictures": shown}


def picture_row(found: Findings, copies: Copies) -> dict[str, Any]:
    shown = [{**small(found, look.path), "of": folder.name} for folder, look in copies.members[:6]]
    return {"kind": copies.kind, "count": len(copies.members), "pictures": shown}


def known_rows(found: Findings, known: Known) -> dict[str, Any]:
    """Evenly spread over the pairs, from the most alike to the least."""
    chosen = spread(known.pairs, SHOWN)
    pairs = [{"test": small(found, t.path), "train": small(found, r.path), "bits": bits} for t, r, bits in chosen]
    return {"domain": known.domain, "scenes": known.scenes, "total": known.total, "pairs": pairs}


def small(found: Findings, path: Path) -> dict[str, Any]:
    image = pictures.to_pil(pictures.on_white(pictures.read(path, 3)))
    image.thumbnail((200, 200), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, "WEBP", quality=80)
    return {"src": data_uri(file.getvalue()), "size": image.size, "name": found.short(path)}

"""What to do about the findings, in words."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from ..config import Train
from ..terminal import words
from .findings import Copies, Findings, Folder

FEW, VERY_FEW = 200, 50
"""Training pictures of a domain. The smallest sets of the paper have 400 (facades) to 1,000 (horses)."""
UNEQUAL = 10
"""One domain has so many times the pictures of the other."""
WIDE = 1.2
"""From this ratio of the sides on, a square resize squeezes a picture visibly."""


@dataclass(frozen=True)
class Advice:
    """One piece of it. `wrong` needs doing before training, `care` wants thought, `fine` is good as it is."""

    level: Literal["wrong", "care", "fine"]
    text: str
    names: tuple[str, ...] = ()
    """Files that it is about."""


def advise(found: Findings) -> list[Advice]:
    """The gravest first."""
    given = [
        *about_warnings(found), *about_broken(found), *about_counts(found), *about_copies(found),
        *about_tests(found), *about_scenes(found), *about_sizes(found), *about_kinds(found),
        *about_colours(found),
    ]  # fmt: skip
    return sorted(given, key=lambda advice: ("wrong", "care", "fine").index(advice.level))


def about_warnings(found: Findings) -> Iterator[Advice]:
    """Of the search for files: those that are in both domains are told by `about_copies`."""
    for text in found.warnings:
        if "in both" not in text and "trained on too" not in text:
            yield Advice("care", text)


def about_broken(found: Findings) -> Iterator[Advice]:
    for folder in found.folders:
        if folder.broken:
            names = tuple(map(str, folder.broken))
            text = f"{len(folder.broken)} of {words(folder.count, 'image')} of {folder.name} cannot be read"
            if 10 * len(folder.broken) > folder.count:
                yield Advice("wrong", f"{text}: training refuses a folder with more than one in ten.", names)
            else:
                yield Advice("care", f"{text}. Training leaves them out.", names)
    if not any(folder.broken for folder in found.folders):
        yield Advice("fine", "Every image can be read.")


def about_counts(found: Findings) -> Iterator[Advice]:
    a, b = found.training
    counted = listed(f"{folder.domain} has {words(len(folder.looks), 'training image')}" for folder in (a, b))
    fewest = min(len(a.looks), len(b.looks))
    if fewest < VERY_FEW:
        yield Advice(
            "wrong",
            f"{counted}. That is too few: discriminators learn so few by heart, and the results fall apart. "
            "Collect some hundred of each, or cut several from large photos.",
        )
    elif fewest < FEW:
        yield Advice(
            "care",
            f"{counted}. That can do for one kind of scene; some hundred more would help more than any setting.",
        )
    else:
        yield Advice("fine", f"{counted}: enough to begin with.")
    small, large = sorted((a, b), key=lambda folder: len(folder.looks))
    if len(large.looks) > UNEQUAL * len(small.looks):
        yield Advice(
            "care",
            f"{large.domain} has {len(large.looks) / len(small.looks):.0f} times as many images as {small.domain}, "
            f"whose images come up as much more often: watch for results that repeat them.",
        )


def about_copies(found: Findings) -> Iterator[Advice]:
    across = [c for c in found.copies if len(c.domains) > 1]
    if across:
        yield Advice(
            "wrong",
            f"{words(len(across), 'picture is', 'pictures are')} in both domains, exactly or nearly: each teaches "
            "that nothing needs to change. Take them out of one.",
            file_names(found, across),
        )
    for folder in found.training:
        inside = [c for c in found.copies if c.domains == {folder.domain} and repeats(c, folder) > 0]
        extra = sum(repeats(c, folder) for c in inside)
        exact = sum(repeats(c, folder) for c in inside if c.kind == "exact")
        if extra:
            text = (
                f"{extra} of the {len(folder.looks)} training images of {folder.domain} repeat another "
                f"({exact} exactly, {extra - exact} nearly): the set is smaller than it looks, and what is "
                "repeated weighs more."
            )
            yield Advice("care", text, file_names(found, inside))
    if not found.copies:
        yield Advice("fine", "No picture is there twice.")


def listed(parts: Iterable[str]) -> str:
    """day, night and dusk."""
    *first, last = parts
    return f"{', '.join(first)} and {last}" if first else last


def repeats(copies: Copies, folder: Folder) -> int:
    """How many of `folder`'s pictures in this group repeat another one of it."""
    return max(0, sum(member is folder for member, _ in copies.members) - 1)


def file_names(found: Findings, copies: list[Copies]) -> tuple[str, ...]:
    return tuple(found.short(*(look.path for _, look in each.members)) for each in copies)


def about_tests(found: Findings) -> Iterator[Advice]:
    tested = {known.domain: known for known in found.known}
    missing = [folder.domain for folder in found.training if folder.domain not in tested]
    if missing:
        yield Advice(
            "care",
            f"{listed(missing)} {'has' if len(missing) == 1 else 'have'} no test images: training will hold out four "
            "for the progress pictures, and scores need more. Put fifty or more aside, of scenes that are not "
            "trained on.",
        )
    for known in tested.values():
        images = f"{words(known.total, 'test image')} of {known.domain}"
        if known.exact:
            yield Advice(
                "wrong",
                f"{known.exact} of {images} {'is' if known.exact == 1 else 'are'} in training too, to the pixel. "
                "Take them out of one.",
                tuple(
                    found.short(test.path, train.path)
                    for test, train, _ in known.pairs
                    if test.content == train.content
                ),
            )
        if known.near > known.exact or known.scenes > known.total // 4:
            nearly = known.near - known.exact
            yield Advice(
                "care",
                f"{known.scenes} of {images} show a scene that is trained on"
                + (f", {nearly} of them in nearly the same picture" if nearly else "")
                + ". Pictures and scores will tell how well these places are translated, not how well new ones "
                "are. To learn that, split by place or camera, not by picture.",
                tuple(found.short(test.path, train.path) for test, train, _ in known.pairs),
            )
        elif not known.exact:
            yield Advice("fine", f"The test images of {known.domain} show other scenes than those trained on.")


def about_scenes(found: Findings) -> Iterator[Advice]:
    narrow = [f for f in found.training if len(f.looks) >= 3 * max(found.scenes[f.domain], 1)]
    if narrow:
        shown = listed(f"{f.domain} about {words(found.scenes[f.domain], 'scene')}" for f in narrow)
        yield Advice(
            "care",
            f"The training images show the same places again and again: {shown}. Expect good results for these "
            "and weaker ones for others.",
        )


def about_sizes(found: Findings) -> Iterator[Advice]:
    for folder in found.training:
        small = sum(look.short < Train.crop for look in folder.looks)
        if small:
            yield Advice(
                "care",
                f"{small} of {words(len(folder.looks), 'image')} of {folder.domain} {'is' if small == 1 else 'are'} "
                f"smaller than the crop of {Train.crop} and will be enlarged: nothing is gained by it. "
                f"--size {int(1.12 * folder.short)} --crop {int(folder.short) // 4 * 4} fits the median.",
            )
        if folder.short >= 2 * Train.size:
            yield Advice(
                "care",
                f"{folder.domain} is large ({folder.sizes}); resizing to {Train.size} throws detail away. "
                "Where detail is wanted: --resize none, with crops from the native size.",
            )
    a, b = found.training
    long = [folder for folder in (a, b) if not 1 / WIDE < folder.aspect < WIDE]
    if long:
        shapes = listed(f"{folder.domain} (width / height {folder.aspect:.2f})" for folder in long)
        yield Advice(
            "care",
            f"Not square: {shapes}. The paper's square resize squeezes them; --resize short keeps their shape.",
        )
    upright = [sum(look.aspect < 1 for look in folder.looks) / len(folder.looks) for folder in (a, b)]
    if abs(upright[0] - upright[1]) > 0.3:
        yield Advice(
            "care",
            f"{upright[0]:.0%} of {a.domain} and {upright[1]:.0%} of {b.domain} are upright pictures: the domains "
            "are framed differently, and the discriminators will see it. Crop them alike.",
        )
    ratio = max(a.short, b.short) / min(a.short, b.short)
    if ratio > 2:
        sharp, soft = (a, b) if a.short > b.short else (b, a)
        yield Advice(
            "care",
            f"{sharp.domain} is {ratio:.1f} times as large as {soft.domain}: resized alike, one is sharper than the "
            "other, and sharpness is learned as a difference between the domains.",
        )


def about_kinds(found: Findings) -> Iterator[Advice]:
    for folder in found.training:
        total = len(folder.looks)
        deep, gray, flat = (sum(getattr(look, kind) for look in folder.looks) for kind in ("sixteen", "gray", "flat"))
        if deep:
            rest = "" if deep == total else f" and {total - deep} have 8: one of the two may show in the results"
            yield Advice("care" if rest else "fine", f"{deep} images of {folder.domain} have 16 bit{rest}.")
        if gray == total:
            yield Advice(
                "care", f"{folder.domain} is gray: --channels with a 1 for it spares the networks two channels."
            )
        elif gray:
            yield Advice(
                "care",
                f"{gray} of {words(total, 'image')} of {folder.domain} {'is' if gray == 1 else 'are'} gray among "
                "coloured ones: gray may appear in results.",
            )
        if flat:
            yield Advice(
                "care",
                f"{flat} of {words(total, 'image')} of {folder.domain} {'is' if flat == 1 else 'are'} nearly one "
                "colour: there is little to learn from, and much to invent.",
                tuple(found.short(look.path) for look in folder.looks if look.flat),
            )


def about_colours(found: Findings) -> Iterator[Advice]:
    a, b = found.training
    apart, halves = found.colours.apart.max(), found.colours.halves.max()
    if apart < 2 * halves or apart < 2:
        yield Advice(
            "care",
            f"In colour, {a.domain} and {b.domain} differ hardly more than two halves of one: what tells them "
            "apart must be texture, which is learned well, or shapes, which are not. Look whether the folders hold "
            "what you mean.",
        )
    else:
        light, dark = (a, b) if found.colours.means[0][0] > found.colours.means[1][0] else (b, a)
        gap = abs(found.colours.means[0][0] - found.colours.means[1][0])
        brighter = f"; {light.domain} is lighter than {dark.domain} by {gap:.0f} of 100" if gap > 5 else ""
        yield Advice("fine", f"The domains differ clearly in colour{brighter}.")

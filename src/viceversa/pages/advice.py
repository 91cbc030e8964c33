"""What `viceversa data` advises: one table of what is found and what to do about it, in words."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Literal

from ..config import Train
from ..terminal import words

FEW, VERY_FEW = 200, 50
"""Training pictures of a domain. The smallest sets of the paper have 400 (facades) to 1,000 (horses)."""

Level = Literal["wrong", "care", "fine"]
Scope = Literal["set", "folder", "training", "test"]
"""What a sentence is about: both domains, a folder, the training pictures of a domain, its test pictures."""


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
    ("wrong", "folder", lambda f: 10 * f.broken > f.count,
     "{broken} of {count:image} of {name} cannot be read: training refuses a folder with more than one in ten.",
     "broken_files"),
    ("care", "folder", lambda f: 0 < 10 * f.broken <= f.count,
     "{broken} of {count:image} of {name} cannot be read. Training leaves them out.", "broken_files"),
    ("fine", "set", lambda s: not s.broken, "Every image can be read.", ""),
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
    ("wrong", "set", lambda s: s.across,
     "{across:picture is|pictures are} in both domains, exactly or nearly: each teaches that nothing needs to "
     "change. Take them out of one.", "across_files"),
    ("care", "training", lambda f: f.repeats,
     "{repeats} of the {good} training images of {domain} repeat another ({exact} exactly, {nearly} nearly): the set "
     "is smaller than it looks, and what is repeated weighs more.", "repeated_files"),
    ("fine", "set", lambda s: not s.copies, "No picture is there twice.", ""),
    # tests
    ("care", "set", lambda s: s.untested,
     "{untested_names} {untested:=has|have} no test images: training will hold out four for the progress pictures, "
     "and scores need more. Put fifty or more aside, of scenes that are not trained on.", ""),
    ("wrong", "test", lambda t: t.exact,
     "{exact} of {total:test image} of {domain} {exact:=is|are} in training too, to the pixel. Take them out of one.",
     "exact_files"),
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
    ("care", "training", lambda f: f.small,
     f"{{small}} of {{good:image}} of {{domain}} {{small:=is|are}} smaller than the crop of {Train.crop} and will be "
     "enlarged: nothing is gained by it. --size {size} --crop {crop} fits the median.", ""),
    ("care", "training", lambda f: f.short >= 2 * Train.size,
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

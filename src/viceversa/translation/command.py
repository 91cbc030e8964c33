"""`viceversa translate`: one image or ten thousand, and films.

First it is planned, which finds all that can go wrong before the work starts; then it is done, and what goes wrong
with one file ends no other's work.
"""

import json
import os
import re
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

from ..config import Translate
from ..data import folders, pictures
from ..data.download import sha256
from ..errors import BadInput, Failed, Interrupted
from ..files import replacing, try_out, write_text
from ..model.file import resolve
from ..terminal import Update, ending_on_sigterm, followed, progress_bar, words
from . import clips
from .films import show_change, translate_film
from .pipeline import STDIO, Job, Work, guarded, translate_pictures
from .translator import Translator, load

FORMATS = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP", "tiff": "TIFF", "bmp": "BMP"}
"""What --format may be, and Pillow's names."""
SUFFIXES = {end: name for name in pictures.WRITTEN for end in pictures.ENDINGS[name].split()}
"""Endings that say how an image is written."""
STAND_INS = {".dib": ".bmp", ".dcm": ".tif", ".dicom": ".tif"} | dict.fromkeys((".heic", ".heif", ".hif"), ".jpg")
"""Endings of what is read but not written, and what is written instead; .png for others."""
READ = pictures.SUFFIXES | clips.FILMS
PACKED = frozenset((".pdf", ".zip", ".tar", ".gz", ".tgz", ".7z", ".rar"))
"""Many pictures in one file, which is not written."""
TOLD = 10
"""Failures, and notes, that are told one by one."""
RECORD = ".viceversa.json"
"""In an output folder: which of its files are of which work."""
LOOK = 1.0
"""Seconds between two looks at what has arrived."""


def say(line: str) -> None:
    """On standard error: standard output may be an image."""
    print(line, file=sys.stderr, flush=True)


def command_translate(t: Translate) -> int:
    """Translate what is not there yet, and tell of what failed. Raises BadInput, Failed and Interrupted."""
    check_wishes(t)
    planned, lines = ([], []) if t.watch else plan(t)
    model = resolve(t.model, t.epoch)
    translator = load(model, device=t.device, precision=t.precision, memory=t.memory)
    home, there = translator.model.ends(translator.model.direction(t.to))
    if t.round_trip:
        translator.model.direction(home)  # which must be there
    record = Record(t, model, there)
    if t.watch:
        return watch(t, translator, record)
    others = {} if is_file(t.out) else record.others(planned)
    if others and not t.overwrite:
        raise BadInput(record.refusal(others))
    if is_file(t.out) and t.out != STDIO and not t.overwrite:
        for target in filter(os.path.exists, planned[0].targets):  # by which model, nothing keeps
            raise BadInput(f"{target} is there already: --overwrite does it again, or name another --out")
    for line in lines:
        say(line)
    todo = [replace(job, keep=not t.overwrite) for job in planned if t.overwrite or not job.is_done()]
    if not is_file(t.out) and not t.overwrite and (stale := record.of_others([*filter(Job.is_done, planned)])):
        say(f"{there_already(stale)}, made of another picture than what is to be translated now: --overwrite does it "
            "again, or name another --out")  # fmt: skip
    if not is_file(t.out) and not t.overwrite and (foreign := record.unknown([*filter(Job.is_done, planned)])):
        say(f"{there_already(foreign)}, and viceversa knows of no translation that made it: --overwrite makes one, or "
            "name another --out")  # fmt: skip
    if not is_file(t.out):
        record.add(job for job in todo if job.target not in others)
    finished: list[Work] = []
    try:
        for work in translate(t, translator, todo):
            finished.append(work)
    except (KeyboardInterrupt, SystemExit) as stop:  # SIGTERM comes as SystemExit (terminal.ending_on_sigterm)
        number = signal.SIGINT if isinstance(stop, KeyboardInterrupt) else signal.SIGTERM
        done = f"interrupted: {len(finished)} of {len(todo)} done; the same command goes on from there"
        if any(job.kind in ("film", "change") for job in {*todo} - {work.job for work in finished}):
            done += ", but films begin anew; what was done of one is the newest NAME.partial.mp4 (.partial2 and so on)"
        raise Interrupted(number, done) from None
    finally:
        record.add(work.job for work in finished if work.job.target in others and work.error is None)
    report(t, len(planned) - len(todo), finished)
    return 0


def watch(t: Translate, translator: Translator, record: "Record") -> int:
    """Translate what is there and what arrives, until Ctrl-C. A file is taken when it is as it was a look before;
    one that failed is tried again when it has changed."""
    try_out(t.out)
    if others := record.others(plan(t)[0]):
        raise BadInput(record.refusal(others))
    say(f"watching {', '.join(t.inputs)}: what arrives is translated to {t.out}; Ctrl-C ends it")
    before: dict[Path, tuple[int, int]] = {}
    tried: dict[Path, tuple[int, int]] = {}
    told: set[str] = set()
    done = 0
    with suppress(KeyboardInterrupt, SystemExit), ending_on_sigterm():
        while True:
            jobs, lines = plan(t)
            others = record.others(jobs)
            jobs = [job for job in jobs if job.target not in others]
            for line in (*lines, *(f"left out: {record.refusal({target: done})}" for target, done in others.items())):
                if line not in told:
                    say(line)
                    told.add(line)
            stamps = {job.source: clips.state(job.source) for job in jobs if not job.is_done()}
            now = {source: stamp for source, stamp in stamps.items() if stamp and stamp[0]}  # not gone, nor empty
            ready = [job for job in jobs if job.source in now and now[job.source] == before.get(job.source)]
            ready = [job for job in ready if now[job.source] != tried.get(job.source)]
            before = now
            if ready:
                tried |= {job.source: now[job.source] for job in ready}
                record.add(ready)
                finished = []
                for work in translate(t, translator, [replace(job, keep=True) for job in ready]):
                    finished.append(work)
                    done += work.error is None
                tell(t, 0, finished)
            time.sleep(LOOK)
    say(f"no longer watching; {done} translated to {t.out}")
    return 0


class Done(NamedTuple):
    """How a file was translated: what makes another picture of it; the format is in its name."""

    model: str
    """The model file's digest."""
    to: str
    size: int | None
    strength: float
    by: str
    """The model and the flags as a person gave them: no part of what it is."""


class Record:
    """How each file of an output folder was translated, kept in the folder: where a command stopped, only the same work
    goes on. What is not in it, such as what older versions wrote, may be of any."""

    def __init__(self, t: Translate, model: Path, to: str):
        self.t, self.model, self.to, self.path = t, model, to, t.out / RECORD

    @cached_property
    def asked(self) -> Done:
        t = self.t
        flags = {"epoch": t.epoch, "to": self.to, "size": t.size, "strength": t.strength if t.strength != 1 else None}
        by = " ".join([t.model, *(f"--{name} {value}" for name, value in flags.items() if value is not None)])
        return Done(sha256(self.model), self.to, t.size, t.strength, by)

    def read(self) -> dict[str, tuple[Done, int | None]]:
        """By the name of a file below the folder: how it was translated, and how many bytes what it was made of had
        (older versions did not say). Raises BadInput."""
        try:
            kept = [(each.pop("files"), Done(**each)) for each in json.loads(self.path.read_text(encoding="utf-8"))]
            sizes = ((dict.fromkeys(names) if isinstance(names, list) else names, done) for names, done in kept)
            return {name: (done, size) for names, done in sizes for name, size in names.items()}
        except FileNotFoundError:
            return {}
        except (ValueError, KeyError, TypeError, AttributeError):
            raise BadInput(f"{self.path}: no record of what was translated to {self.t.out}: take it away") from None

    def others(self, jobs: list[Job]) -> dict[Path, Done]:
        """The targets of jobs of which something is there already that was translated otherwise, and how."""
        known, others = self.read(), {}
        for job in jobs if known else ():
            for target in job.targets if job.kind != "copy" else ():
                done, _ = known.get(self.name(target), (self.asked, None))
                if done[:-1] != self.asked[:-1] and os.path.exists(target):
                    others[job.target] = done
        return others

    def refusal(self, others: dict[Path, Done]) -> str:
        done = next(iter(others.values()))
        changed = ", which has changed since" if done.by == self.asked.by else ""
        again = "" if self.t.watch else "--overwrite does it again, or "
        return f"{there_already([*others])}, translated by {done.by}{changed}: {again}name another --out"

    def of_others(self, jobs: list[Job]) -> list[Path]:
        """The targets of jobs that were made of something of another size than what they would be made of now: of a
        picture in another folder, perhaps, or of what this was before it was changed."""
        known = self.read()
        made = ((job, known.get(self.name(job.target), (None, None))[1]) for job in jobs if job.kind != "copy")
        return [job.target for job, size in made if size not in (None, size_of(job.source))]

    def unknown(self, jobs: list[Job]) -> list[Path]:
        """The targets of jobs that nothing here is known to have written."""
        known = self.read()
        return [job.target for job in jobs if job.kind != "copy" and self.name(job.target) not in known]

    def add(self, jobs: Iterable[Job]) -> None:
        """What these write is as was asked for, from here on."""
        mine = {
            self.name(target): (self.asked, size_of(job.source))
            for job in jobs if job.kind != "copy" for target in job.targets
        }  # fmt: skip
        if not mine:
            return
        files: dict[Done, dict[str, int | None]] = {}
        for name, (done, size) in (self.read() | mine).items():
            files.setdefault(done, {})[name] = size
        kept = [done._asdict() | {"files": names} for done, names in files.items()]
        write_text(self.path, json.dumps(kept, indent=1))

    def name(self, target: Path) -> str:
        return target.relative_to(self.t.out).as_posix()


def there_already(targets: list[Path]) -> str:
    more = f"and {len(targets) - 1:,} more are" if len(targets) > 1 else "is"
    return f"{targets[0]} {more} there already"


def size_of(source: Path) -> int | None:
    """Bytes of a file; None where that is none, or gone."""
    stamp = clips.state(source)
    return stamp[0] if stamp else None


def check_wishes(t: Translate) -> None:
    """Raise BadInput for what cannot be meant, whatever lies where."""
    if not t.inputs:
        raise BadInput("nothing to translate: give images, folders, quoted globs, videos, or - for standard input")
    if t.with_labels and t.format is not None:
        raise BadInput(f"--format {t.format} would change the names that labels go by: leave it out with --with-labels")
    if t.seconds is not None and not is_file(t.out):
        raise BadInput(f"--seconds {t.seconds:g} is for one photo and its film: name it, such as -o evening.mp4")
    if t.watch and is_file(t.out):
        raise BadInput(f"--watch: name a folder to write to, not {t.out}")


def is_file(out: Path) -> bool:
    """Does --out name one file, rather than a folder?"""
    return out == STDIO or (out.suffix.lower() in SUFFIXES.keys() | clips.WRITTEN and not os.path.isdir(out))


def check_ending(t: Translate) -> None:
    """Raise BadInput where --out, which is to be a new folder, is called like a file of a kind that is not written."""
    ending = t.out.suffix.lower()
    one = t.inputs[0] if len(t.inputs) == 1 else ""
    of_one = one == str(STDIO) or (Path(one).suffix.lower() in READ and os.path.isfile(one))
    like_a_file = ending in READ | PACKED or (of_one and re.fullmatch(r"\.[a-z]{2,4}", ending))
    if like_a_file and not is_file(t.out) and not os.path.isdir(t.out):
        kinds = clips.WRITTEN if clips.is_film(Path(one)) else SUFFIXES
        file = f"a file ({' '.join(sorted(kinds))}), or " if of_one else ""
        raise BadInput(f"--out {t.out}: {ending} is not written: name {file}a folder without such an ending")


def plan(t: Translate) -> tuple[list[Job], list[str]]:
    """The jobs of a command, in order, and what is to be said of them. Raises BadInput for inputs and outputs that
    cannot be; who watches is told of them, and goes on with the others."""
    check_ending(t)
    lines: list[str] = []
    found = [each for given in t.inputs for each in find(given, t, lines)]
    to_file = is_file(t.out)
    if not to_file:
        jobs = [to_folder(t, *each) for each in found]
    elif len({os.path.realpath(source) for source, _, _ in found}) > 1:
        raise BadInput(f"--out {t.out}: {len(found)} inputs cannot go to one place; name a folder")
    else:
        jobs = [to_one(t, found[0][0])]
    jobs, impossible = check(jobs)
    if impossible and not t.watch:
        raise BadInput(next(iter(impossible.values())))
    lines += [f"left out: {why}" for why in impossible.values()]
    if t.format is not None and (films := sum(job.kind == "film" for job in jobs)):
        lines.append(f"--format {t.format} is for images, and not heeded for {words(films, 'video')}")
    if not to_file and t.format is None:
        endings = Counter((job.source.suffix.lower(), job.target.suffix) for job in jobs if job.kind != "copy")
        lines += [
            f"{words(count, 'file')} of a kind that is not written: {old} becomes {new}"
            for (old, new), count in sorted(endings.items())
            if new.lower() != old
        ]
    if t.out != STDIO and not t.watch:  # which has tried it
        try_out(t.out.parent if to_file else t.out)
    return jobs, lines


def find(given: str, t: Translate, lines: list[str]) -> Iterator[tuple[Path, Path, bool]]:
    """The files that an input means, where each belongs in the output folder - the tree below it is kept -, and
    whether it is a label, to be copied."""
    if given == str(STDIO):
        if not is_file(t.out):
            raise BadInput("- (standard input) has no name to keep: give --out FILE, or --out - for standard output")
        yield STDIO, Path("stdin"), False
        return
    if t.out != STDIO and folders.lies_inside(t.out, given):
        raise BadInput(f"--out {t.out} is inside the input folder {given}, where it would be read the next time: "
                       "name a folder outside")  # fmt: skip
    try:
        found = folders.find(given, READ)
    except BadInput as nothing:  # there yet, it may be
        if not t.watch:
            raise
        lines.append(str(nothing))
        return
    labels = t.with_labels and os.path.isdir(given)
    if not labels:
        lines += folders.remarks(found)
    for path in found.paths:
        yield path, found.place(path), labels and found.is_label(path)
    if labels and found.left_out:
        with suppress(BadInput):  # only folders that cannot be read
            others = folders.find(given, found.left_out)
            yield from ((path, others.place(path), True) for path in others.paths)


def to_one(t: Translate, source: Path) -> Job:
    """The job of the only input, where --out says what its result is called."""
    film = source != STDIO and clips.is_film(source)
    if t.out == STDIO:
        if film or t.compare or t.round_trip:
            raise BadInput("--out -: standard output takes one image; name a file or a folder")
        return Job(source, STDIO, format=FORMATS.get(t.format or ""))
    ending = t.out.suffix.lower()
    asked = SUFFIXES.get(ending)
    change = asked is None or (ending in clips.ANIMATIONS and t.seconds is not None)
    if film or (change and ending in clips.WRITTEN):
        if source == STDIO:
            raise BadInput(f"--out {t.out}: a film of the change needs a named photo, not standard input")
        for_images = ["--round-trip"] * t.round_trip + ["--format"] * (t.format is not None)
        if for_images:
            raise BadInput(f"{for_images[0]} is for images, and {source if film else t.out} is a video: leave it out")
        if film and t.seconds is not None:
            raise BadInput(f"--seconds {t.seconds:g} is for a photo, and {source} is a video: leave it out")
        if ending not in clips.WRITTEN:
            raise BadInput(
                f"--out {t.out}: {source} is a video; videos are written as {' '.join(sorted(clips.WRITTEN))}"
            )
        return Job(source, t.out, "film" if film else "change", None, t.compare)
    if asked is None:
        raise BadInput(f"--out {t.out}: that is no name for an image ({' '.join(SUFFIXES)})")
    if t.seconds is not None:
        raise BadInput(f"--seconds {t.seconds:g} is for a film of the change: name one, such as -o evening.mp4")
    if t.format is not None and FORMATS[t.format] != asked:
        raise BadInput(f"--out {t.out} and --format {t.format} contradict each other: leave one out")
    return Job(source, t.out, "picture", asked, t.compare, t.round_trip)


def to_folder(t: Translate, source: Path, relative: Path, label: bool = False) -> Job:
    """The job of one of many inputs: its result has its name and its place in the tree."""
    if label:
        return Job(source, t.out / relative, "copy")
    if clips.is_film(source):
        target = t.out / relative.with_name(clips.result_name(source))
        return Job(source, target, "film", None, t.compare, t.round_trip)
    format = FORMATS.get(t.format or "")
    ending = relative.suffix.lower()
    if format is not None and SUFFIXES.get(ending) != format:
        relative = relative.with_suffix(f".{t.format}")
    elif ending not in SUFFIXES:
        relative = relative.with_suffix(STAND_INS.get(ending, ".png"))
        format = SUFFIXES[relative.suffix]
    return Job(source, t.out / relative, "picture", format, t.compare, t.round_trip)


def check(jobs: list[Job]) -> tuple[list[Job], dict[Job, str]]:
    """Each job once; and those that cannot be, since their results would land on each other, on an input or a folder,
    or since a video has no way back, with the reason."""
    writers: dict[Path, Job] = {}
    wrong: dict[Job, str] = {}
    sources = {os.path.realpath(job.source) for job in jobs if job.source != STDIO}
    for job in jobs:
        if job.kind == "film" and job.round_trip:
            wrong[job] = f"--round-trip is for images, and {job.source} is a video: translate it apart"
        for target in job.targets if job.target != STDIO else ():
            other = writers.setdefault(target, job)
            if other.target != job.target or os.path.realpath(other.source) != os.path.realpath(job.source):
                both = f"{other.source} and {job.source} would both be written to {target}"
                wrong.setdefault(job, f"{both}: translate them one after the other, with another --out each")
            if os.path.isdir(target):
                wrong.setdefault(job, f"{target} is a folder, where a file is to be written: name another --out")
            if os.path.realpath(target) in sources:
                wrong.setdefault(job, f"{target} is an input, and would be overwritten: name another --out")
    return list({job.target: job for job in jobs if job not in wrong}.values()), wrong


def translate(t: Translate, translator: Translator, todo: list[Job]) -> Iterator[Work]:
    """Do the jobs, pictures first; yields each when it is done or has failed."""
    single = [job for job in todo if job.kind == "picture"]
    if single:
        yield from followed("translating", len(single), translate_pictures(t, translator, single))
    for job in todo:
        if job.kind in ("film", "change"):
            with progress_bar(job.source.name) as update:
                yield guarded(partial(do_film, t, translator, update), Work(job))
    yield from (guarded(copy, Work(job)) for job in todo if job.kind == "copy")


def copy(work: Work) -> Work:
    with replacing(work.job.target) as temporary:
        shutil.copy2(work.job.source, temporary)
    return work


def do_film(t: Translate, translator: Translator, update: Update, work: Work) -> Work:
    source, target = work.job.source, work.job.target
    options: dict[str, Any] = {"to": t.to, "size": t.size, "strength": t.strength, "codec": t.codec,
                               "quality": t.quality, "compare": t.compare, "keep": work.job.keep,
                               "on_progress": update}  # fmt: skip
    if work.job.kind == "film":
        notes = translate_film(translator, source, target, steady=t.steady, **options)
    else:
        notes = show_change(translator, source, target, seconds=4.0 if t.seconds is None else t.seconds, **options)
    for note in notes:
        say(note)
    return work


def report(t: Translate, there_already: int, finished: list[Work]) -> None:
    """Say what was done; raise what failed."""
    errors = [work for work in finished if work.error is not None]
    if len(errors) == 1 and len(finished) == 1 and not there_already:
        raise BadInput(errors[0].error)
    tell(t, there_already, finished)
    if errors:
        names = ", ".join(work.job.source.name for work in errors[:TOLD])
        more = f" and {len(errors) - TOLD} more" if len(errors) > TOLD else ""
        raise Failed(f"{len(errors)} of {len(finished)} failed: {names}{more}")


def tell(t: Translate, there_already: int, finished: list[Work]) -> None:
    """Say what was done, what was left out or changed, and the first that failed."""
    errors = [work.error for work in finished if work.error is not None]
    copied = sum(work.job.kind == "copy" and work.error is None for work in finished)
    if t.out != STDIO:
        labels = f" and copied {words(copied, 'label')}" if copied else ""
        was, them = ("was", "it") if there_already == 1 else ("were", "them")
        kept = f"; {there_already} {was} there already (--overwrite does {them} again)" if there_already else ""
        say(f"translated {len(finished) - len(errors) - copied}{labels} to {t.out}{kept}")
    for lines in (pictures.told((work.job.source, work.notes) for work in finished), errors):
        for line in lines[:TOLD]:
            say(f"  {line}")
        if len(lines) > TOLD:
            say(f"  and {len(lines) - TOLD} more of this kind")

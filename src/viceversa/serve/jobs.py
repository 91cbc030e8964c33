"""Work that takes longer than a request should: films, animations, several pictures, archives of pictures.

Each job has a folder of its own below the server's, which goes with it: when it is cancelled, an hour after it
ended, when the server stops, and, where the server was killed, at the next start.
"""

import secrets
import shutil
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from io import BytesIO
from itertools import count
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import av
from filelock import FileLock
from PIL import Image, UnidentifiedImageError

from ..config import Translate
from ..data import pictures
from ..errors import BadInput, Failed
from ..files import DISK_FULL
from ..terminal import words
from ..translation import pipeline
from ..translation.command import SUFFIXES
from ..translation.films import translate_film
from .queue import InTurn, Queue, pixels_at
from .refusal import Refusal, in_fields
from .served import Served

KEPT_SECONDS = 3600.0
"""How long a result is kept."""
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF")
"""What is decoded for strangers: of all formats that are read, the common ones, whose decoders are looked after."""
ENDING = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "TIFF": ".tiff", "BMP": ".bmp", "GIF": ".gif"}
"""Of what is written."""
WAITING = 16
"""Jobs that may be waiting or running."""
KEPT = 64
"""Jobs, ended ones included, that are kept at a time."""
ENTRIES = 1000
"""Pictures of one job."""
FRAMES = 400_000_000
"""Pixels of all frames of an animation, which is written whole."""
TOLD = 20
"""Failures that a job tells one by one."""
LONGEST_NAME = 150
"""Bytes of a client's name: more may follow it, and 255 is what a file system takes."""
PREFIX = "viceversa-serve-"
FULL = "the server's disk is full: come back later, or send something smaller"

State = Literal["waiting", "running", "done", "failed", "cancelled"]


class Cancelled(Exception):
    pass


@dataclass(eq=False)
class Job:
    """One job, as its client sees it."""

    folder: Path
    served: Served
    to: str
    files: list[tuple[str, Path]]
    """What was sent: the client's names, made harmless, and where it lies."""
    format: str | None = None
    size: int | None = None
    strength: float = 1.0
    id: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    state: State = "waiting"
    done: int = 0
    total: int | None = None
    name: str | None = None
    """What the client is told to call the result; here it lies under a name of ours."""
    result: Path | None = None
    error: str | None = None
    failed: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    fetched: bool = False
    stop: bool = False
    """Does nobody want the rest?"""
    ended: float | None = None

    def is_over(self) -> bool:
        return self.state in ("done", "failed", "cancelled")

    def about(self) -> dict[str, Any]:
        about = {name: getattr(self, name) for name in ("id", "state", "done", "total", "error", "notes")}
        about["failed"] = self.failed[:TOLD] + ["and others"] * (len(self.failed) > TOLD)
        about["model"], about["to"] = self.served.name, self.to
        about["result"] = f"/v1/jobs/{self.id}/result" if self.state == "done" else None
        about["name"] = self.name if self.state == "done" else None
        return about

    def step(self, done: int, total: int | None = None) -> None:
        """Note the progress. Raises Cancelled where nobody wants the rest."""
        self.done, self.total = done, total or self.total
        if self.stop:
            raise Cancelled


class Jobs:
    """The jobs of a server, worked off one after the other; their images take turns with everybody's."""

    def __init__(self, folder: Path, queue: Queue, largest: float, megapixels: float):
        """`largest`: bytes that an archive may hold unpacked."""
        self.folder, self.queue, self.largest, self.megapixels = folder, queue, largest, megapixels
        self.all: dict[str, Job] = {}
        self.worker = ThreadPoolExecutor(1, "job")

    def check_room(self) -> None:
        """Raises Refusal (503, 507) where no further job can be taken. Where many are kept, the oldest that is over
        goes, of those that were fetched if there are any."""
        self.forget()
        over = [job for job in list(self.all.values()) if job.ended is not None]
        over.sort(key=lambda job: (not job.fetched, job.ended))
        for job in over[: max(0, len(self.all) - KEPT + 1)]:
            self.cancel(job)
        if sum(not job.is_over() for job in self.all.values()) >= WAITING:
            raise Refusal(503, "too many jobs are waiting, come back later", retry_after=30)
        if shutil.disk_usage(self.folder).free < 3 * self.largest:
            raise Refusal(507, "the server's disk is nearly full: no jobs are taken")

    def add(self, job: Job) -> None:
        self.all[job.id] = job
        self.worker.submit(self.run, job)

    def named(self, id: str) -> Job:
        """Raises Refusal (404)."""
        self.forget()
        if id not in self.all:
            raise Refusal(404, "no such job: it is gone an hour after it ended, and at once when it is cancelled")
        return self.all[id]

    def cancel(self, job: Job) -> None:
        """Forget a job; what runs of it ends at its next image."""
        job.stop = True
        self.all.pop(job.id, None)
        if job.is_over() or job.state == "waiting":
            job.state = "cancelled"
            shutil.rmtree(job.folder, ignore_errors=True)

    def forget(self) -> None:
        """Let go of what has been over for an hour."""
        now = time.monotonic()
        for job in list(self.all.values()):
            if job.ended is not None and now - job.ended > KEPT_SECONDS:
                self.cancel(job)

    def close(self) -> None:
        """End at the next image."""
        for job in list(self.all.values()):
            job.stop = True
        self.worker.shutdown(cancel_futures=True)

    def run(self, job: Job) -> None:
        job.state = "running"
        try:
            job.step(0)
            self.translate(job)
            job.state = "done"
        except Cancelled:
            job.state = "cancelled"
        except (BadInput, Failed, Refusal) as error:
            job.error, job.state = self.harmless(job, str(error)), "failed"
        except Exception as error:  # told to the person at the server, not to clients
            print(f"viceversa: a job failed: {type(error).__name__}: {error}", file=sys.stderr)
            full = isinstance(error, OSError) and error.errno in DISK_FULL
            job.error, job.state = FULL if full else "the server could not do it, and has told its owner why", "failed"
        finally:
            job.ended = time.monotonic()
            shutil.rmtree(job.folder / "in", ignore_errors=True)
            if job.state != "done" or job.stop:
                shutil.rmtree(job.folder, ignore_errors=True)

    def harmless(self, job: Job, sentence: str) -> str:
        """In a client's words: its names of files, and not their places on this machine; fields, and not flags."""
        sentence = in_fields(sentence)
        for name, path in [*job.files, (job.name, job.result)]:
            sentence = sentence.replace(str(path), str(name))
        return sentence.replace(f"{job.folder}/out/", "").replace(f"{job.folder}/in/", "")

    def translate(self, job: Job) -> None:
        """Make the job's result."""
        translator = InTurn(job.served.translator, self.queue)
        out = job.folder / "out"
        out.mkdir()
        name, path = job.files[0]
        kind = kind_of(path)
        if len(job.files) == 1 and kind in FILMS:
            self.check_film(path, kind, job.size)
            job.name, job.result = f"{PurePosixPath(name).stem}.{job.to}{path.suffix}", out / f"film{path.suffix}"
            how: Any = {"to": job.to, "size": job.size, "strength": job.strength}
            notes = translate_film(translator, path, job.result, **how, on_progress=job.step)
            job.notes = [self.harmless(job, note) for note in notes]
            if job.format:
                job.notes.append(f"format={job.format} is for pictures, and not heeded for a film or an animation")
            return
        if len(job.files) == 1 and kind == "zip":
            job.files = list(self.unpacked(job, path))
        job.name, job.result = f"{job.to}.zip", out / "result.zip"
        self.translate_pictures(job, translator, job.result)

    def translate_pictures(self, job: Job, translator: InTurn, archive: Path) -> None:
        """The pictures of a job as one archive; what cannot be read is left out, and told."""
        wanted = Translate(model="", inputs=(), to=job.to, size=job.size, strength=job.strength)
        job.total = len(job.files)
        format = SUFFIXES[f".{job.format}"] if job.format else None
        names = {path: name for name, path in job.files}
        entries: set[PurePosixPath] = set()
        notes: list[tuple[Path, tuple[str, ...]]] = []
        todo: list[pipeline.Job] = []
        for path, name in names.items():
            try:
                look_at(path.read_bytes(), self.megapixels, job.size)
            except Refusal as refusal:
                job.failed.append(f"{name}: {refusal.sentence}")
            else:
                todo.append(pipeline.Job(path, archive.with_name(f"{len(todo):04d}"), format=format))
        job.step(len(job.failed))
        works: Any = pipeline.translate_pictures(wanted, translator, todo)
        with zipfile.ZipFile(archive, "w") as packed, closing(works):
            for work in works:
                if work.error is not None:
                    job.failed.append(self.harmless(job, work.error))
                else:
                    packed.write(work.job.target, entry(names[work.job.source], work.job.target, entries))
                    work.job.target.unlink()
                    notes.append((work.job.source, work.notes))
                job.step(job.done + 1)
            if job.failed:
                packed.writestr("failed.txt", "\n".join(job.failed) + "\n")
        job.notes += [self.harmless(job, line) for line in pictures.told(notes)]
        if len(job.failed) == len(job.files):
            none = f"none of {len(job.files)} could be translated: " if len(job.files) > 1 else ""
            raise Failed(f"{none}{job.failed[0]}")

    def unpacked(self, job: Job, path: Path) -> Iterator[tuple[str, Path]]:
        """The files of an archive, within limits, under numbers: no name in it says where they go."""
        try:
            with zipfile.ZipFile(path) as archive:
                found = [entry for entry in archive.infolist() if not entry.is_dir()]
                entries = [entry for entry in found if not hidden(entry.filename)]
                if not entries:
                    raise Failed(f"the archive holds no files{' but hidden ones' if found else ''}")
                if len(entries) < len(found):
                    job.notes.append(f"{words(len(found) - len(entries), 'hidden file')} of the archive left out")
                if len(entries) > ENTRIES:
                    raise Failed(f"the archive holds {len(entries)} files: send at most {ENTRIES} at a time")
                if sum(entry.file_size for entry in entries) > self.largest:
                    raise Failed(f"the archive holds more than {self.largest / 1e6:g} MB unpacked")
                for number, entry in enumerate(entries):
                    target = job.folder / "in" / f"unpacked-{number:04d}"
                    with archive.open(entry) as source, open(target, "wb") as file:
                        shutil.copyfileobj(source, file)
                    job.step(0, len(entries))
                    yield harmless_name(entry.filename), target
        except (Failed, Cancelled):
            raise
        except Exception as wrong:  # zipfile and its decompressors raise nearly anything when an archive is broken
            raise Failed(f"the archive cannot be unpacked ({str(wrong) or type(wrong).__name__})") from None

    def check_film(self, path: Path, kind: str, size: int | None) -> None:
        """Raises Failed for what is too large to be decoded here."""
        try:
            if kind in ("gif", "webp"):
                with Image.open(path, formats=("GIF", "WEBP")) as image:
                    sides, frames = [(image.width, image.height)], getattr(image, "n_frames", 1)
                    pixels = image.width * image.height
                if pixels * frames > FRAMES:
                    raise Failed(f"the animation holds {frames} frames of {pixels / 1e6:.1f} megapixels: too much here")
            else:
                with av.open(str(path)) as film:
                    sides = [(stream.width, stream.height) for stream in film.streams.video]
        except (OSError, SyntaxError, EOFError, ValueError, Image.DecompressionBombError):
            return  # told in the words of whoever reads it
        if any(pixels_at(*side, size) > self.megapixels * 1e6 for side in sides):
            at_size = f" at size={size}" if size else ""
            raise Failed(f"the film is larger than {self.megapixels:g} megapixels a frame{at_size}")


def hidden(name: str) -> bool:
    parts = PurePosixPath(name.replace("\\", "/")).parts
    return any(part.startswith((".", "__MACOSX")) and part != ".." for part in parts)


def harmless_name(name: str | None, otherwise: str = "picture") -> str:
    """A client's name of a file as a relative one, of letters, digits, spaces, dots and dashes."""
    parts = PurePosixPath((name or "").replace("\\", "/")).parts
    kept = ["".join(c for c in part if c.isalnum() or c in " ._-()").strip(" .") for part in parts]
    return "/".join(shortened(part) for part in kept[-4:] if part) or otherwise


def shortened(name: str) -> str:
    """Not longer than names of files may be; its ending stays."""
    ending = PurePosixPath(name).suffix
    if len(ending) > 16:
        ending = ""
    stem = name.removesuffix(ending).encode()[: LONGEST_NAME - len(ending.encode())]
    return stem.decode(errors="ignore").strip(" .") + ending


def entry(name: str, made: Path, taken: set[PurePosixPath]) -> PurePosixPath:
    """What a picture is called in an archive: as its client called it, with the ending of what was made of it, and
    with a number where that is `taken`."""
    with pictures.own_limits(), Image.open(made, formats=FORMATS) as image:
        format = str(image.format)
    called = PurePosixPath(name)
    if SUFFIXES.get(called.suffix.lower()) != format:
        stem = called.stem if called.suffix.lower() in pictures.SUFFIXES else called.name
        called = called.with_name(stem + ENDING[format])
    numbered = (called.with_stem(f"{called.stem}-{number}") for number in count(2))
    free = called if called not in taken else next(other for other in numbered if other not in taken)
    taken.add(free)
    return free


FILMS = ("mp4", "mov", "mkv", "webm", "avi", "gif", "webp")
"""What is taken for a film, by the kind that its first bytes tell, which is also the ending that it is given here."""


def kind_of(source: Path | bytes) -> str:
    """zip, image, or a film's kind, by the bytes: names lie, and what FFmpeg would take for a playlist could name
    files of this machine. Empty for what is not known."""
    with open(source, "rb") if isinstance(source, Path) else BytesIO(source) as file:
        head = file.read(4096)
        if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
            return "zip"
        if head[4:8] == b"ftyp" and head[8:12] not in (b"avif", b"heic", b"mif1"):
            return "mov" if head[8:12] == b"qt  " else "mp4"
        if head[:4] == b"\x1a\x45\xdf\xa3":
            return "webm" if b"webm" in head[:64] else "mkv"
        if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
            return "avi"
        with (
            suppress(Exception),
            pictures.own_limits(),
            Image.open(file, formats=FORMATS) as image,
        ):
            moves = image.format in ("GIF", "WEBP") and getattr(image, "is_animated", False)
            return str(image.format).lower() if moves else "image"
    return ""


def look_at(data: bytes, megapixels: float, size: int | None = None) -> int:
    """The pixels of a picture, at `size` where it is enlarged to that, before anything is decoded. Raises Refusal for
    what is not to be decoded."""
    if not data:
        raise Refusal(400, "the file is empty")
    if data[128:132] == b"DICM":  # which would be read as such, whatever it begins with
        raise Refusal(415, "DICOM files are not taken here")
    try:
        with pictures.own_limits(), Image.open(BytesIO(data), formats=FORMATS) as image:
            width, height, format = image.width, image.height, image.format
            several = getattr(image, "is_animated", False)  # n_frames is slow where there are many
    except UnidentifiedImageError:
        raise Refusal(415, f"not a picture that can be read ({', '.join(FORMATS)})") from None
    except Image.DecompressionBombError:
        raise Refusal(413, f"the picture is larger than {megapixels:g} megapixels") from None
    except Exception:  # decoders raise nearly anything when a file is broken
        raise Refusal(400, "the picture is broken") from None
    pixels = pixels_at(width, height, size)
    if pixels > megapixels * 1e6:
        at_size = f", {pixels / 1e6:,.0f} million at size={size}" if pixels > width * height else ""
        raise Refusal(413, f"the picture has {width}x{height} pixels{at_size}: at most {megapixels:g} megapixels are "
                      "taken here")  # fmt: skip
    if several and format != "MPO":  # a phone's JPEG, with a depth map
        raise Refusal(415, "the file holds several pictures: send a GIF or WebP that moves to /v1/jobs, by itself; "
                      "pages and animated PNG are not taken")  # fmt: skip
    return pixels


@contextmanager
def own_folder() -> Iterator[Path]:
    """A server's folder for temporary files, removed at the end. Those of servers that were killed are removed first:
    the lock in each is the operating system's, and gone with its process."""
    for old in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        if not is_alive(old):
            shutil.rmtree(old, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True) as folder, FileLock(f"{folder}/lock"):
        yield Path(folder)


def is_alive(folder: Path) -> bool:
    """Does the server of this folder run?"""
    try:
        if not (folder / "lock").exists():  # it may just be starting
            return time.time() - folder.stat().st_mtime < 60
        with FileLock(folder / "lock", blocking=False):
            return False
    except OSError:  # it has the lock, or is somebody else's
        return True

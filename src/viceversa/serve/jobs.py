"""Work that takes longer than a request should: films, animations, several pictures, archives of pictures.

Each job has a folder of its own below the server's, which goes with it: when it is cancelled, an hour after it
ended, when the server stops, and, where the server was killed, at the next start.
"""

import secrets
import shutil
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import av
from filelock import FileLock
from PIL import Image, UnidentifiedImageError

from ..config import Translate
from ..data import pictures as images
from ..errors import BadInput, Failed
from ..translation.command import SUFFIXES
from ..translation.films import translate_film
from ..translation.pipeline import Job as Picture
from ..translation.pipeline import translate_pictures
from .queue import InTurn, Queue
from .refusal import Refusal
from .served import Served

KEPT_SECONDS = 3600.0
"""How long a result is kept."""
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF")
"""What is decoded for strangers: of all formats that are read, the common ones, whose decoders are looked after."""
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
PREFIX = "viceversa-serve-"

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
    id: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    state: State = "waiting"
    done: int = 0
    total: int | None = None
    result: Path | None = None
    error: str | None = None
    failed: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    fetched: bool = False
    stop: threading.Event = field(default_factory=threading.Event)
    ended: float | None = None

    def is_over(self) -> bool:
        return self.state in ("done", "failed", "cancelled")

    def about(self) -> dict[str, Any]:
        about = {name: getattr(self, name) for name in ("id", "state", "done", "total", "error", "notes")}
        about["failed"] = self.failed[:TOLD] + ["and others"] * (len(self.failed) > TOLD)
        about["model"], about["to"] = self.served.name, self.to
        about["result"] = f"/v1/jobs/{self.id}/result" if self.state == "done" else None
        about["name"] = self.result.name if self.result else None
        return about

    def step(self, done: int, total: int | None = None) -> None:
        """Note the progress. Raises Cancelled where nobody wants the rest."""
        self.done, self.total = done, total or self.total
        if self.stop.is_set():
            raise Cancelled


class Jobs:
    """The jobs of a server, worked off one after the other; their images take turns with everybody's."""

    def __init__(self, folder: Path, queue: Queue, largest: float, megapixels: float):
        """`largest`: bytes that an archive may hold unpacked."""
        self.folder, self.queue, self.largest, self.megapixels = folder, queue, largest, megapixels
        self.all: dict[str, Job] = {}
        self.worker = ThreadPoolExecutor(1, "job")

    def check_room(self) -> None:
        """Raises Refusal (503, 507) where no further job can be taken."""
        self.forget()
        if sum(not job.is_over() for job in self.all.values()) >= WAITING or len(self.all) >= KEPT:
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
        job.stop.set()
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
            job.stop.set()
        self.worker.shutdown(cancel_futures=True)

    def run(self, job: Job) -> None:
        if job.state == "cancelled":
            return
        job.state = "running"
        try:
            job.result = self.translate(job)
            job.state = "done"
        except Cancelled:
            job.state = "cancelled"
        except (BadInput, Failed, Refusal) as error:
            job.error, job.state = self.harmless(job, str(error)), "failed"
        except Exception as error:  # told to the person at the server, not to clients
            print(f"viceversa: a job failed: {type(error).__name__}: {error}", file=sys.stderr)
            job.error, job.state = "the server could not do it, and has told its owner why", "failed"
        finally:
            job.ended = time.monotonic()
            shutil.rmtree(job.folder / "in", ignore_errors=True)
            if job.state != "done":
                shutil.rmtree(job.folder, ignore_errors=True)

    def harmless(self, job: Job, sentence: str) -> str:
        """With the client's names of files, without their places on this machine."""
        for name, path in job.files:
            sentence = sentence.replace(str(path), name)
        return sentence.replace(f"{job.folder}/out/", "").replace(f"{job.folder}/in/", "")

    def translate(self, job: Job) -> Path:
        """The job's result."""
        translator = InTurn(job.served.translator, self.queue)
        out = job.folder / "out"
        out.mkdir()
        name, path = job.files[0]
        kind = kind_of(path)
        if len(job.files) == 1 and kind in FILMS:
            self.check_film(path, kind)
            target = out / f"{PurePosixPath(name).stem}.{job.to}{path.suffix}"
            notes = translate_film(translator, path, target, to=job.to, size=job.size, on_progress=job.step)
            job.notes = [self.harmless(job, note) for note in notes]
            return target
        if len(job.files) == 1 and kind == "zip":
            job.files = list(self.unpacked(job, path))
        return self.translate_pictures(job, translator, out)

    def translate_pictures(self, job: Job, translator: InTurn, out: Path) -> Path:
        """The pictures of a job as one archive; what cannot be read is left out, and told."""
        wanted = Translate(model="", inputs=(), to=job.to, format=job.format, size=job.size)  # type: ignore[arg-type]
        job.total = len(job.files)
        format = SUFFIXES[f".{job.format}"] if job.format else None
        names: dict[Path, PurePosixPath] = {}
        todo: list[Picture] = []
        for name, path in job.files:
            try:
                look_at(path.read_bytes(), self.megapixels)
            except Refusal as refusal:
                job.failed.append(f"{name}: {refusal.sentence}")
                continue
            target = PurePosixPath(name)
            if format is not None and SUFFIXES.get(target.suffix.lower()) != format:
                target = target.with_suffix(f".{job.format}")
            while target in names.values():
                target = target.with_stem(f"{target.stem}-again")
            names[path] = target
            todo.append(Picture(path, out / f"{len(todo):04d}", format=format))
        archive = out / f"{job.to}.zip"
        job.step(len(job.failed))
        works: Any = translate_pictures(wanted, translator, todo)
        with zipfile.ZipFile(archive, "w") as packed, closing(works):
            for work in works:
                if work.error is not None:
                    job.failed.append(self.harmless(job, work.error))
                else:
                    packed.write(work.job.target, names[work.job.source])
                    work.job.target.unlink()
                job.step(job.done + 1)
            if job.failed:
                packed.writestr("failed.txt", "\n".join(job.failed) + "\n")
        if len(job.failed) == len(job.files):
            none = f"none of {len(job.files)} could be translated: " if len(job.files) > 1 else ""
            raise Failed(f"{none}{job.failed[0]}")
        return archive

    def unpacked(self, job: Job, path: Path) -> Iterator[tuple[str, Path]]:
        """The files of an archive, within limits, under numbers: no name in it says where they go."""
        try:
            with zipfile.ZipFile(path) as archive:
                entries = [entry for entry in archive.infolist() if not (entry.is_dir() or hidden(entry.filename))]
                if not entries:
                    raise Failed("the archive holds no files")
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

    def check_film(self, path: Path, kind: str) -> None:
        """Raises Failed for what is too large to be decoded here."""
        try:
            if kind in ("gif", "webp"):
                with Image.open(path, formats=("GIF", "WEBP")) as image:
                    pixels, frames = image.width * image.height, getattr(image, "n_frames", 1)
                if pixels * frames > FRAMES:
                    raise Failed(f"the animation holds {frames} frames of {pixels / 1e6:.1f} megapixels: too much here")
            else:
                with av.open(str(path)) as film:
                    pixels = max((stream.width * stream.height for stream in film.streams.video), default=0)
        except (OSError, SyntaxError, EOFError, ValueError, Image.DecompressionBombError):
            return  # told in the words of whoever reads it
        if pixels > self.megapixels * 1e6:
            raise Failed(f"the film is larger than {self.megapixels:g} megapixels a frame")


def hidden(name: str) -> bool:
    parts = PurePosixPath(name.replace("\\", "/")).parts
    return any(part.startswith((".", "__MACOSX")) and part != ".." for part in parts)


def harmless_name(name: str | None, otherwise: str = "picture") -> str:
    """A client's name of a file as a relative one, of letters, digits, spaces, dots and dashes."""
    parts = PurePosixPath((name or "").replace("\\", "/")).parts
    kept = ["".join(c for c in part if c.isalnum() or c in " ._-()").strip(" .")[:100] for part in parts]
    return "/".join(part for part in kept[-4:] if part) or otherwise


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
            images.own_limits(),
            Image.open(file, formats=FORMATS) as image,
        ):
            moves = image.format in ("GIF", "WEBP") and getattr(image, "is_animated", False)
            return str(image.format).lower() if moves else "image"
    return ""


def look_at(data: bytes, megapixels: float) -> int:
    """The pixels of a picture, before anything is decoded. Raises Refusal for what is not to be decoded."""
    if not data:
        raise Refusal(400, "the file is empty")
    if data[128:132] == b"DICM":  # which would be read as such, whatever it begins with
        raise Refusal(415, "DICOM files are not taken here")
    try:
        with images.own_limits(), Image.open(BytesIO(data), formats=FORMATS) as image:
            pixels, frames, format = image.width * image.height, getattr(image, "n_frames", 1), image.format
            size = f"{image.width}x{image.height}"
    except UnidentifiedImageError:
        raise Refusal(415, f"not a picture that can be read ({', '.join(FORMATS)})") from None
    except Image.DecompressionBombError:
        raise Refusal(413, f"the picture is larger than {megapixels:g} megapixels") from None
    except Exception:  # decoders raise nearly anything when a file is broken
        raise Refusal(400, "the picture is broken") from None
    if pixels > megapixels * 1e6:
        raise Refusal(413, f"the picture has {size} pixels: at most {megapixels:g} megapixels are taken here")
    if frames > 1 and format != "MPO":  # a phone's JPEG, with a depth map
        raise Refusal(415, f"the file holds {frames} pictures: animations go to /v1/jobs")
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

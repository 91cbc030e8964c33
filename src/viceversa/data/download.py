"""Files that are fetched: whole and checked or absent, resumed where a download broke off, from the next host
where one is down. For the weights of rulers (kept in the cache) and for public sets of images alike."""

import errno
import hashlib
import os
import shutil
import sys
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from ..errors import BadInput, Failed
from ..files import DISK_FULL
from ..terminal import progress_bar

BLOCK = 1 << 20
TIMEOUT = 30.0
"""Seconds without a word from a host."""

OF_THIS_MACHINE = (*DISK_FULL, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST, errno.EISDIR)
"""Errors that no other host would mend."""


@dataclass(frozen=True)
class Download:
    """A public file: where it lies, and the checksum it must have ("": none is known)."""

    url: str
    sha256: str
    mirrors: tuple[str, ...] = ()
    """Other addresses of the same file, asked in turn where `url` does not answer."""

    @property
    def name(self) -> str:
        return self.url.rsplit("/", 1)[-1]

    @property
    def sources(self) -> list[str]:
        """The addresses in the order they are asked: first the same file name below $VICEVERSA_MIRROR."""
        mirror = os.environ.get("VICEVERSA_MIRROR")
        first = [f"{mirror.rstrip('/')}/{self.name}"] if mirror else []
        return [*first, self.url, *self.mirrors]


def cache_folder() -> Path:
    """$VICEVERSA_CACHE, else $XDG_CACHE_HOME/viceversa, else ~/.cache/viceversa."""
    if chosen := os.environ.get("VICEVERSA_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "viceversa"


def fetch(wanted: Download, *, alternative: str = "") -> Path:
    """The path of a whole, checked copy in the cache; downloaded if it is not there yet.

    Without a network, BadInput says which file to put where, and names the `alternative`; so it does for a
    file there whose checksum is wrong.
    """
    path = cache_folder() / "weights" / wanted.name
    instead = f", or use {alternative}" if alternative else ""
    try:
        return retrieve(wanted, path)
    except Failed as failed:
        raise BadInput(f"{failed}: put {wanted.url} at {path}{instead}") from None
    except OSError as error:
        raise BadInput(
            f"{path} cannot be written ({error.strerror}): set VICEVERSA_CACHE to a folder that can{instead}"
        ) from None


def retrieve(wanted: Download, path: Path) -> Path:
    """`path`, where the wanted file lies now, whole and with its checksum.

    What a broken download left beside it (.partial) is resumed by HTTP Range, be it from another host. Raises
    BadInput for another file there, and Failed with all that was tried.
    """
    if path.exists():
        if odd := mismatch(path, wanted.sha256):
            raise BadInput(f"{path} {odd}: delete it and run again, or put {wanted.url} there")
        return path
    partial = path.with_name(f"{path.name}.partial")
    partial.parent.mkdir(parents=True, exist_ok=True)
    wrong: list[str] = []
    for source in (sources := wanted.sources):
        try:
            download(source, partial)
            if odd := mismatch(partial, wanted.sha256):
                partial.unlink()  # or every later try would resume what is wrong
                raise Failed(f"{source} {odd}, removed")
        except Failed as failed:
            wrong.append(str(failed))
            if len(wrong) < len(sources):
                print(f"{failed}: asking the next address", file=sys.stderr)
        else:
            partial.replace(path)
            return path
    raise Failed("; ".join(wrong))


def mismatch(path: Path, wanted: str) -> str:
    """What is said of a file with another checksum than `wanted`; "" where it is right, or none is known."""
    if not wanted or (found := sha256(path)) == wanted:
        return ""
    return f"has the wrong checksum (sha256 {found[:16]}..., not {wanted[:16]}...)"


def download(url: str, partial: Path) -> None:
    """Append to `partial` until it is whole; asks again as long as each attempt brings some bytes."""
    size = -1
    while True:
        have = partial.stat().st_size if partial.exists() else 0
        try:
            return append(url, partial, have)
        except (OSError, HTTPException, ValueError) as error:
            if isinstance(error, OSError) and error.errno in OF_THIS_MACHINE:
                error.filename = str(partial)
                raise
            refused = isinstance(error, ValueError | urllib.error.HTTPError)
            if refused or have <= size:
                raise Failed(f"cannot fetch {url} ({reason(error)})") from None
            size = have


def append(url: str, partial: Path, start: int) -> None:
    """One request for what is missing after `start` bytes; a server without Range sends all again."""
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        return  # nothing after `start`: it was whole already, or the checksum will tell
    with answer:
        rest = answer.status == 206
        length = int(answer.headers.get("Content-Length") or 0)
        total = length + start * rest
        need_room(partial, length)
        print(f"fetching {url}{f' ({total / 1e6:.1f} MB)' if length else ''}", file=sys.stderr)
        with open(partial, "ab" if rest else "wb") as file, progress_bar("MB", total // 10**6 or None) as update:
            received = 0
            while block := answer.read(BLOCK):
                received += file.write(block)
                update((received + start * rest) // 10**6)
        if received < length:
            raise ConnectionError(f"broke off after {received} of {length} bytes")


def need_room(path: Path, size: int) -> None:
    """OSError where `size` more bytes do not fit on the disk of `path`: said before, not in the middle."""
    if size > (free := shutil.disk_usage(path.parent).free):
        words = f"No space left on device ({size / 1e6:,.1f} MB are needed, {free / 1e6:,.1f} MB are free)"
        raise OSError(errno.ENOSPC, words, str(path))


def sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def reason(error: Exception) -> object:
    return error.reason if isinstance(error, urllib.error.URLError) else str(error) or type(error).__name__

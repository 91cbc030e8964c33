"""Files that are fetched on first use: checked, kept in the cache, resumed where a download broke off."""

import hashlib
import os
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from ..errors import BadInput

BLOCK = 1 << 20


@dataclass(frozen=True)
class Download:
    """A public file: where it lies, and the checksum it must have."""

    url: str
    sha256: str

    @property
    def name(self) -> str:
        return self.url.rsplit("/", 1)[-1]

    @property
    def source(self) -> str:
        """The address asked: `url`, or the same file name below $VICEVERSA_MIRROR, for a host that is down."""
        mirror = os.environ.get("VICEVERSA_MIRROR")
        return f"{mirror.rstrip('/')}/{self.name}" if mirror else self.url


def cache_folder() -> Path:
    """$VICEVERSA_CACHE, else $XDG_CACHE_HOME/viceversa, else ~/.cache/viceversa."""
    if chosen := os.environ.get("VICEVERSA_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "viceversa"


def fetch(wanted: Download, *, alternative: str = "", timeout: float = 30.0) -> Path:
    """The path of a whole, checked copy in the cache; downloaded if it is not there yet.

    What a broken download left is resumed (HTTP Range). Without a network, BadInput says which file to put
    where, and names the `alternative`; so it does for a file there whose checksum is wrong.
    """
    path = cache_folder() / "weights" / wanted.name
    if path.exists():
        return checked(path, wanted)
    partial = path.with_name(f"{path.name}.partial")
    partial.parent.mkdir(parents=True, exist_ok=True)
    by_hand = f"put {wanted.url} at {path}{f', or use {alternative}' if alternative else ''}"
    download(wanted.source, partial, timeout, by_hand)
    found = sha256(partial)
    if found != wanted.sha256:
        partial.unlink()  # else every later try would resume what is wrong
        raise BadInput(
            f"{wanted.source} has the wrong checksum (sha256 {found[:16]}..., not {wanted.sha256[:16]}...): "
            f"try again, or {by_hand}"
        )
    partial.replace(path)
    return path


def checked(path: Path, wanted: Download) -> Path:
    """`path`, or BadInput where it is not the wanted file."""
    if (found := sha256(path)) != wanted.sha256:
        raise BadInput(
            f"{path} has the wrong checksum (sha256 {found[:16]}..., not {wanted.sha256[:16]}...): delete it "
            f"and run again, or put {wanted.url} there"
        )
    return path


def download(url: str, partial: Path, timeout: float, by_hand: str) -> None:
    """Append to `partial` until it is whole; asks again as long as each attempt brings some bytes."""
    size = -1
    while True:
        have = partial.stat().st_size if partial.exists() else 0
        try:
            return append(url, partial, have, timeout)
        except (OSError, HTTPException, ValueError) as error:
            refused = isinstance(error, ValueError | urllib.error.HTTPError)
            if refused or have <= size:
                raise BadInput(f"cannot fetch {url} ({reason(error)}): {by_hand}") from None
            size = have


def append(url: str, partial: Path, start: int, timeout: float) -> None:
    """One request for what is missing after `start` bytes; a server without Range sends all again."""
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        answer = urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        return  # nothing after `start`: it was whole already, or the checksum will tell
    with answer, open(partial, "ab" if answer.status == 206 else "wb") as file:
        length = answer.headers.get("Content-Length")
        print(f"fetching {url}{f' ({int(length) / 1e6:.1f} MB)' if length else ''}", file=sys.stderr)
        received = 0
        while block := answer.read(BLOCK):
            received += file.write(block)
        if length is not None and received < int(length):
            raise ConnectionError(f"broke off after {received} of {length} bytes")


def sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def reason(error: Exception) -> object:
    return error.reason if isinstance(error, urllib.error.URLError) else error or type(error).__name__

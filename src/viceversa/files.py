"""Files that are complete or absent: written to a temporary name beside the real one, then renamed."""

import errno
import os
import re
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import BadInput

TEMPORARY = re.compile(r"\..*\.partial(\.\w+)?")
DISK_FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EROFS)
CODE = re.compile(r"(?:code: |os error )(\d+)")
"""The system's number of an error, in what safetensors says."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; rename it to `path` when the block ends well.

    The temporary name is short, whatever `path` is called, and ends like it, so that libraries which look at
    endings are content. An OSError names `path`, also where a library gives its own error for a full disk. The file
    may be read by whom the folder's others may be (safetensors writes for its owner alone).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    ending = path.suffix if re.fullmatch(r"\.\w{1,16}", path.suffix, re.ASCII) else ""
    temporary = path.with_name(f".{secrets.token_hex(4)}.partial{ending}")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode
        yield temporary
        with open(temporary, "r+b") as file:
            os.fsync(file.fileno())
        with suppress(OSError):  # file systems of others
            temporary.chmod(mode)
        temporary.replace(path)
        sync_folder(path.parent)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and error.errno is not None and error.filename in (None, str(temporary)):
            error.filename, error.filename2 = str(path), None
        elif type(error).__name__ == "SafetensorError":
            code = CODE.search(str(error))
            number = int(code[1]) if code else errno.EIO
            raise OSError(number, os.strerror(number) if code else str(error), str(path)) from None
        raise


def sync_folder(folder: Path) -> None:
    """Have the folder's own entries on the disk: after a power cut, what was renamed earlier is there if what was
    renamed later is. Where the system has no such thing (Windows, some network drives), nothing is done."""
    with suppress(OSError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files below `folder` that a killed process left.

    For whoever knows that nobody else writes there: the holder of a run's lock.
    """
    for here, _, names in os.walk(folder):
        for name in filter(TEMPORARY.fullmatch, names):
            with suppress(OSError):
                os.unlink(os.path.join(here, name))


def try_out(folder: Path) -> None:
    """Raise BadInput where nothing can be written: rather now than after the work."""
    made = []
    try:
        for place in reversed([folder, *folder.parents]):
            if not os.path.isdir(place):
                place.mkdir()
                made.append(place)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as wrong:
        raise BadInput(f"--out {folder}: cannot be written to ({wrong.strerror}); name another folder") from None
    finally:
        for place in reversed(made):
            with suppress(OSError):
                place.rmdir()


def write_text(path: Path, text: str) -> None:
    """In UTF-8; of file names that are not, the odd bytes as \\udcxx, which is what JSON reads back."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_bytes(path: Path, data: bytes) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(data)

"""This process: Ctrl-C and its like, and the run folder for itself alone."""

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from filelock import FileLock, Timeout

from .. import distributed
from ..errors import BadInput, Failed
from ..files import write_text
from ..terminal import Say
from . import checkpoint
from .settings import read_config

GONE = "{run} was moved or removed while it trained: put it back, or give --out where it is now"


class Stop:
    """`with Stop() as stop:` ... `if stop.signal:` save and go. A second Ctrl-C ends at once.

    The handler of Ctrl-C, SIGTERM and SIGHUP (a lost connection) only sets a flag, which the work looks at
    between two steps. What is ignored (by nohup) stays ignored.
    """

    def __init__(self) -> None:
        self.signal = 0
        self.before: dict[int, Any] = {}

    def __enter__(self) -> "Stop":
        if threading.current_thread() is threading.main_thread():  # Python allows handlers nowhere else
            for number in (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", None)):
                if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                    self.before[number] = signal.signal(number, self.handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def handle(self, number: int, frame: FrameType | None) -> None:
        if self.signal:
            raise KeyboardInterrupt
        self.signal = number


@contextmanager
def alone_in(run: Path, say: Say) -> Iterator[Callable[[], None]]:
    """The run folder for this process alone, from the first look to the end. Raises BadInput when it is taken.

    The lock is the operating system's: that of a process that died is gone with it. RUN/.holder.json tells who
    has it. What a killed process left half-written is removed. A folder that comes to nothing is not left.
    Yields a function for before something is written, which raises Failed where the folder is another one by now.
    """
    if distributed.rank() != 0:
        yield lambda: None
        return
    read_config(run)  # before anything is written into a folder that is something else
    made = [folder for folder in (run, *run.parents) if not folder.exists()]
    lock, holder = FileLock(run / ".lock"), run / ".holder.json"
    try:
        run.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            raise BadInput(
                f"--out {run} is being trained {told(holder)}: wait for it, end it, or name another folder"
            ) from None
        except (OSError, NotImplementedError) as error:
            if not os.access(run, os.W_OK):
                raise
            say(f"{run}: this file system has no locks ({error}); see that no other process trains into it")
        checkpoint.clean(run)
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        who = json.dumps({"host": socket.gethostname(), "process": os.getpid(), "since": since})
        write_text(holder, who)
    except OSError as error:
        raise BadInput(f"--out {run}: cannot write there ({error.strerror}): name another folder") from None

    def is_held() -> bool:
        with suppress(FileNotFoundError, NotADirectoryError):
            return holder.read_text(encoding="utf-8") == who
        return False

    def still_there() -> None:
        if not is_held() or not (run / "config.json").exists():
            raise Failed(GONE.format(run=run))

    begun = True
    try:
        yield still_there
    finally:
        with suppress(OSError):
            if is_held():  # else it is somebody else's
                holder.unlink()
                begun = (run / "config.json").exists()
        if not begun:
            with suppress(OSError):
                (run / ".lock").unlink()
        lock.release()
        with suppress(OSError):
            for folder in () if begun else made:
                folder.rmdir()


def told(holder: Path) -> str:
    """Who holds a run, in words."""
    try:
        who = json.loads(holder.read_text(encoding="utf-8"))
        return f"by process {who['process']} on {who['host']} since {who['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "by another process"

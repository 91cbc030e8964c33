"""The program: `viceversa`, and `python -m viceversa`."""

import os
import signal
import sys
from typing import Any


def program() -> int:
    """The command line. Ctrl-C while Python itself still begins or already ends leaves no traceback: it kills."""
    heard = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # who starts it with & may have it ignored

    def on_ctrl_c(handler: Any) -> None:
        if heard:
            signal.signal(signal.SIGINT, handler)

    on_ctrl_c(signal.SIG_DFL)
    open_what_is_closed()
    from .cli import main

    on_ctrl_c(signal.default_int_handler)
    try:
        return main()
    finally:
        on_ctrl_c(signal.SIG_DFL)


def open_what_is_closed() -> None:
    """Of the standard streams. Else the next file that is opened takes a number of theirs, and is written into."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):  # in the order of their numbers
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115


if __name__ == "__main__":
    sys.exit(program())

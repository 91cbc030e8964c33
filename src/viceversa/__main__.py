"""The program: `viceversa`, and `python -m viceversa`."""

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
    from .cli import main

    on_ctrl_c(signal.default_int_handler)
    try:
        return main()
    finally:
        on_ctrl_c(signal.SIG_DFL)


if __name__ == "__main__":
    sys.exit(program())

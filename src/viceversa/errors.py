"""What a person is told when something is wrong: one line that says what, where, and what to do."""

import difflib
from collections.abc import Iterable


class BadInput(ValueError):
    """Wrong use or bad input, found before the work starts. The command exits with 2."""


class Failed(RuntimeError):
    """Something failed while the work ran (or some of many inputs did). The command exits with 1."""


class Interrupted(RuntimeError):
    """Ctrl-C or SIGTERM: what was done is saved. The command exits with 128 + signal (130, 143)."""

    def __init__(self, signal: int, message: str = "interrupted"):
        super().__init__(message)
        self.signal = signal


def first_line(error: Exception) -> str:
    """Of what somebody else's error says; its kind where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def near_names(given: str, known: Iterable[str], count: int = 1, cutoff: float = 0.6) -> list[str]:
    """The names that are nearest to what was given, in large letters or small."""
    plain = {name.casefold(): name for name in known}
    return [plain[each] for each in difflib.get_close_matches(given.casefold(), list(plain), count, cutoff)]


def suggestion(given: str, known: Iterable[str], otherwise: str, *, count: int = 1, cutoff: float = 0.6) -> str:
    """What was meant, by the names that are near; `otherwise` where none is."""
    near = near_names(given, known, count, cutoff)
    return f"did you mean {' or '.join(near)}?" if near else otherwise

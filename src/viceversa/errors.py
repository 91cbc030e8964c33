"""What a person is told when something is wrong: one line that says what, where, and what to do."""


class BadInput(ValueError):
    """Wrong use or bad input, found before the work starts. The command exits with 2."""


class Failed(RuntimeError):
    """Something failed while the work ran (or some of many inputs did). The command exits with 1."""


class Interrupted(RuntimeError):
    """Ctrl-C or SIGTERM: what was done is saved. The command exits with 128 + signal (130, 143)."""

    def __init__(self, signal: int, message: str = "interrupted"):
        super().__init__(message)
        self.signal = signal

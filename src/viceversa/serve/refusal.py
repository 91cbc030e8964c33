"""What a client is told instead of an answer."""

import re

LONGEST = 400
"""Letters of a sentence: one that repeats too much of what was sent is cut in its middle."""


class Refusal(Exception):
    """What a client is told instead of an answer: an HTTP status and one sentence."""

    def __init__(self, status: int, sentence: object, *, retry_after: float | None = None, **headers: str):
        super().__init__(str(sentence))
        self.status = status
        sentence = " ".join(str(sentence).split())
        short = len(sentence) <= LONGEST
        self.sentence = sentence if short else f"{sentence[: LONGEST // 2]} ... {sentence[-LONGEST // 2 :]}"
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}
        if retry_after is not None:
            self.headers["Retry-After"] = str(max(1, round(retry_after)))


def in_fields(sentence: str) -> str:
    """A sentence of the command's: its flags are fields here."""
    return re.sub(r"--(to|format|size)( ?)", lambda flag: flag[1] + "=" * len(flag[2]), sentence)

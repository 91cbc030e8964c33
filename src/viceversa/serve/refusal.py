"""What a client is told instead of an answer."""


class Refusal(Exception):
    """What a client is told instead of an answer: an HTTP status and one sentence."""

    def __init__(self, status: int, sentence: object, *, retry_after: float | None = None, **headers: str):
        super().__init__(str(sentence))
        self.status = status
        self.sentence = " ".join(str(sentence).split())
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}
        if retry_after is not None:
            self.headers["Retry-After"] = str(max(1, round(retry_after)))

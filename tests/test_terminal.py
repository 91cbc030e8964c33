"""Words that every command says the same way, on any terminal."""

import io
import sys

import pytest

from viceversa.terminal import clock, count, say, words


@pytest.mark.parametrize(
    ("encoding", "shown"), [("ascii", r"\u591c \xe9 \udcff"), ("cp1252", r"\u591c é \udcff"), ("utf-8", r"夜 é \udcff")]
)
def test_any_name_can_be_said_on_any_terminal(monkeypatch, encoding, shown):
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict", newline="\n")
    monkeypatch.setattr(sys, "stdout", out)
    say("夜 é \udcff")
    assert out.buffer.getvalue().decode(encoding) == f"{shown}\n"


def test_numbers_as_people_read_them():
    assert [clock(seconds) for seconds in (7, 753, 3753)] == ["0:07", "12:33", "1:02:33"]
    assert count(12345) == "12,345"
    assert [words(n, "epoch") for n in (1, 2, 1200)] == ["1 epoch", "2 epochs", "1,200 epochs"]

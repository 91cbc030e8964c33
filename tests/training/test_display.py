"""What is shown: calm plain lines in a file, a live display on a real (pseudo) terminal, the cursor given back."""

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time

import pytest
from patience import LONG

from viceversa.terminal import clock, progress_bar
from viceversa.training.display import BARS, Display, Trend

NAMES = ("day", "night")
LOSSES = {
    "adversarial/ab": 0.3125, "adversarial/ba": 0.4, "cycle/a": 1.2, "cycle/b": 1.5, "identity/a": 0.6,
    "identity/b": 0.5, "discriminator/a": 0.2, "discriminator/b": 0.1,
}  # fmt: skip
STATE = {
    "step": 1234, "steps": 4800, "epoch": 3, "epochs": 200, "fraction": 0.257, "seconds": 3700.0,
    "seconds_left": 125.0, "images_per_second": 12.345, "learning_rate": 2e-4, "losses": LOSSES,
}  # fmt: skip
LINE = (
    "epoch 3/200, step 1234/4800, 12.3 images/s, 2:05 left"
    " | day -> night: adversarial 0.312, cycle 1.200, identity 0.500, discriminator 0.100"
    " | night -> day: adversarial 0.400, cycle 1.500, identity 0.600, discriminator 0.200"
)

PROGRAM = f"""
import sys, time
from viceversa.terminal import progress_bar
from viceversa.training.display import Display
state = {STATE!r}
"""
TRAINING = """
with Display("runs/day2night", ("day", "night")) as display:
    display.say("four images are held out: [bold]/a/path[/bold] :smile:")
    for step in range(40):
        state["losses"] = {key: value / (1 + step) for key, value in state["losses"].items()}
        display.update(**state)
    display.warn("colours look inverted")
    print("ready", file=sys.stderr, flush=True)
    time.sleep(WAIT)
"""
READING = """
with progress_bar("reading day", 120) as update:
    for done in range(1, 61):
        update(done, 120)
        time.sleep(0.01)
    print("ready" + chr(7), flush=True)
    time.sleep(WAIT)
"""
HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"


def on_terminal(program, columns=80, **environment):
    """Start a program with a pseudo terminal as its standard output and error."""
    own, its = pty.openpty()
    size = {"COLUMNS": str(columns), "LINES": "24", "TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8"}
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=its, stderr=its, stdin=its, close_fds=True,
        env={**os.environ, **size, **environment},
    )  # fmt: skip
    os.close(its)
    return process, own


def read(own, until=None, seconds=LONG):
    """All that is written until the program ends, or `until` has been written."""
    text, deadline = b"", time.monotonic() + seconds
    while time.monotonic() < deadline and not (until and until in text):
        if not select.select([own], [], [], 0.1)[0]:
            continue
        try:
            chunk = os.read(own, 65536)
        except OSError:  # closed at the other end
            break
        if not chunk:
            break
        text += chunk
    return text.decode(errors="replace")


def lines_of(text):
    return [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line).rstrip() for line in re.split(r"[\r\n]+", text)]


# Plain lines


def test_a_plain_line_for_each_epoch_with_the_names_of_the_domains(capsys):
    with Display("run", NAMES) as display:
        for step in range(1200, 1235):
            display.update(**{**STATE, "step": step, "epoch": 2})
        display.update(**STATE)
    said = capsys.readouterr()
    assert said.out.splitlines() == [LINE.replace("epoch 3", "epoch 2"), LINE] and said.err == ""


@pytest.mark.parametrize(("every", "lines"), [(0.0, 4), (1e9, 1)])
def test_a_plain_line_every_so_often(capsys, every, lines):
    with Display("run", NAMES, plain_every=every) as display:
        for _ in range(4):
            display.update(**STATE)
    assert capsys.readouterr().out.splitlines() == [LINE] * lines  # at each update, or at the end alone


def test_minutes_and_missing_losses(capsys):
    few = {key: value for key, value in LOSSES.items() if "identity" not in key}
    with Display("run", NAMES) as display:
        display.update(**{**STATE, "steps": None, "epochs": None, "seconds_left": None, "losses": few})
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("epoch 3, step 1234, 12.3 images/s | day -> night: adversarial 0.312, cycle 1.200, disc")


def test_words_are_printed_as_they_are(capsys):
    with Display("run", NAMES) as display:
        display.say("kept [bold]/a/path[/bold] :smile: " + "long " * 40)
        display.warn("first")
        display.update(**STATE)
        display.warn("second")
    out = capsys.readouterr().out.splitlines()
    words = "kept [bold]/a/path[/bold] :smile: " + "long " * 40
    assert out == [words, "warning: first", "warning: epoch 3: second", LINE]


def test_a_silent_display_says_nothing(capsys):
    with Display("run", NAMES, silent=True) as display:
        display.update(**STATE)
        display.say("something")
        display.warn("something")
    with progress_bar("reading", 3, silent=True) as update:
        update(3)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("forced", [{}, {"FORCE_COLOR": "1"}, {"TTY_COMPATIBLE": "1"}])
def test_no_control_characters_in_a_file(forced):
    program = PROGRAM + (TRAINING + READING).replace("WAIT", "0").replace("chr(7)", "''")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env={**os.environ, **forced})
    assert done.returncode == 0 and "epoch 3/200" in done.stdout and "reading day: 60 of 120, 0:0" in done.stderr
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", done.stdout + done.stderr)


# A terminal


def test_the_live_display_at_80_columns():
    process, own = on_terminal(PROGRAM + TRAINING.replace("WAIT", "0"))
    text = read(own)
    assert process.wait(10) == 0
    assert text.count(HIDE) == text.count(SHOW) == 1 and text.rindex(SHOW) > text.rindex("learning rate")
    lines = lines_of(text)
    assert "four images are held out: [bold]/a/path[/bold] :smile:" in lines
    last = len(lines) - 1 - lines[::-1].index("! epoch 3: colours look inverted")
    shown = "\n".join(lines[last - 9 : last])
    assert max(len(line) for line in lines[last - 9 : last + 1]) <= 80
    assert re.search(r"runs/day2night +epoch 3 of 200\n━+[╸╺]?━* +25%\n", shown)
    found = re.search(r"step 1,234 of 4,800   12.3 images/s   1:(\d\d):(\d\d) so far   (\d):(\d\d) left", shown)
    minutes, seconds, minutes_left, seconds_left = map(int, found.groups())
    so_far, left = 60 * (60 + minutes) + seconds, 60 * minutes_left + seconds_left
    assert so_far >= 3700 and left <= 125 and abs(so_far + left - 3825) <= 1  # the clock goes on between two updates
    assert re.search(rf"adversarial +0\.\d{{3}} +[{BARS}]+ +0\.\d{{3}} +[{BARS}]+", shown)
    assert "day -> night" in shown and "night -> day" in shown
    assert "plain" not in shown and "epoch 3/200" not in text


@pytest.mark.parametrize("environment", [{"PYTHONIOENCODING": "ascii"}, {"columns": 60}], ids=["ascii", "narrow"])
def test_without_little_bars_where_they_cannot_be_shown(environment):
    process, own = on_terminal(PROGRAM + TRAINING.replace("WAIT", "0"), **environment)
    text = read(own)
    assert process.wait(10) == 0 and "day -> night" in text and not set(BARS) & set(text)


def test_a_dumb_terminal_gets_plain_lines():
    process, own = on_terminal(PROGRAM + TRAINING.replace("WAIT", "0"), TERM="dumb")
    text = read(own)
    assert process.wait(10) == 0 and "epoch 3/200" in text and "\x1b" not in text


def test_a_terminal_that_is_closed_silences_the_display_and_ends_nothing():
    program = (
        PROGRAM
        + """
with Display("runs/day2night", ("day", "night")) as display:
    display.update(**state)
    print("ready", file=sys.stderr, flush=True)
    sys.stdin.readline()
    display.say("is anybody there?")
print("the end")
"""
    )
    own, its = pty.openpty()
    environment = {**os.environ, "COLUMNS": "80", "TERM": "xterm"}
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=its, stderr=subprocess.PIPE, text=True,
        env=environment,
    )  # fmt: skip
    os.close(its)
    assert process.stderr.readline() == "ready\n"
    os.close(own)
    _, told = process.communicate("\n", timeout=LONG)
    assert process.returncode == 0 and told.count("\n") == 1
    assert told.startswith("viceversa: cannot write standard output: ")


@pytest.mark.parametrize("work", [TRAINING, READING], ids=["training", "reading"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, -signal.SIGINT)])
def test_a_signal_gives_the_cursor_back(work, number, code):
    process, own = on_terminal(PROGRAM + work.replace("WAIT", "30"))
    text = read(own, until=b"ready")
    assert HIDE in text and SHOW not in text
    process.send_signal(number)
    text = read(own)
    assert SHOW in text and HIDE not in text[text.rindex(SHOW) :]
    assert process.wait(10) == code


def test_a_handler_that_is_there_is_left_alone():
    heard = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        with Display("run", NAMES, silent=True), progress_bar("reading", 3, silent=True):
            os.kill(os.getpid(), signal.SIGTERM)
        assert heard == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_the_default_is_put_back_and_threads_may_show_too():
    from concurrent.futures import ThreadPoolExecutor

    def show():
        with progress_bar("reading", 3, silent=True) as update:
            update(3)

    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    show()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(show).result()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_the_bar_goes_to_standard_error_and_vanishes_and_output_stays_output():
    own, its = pty.openpty()
    program = PROGRAM + READING.replace("WAIT", "0.3")
    environment = {**os.environ, "COLUMNS": "80", "TERM": "xterm", "PYTHONIOENCODING": "utf-8"}
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=its, env=environment)
    os.close(its)
    text = read(own)
    out, _ = process.communicate(timeout=LONG)
    assert out == b"ready\x07\n"
    assert re.search(r"reading day ━.* \d+/120 [\d.]+/s", "\n".join(lines_of(text)))
    assert text.rindex("\x1b[2K") > text.rindex("reading day")  # erased at the end


# The small parts


def test_plain_progress_counts_what_has_no_known_total(capsys, monkeypatch):
    monkeypatch.setattr("viceversa.terminal.PLAIN_EVERY", 0.0)
    with progress_bar("translating") as update:
        update(7)
    first, last = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"translating: 7, [\d.e+]+/s", first) and last == "translating: 7, 0:00"


def test_plain_progress_does_not_say_done_when_it_failed(capsys):
    with pytest.raises(KeyError), progress_bar("reading", 3):
        raise KeyError
    assert capsys.readouterr().err == ""


def test_a_trend_stays_short_and_keeps_the_course():
    trend = Trend()
    for n in range(1024):
        trend.add(float(n))
        assert len(trend.means) < 16
    assert trend.means == sorted(trend.means) and trend.means[0] < 64 and trend.means[-1] > 950
    assert trend.drawn()[0] == BARS[0] and trend.drawn()[-1] == BARS[-1]
    assert list(trend.drawn()) == sorted(trend.drawn())


def test_a_trend_that_does_not_move_is_not_drawn():
    assert Trend().drawn() == Trend(means=[1.0]).drawn() == Trend(means=[1.0, 1.0]).drawn() == ""


def test_clock():
    assert [clock(seconds) for seconds in (0, 7.4, 59.6, 753, 3753, 100_000)] == [
        "0:00", "0:07", "1:00", "12:33", "1:02:33", "27:46:40",
    ]  # fmt: skip

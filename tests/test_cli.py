"""The command line: quick help in which every flag is explained, the version, and one line for what is wrong."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

import viceversa
from viceversa.cli import PEERS, main, parse
from viceversa.config import Train
from viceversa.model.networks import Generator


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["--version"]], ids=" ".join)
def test_help_answers_without_what_takes_long_to_import(arguments):
    code = f"import sys; from viceversa.cli import main\ntry: main({arguments})\nexcept SystemExit: pass\n"
    code += "slow = {'torch', 'numpy', 'PIL', 'av', 'safetensors', 'jinja2'} & set(sys.modules)\nassert not slow, slow"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("handler", ["default_int_handler", "SIG_IGN"])
def test_ctrl_c_while_python_ends_leaves_no_traceback(handler):
    """Threads are waited for then, which may take a while."""
    code = f"import signal\nsignal.signal(signal.SIGINT, signal.{handler})\n"
    code += "import atexit, sys, time\nfrom viceversa.__main__ import program\n"
    code += "atexit.register(lambda: [print('ending', flush=True), sys.stdin.read()])\n"
    code += "sys.argv = ['viceversa', '--version']\n"
    process = subprocess.Popen([sys.executable, "-c", code + "sys.exit(program())"], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # fmt: skip
    assert process.stdout is not None and process.stdin is not None
    while process.stdout.readline() != "ending\n":
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, said = process.communicate("")
    assert process.returncode == (0 if handler == "SIG_IGN" else -signal.SIGINT) and said == ""


@pytest.mark.parametrize("encoding", ["utf-8:strict", "ascii", "cp1252"])
def test_names_that_the_terminal_cannot_print_are_printed_otherwise(encoding, tmp_path):
    folders = [tmp_path / os.fsdecode(name) for name in (b"\xd2\xb9 \xff", "夜ö".encode())]
    for n, folder in enumerate(folders):
        folder.mkdir()
        (folder / "broken\udcd2.png").write_bytes(b"no picture")
        Image.new("RGB", (40, 40), (n * 90, 60, 60)).save(folder / "one\udcff.png")
    done = subprocess.run(
        [sys.executable, "-m", "viceversa", "data", *folders],
        capture_output=True,
        env=os.environ | {"PYTHONIOENCODING": encoding},
    )
    assert done.returncode in (0, 2) and b"Traceback" not in done.stderr, done.stderr
    assert b"\\udcff" in done.stdout


def test_a_path_that_is_too_long_is_one_line(capsys):
    assert main(["report", "/".join(["x" * 200] * 40)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"viceversa {viceversa.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "/nowhere/day", "/nowhere/night"], "/nowhere/day"),
        (["translate", "/nowhere/model.safetensors", __file__, "--to", "night"], "test_cli.py"),
        (["report", "/nowhere/run"], "/nowhere/run"),
        (["import", "/nowhere/G_A.pth"], "G_A.pth"),
        (["serve", "--workers", "2"], "--workers: for --engine ray alone"),
        (["train", "a", "b", "--bath", "3"], "--bath: no such flag; did you mean --batch or --patch?"),
        (["train", "a", "b", "--no-guidde"], "did you mean --no-guided"),
        (["train", "a", "b", "--no-levels"], "--no-levels: no such flag"),
        (["train", "a", "b", "--batch=1.5"], "--batch 1.5: must be a whole number"),
        (["train", "a", "b", "--seed"], "--seed: must be a whole number"),
        (["train", "a", "b", "--projected", "lite0.onnx"], "--projected lite0.onnx: must be a number"),
        (["train", "a", "b", "--generator", "unte"], "--generator unte: must be resnet, unet or pyramid; did you"),
        (["translate", "day2night", "x", "--strength", "half"], "--strength half: must be a number"),
        (["data", "fetch", "--mirrorr", "x"], "--mirrorr: no such flag; did you mean --mirror"),
        (["trian", "a", "b"], "trian: no such command; did you mean train?"),
        (["translate", "day2night", "x.jpg", "--to", "night", "-o", ""], "-o '': the place is empty"),
        (["data", "a", "b", "-o", "a/1.jpg"], "--out a/1.jpg: a page is written; name a file that ends in .html"),
        (["train", "a", "b", "--out", ""], "--out '': the place is empty"),
    ],
)
def test_bad_input_is_one_line_and_two(arguments, words, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("viceversa: ") and error.count("\n") == 1 and words in error


def test_sigterm_ends_any_command_with_a_line(monkeypatch, capsys):
    monkeypatch.setattr("viceversa.cli.run", lambda command: os.kill(os.getpid(), signal.SIGTERM))
    assert main(["models"]) == 143
    assert capsys.readouterr().err == "viceversa: ended by SIGTERM\n"
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_wrong_use_is_two(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["train", "a", "b", "c"])
    assert stopped.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


def test_a_path_with_an_equals_sign_is_no_flag(tmp_path):
    run = tmp_path / "lr=1"
    run.mkdir()
    held = {"settings": {"width": 32, "epochs": 7}}
    (run / "config.json").write_text(json.dumps(held))
    for given in (["--out", str(run)], [f"--out={run}"]):
        asked = parse(["train", "day", "night", *given])
        assert (asked.width, asked.epochs, asked.out) == (32, 7, run)


@pytest.mark.parametrize(
    "arguments",
    [
        ["data", "{day}", "{night}", "-o", "{file}/x.html"],
        ["train", "{day}", "{night}", "--out", "{file}/run"],
        ["import", "{weights}", "-o", "{file}/m.safetensors", "--names", "a", "b"],
        ["translate", "day2night", "{day}/0.png", "--to", "night", "-o", "{file}/x"],
        ["export", "day2night", "--to", "night", "-o", "{file}/x.pt2"],
    ],
)
def test_a_path_below_a_file_is_one_line(tmp_path, arguments, capsys):
    (tmp_path / "file").touch()
    for name in ("day", "night"):
        (tmp_path / name).mkdir()
        for n in range(3):
            Image.new("RGB", (48, 40), (n, 9 * len(name), 0)).save(tmp_path / name / f"{n}.png")
    torch.save(Generator(width=2, blocks=1).build().state_dict(), tmp_path / "weights")
    places = {name: tmp_path / name for name in ("day", "night", "file", "weights")}
    assert main([word.format(**places) for word in arguments]) in (1, 2)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("viceversa: ")]
    assert str(tmp_path / "file") in line


def test_flags_of_the_fields_default_are_told_by_their_names_here(capsys):
    assert main(["train", "--dataroot", "datasets/x", "--batch_size=4", "--lr", "1"]) == 2
    error = capsys.readouterr().err
    assert "--dataroot is the folder itself" in error and "--batch_size is --batch here" in error
    page = (Path(__file__).parents[1] / "docs" / "peers.md").read_text()
    assert not [name for name in PEERS if f"`--{name}" not in page]
    assert not set(PEERS) & {field.name for field in dataclasses.fields(Train)}


@pytest.mark.skipif(os.name != "posix", reason="closed by a shell")
@pytest.mark.parametrize("closed", ["2>&-", ">&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_files(closed, tmp_path):
    """What is opened next must not get their numbers: a message would be written into a picture."""
    code = "import os, sys; from viceversa.__main__ import program; sys.argv = ['viceversa', '--version']; program();"
    code += (
        "written = os.open('new', os.O_CREAT | os.O_WRONLY); print('a line', file=sys.stderr); sys.exit(written < 3)"
    )
    done = subprocess.run(f'"{sys.executable}" -c "{code}" {closed}', shell=True, cwd=tmp_path, capture_output=True)
    assert done.returncode == 0 and (tmp_path / "new").read_bytes() == b""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has it")
def test_what_standard_output_cannot_take_is_one_line():
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "viceversa", "--version"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "standard output" in done.stderr

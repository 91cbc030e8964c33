"""The command line: quick help in which every flag is explained, the version, and one line for what is wrong."""

import dataclasses
import subprocess
import sys
from typing import get_args

import pytest

import viceversa
from viceversa import config
from viceversa.cli import main

COMMANDS = {c.__name__.lower(): c for c in (getattr(c, "__origin__", c) for c in get_args(config.Command))}
COMMANDS["data fetch"] = COMMANDS.pop("fetch")


def test_help_answers_without_torch():
    code = "import sys; from viceversa.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    code += "assert not {'torch', 'numpy', 'PIL'} & set(sys.modules), sorted(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


@pytest.mark.parametrize("command", COMMANDS)
def test_every_flag_is_explained(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    with pytest.raises(SystemExit) as stopped:
        main([*command.split(), "--help"])
    assert stopped.value.code == 0
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for field in dataclasses.fields(COMMANDS[command]):
        flag = f"--{field.name.replace('_', '-')}"
        if flag in shown:
            after = shown.split(flag, 1)[1][:120]
            assert any(c.islower() for c in after.split("(default")[0]), flag


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
    ],
)
def test_bad_input_is_one_line_and_two(arguments, words, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("viceversa: ") and error.count("\n") == 1 and words in error


def test_wrong_use_is_two(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["train", "a", "b", "c"])
    assert stopped.value.code == 2
    assert "Traceback" not in capsys.readouterr().err

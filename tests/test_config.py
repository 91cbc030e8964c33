"""Every value that a person may choose is checked in one place; recipes are rows of plain values beneath flags."""

import dataclasses
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

import viceversa
from viceversa import config
from viceversa.cli import as_shown, main, parse
from viceversa.config import RECIPES, Evaluate, Train, Translate, Within, make
from viceversa.errors import BadInput


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"adversarial": "lsgan"}, "adversarial='lsgan': must be least-squares or log-likelihood"),
        ({"precision": "fp16"}, "precision='fp16': must be auto, fp32 or bf16; did you mean bf16?"),
        ({"resize": "crop"}, "resize='crop': must be square, short or none"),
        ({"generator": "resnt"}, "did you mean resnet?"),
        ({"channels": 1}, "channels=1: must be 2 values"),
        ({"channels": (1, 2)}, r"channels=(1, 2): must be 1 or 3"),
        ({"channels": (True, 3)}, "must be 1 or 3"),
        ({"epochs": "3"}, "epochs='3': must be a whole number"),
        ({"epochs": 3.5}, "epochs=3.5: must be a whole number"),
        ({"batch": True}, "batch=True: must be a whole number"),
        ({"learning_rate": "fast"}, "learning_rate='fast': must be a number"),
        ({"sees": 1}, "sees=1: must be True or False"),
        ({"out": 3}, "out=3: must be a path"),
        ({"names": "day"}, "names='day': must be 2 values"),
        ({"names": ("day", 2)}, "must be a text"),
        ({"a": None}, "a=None: must be a text"),
        ({"a": "day\0"}, "must be without zero bytes"),
        ({"epochs": None}, "epochs=None: must be a whole number"),
        ({"batch": 0}, "--batch 0: must be at least 1"),
        ({"decay_epochs": -1}, "--decay-epochs -1: must be at least 0"),
        ({"seed": 2**70}, f"--seed {2**70}: must be at least 0 and at most 9,223,372,036,854,775,807"),
        ({"seed": -1}, "--seed -1: must be at least 0"),
        ({"minutes": 0}, "--minutes 0: must be above 0"),
        ({"minutes": float("inf")}, "--minutes inf: must be finite"),
        ({"learning_rate": float("nan")}, "--learning-rate nan: must be finite"),
        ({"ema": 1}, "--ema 1: must be at least 0 and below 1"),
        ({"out": "x" * 300}, "a name of 300 bytes is longer than that of a file can be (255)"),
        ({"a": "földer/" + "ö" * 128}, "a name of 256 bytes"),
        ({"bach": 2}, "train has no setting 'bach'; did you mean batch or patch?"),
        ({"recipe": "phto"}, "--recipe phto: no such recipe; did you mean photo?"),
        ({"recipe": "PHOTO"}, "--recipe PHOTO: no such recipe; did you mean photo?"),
        ({"recipe": None}, "no such recipe; there are paper"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(wrong, said):
    with pytest.raises(BadInput) as raised:
        make(Train, **({"a": "photos"} | wrong))
    assert said in str(raised.value) and "\n" not in str(raised.value)


def test_what_is_missing_is_named():
    with pytest.raises(BadInput, match="translate needs model and inputs"):
        make(Translate)


def test_every_python_function_checks_the_same(tmp_path):
    calls = [
        lambda: viceversa.train("day", "night", adversarial="lsgan"),
        lambda: viceversa.train("day", "night", seed=2**70),
        lambda: viceversa.train("day", "night", bach=1),
        lambda: viceversa.evaluate("model", "day", "night", resizing="cleen"),
        lambda: viceversa.evaluate("model", "day", "night", devise="cpu"),
        lambda: viceversa.load(tmp_path, precision="fp16"),
    ]
    for call in calls:
        with pytest.raises(BadInput):
            call()


def test_values_become_those_of_the_annotation():
    made = make(
        Train, a=Path("day"), b="night", out="run", epochs=np.int64(3), learning_rate=np.float32(0.5), cycle=10,
        channels=[np.int64(1), 3], names=["day", "night"], test_a=Path("test"), minutes=None,
    )  # fmt: skip
    assert (made.a, made.out, made.test_a) == ("day", Path("run"), "test")
    assert made.channels == (1, 3) and made.names == ("day", "night") and made.minutes is None
    for value, kind in [(made.epochs, int), (made.learning_rate, float), (made.cycle, float), (made.channels[0], int)]:
        assert type(value) is kind
    assert make(Evaluate, inputs=["m", "a", "b"], lpips="there").lpips == Path("there")


def test_a_path_is_never_empty_and_home_is_one_place(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    made = make(Train, a="~/day", b="~nobody-of-this-name/night", out="~/runs/x")
    assert (made.a, made.b, made.out) == (f"{tmp_path}/day", "~nobody-of-this-name/night", tmp_path / "runs" / "x")
    assert make(Translate, model="~/m", inputs=("~/x", "-"), to="~").inputs == (f"{tmp_path}/x", "-")
    assert make(config.Serve, auth="").auth == ""  # the variable counts then
    for wrong in ({"a": ""}, {"a": "day", "b": ""}, {"a": "day", "out": ""}):
        with pytest.raises(BadInput, match="must not be empty"):
            make(Train, **wrong)


def test_the_errors_are_public_with_the_exit_code_that_they_stand_for():
    assert issubclass(viceversa.BadInput, ValueError)
    assert issubclass(viceversa.Failed, RuntimeError) and issubclass(viceversa.Interrupted, RuntimeError)
    assert viceversa.Interrupted(15).signal == 15
    assert all(getattr(viceversa, name) is not None for name in viceversa.__all__)


def test_the_package_shows_what_is_public_and_nothing_else():
    assert dir(viceversa) == sorted(viceversa.__all__)


def test_no_pairs_can_be_asked_for():
    asked = ["evaluate", "model", "day", "night"]
    values = [parse([*asked, *flag]).paired for flag in ([], ["--paired"], ["--no-paired"])]
    assert values == [None, True, False] and make(Evaluate, paired=False).paired is False


def test_the_limits_of_a_number_are_what_they_say():
    assert 1 in Within(least=1) and 0 not in Within(least=1)
    assert 0.999 in Within(least=0, below=1) and 1 not in Within(least=0, below=1)
    assert 1e-9 in Within(above=0) and 0 not in Within(above=0) and 101 not in Within(least=1, most=100)


def test_paper_is_what_train_does_by_itself():
    assert make(Train, a="x") == make(Train, a="x", recipe="paper") == Train(a="x")
    papers = Train(a="x")
    assert (papers.epochs, papers.decay_epochs, papers.batch, papers.learning_rate) == (100, 100, 1, 2e-4)
    assert (papers.size, papers.crop, papers.resize, papers.cycle, papers.identity) == (286, 256, "square", 10, 5)
    assert (papers.generator, papers.upsample, papers.width, papers.blocks) == ("resnet", "transposed", 64, 9)
    assert (papers.discriminator, papers.history, papers.ema, papers.projected) == ("patch", 50, 0, 0)
    assert not papers.sees and papers.adversarial == "least-squares"


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_plain_values_that_a_flag_overrides(name):
    made = make(Train, a="x", recipe=name)
    assert made.recipe == name
    for field, value in RECIPES[name].items():
        assert getattr(made, field) == value and type(value) in (int, float, str, bool, tuple)
    assert make(Train, a="x", recipe=name, width=7, seed=3).width == 7


def test_the_command_line_and_python_make_the_same_of_a_recipe():
    for arguments in (["--recipe", "photo"], ["--recipe=photo"]):
        asked = parse(["train", "day", "night", *arguments, "--width", "7", "--no-sees"])
        assert asked == make(Train, a="day", b="night", recipe="photo", width=7, sees=False)
    assert parse(["train", "day"]) == make(Train, a="day")


def test_help_shows_the_settings_of_the_recipe_and_names_them_all(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit):
        main(["train", "--recipe", "photo", "--help"])
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "--crop INT Side of the random square that is trained on. (default: 448)" in shown
    about = shown.split("--recipe NAME")[1].split("--out")[0]
    for name in RECIPES:
        assert name in about, name


def test_networks_stand_in_a_box_of_their_own_after_the_rest(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    first, networks = capsys.readouterr().out.split(" network options ")
    of_networks = {"width", "blocks", "discriminator-layers", "history", "upsample", "ema", "levels", "generator"}
    assert all(f"--{name} " in networks and f"--{name} " not in first for name in of_networks)
    assert all(f"--{name} " in first for name in ("recipe", "out", "minutes", "crop", "identity", "seed"))


COMMANDS = [getattr(command, "__origin__", command) for command in get_args(config.Command)]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: c.__name__)
def test_every_setting_has_a_flag_and_a_help_text(command):
    shown = {f.name: f for f in dataclasses.fields(as_shown(command, {}))}
    if "network" in shown:
        shown |= {f.name: f for f in dataclasses.fields(shown.pop("network").default_factory)}
    assert set(shown) == {f.name for f in dataclasses.fields(command)}
    for name, field in shown.items():
        assert len(field.metadata["help"]) > 5 and "\n" not in field.metadata["help"], name


def test_wrong_values_on_the_command_line_are_one_line_and_two(capsys):
    wrong = [["--seed", str(2**70)], ["--recipe", "phto"], ["--out", "x" * 300], ["--batch", "0"], ["--minutes", "nan"]]
    for flags in wrong:
        assert main(["train", "day", "night", *flags]) == 2
        error = capsys.readouterr().err
        assert error.startswith("viceversa: --") and error.count("\n") == 1, error

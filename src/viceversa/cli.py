"""The command line: a subcommand for each dataclass of config.py; and other programs' flags by their names here."""

import dataclasses
import errno
import itertools
import os
import signal
import sys
from importlib import import_module
from typing import Annotated, Any, get_args, get_type_hints

import docstring_parser
import tyro

from . import __version__, config
from .errors import BadInput, Failed, Interrupted, suggestion
from .files import DISK_FULL
from .terminal import ending_on_sigterm

PURPOSE = "Unpaired image-to-image translation, both ways, with CycleGAN."
RAYS = ("address", "workers", "shards")


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 failed, 2 bad input, 130 and 143 interrupted."""
    arguments = sys.argv[1:] if arguments is None else arguments
    for stream in (sys.stdout, sys.stderr):  # names of files are not always such as a terminal can print
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    if arguments[:2] == config.DATA_FETCH.split():
        arguments = [config.DATA_FETCH, *arguments[2:]]
    try:
        with ending_on_sigterm():
            code = version() if arguments == ["--version"] else run(parse(arguments))
        sys.stdout.flush()  # else what cannot be written is told by Python, at its end
        return code
    except BadInput as wrong:
        return complain(wrong, 2)
    except Failed as failure:
        return complain(failure, 1)
    except Interrupted as stop:
        return complain(stop, 128 + stop.signal)
    except KeyboardInterrupt:
        return complain("interrupted", 130)
    except SystemExit as stop:
        if stop.code != 128 + signal.SIGTERM:
            raise
        return complain("ended by SIGTERM", stop.code)
    except BrokenPipeError:  # `viceversa ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as failure:
        if failure.errno == errno.ENAMETOOLONG:
            return complain(f"{str(failure.filename)[:60]}...: this path is longer than the system takes", 2)
        if failure.errno is None:
            raise
        verb = "cannot write " if failure.errno in DISK_FULL else ""
        return complain(f"{verb}{failure.filename or 'standard output'}: {failure.strerror}", 1)


def version() -> int:
    print(f"viceversa {__version__}")
    return 0


def parse(arguments: list[str]) -> config.Command:
    """The settings that are asked for. Shows help, or what is wrong, and exits, as command lines do."""
    commands = {config.DATA_FETCH if kind is config.Fetch else kind.__name__.lower(): kind for kind in COMMANDS}
    command = commands.get(arguments[0] if arguments else "")
    if command is None:
        if arguments and not arguments[0].startswith("-"):
            hint = suggestion(arguments[0], commands, f"there are {', '.join(commands)}", count=2)
            raise BadInput(f"{arguments[0]}: no such command; {hint}")
        tyro.cli(config.Command, prog="viceversa", description=PURPOSE, args=arguments)  # type: ignore[arg-type]
        raise AssertionError("without a command there is help, or an error")
    theirs(command, arguments)
    plainly(command, arguments)
    flags = as_shown(command, config.beneath(named(arguments)) if command is config.Train else {})
    prog = f"viceversa {arguments[0]}"
    given = dict(vars(tyro.cli(flags, prog=prog, args=arguments[1:], config=(tyro.conf.DisallowNone,))))
    if "network" in given:
        given |= vars(given.pop("network"))
    return config.make(command, **given)  # type: ignore[no-any-return]


PEERS = {
    "dataroot": "the folder itself: viceversa train ROOT",
    "name": "--out RUN",
    "checkpoints_dir": "--out RUN",
    "results_dir": "-o FOLDER",
    "gpu_ids": "--device cuda:N",
    "input_nc": "--channels",
    "output_nc": "--channels",
    "ngf": "--width",
    "ndf": "--width",
    "netG": "--generator",
    "netD": "--discriminator",
    "n_layers_D": "--discriminator-layers",
    "batch_size": "--batch",
    "load_size": "--size",
    "crop_size": "--crop",
    "preprocess": "--resize",
    "direction": "--to NAME of translate; training learns both",
    "n_epochs": "--epochs",
    "niter": "--epochs",
    "n_epochs_decay": "--decay-epochs",
    "niter_decay": "--decay-epochs",
    "lr": "--learning-rate",
    "pool_size": "--history",
    "gan_mode": "--adversarial",
    "lambda_A": "--cycle",
    "lambda_B": "--cycle",
    "lambda_identity": "--identity 5 for 0.5: the weight itself",
    "continue_train": "the same command, which resumes",
    "epoch_count": "the same command, which resumes",
}
"""Flags of pytorch-CycleGAN-and-pix2pix, and what they are here; docs/peers.md has them all."""


def theirs(command: type, arguments: list[str]) -> None:
    """Raise BadInput for flags of the field's default that have another name here."""
    ours = {field.name for field in dataclasses.fields(command)}
    asked = [word[2:].split("=")[0] for word in arguments if word.startswith("--")]
    if found := [name for name in asked if name in PEERS and name not in ours]:
        words = "; ".join(f"--{name} is {PEERS[name]} here" for name in dict.fromkeys(found))
        raise BadInput(f"{words} (all of them: docs/peers.md)")


def plainly(command: type, arguments: list[str]) -> None:
    """Raise BadInput for flags that there are not and values of another kind: tyro has a box of many lines for them."""
    for word, after in itertools.pairwise(arguments):
        if word in ("-o", "--out") and not after:
            raise BadInput(f"{word} '': the place is empty; name a folder or a file")
    known = get_type_hints(command, include_extras=True)
    negated = [f"no_{each}" for each, kind in known.items() if bool in (kind, *get_args(kind))]
    for name, word in named(arguments).items():
        flag = f"--{name.replace('_', '-')}"
        if name not in [*known, *negated, "help"] and not name.startswith("tyro_"):
            flags = [f"--{each.replace('_', '-')}" for each in (*known, *negated)]
            hint = suggestion(flag, flags, f"viceversa {command.__name__.lower()} --help lists them", count=2)
            raise BadInput(f"{flag}: no such flag; {hint}")
        if name in known:
            try:
                config.spelled(word, known[name])
            except TypeError as wrong:
                raise BadInput(f"{flag} {word}".strip() + f": {wrong}") from None


def named(arguments: list[str]) -> dict[str, str]:
    """The flags on a command line, with the word after each: what run or recipe they mean has the other defaults,
    also those that --help shows."""
    words = [word for each in arguments for word in (each.split("=", 1) if each.startswith("--") else [each])]
    pairs = zip(words, [*words[1:], ""], strict=True)
    return {word[2:].replace("-", "_"): after for word, after in pairs if word.startswith("--")}


def as_shown(command: type, beneath: dict[str, Any]) -> type:
    """The command's settings as tyro is to show them: with what lies beneath as defaults, networks in a group."""
    docs = docstring_parser.parse_from_object
    helps = {p.arg_name: p.description or "" for c in (config.Networks, command) for p in docs(c).params}
    hints = get_type_hints(command, include_extras=True)
    own: list[Any] = []
    networks: list[Any] = []
    for field in dataclasses.fields(command):
        default = beneath.get(field.name, field.default)
        words = {"help": " ".join(helps[field.name].split())}
        # "Default: ..." stands in these words where it is no plain value.
        flag = tyro.conf.arg(prefix_name=False, help_behavior_hint="" if default is None else None)
        shown = (field.name, Annotated[hints[field.name], flag], dataclasses.field(default=default, metadata=words))
        (networks if field.name in config.Networks.__dataclass_fields__ else own).append(shown)
    if networks:
        # Fields of a class of their own stand in a box of their own: "network options".
        doc = {"__doc__": config.Networks.__doc__}
        group = dataclasses.make_dataclass("Networks", networks, kw_only=True, namespace=doc)
        own.append(("network", group, dataclasses.field(default_factory=group)))
    return dataclasses.make_dataclass(command.__name__, own, kw_only=True, namespace={"__doc__": command.__doc__})


COMMANDS = {
    config.Train: "training.train command_train",
    config.Translate: "translation.command command_translate",
    config.Evaluate: "evaluation.evaluate command_evaluate",
    config.Report: "pages.report command_report",
    config.Data: "pages.advice command_data",
    config.Fetch: "data.sets command_fetch",
    config.Import: "exchange.importing command_import",
    config.Export: "exchange.export command_export",
    config.Models: "exchange.models command_models",
    config.Serve: "serve.command command_serve",
    config.Demo: "demo command_demo",
}
"""Where the work of each command is done: a module, and its function. Torch is imported there, not here, so that
--help answers at once."""


def run(command: config.Command) -> int:
    module, function = COMMANDS[type(command)].split()
    if getattr(command, "engine", "local") == "ray":
        module = "scale.ray"  # which has functions of the same names
    elif extra := [f"--{name}" for name in RAYS if getattr(command, name, None)]:
        raise BadInput(f"{' '.join(extra)}: for --engine ray alone; add that, or leave it out")
    elif isinstance(command, config.Export) and command.page is not None:
        module, function = "serve.standalone", "command_page"
    return int(getattr(import_module(f"viceversa.{module}"), function)(command))


def complain(message: object, code: int) -> int:
    print(f"viceversa: {' '.join(str(message).split())}", file=sys.stderr)
    return code

"""The command line: a subcommand for each dataclass of config.py, and nothing else."""

import errno
import os
import sys

import tyro

from . import __version__
from .config import Command, Data, Demo, Evaluate, Export, Import, Report, Train, Translate
from .errors import BadInput, Failed, Interrupted


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 failed, 2 bad input, 130 and 143 interrupted."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments == ["--version"]:
        print(f"viceversa {__version__}")
        return 0
    try:
        command = tyro.cli(
            Command,  # type: ignore[arg-type]
            prog="viceversa",
            description="Unpaired image-to-image translation, both ways, with CycleGAN.",
            args=arguments,
            config=(tyro.conf.OmitSubcommandPrefixes,),
        )
        return run(command)
    except BadInput as wrong:
        return complain(wrong, 2)
    except Failed as failure:
        return complain(failure, 1)
    except Interrupted as stop:
        return complain(stop, 128 + stop.signal)
    except KeyboardInterrupt:
        return complain("interrupted", 130)
    except BrokenPipeError:  # `viceversa ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as failure:
        if failure.errno not in (errno.ENOSPC, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EDQUOT):
            raise
        return complain(f"cannot write {failure.filename or ''}: {failure.strerror}", 1)


def run(command: Command) -> int:
    """Torch is imported here, inside the command, so that --help answers at once."""
    match command:
        case Train():
            from .training.train import command_train

            return command_train(command)
        case Translate():
            from .translation.command import command_translate

            return command_translate(command)
        case Evaluate():
            from .evaluation.evaluate import command_evaluate

            return command_evaluate(command)
        case Report():
            from .pages.report import command_report

            return command_report(command)
        case Data():
            from .pages.advice import command_data

            return command_data(command)
        case Import():
            from .exchange.importing import command_import

            return command_import(command)
        case Export():
            from .exchange.export import command_export

            return command_export(command)
        case Demo():
            from .demo import command_demo

            return command_demo(command)


def complain(message: object, code: int) -> int:
    print(f"viceversa: {' '.join(str(message).split())}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())

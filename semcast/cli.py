"""The command line: its commands, and how a mistake is answered.

What may follow a command's name: arguments/. What the command does: commands/.
"""

import argparse
import re
import sys
from importlib import import_module

from . import __version__
from .arguments import lists, long, run, transmission, web
from .arguments.shared import add_quiet
from .errors import InputError, Lost
from .process import prepare

COMMANDS = (  # each adds its parser; in the order of `semcast --help`
    run.demo,
    run.run,
    transmission.send,
    transmission.channel,
    lists.channels,
    transmission.receive,
    transmission.info,
    transmission.compare,
    long.bench,
    long.train,
    lists.models,
    web.web,
    lists.completion,
)
OUT_OF_MEMORY = "out of memory; use a smaller picture, or --low-memory on a GPU"
MISTAKE, LOST, INTERRUPTED = 2, 3, 130  # exit codes
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$")


class Parser(argparse.ArgumentParser):
    """Usage errors are one line, like every other error; -1e1 is a number, not an option."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._negative_number_matcher = re.compile("-" + NUMBER.pattern)

    def error(self, message):
        raise InputError(f"{message} (see `{self.prog} --help`)")


def spread(argv: list[str]) -> list[str]:
    """`run --snr 5 10 photo.jpg` means `run --snr 5 --snr 10 photo.jpg`; argparse would take the picture for an SNR."""
    found = []
    for argument in argv:
        follows = len(found) > 1 and found[-2] == "--snr" and argv[0] == "run"
        found += ["--snr", argument] if follows and NUMBER.match(argument) else [argument]
    return found


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    prepare(quiet=bool({"-q", "--quiet"} & set(argv)))
    try:
        args = build_parser().parse_args(spread(argv))
        module, function = args.run.split(".")
        getattr(import_module(f".commands.{module}", __package__), function)(args)
        sys.stdout.flush()
    except InputError as error:
        return fail(str(error))
    except Lost as error:
        return fail(str(error), LOST)
    except BrokenPipeError:  # the reader of our output left
        sys.stderr.close()
        return 1
    except KeyboardInterrupt:
        return fail("interrupted", INTERRUPTED)
    except MemoryError:
        return fail(OUT_OF_MEMORY)
    except RuntimeError as error:  # torch's kinds of it, on CPU and GPU
        if "memory" not in str(error):
            raise
        return fail(OUT_OF_MEMORY)
    except OSError as error:  # a full disk, a vanished file
        return fail(f"{error.filename or 'input or output'}: {error.strerror or error}")
    return 0


def fail(message: str, code: int = MISTAKE) -> int:
    print("semcast: " + " ".join(message.split()), file=sys.stderr)
    return code


def build_parser() -> Parser:
    parser = Parser(
        prog="semcast", description="Send pictures over links so poor that ordinary codecs deliver nothing."
    )
    parser.add_argument("--version", action="version", version=f"semcast {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in COMMANDS:
        add(commands)
    for p in commands.choices.values():
        add_quiet(p)
    return parser

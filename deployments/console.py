"""What commands in a terminal share: printing, ending, and the arguments that they are given.

A reader that leaves early (`make status | head`) is not an error: what it does not read goes
nowhere, and the exit code is the command's own.
"""

import argparse
import io
import os
import sys
import time
from collections.abc import Callable
from typing import TextIO

from policy.errors import ArrCocError

PRIVATE = 0o077  # a umask
_QUIET_S = 3.0


def exit_code_of(main: Callable[[], int]) -> int:
    """Run a command; 1 after an error, of ours or of the machine, which is printed; 130 after
    Ctrl-C.

    What it writes, and what the programs write that it starts, is its user's alone.
    """
    os.umask(PRIVATE)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # for a terminal that is not UTF-8
    try:
        return main()
    except ArrCocError as error:
        complain(f"error: {error}")
        return 1
    except OSError as error:
        complain(f"error: {error}; to do: check the room and the rights there, then run again")
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        _write(sys.stdout, "")  # argparse's help may still be on its way


def say(text: str) -> None:
    """Print one line, at once."""
    _write(sys.stdout, f"{text}\n")


def complain(text: str) -> None:
    """Print one line to where errors and progress go."""
    _write(sys.stderr, f"{text}\n")


class Progress:
    """Tells what takes more than a few seconds, no more often than that."""

    def __init__(self) -> None:
        self._told = time.monotonic()

    def tell(self, text: str) -> None:
        if time.monotonic() - self._told >= _QUIET_S:
            complain(text)
            self._told = time.monotonic()


def arguments(program: str, doc: str, *names: str, **defaults: str) -> list[str]:
    """The arguments of `python -m PROGRAM`; a wrong number prints the usage and ends with 2.

    What the program writes from here on is its user's alone.

    Args:
        doc: the program's docstring; its first line is shown.
        names: of the arguments, in order.
        defaults: what further arguments are if they are left out.
    """
    os.umask(PRIVATE)
    parser = argparse.ArgumentParser(f"python -m {program}", description=doc.split("\n")[0])
    for name in names:
        parser.add_argument(name, type=whole_text)
    for name, default in defaults.items():
        parser.add_argument(name, type=whole_text, nargs="?", default=default)
    return [*vars(parser.parse_args()).values()]


def whole_text(text: str) -> str:
    """An argument of argparse that is to be written down: whole characters, at least one."""
    if not text.strip():
        raise argparse.ArgumentTypeError("it is empty; nothing was written; to do: fill it in")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise argparse.ArgumentTypeError(
            f"character {error.start + 1} of {text!a} is only half a character: the "
            "terminal sent something that is not UTF-8; nothing was written; to do: type it "
            "again in a terminal that is set to UTF-8 (export LANG=C.UTF-8)"
        ) from error
    return text


def _write(stream: TextIO, text: str) -> None:
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)

"""How a program of model/ talks to whoever started it: arguments, exit codes, errors, progress.

Progress is one JSON object per line on standard output, at least every two seconds (a thread
repeats the last one, so that a long import or checkpoint is not mistaken for a dead
program; `done` stands still then) and at most five times a second.

Output that cannot be written (a full disk, a closed stream) never ends the work. Only a broken
pipe on standard output does: whoever started the program died.
"""

import errno
import json
import os
import sys
import threading
import time
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self, TextIO

from model.program.errors import BadInput, ModelError

FASTEST_S, SLOWEST_S = 0.2, 1.5
LOOK_S = SLOWEST_S / 3  # how often the thread looks whether something is to be repeated


def run(
    main: Callable[..., None],
    paths: Sequence[str],
    optional: Sequence[str] = (),
    arguments: Sequence[str] | None = None,
) -> int:
    """Parse `--PATH VALUE` for each, call `main(PATH=VALUE, …)` and return the exit code.

    `arguments` are those of this process unless given.

    The last line on standard error is `error: …` unless the code is 0 or 1 with a traceback.
    """
    parser = ArgumentParser(prog=f"python -m {_module(main)}", description=main.__doc__)
    for name in [*paths, *optional]:
        parser.add_argument(f"--{name}", type=Path, required=name in paths)
    chosen = vars(parser.parse_args(arguments))
    return guarded(lambda: main(**chosen))


def guarded(work: Callable[[], object]) -> int:
    """Do it and return the exit code, with the last line that the contract asks for."""
    try:
        return _exit_code(work)
    finally:
        _drop_unwritten(sys.stdout)
        _drop_unwritten(sys.stderr)


def _exit_code(work: Callable[[], object]) -> int:
    try:
        work()
    except ModelError as error:
        return _report(error, error.exit_code)
    except MemoryError:
        return _report(out_of_memory(), BadInput.exit_code)
    except (OSError, RuntimeError) as error:
        known = explain(error)
        if known is None:
            raise
        return _report(known, known.exit_code)
    return 0


def explain(error: BaseException) -> ModelError | None:
    """The clear form of a full disk or a spent memory; None if it is something else."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
        return BadInput(
            f"no room left to write {error.filename or 'a file'} ({error.strerror})",
            expected="free disk space",
            now="files that were complete before are intact",
            do="make room and run the same command again",
        )
    text = str(error)
    if isinstance(error, MemoryError) or "can't allocate memory" in text:
        return out_of_memory()
    return out_of_memory() if "out of memory" in text.lower() else None


def out_of_memory() -> ModelError:
    return BadInput(
        "out of memory",
        expected="room for one batch",
        do="lower model.batch_images (and raise model.accumulate by as much)",
    )


class Progress:
    """Prints `{"progress": {"phase": …, "done": …, "of": …, …}}` at a bearable rate."""

    def __init__(self, phase: str, of: int, *, silent: bool = False) -> None:
        self._record: dict[str, object] = {"phase": phase, "done": 0, "of": of}
        self._silent = silent
        self._lock = threading.Lock()
        self._printed = 0.0
        self._ended = threading.Event()
        self._print()
        threading.Thread(target=self._repeat, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Fall silent; after success with a last record, whenever the one before was."""
        self._ended.set()
        if kind is None:
            with self._lock:
                self._print()

    def phase(self, name: str) -> None:
        with self._lock:
            self._record = {**self._record, "phase": name}

    def tell(self, phase: str, done: int, of: int) -> None:
        """The same for work in several phases."""
        with self._lock:
            self._record = {"phase": phase, "of": of}
        self.update(done)

    def update(self, done: int, **more: object) -> None:
        with self._lock:
            self._record = {**self._record, "done": done, **more}
            if time.monotonic() - self._printed >= FASTEST_S:
                self._print()

    def _print(self) -> None:
        self._printed = time.monotonic()
        if not self._silent:
            _write(sys.stdout, json.dumps({"progress": self._record}))

    def _repeat(self) -> None:
        while not self._ended.wait(LOOK_S):
            with self._lock:
                if time.monotonic() - self._printed >= SLOWEST_S and not self._ended.is_set():
                    try:
                        self._print()
                    except BrokenPipeError:  # the next update meets it too, and ends the work
                        return


def log(text: str) -> None:
    """One line of log on standard error."""
    with suppress(BrokenPipeError):  # standard output decides whether anybody is there
        _write(sys.stderr, text)


def _write(stream: TextIO | None, line: str) -> None:
    """Write a line if the stream takes it. Raises BrokenPipeError if its reader is gone."""
    if stream is None:  # Python was started with the stream closed
        return
    try:
        stream.write(line + "\n")
        stream.flush()
    except BrokenPipeError:
        raise
    except (OSError, ValueError):  # ValueError: closed since, or not in the stream's encoding
        return


def _drop_unwritten(stream: TextIO | None) -> None:
    """Give up what could not be written: if Python fails to at exit, the exit code is 120."""
    if stream is None:
        return
    try:
        stream.flush()
    except (OSError, ValueError):
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)


def _report(error: ModelError, code: int) -> int:
    log(f"error: {error}")
    return code


def _module(main: Callable[..., None]) -> str:
    spec = getattr(sys.modules[main.__module__], "__spec__", None)
    return spec.name if spec else main.__module__

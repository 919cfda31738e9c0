"""The programs of model/, run as processes of their own but without their 5 s of imports.

A server process imports torch and Lightning once; each program is a fork of it, with its own
environment, output and exit code, and can be killed like any other process.
"""

import json
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from model import data, evaluate, train
from model.program import console

PROGRAMS = {
    "data": (data.main, ["config", "output"], ["check"]),
    "train": (train.main, ["config", "data", "output"], []),
    "evaluate": (evaluate.main, ["config", "data", "model", "output"], []),
}
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["model.training.run", "model.evaluate", "model.data"])


@dataclass
class Program:
    """One running or ended program."""

    process: Any
    log: Path

    def end(self, timeout_s: float = 120) -> int:
        """Wait for its exit code; a signal is negative."""
        self.process.join(timeout_s)
        if self.process.exitcode is None:
            self.process.kill()
            raise AssertionError(f"still running after {timeout_s} s:\n{self.text}")
        return self.process.exitcode

    def kill(self, number: int = signal.SIGKILL) -> None:
        with suppress(ProcessLookupError):  # it has ended by itself
            os.kill(self.process.pid, number)

    @property
    def text(self) -> str:
        return self.log.read_text()

    @property
    def last_line(self) -> str:
        return [line for line in self.text.splitlines() if not line.startswith("{")][-1]

    @property
    def progress(self) -> list[dict[str, Any]]:
        lines = self.text.splitlines()
        return [json.loads(line)["progress"] for line in lines if line.startswith('{"prog')]

    def wait_for(self, ready: Callable[[], object], timeout_s: float = 60) -> None:
        deadline = time.monotonic() + timeout_s
        while not ready():
            assert time.monotonic() < deadline, f"not seen in {timeout_s} s:\n{self.text}"
            assert self.process.exitcode is None or ready(), f"ended too early:\n{self.text}"
            time.sleep(0.005)


@dataclass
class Runner:
    """Starts programs below a folder of the test's own."""

    folder: Path
    started: list[Program] = field(default_factory=list)

    def start(
        self,
        name: str,
        config: Mapping[str, Any],
        environment: Mapping[str, str] | None = None,
        file_bytes_max: int | None = None,
        **paths: Path,
    ) -> Program:
        number = len(self.started)
        path, log = self.folder / f"config-{number}.json", self.folder / f"log-{number}.txt"
        path.write_text(json.dumps(config))
        arguments = [f"--config={path}", *(f"--{k}={v}" for k, v in paths.items())]
        process = FORKS.Process(
            target=_become, args=(name, arguments, log, dict(environment or {}), file_bytes_max)
        )
        log.touch()
        process.start()
        program = Program(process, log)
        self.started.append(program)
        return program

    def end_midway(
        self,
        ready: Callable[[], object],
        *arguments: Any,
        output: Path,
        by: int = signal.SIGKILL,
        forget: Callable[[], object] = lambda: None,
        **more: Any,
    ) -> Program:
        """Start it and send the signal `by` once it is `ready`.

        A busy machine may wake the test after the program has ended: then `forget` removes what
        lies outside of `output`, and it starts once more from nothing.
        """
        for _ in range(10):
            program = self.start(*arguments, output=output, **more)
            program.wait_for(lambda p=program: p.process.exitcode is not None or ready(), 120)
            if program.process.exitcode is None:
                program.kill(by)
            if program.end() == (75 if by == signal.SIGTERM else -by):
                return program
            assert program.end() == 0, program.text
            shutil.rmtree(output)
            forget()
        raise AssertionError("it always ended before the signal")

    def run(self, name: str, config: Mapping[str, Any], **more: Any) -> Program:
        program = self.start(name, config, **more)
        program.end()
        return program

    def clear(self) -> None:
        for program in self.started:
            if program.process.exitcode is None:
                program.process.kill()


def _become(
    name: str, arguments: list[str], log: Path, environment: dict[str, str], limit: int | None
) -> None:
    file = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.environ.update(environment)
    if limit is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    sys.argv = [name, *arguments]
    main, paths, optional = PROGRAMS[name]
    sys.exit(console.run(main, paths, optional, arguments))

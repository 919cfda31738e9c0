"""Programs run on this machine, each on a leash: none outlives whoever asked for it."""

import json
import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from deployments import Json
from deployments.local.files import write_whole
from deployments.releases.keys import without_key
from policy.config import Compute
from policy.errors import JobFailed

_FINAL = (2, 3)  # by model/README.md: bad input, diverged; the same again ends the same
_TAIL = 20


class LocalJobs:
    """`deployments.Jobs` on this machine."""

    def __init__(self, compute: Compute) -> None:
        self._compute = compute

    def run(
        self,
        program: str,
        config: Mapping[str, Json],
        inputs: Mapping[str, str],
        output: Path,
        *,
        on_progress: Callable[[Mapping[str, Json]], None] | None = None,
    ) -> None:
        """See the protocol. A crash or a spot warning is followed by the same command again.

        At most `compute.restarts_max` times: the programs go on from what they have written.
        Everything together may take `compute.timeout_s`.
        """
        output.mkdir(parents=True, exist_ok=True)
        settings = output / "job.json"
        write_whole(settings, json.dumps(config, indent=1))
        arguments = ["--config", str(settings)]
        for name, value in inputs.items():
            arguments += [f"--{name}", value]
        arguments += ["--output", str(output)]

        deadline = time.monotonic() + self._compute.timeout_s
        command = [sys.executable, "-m", program, *arguments]
        environment, restarts_left = self._environment(), self._compute.restarts_max
        with (output / "job.log").open("a") as log:
            while True:
                last: deque[str] = deque(maxlen=_TAIL)
                code = _run(command, environment, deadline, log.write, last, on_progress)
                if code == 0:
                    return
                if time.monotonic() > deadline:
                    raise self._late(program, output, last)
                if code in _FINAL or restarts_left == 0:
                    raise _failed(program, code, output, last, self._compute.restarts_max)
                restarts_left -= 1
                log.write(f"exit code {code}; started again, {restarts_left} restarts left\n")

    def _environment(self) -> Mapping[str, str]:
        threads = str(self._compute.threads)
        ours = without_key(os.environ)
        return {**ours, "OMP_NUM_THREADS": threads, "PYTHONUNBUFFERED": "1"}

    def _late(self, program: str, output: Path, last: Sequence[str]) -> JobFailed:
        return JobFailed(
            f"{program} was not done after {self._compute.timeout_s:.0f} s (compute.timeout_s)"
            f"\n{_text(last)}\n",
            exit_code=-15,
            holds=f"it was stopped; what it wrote stays in {output}",
            do="raise compute.timeout_s and run again: it goes on from there",
        )


def _run(
    command: Sequence[str],
    environment: Mapping[str, str],
    deadline: float,
    keep: Callable[[str], object],
    last: deque[str],
    on_progress: Callable[[Mapping[str, Json]], None] | None,
) -> int:
    with _leashed(command, environment) as process:
        stop = threading.Timer(max(0, deadline - time.monotonic()), _let_go, [process])
        stop.daemon = True
        stop.start()
        try:
            for line in process.stdout or ():
                keep(line)
                record = _progress(line)
                if record is None:
                    last.append(line.rstrip())
                elif on_progress is not None:
                    on_progress(record)
            return process.wait()
        finally:
            stop.cancel()


@contextmanager
def _leashed(
    command: Sequence[str], environment: Mapping[str, str]
) -> Iterator[subprocess.Popen[str]]:
    """Run a command that ends when this process lets go of it, or dies in any way."""
    leash = [sys.executable, str(Path(__file__).with_name("leash.py")), *command]
    process = subprocess.Popen(
        leash,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,  # Ctrl-C reaches us alone, and we let go of the leash
    )
    try:
        yield process
    finally:
        _let_go(process)
        process.wait()


def _let_go(process: subprocess.Popen[str]) -> None:
    if process.stdin is not None:
        process.stdin.close()


def _progress(line: str) -> Mapping[str, Json] | None:
    if not line.startswith('{"progress"'):
        return None
    try:
        return json.loads(line)["progress"]
    except ValueError:
        return None  # a line cut short by a crash


def _failed(
    program: str, code: int, output: Path, last: Sequence[str], restarts: int
) -> JobFailed:
    again = "" if code in _FINAL else f" after {restarts} restarts"
    return JobFailed(
        f"{program} ended with exit code {code}{again}\n{_text(last)}\n",
        exit_code=code,
        holds=f"what it wrote stays in {output}",
        do=f"read {output / 'job.log'}",
    )


def _text(last: Sequence[str]) -> str:
    return "\n".join(last)

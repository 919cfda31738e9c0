"""One program of model/ on this machine: started, kept on a leash, started again if it dies."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from deployments import Job
from deployments.files import write_whole
from deployments.local.job_progress import Display, Log
from deployments.local.leash import kill_rest
from deployments.secrets import without_secrets
from policy.config import Compute
from policy.errors import JobFailed

_FINAL = (2, 3)  # by model/README.md: bad input, diverged; the same again ends the same
_POLL_S = 0.1
_ROOM_BYTES = 1 << 16  # with less its last words may have found no room


class Program:
    """`python -m PROGRAM --config FILE --NAME INPUT … --output FOLDER`.

    It writes its log itself, into the file: no line is lost whoever is killed, and nothing
    that reads too slowly can hold it up.
    """

    def __init__(
        self, job: Job, inputs: Mapping[str, str], work: Path, compute: Compute
    ) -> None:
        self._name, self._work, self._compute = job.program, work, compute
        settings = work / "job.json"
        write_whole(settings, json.dumps(job.config, indent=1))
        self._command = [sys.executable, "-m", job.program, "--config", str(settings)]
        for name, value in inputs.items():
            self._command += [f"--{name}", value]
        self._command += ["--output", str(work)]
        self._log = work / "job.log"

    def run(self, stop: Path, lock: int, display: Display) -> None:
        """Run it to its end, with as many restarts as `compute` allows. Raises JobFailed.

        Args:
            stop: a file; once it exists the program is ended.
            lock: a file that stays open as long as the program may live.
        """
        deadline = time.monotonic() + self._compute.timeout_s
        restarts_left, log = self._compute.restarts_max, Log(self._log)
        while True:
            code = self._once(deadline, stop, lock, log, display)
            if code == 0:
                return
            if stop.exists():
                raise cancelled(self._name, f"in {self._work}")
            if time.monotonic() > deadline:
                raise self._late(log.last)
            if code in _FINAL or restarts_left == 0:
                raise self._failed(code, log.last)
            restarts_left -= 1
            with suppress(OSError), self._log.open("a") as file:  # no room ends no program
                file.write(f"exit code {code}; started again, {restarts_left} restarts left\n")

    def _once(self, deadline: float, stop: Path, lock: int, log: Log, display: Display) -> int:
        limit_s = max(0.0, deadline - time.monotonic())
        mark = uuid4().hex
        limits = ["--mark", mark, "--stop", str(stop), "--limit-s", str(limit_s)]
        with self._leashed(limits, lock) as process:
            while process.poll() is None:
                display.show(log.latest())
                with suppress(subprocess.TimeoutExpired):
                    process.wait(_POLL_S)
        if process.returncode == -signal.SIGKILL:
            kill_rest(mark)  # it may have been the leash that was killed
        display.show(log.latest())
        log.end()
        return process.returncode

    @contextmanager
    def _leashed(self, limits: Sequence[str], lock: int) -> Iterator[subprocess.Popen[bytes]]:
        """Run the command so that it ends when this process lets go of it, or dies."""
        leash = [sys.executable, str(Path(__file__).with_name("leash.py")), *limits]
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                [*leash, *self._command],
                env=self._environment(),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches us alone, and we let go of the leash
                pass_fds=(lock,),  # so that nobody else starts while this program still ends
            )
        try:
            yield process
        finally:
            if process.stdin is not None:
                process.stdin.close()
            process.wait()

    def _environment(self) -> Mapping[str, str]:
        threads = str(self._compute.threads)
        ours = without_secrets(os.environ)
        return {**ours, "OMP_NUM_THREADS": threads, "PYTHONUNBUFFERED": "1"}

    def _late(self, last: Sequence[str]) -> JobFailed:
        return JobFailed(
            f"{self._name} was not done after {self._compute.timeout_s:.0f} s "
            f"(compute.timeout_s)\n{_text(last)}\n",
            exit_code=-15,
            holds=f"it was stopped; what it wrote stays in {self._work}",
            do="raise compute.timeout_s and run again: it goes on from there",
        )

    def _failed(self, code: int, last: Sequence[str]) -> JobFailed:
        again = "" if code in _FINAL else f" after {self._compute.restarts_max} restarts"
        full = shutil.disk_usage(self._work).free < _ROOM_BYTES
        why = "; the disk is full" if full else ""
        do = "make room and run the same again: it goes on from there"
        return JobFailed(
            f"{self._name} ended with exit code {code}{again}{why}\n{_text(last)}\n",
            exit_code=code,
            holds=f"what it wrote stays in {self._work}",
            do=do if full else f"read {self._log}",
        )


def cancelled(what: str, where: str) -> JobFailed:
    """The error of a job that somebody cancelled."""
    return JobFailed(
        f"{what} was cancelled",
        exit_code=-15,
        holds=f"its checkpoint stays {where}",
        do="run the same again: it goes on from there",
    )


def _text(last: Sequence[str]) -> str:
    return "\n".join(last)

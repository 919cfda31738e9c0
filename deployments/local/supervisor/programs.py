"""Programs under supervisord: written as files, kept alive, stopped with their whole group.

supervisord restarts what dies, with back-off, rotates the logs and ends process groups. One
file in conf.d is one program; the file is the only record of it, so what ran before a
reboot runs again after `up`.
"""

import configparser
import http.client
import os
import subprocess
import sys
import time
import xmlrpc.client
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from deployments.files import exclusive, locked_now, write_changed
from deployments.local.layout import Layout
from deployments.local.supervisor.calls import calls
from deployments.local.supervisor.launch import holder_in
from deployments.local.supervisor.processes import end, end_all, families, with_word
from deployments.local.supervisor.sections import Program, daemon_section, program_section
from deployments.secrets import without_logins
from policy.errors import EndpointError

_ALIVE = ("RUNNING", "STARTING", "BACKOFF")
_HANGS_S = 20.0  # more than a busy machine takes
_GONE = ("FATAL", "UNKNOWN")
_BAD_INPUT = 2  # the exit code after which nobody starts it again; see `program_section`
_ALREADY_ADDED, _BAD_NAME = 90, 10  # faults of supervisord's calls


@dataclass(frozen=True)
class Process:
    """A supervised process as supervisord sees it; `state` in its words, such as RUNNING."""

    program: str
    process: str
    state: str
    pid: int
    uptime_s: float
    exit_code: int
    log: Path

    @property
    def alive(self) -> bool:
        """Whether it runs, or is about to: supervisord is on it."""
        return self.state in _ALIVE

    @property
    def gave_up(self) -> bool:
        """Whether nobody starts it again. What has just died is EXITED too, for a moment."""
        return self.state in _GONE or (self.state, self.exit_code) == ("EXITED", _BAD_INPUT)


class Supervisor:
    """The supervisord of one layout. Calls reach it over its unix socket."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    @property
    def _calls(self) -> Any:
        return calls(self.url)

    @property
    def url(self) -> str:
        return f"unix://{self._layout.socket}"

    def running(self) -> bool:
        """Whether it answers. One that hangs does not: `start` puts another in its place."""
        try:
            return calls(self.url, _HANGS_S).getState()["statename"] == "RUNNING"
        except (OSError, http.client.HTTPException):
            return False

    def start(self, wait_s: float = 15) -> None:
        """Start supervisord and with it all programs with autostart. Raises EndpointError."""
        self.end_orphans()
        layout = self._layout
        for folder in (layout.logs, layout.supervisor, layout.programs, layout.alive):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.chmod(0o700)
        conf = layout.supervisor / "supervisord.conf"
        write_changed(conf, daemon_section(layout))
        command = [sys.executable, "-m", "supervisor.supervisord", "-c", str(conf)]
        # What it knows, all its programs know: the logins are told to those that need them.
        done = subprocess.run(
            command, env=without_logins(os.environ), capture_output=True, text=True, check=False
        )
        deadline = time.monotonic() + wait_s
        while done.returncode == 0 and time.monotonic() < deadline:
            if self.running():
                return
            time.sleep(0.05)
        raise EndpointError(
            f"supervisord did not start: {done.stderr.strip() or 'no answer on its socket'}",
            do=f"read {layout.logs / 'supervisord.log'}",
        )

    def apply(self, program: Program) -> None:
        """Write `program` and, where supervisord runs, make it so; restarts it if changed."""
        with self._writing():
            path = self._file(program.name)
            text = program_section(program, self._layout)
            write_changed(path, text)
            if self.running():
                _, changed, _ = self._calls.reloadConfig()[0]
                if program.name in changed:
                    self._drop(program.name)
                self._tolerating(_ALREADY_ADDED, "addProcessGroup", program.name)

    def start_program(self, name: str) -> None:
        """Start what is down of a program; does nothing if all of it runs."""
        for process in self.processes():
            if process.program == name and not process.alive:
                self._calls.startProcess(f"{name}:{process.process}", False)

    def restart_program(self, name: str) -> None:
        """Stop all of a program, waiting for its end, and start it again."""
        with self._writing():
            self._calls.stopProcessGroup(name)
            self._calls.startProcessGroup(name, False)

    def restart_process(self, process: Process) -> None:
        """Stop one process of a program, waiting for its end, and start it again."""
        with self._writing():
            name = f"{process.program}:{process.process}"
            self._calls.stopProcess(name)
            self._calls.startProcess(name, False)

    def remove(self, name: str) -> None:
        """Stop a program with its process groups and forget it; nothing if it is gone."""
        with self._writing():
            if self.running():
                self._drop(name)
            files = self._alive_files(name)
            self._file(name).unlink(missing_ok=True)
            if self.running():
                self._calls.reloadConfig()
            for file in files:
                file.unlink(missing_ok=True)

    def processes(self) -> Sequence[Process]:
        return [
            Process(
                program=info["group"],
                process=info["name"],
                state=info["statename"],
                pid=info["pid"],
                uptime_s=float(info["now"] - info["start"]) if info["pid"] else 0.0,
                exit_code=info["exitstatus"],
                log=self._layout.logs / f"{_file_name(info['group'], info['name'])}.log",
            )
            for info in self._infos()
        ]

    def given_up(self, program: str) -> str:
        """Why supervisord does not start a program again; "" if it runs or is started again."""
        own = [process for process in self.processes() if process.program == program]
        gone = [process for process in own if process.gave_up]
        if not own or len(gone) < len(own):
            return ""
        return f"it ended as soon as it was started, the last time with {gone[0].exit_code}"

    def _infos(self) -> Sequence[Any]:
        try:
            return self._calls.getAllProcessInfo()
        except (OSError, http.client.HTTPException) as error:
            raise EndpointError(
                f"supervisord does not answer at {self._layout.socket}", do="make up"
            ) from error

    def written(self, prefix: str = "") -> Mapping[str, Mapping[str, str]]:
        """The settings of each program in conf.d whose name starts with `prefix`."""
        found = {}
        for path in sorted(self._layout.programs.glob("*.conf")):
            parser = configparser.RawConfigParser()
            if not parser.read(path):
                continue  # another process removed that program since the folder was listed
            section = parser.sections()[0]
            name = section.removeprefix("program:")
            if name.startswith(prefix):
                found[name] = dict(parser[section])
        return found

    def lasting(self) -> Mapping[str, Sequence[int]]:
        """The processes that a killed supervisord has left and the next one goes on with."""
        found = {
            name: [pid for file in self._alive_files(name) if (pid := _holder(file))]
            for name in self.written()
        }
        return {name: pids for name, pids in found.items() if pids}

    def end_orphans(self) -> None:
        """End what a killed supervisord has left, but for what the next one goes on with.

        And first a living one that cannot be reached any more, because it hangs or its socket
        was deleted: it would start again whatever is ended. Killed, it ends nothing itself.
        """
        if not self.running():
            end(self._daemons(), kill=True)
            lasting = [pid for pids in self.lasting().values() for pid in pids]
            end_all(self.url, spare=families(lasting))

    def _daemons(self) -> Sequence[psutil.Process]:
        """Every supervisord that was started with this layout's configuration."""
        return with_word(str(self._layout.supervisor / "supervisord.conf"))

    def shutdown(self, wait_s: float = 60) -> None:
        """Stop every program and supervisord, then whatever of theirs is left."""
        if self.running():
            daemon = psutil.Process(self._calls.getPID())
            self._calls.shutdown()
            psutil.wait_procs([daemon], timeout=wait_s)
        end(self._daemons(), kill=True)
        end_all(self.url)
        self._layout.socket.unlink(missing_ok=True)

    def _writing(self) -> Any:
        return exclusive(self._layout.supervisor / "lock", "supervisord's configuration")

    def _file(self, name: str) -> Path:
        return self._layout.programs / f"{name}.conf"

    def _alive_files(self, name: str) -> Sequence[Path]:
        count = int(self.written(name).get(name, {}).get("numprocs", "0"))
        processes = [str(number) for number in range(count)] or [name]
        return [self._layout.alive / _file_name(name, process) for process in processes]

    def _drop(self, name: str) -> None:
        self._tolerating(_BAD_NAME, "stopProcessGroup", name)
        self._tolerating(_BAD_NAME, "removeProcessGroup", name)

    def _tolerating(self, fault: int, call: str, name: str) -> None:
        try:
            getattr(self._calls, call)(name)
        except xmlrpc.client.Fault as error:
            if error.faultCode != fault:
                raise EndpointError(f"supervisord: {call} {name}: {error}") from error


def _holder(alive: Path) -> int:
    """The process that holds this lock and says what it runs; 0 if none does."""
    if not alive.exists():
        return 0
    with locked_now(alive) as free:
        holder = holder_in(alive.read_bytes())
        return holder.pid if free is None and holder.lives else 0


def _file_name(program: str, process: str) -> str:
    """What the files of a process are called; see `Program.file_name`."""
    return program if process == program else f"{program}-{process}"


def tail(log: Path, lines: int = 12) -> str:
    """The last lines of a log, to be put into an error."""
    if not log.is_file():
        return f"({log} is empty)"
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 64_000))
        text = file.read().decode(errors="replace")
    return "\n".join(text.splitlines()[-lines:])

"""Programs under supervisord: written as files, kept alive, stopped with their whole group.

supervisord restarts what dies, with back-off, rotates the logs and ends process groups. One
file in conf.d is one program; the file is the only record of it, so what ran before a
reboot runs again after `up`.
"""

import configparser
import http.client
import subprocess
import sys
import time
import xmlrpc.client
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from supervisor.xmlrpc import SupervisorTransport

from deployments.files import exclusive, write_whole
from deployments.local.layout import Layout
from deployments.local.supervisor.sections import Program, daemon_section, program_section
from policy.errors import EndpointError

_ALIVE = ("RUNNING", "STARTING", "BACKOFF")
_GONE = ("EXITED", "FATAL", "UNKNOWN")
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
        return self.state in _GONE


class Supervisor:
    """The supervisord of one layout. Calls reach it over its unix socket."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    @property
    def _calls(self) -> Any:  # its methods exist only on the other side
        # A transport that once failed to connect never does again, so each call has its own.
        transport = SupervisorTransport(None, None, self.url)
        return xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport).supervisor

    @property
    def url(self) -> str:
        return f"unix://{self._layout.socket}"

    def running(self) -> bool:
        try:
            return self._calls.getState()["statename"] == "RUNNING"
        except (OSError, http.client.HTTPException):
            return False

    def start(self, wait_s: float = 15) -> None:
        """Start supervisord and with it all programs with autostart. Raises EndpointError."""
        self.end_orphans()
        layout = self._layout
        for folder in (layout.logs, layout.programs, layout.supervisor):
            folder.mkdir(parents=True, exist_ok=True)
        layout.supervisor.chmod(0o700)
        conf = layout.supervisor / "supervisord.conf"
        write_whole(conf, daemon_section(layout))
        command = [sys.executable, "-m", "supervisor.supervisord", "-c", str(conf)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
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
            text = program_section(program, self._layout.logs)
            if not path.exists() or path.read_text() != text:
                write_whole(path, text)
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

    def remove(self, name: str) -> None:
        """Stop a program with its process groups and forget it; nothing if it is gone."""
        with self._writing():
            if self.running():
                self._drop(name)
            self._file(name).unlink(missing_ok=True)
            if self.running():
                self._calls.reloadConfig()

    def environment(self) -> Mapping[str, str]:
        """The environment that supervisord was started in, which its programs inherit."""
        return psutil.Process(self._calls.getPID()).environ()

    def processes(self) -> Sequence[Process]:
        return [
            Process(
                program=info["group"],
                process=info["name"],
                state=info["statename"],
                pid=info["pid"],
                uptime_s=float(info["now"] - info["start"]) if info["pid"] else 0.0,
                exit_code=info["exitstatus"],
                log=Path(info["stdout_logfile"]),
            )
            for info in self._infos()
        ]

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

    def end_orphans(self) -> None:
        """End what a killed supervisord has left; it would hold the ports.

        And first a living one that cannot be reached any more because its socket was deleted:
        it would start again whatever is ended.
        """
        if not self.running():
            _end(self._daemons())
        end_all(self.url)

    def _daemons(self) -> Sequence[psutil.Process]:
        """Every supervisord that was started with this layout's configuration."""
        conf = str(self._layout.supervisor / "supervisord.conf")
        return [p for p in psutil.process_iter() if conf in _words(p) and _alive(p)]

    def shutdown(self, wait_s: float = 60) -> None:
        """Stop every program and supervisord, then whatever of theirs is left."""
        if self.running():
            daemon = psutil.Process(self._calls.getPID())
            self._calls.shutdown()
            psutil.wait_procs([daemon], timeout=wait_s)
        self.end_orphans()
        self._layout.socket.unlink(missing_ok=True)

    def _writing(self) -> Any:
        return exclusive(self._layout.supervisor / "lock", "supervisord's configuration")

    def _file(self, name: str) -> Path:
        return self._layout.programs / f"{name}.conf"

    def _drop(self, name: str) -> None:
        self._tolerating(_BAD_NAME, "stopProcessGroup", name)
        self._tolerating(_BAD_NAME, "removeProcessGroup", name)

    def _tolerating(self, fault: int, call: str, name: str) -> None:
        try:
            getattr(self._calls, call)(name)
        except xmlrpc.client.Fault as error:
            if error.faultCode != fault:
                raise EndpointError(f"supervisord: {call} {name}: {error}") from error


def end_all(url: str, wait_s: float = 10) -> None:
    """End every process that descends from the supervisord at `url`, wherever it went.

    supervisord puts its address into the environment of what it starts and everything
    below inherits it, so this also finds sessions of their own and the orphans of a
    supervisord that was killed.
    """
    for _ in range(2):  # what one of them started meanwhile goes with the second
        _end(descendants(url), wait_s)


def _end(processes: Sequence[psutil.Process], wait_s: float = 10) -> None:
    """Ask them to end, then end them."""
    for end in (psutil.Process.terminate, psutil.Process.kill):
        for process in processes:
            try:
                end(process)
            except psutil.NoSuchProcess:
                continue  # it ended by itself meanwhile, which is what we want
        _, processes = psutil.wait_procs(processes, timeout=wait_s)


def descendants(url: str) -> Sequence[psutil.Process]:
    """Living processes that were started below the supervisord at `url`."""
    return [p for p in psutil.process_iter() if _mark(p) == url and p.status() != "zombie"]


def _words(process: psutil.Process) -> Sequence[str]:
    try:
        return process.cmdline()
    except (psutil.Error, OSError):
        return ()  # another user's, or gone


def _alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _mark(process: psutil.Process) -> str:
    try:
        return process.environ().get("SUPERVISOR_SERVER_URL", "")
    except (psutil.Error, OSError):
        return ""  # another user's, or gone


def tail(log: Path, lines: int = 12) -> str:
    """The last lines of a log, to be put into an error."""
    if not log.is_file():
        return f"({log} is empty)"
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 64_000))
        text = file.read().decode(errors="replace")
    return "\n".join(text.splitlines()[-lines:])

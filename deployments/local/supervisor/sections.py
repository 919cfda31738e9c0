"""supervisord's configuration: itself, and one section per program, as text."""

import hashlib
import json
import resource
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from deployments.local.layout import Layout
from deployments.local.supervisor import launch
from deployments.releases.keys import VARIABLE
from policy.errors import ConfigError

_OPEN_FILES = 10_240  # macOS allows no more
_LAUNCHER_S = 3  # for it to see that what it watched has been killed


@dataclass(frozen=True)
class Program:
    """One program; with `processes` that many, whose number from 0 stands in for `{number}`.

    Only one that `signs` is told the private key, should supervisord know it. One that `lasts`
    goes on when supervisord is killed, and is taken over by the next one as it is.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    folder: Path
    processes: int = 0
    autostart: bool = True
    restart: Literal["true", "unexpected"] = "true"
    stop_s: int = 10
    signs: bool = False
    lasts: bool = False

    @property
    def file_name(self) -> str:
        """What the files of each of its processes are called, in supervisord's words."""
        return f"{self.name}-%(process_num)d" if self.processes else self.name


def daemon_section(layout: Layout) -> str:
    return f"""[supervisord]
logfile={_value(layout.logs / "supervisord.log")}
logfile_maxbytes=5MB
logfile_backups=2
pidfile={_value(layout.supervisor / "supervisord.pid")}
umask=077
minfds={_open_files()}
childlogdir={_value(layout.logs)}
silent=true

[unix_http_server]
file={_value(layout.socket)}
chmod=0600

[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface

[supervisorctl]
serverurl=unix://{_value(layout.socket)}

[include]
files={_value(layout.programs)}/*.conf
"""


def _open_files() -> int:
    """What may be open at once, connections of clients among it; by default it may be 256."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _OPEN_FILES if most == resource.RLIM_INFINITY else min(_OPEN_FILES, most)


def program_section(program: Program, layout: Layout) -> str:
    """One program as supervisor wants it.

    A process that ends within a second is tried twice more, after 1 and 2 s, then it is
    FATAL. Exit code 2 is bad input by the contract of model/README.md:
    with restart "unexpected" it is left alone.
    """
    given = program.environment if program.signs else {VARIABLE: "", **program.environment}
    settings = {
        "command": _command(program.command),
        "directory": _value(program.folder),
        "environment": ",".join(
            f'{name}="{_setting(name, value)}"' for name, value in given.items()
        ),
        "autostart": str(program.autostart).lower(),
        "autorestart": program.restart,
        "exitcodes": "2",
        "startsecs": "1",
        "startretries": "2",
        "stopsignal": "TERM",
        "stopwaitsecs": str(program.stop_s),
        "stopasgroup": "true",
        "killasgroup": "true",
        "redirect_stderr": "true",
        "stdout_logfile": f"{_value(layout.logs)}/{program.file_name}.log",
        "stdout_logfile_maxbytes": "5MB",
        "stdout_logfile_backups": "2",
        **(_launched(program, layout) if program.lasts else {}),
    }
    if program.processes:
        settings |= {"numprocs": str(program.processes), "process_name": "%(process_num)d"}
    lines = [f"{name}={value}" for name, value in settings.items()]
    return "\n".join([f"[program:{program.name}]", *lines, ""])


def _launched(program: Program, layout: Layout) -> dict[str, str]:
    """What is other for a program that lasts: launch.py starts it and says where to."""
    told = [[*program.command], {**program.environment}, str(program.folder)]
    what = hashlib.sha256(json.dumps(told).encode()).hexdigest()
    launcher = _command([sys.executable, "-I", "-S", launch.__file__])
    alive = shlex.quote(f"{_value(layout.alive)}/{program.file_name}")
    log = shlex.quote(f"{_value(layout.logs)}/{program.file_name}.log")
    command = _command([what, str(program.stop_s), *program.command])
    return {
        "command": f"{launcher} {alive} {log} {command}",
        "stopwaitsecs": str(program.stop_s + _LAUNCHER_S),
        "stdout_logfile": "NONE",
    }


def _command(words: Sequence[str]) -> str:
    return shlex.join(words).replace("%", "%%")


def _setting(name: str, value: str) -> str:
    if any(sign in value for sign in "\"'\n"):
        raise ConfigError(f"{name} (={value!r}) holds a quote or a line end")
    return value.replace("%", "%%").replace("{number}", "%(process_num)d")


def _value(path: Path) -> str:
    if " ;" in str(path):
        raise ConfigError(f"path {path} holds ' ;', which supervisord reads as a comment")
    return str(path).replace("%", "%%")

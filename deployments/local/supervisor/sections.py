"""supervisord's configuration: itself, and one section per program, as text."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from deployments.local.layout import Layout
from deployments.releases.keys import VARIABLE
from policy.errors import ConfigError


@dataclass(frozen=True)
class Program:
    """One program. With `ports`, one process per port, which stands in for `{port}`.

    Only one that `signs` is told the private key, should supervisord know it.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    folder: Path
    ports: Sequence[int] = field(default=())
    autostart: bool = True
    restart: Literal["true", "unexpected"] = "true"
    stop_s: int = 10
    signs: bool = False


def daemon_section(layout: Layout) -> str:
    return f"""[supervisord]
logfile={_value(layout.logs / "supervisord.log")}
logfile_maxbytes=5MB
logfile_backups=2
pidfile={_value(layout.supervisor / "supervisord.pid")}
childlogdir={_value(layout.logs)}
silent=true

[unix_http_server]
file={_value(layout.socket)}
chmod=0700

[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface

[supervisorctl]
serverurl=unix://{_value(layout.socket)}

[include]
files={_value(layout.programs)}/*.conf
"""


def program_section(program: Program, logs: Path) -> str:
    """One program as supervisor wants it.

    A process that ends within a second is tried twice more, after 1 and 2 s, then it is
    FATAL. Exit code 2 is bad input by the contract of model/README.md:
    with restart "unexpected" it is left alone.
    """
    several = bool(program.ports)
    given = program.environment if program.signs else {VARIABLE: "", **program.environment}
    log = f"{program.name}-%(process_num)d.log" if several else f"{program.name}.log"
    settings = {
        "command": shlex.join(program.command).replace("%", "%%"),
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
        "stdout_logfile": f"{_value(logs)}/{log}",
        "stdout_logfile_maxbytes": "5MB",
        "stdout_logfile_backups": "2",
    }
    if several:
        settings |= {
            "numprocs": str(len(program.ports)),
            "numprocs_start": str(program.ports[0]),
            "process_name": "%(process_num)d",
        }
    lines = [f"{name}={value}" for name, value in settings.items()]
    return "\n".join([f"[program:{program.name}]", *lines, ""])


def _setting(name: str, value: str) -> str:
    if any(sign in value for sign in "\"'\n"):
        raise ConfigError(f"{name} (={value!r}) holds a quote or a line end")
    return value.replace("%", "%%").replace("{port}", "%(process_num)d")


def _value(path: Path) -> str:
    if " ;" in str(path):
        raise ConfigError(f"path {path} holds ' ;', which supervisord reads as a comment")
    return str(path).replace("%", "%%")

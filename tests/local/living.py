"""The living processes of a stack, by their numbers."""

import psutil

from deployments.local.layout import layout_of
from deployments.local.supervisor import launch
from deployments.local.supervisor.processes import descendants
from deployments.local.supervisor.programs import Supervisor
from policy.config import Config


def processes(config: Config, *words: str) -> set[int]:
    """Those with all these words in their command lines, but for those that only watch."""
    return {
        pid
        for pid, line in _lines(config).items()
        if launch.__file__ not in line and all(word in line for word in words)
    }


def watchers(config: Config) -> set[int]:
    """Those that stand in for a server that a killed supervisord has left."""
    return {pid for pid, line in _lines(config).items() if launch.__file__ in line}


def _lines(config: Config) -> dict[int, str]:
    found = {}
    for process in descendants(Supervisor(layout_of(config)).url):
        try:
            found[process.pid] = " ".join(process.cmdline())
        except psutil.Error:
            continue  # it has ended meanwhile
    return found

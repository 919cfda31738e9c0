"""Kills with -9: of anything that the stack runs, one at a time."""

import signal
import time
from collections.abc import Callable, Mapping, Sequence

import psutil

from tests.benchmarks.chaos_run.clients import Clients
from tests.benchmarks.chaos_run.world import World

WHOLE_AFTER_S = 10.0  # a server that began so long ago answers


class Kills:
    """`excuse` is told which version lost a server of its own, and why."""

    def __init__(
        self, world: World, clients: Clients, excuse: Callable[[str, str], None]
    ) -> None:
        self._world, self._clients, self._excuse = world, clients, excuse

    def first(self, *words: str) -> str:
        """The oldest process with these words in its command."""
        return self._end(self._world.processes(*words)[:1])

    def anything(self, number: float) -> str:
        found = self._world.processes()
        return self._one([p for p in found if self._may_die(p)], number)

    def envoy(self, number: float) -> str:
        name = "production" if number < 0.75 else "staging"
        return self.first(f"endpoints/{name}/bootstrap.json")

    def a_server(self, number: float) -> str:
        """Of any version; never the last one that answers, which nothing could stand in for."""
        weights = self._world.endpoint.observe().weights
        found = [
            server for version in sorted(weights) for server in self._world.servers(version)
        ]
        return self._one([p for p in found if self._may_die(p)], number)

    def _one(self, processes: Sequence[psutil.Process], number: float) -> str:
        return self._end(processes[int(number * len(processes)) :][:1])

    def _may_die(self, process: psutil.Process) -> bool:
        """One of two servers at a time: that both may be dead at once, nobody promises."""
        environment = _environment(process)
        version, socket = (environment.get(f"ARR_COC_{n}", "") for n in ("VERSION", "SOCKET"))
        if not version or "-m model.serve" not in " ".join(process.cmdline()):
            return True
        servers = [p for p in self._world.servers(version) if _age_s(p) > WHOLE_AFTER_S]
        return len(servers) > 1 or "production" not in socket

    def _end(self, victims: Sequence[psutil.Process]) -> str:
        """Kill them, and say so to whom it concerns."""
        for victim in victims:
            line, environment = " ".join(victim.cmdline()), _environment(victim)
            if "endpoints/production/bootstrap.json" in line:
                self._clients.envoy_was_killed()
            if version := environment.get("ARR_COC_VERSION"):
                self._excuse(version, "its server was killed")
            victim.send_signal(signal.SIGKILL)
            return f"{victim.pid}: {line[-120:]}"
        return "there was none"


def _environment(process: psutil.Process) -> Mapping[str, str]:
    try:
        return process.environ()
    except (psutil.Error, OSError):
        return {}


def _age_s(process: psutil.Process) -> float:
    return time.time() - process.create_time()

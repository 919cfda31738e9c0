"""What of the local stack runs, and what serves where."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from deployments import Endpoint, Health, Part
from deployments.local import endpoints_of
from deployments.local.layout import layout_of
from deployments.local.servers import local_of
from deployments.local.stack.orchestrator import server_healthy, server_url
from deployments.local.supervisor.programs import Process, Supervisor
from policy.config import Config
from policy.errors import EndpointError, EndpointSilent

_FREE_MIN = 200 * 2**20  # bytes


def health(config: Config) -> Health:
    """Look at every part; a part that is down is told, not raised."""
    parts = [*_programs(Supervisor(layout_of(config)))]
    for endpoint in endpoints_of(config).values():
        parts += _endpoint(endpoint, endpoint.url)
    return Health((*parts, *_disks(config), _prefect(config)))


def _disks(config: Config) -> Iterator[Part]:
    folders = {"scratch": layout_of(config).scratch}
    folders |= {} if "://" in config.root else {"root": Path(config.root).resolve()}
    for name, folder in folders.items():
        if folder.exists():
            free = shutil.disk_usage(folder).free
            few = f"only {free / 2**20:.0f} MB free; to do: make room"
            yield Part(f"disk of {name}", "in use", few if free < _FREE_MIN else "")


def _programs(supervisor: Supervisor) -> Iterator[Part]:
    if not supervisor.running():
        yield Part("supervisord", "down", "nothing is kept alive; to do: make up")
        return
    yield Part("supervisord", "up")
    try:
        yield from map(_program, supervisor.processes())
    except EndpointError as error:
        yield Part("programs", "unknown", str(error))


def _program(process: Process) -> Part:
    single = process.process == process.program
    name = process.program if single else f"{process.program} {process.process}"
    up = time.strftime("%H:%M:%S", time.gmtime(process.uptime_s))
    problem = "" if process.state == "RUNNING" else f"read {process.log}; to do: make up"
    return Part(name, f"{process.state.lower()}, pid {process.pid}, up {up}", problem)


def _endpoint(endpoint: Endpoint, url: str) -> Iterator[Part]:
    name = f"endpoint {endpoint.name}"
    try:
        observed = endpoint.observe()
    except EndpointSilent as error:
        yield Part(name, f"silent at {url}", str(error))
        return
    yield Part(name, f"up at {url}")
    for version, server in sorted(observed.servers.items()):
        share = observed.weights.get(version, 0)
        unready = f"{share} % of the requests go to it; to do: make up"
        reason = server.reason or (unready if share and server.state != "ready" else "")
        yield Part(f"{name}: {version}", f"{server.state}, {share} %", reason)


def _prefect(config: Config) -> Part:
    local = local_of(config)
    if server_healthy(local):
        return Part("Prefect", f"up at {server_url(local)}")
    return Part("Prefect", "down", f"no answer at {server_url(local)}; to do: make up")

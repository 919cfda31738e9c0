"""What of the local stack runs, and what serves where."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from deployments import Endangered, Health, Part
from deployments.local import endpoints_of
from deployments.local.endpoint import EnvoyEndpoint
from deployments.local.layout import layout_of
from deployments.local.servers import local_of
from deployments.local.stack.orchestrator import server_problem, server_url
from deployments.local.stack.serving import RECONCILER
from deployments.local.supervisor.programs import Process, Supervisor
from deployments.local.tokens import problem
from policy.config import Config
from policy.errors import EndpointError, EndpointSilent

_FREE_MIN = 200 * 2**20  # bytes


def health(config: Config) -> Health:
    """Look at every part; a part that is down is told, not raised."""
    parts = [*_programs(Supervisor(layout_of(config)))]
    for endpoint in endpoints_of(config).values():
        parts += _endpoint(endpoint)
    return Health((*parts, *_disks(config), *_tokens(config), _prefect(config)))


def _tokens(config: Config) -> Iterator[Part]:
    if config.serving.tokens:
        found = problem(config)
        yield Part("tokens", "nobody is let in" if found else "in force", found)


def _disks(config: Config) -> Iterator[Part]:
    folders = {"scratch": layout_of(config).scratch}
    folders |= {} if "://" in config.root else {"root": Path(config.root).resolve()}
    for name, folder in folders.items():
        if folder.exists():
            free = shutil.disk_usage(folder).free
            few = f"only {free / 2**20:.0f} MB free; to do: make room in {folder}"
            told = few if free < _FREE_MIN else ""
            yield Part(f"disk of {name}", "in use", told, endangers="rollbacks")
            yield from _private(name, folder)


def _private(name: str, folder: Path) -> Iterator[Part]:
    """Ledger, logs and keys are nobody else's business."""
    mode = folder.stat().st_mode & 0o777
    if mode & 0o077:
        told = f"others on this machine may look into it (mode {mode:o}); to do: chmod 700 "
        yield Part(f"folder of {name}", "open", f"{told}{folder}")


def _programs(supervisor: Supervisor) -> Iterator[Part]:
    if not supervisor.running():
        told = "nothing is kept alive; to do: make up"
        yield Part("supervisord", "down", told, endangers="clients")
        return
    yield Part("supervisord", "up")
    try:
        yield from map(_program, supervisor.processes())
    except EndpointError as error:
        yield Part("programs", "unknown", str(error), endangers="clients")


def _program(process: Process) -> Part:
    single = process.process == process.program
    name = process.program if single else f"{process.program} {process.process}"
    up = time.strftime("%H:%M:%S", time.gmtime(process.uptime_s))
    state = process.state.lower()
    told = "" if process.state == "RUNNING" else f"{state}: see {process.log}; to do: make up"
    return Part(name, f"{state}, pid {process.pid}, up {up}", told, _needed_by(process.program))


def _needed_by(program: str) -> Endangered:
    if program == RECONCILER:
        return "rollbacks"
    return "clients" if program.startswith(("envoy-", "model-")) else "nobody yet"


def _endpoint(endpoint: EnvoyEndpoint) -> Iterator[Part]:
    name, url = f"endpoint {endpoint.name}", endpoint.url
    try:
        observed = endpoint.observe()
    except EndpointSilent as error:
        yield Part(name, f"silent at {url}", str(error), endangers="clients")
        return
    closed = ", ".join(endpoint.closed())
    unheard = f"nobody listens at {closed}; to do: make up" if closed else ""
    yield Part(name, "closed" if closed else f"up at {url}", unheard, endangers="clients")
    for version, server in sorted(observed.servers.items()):
        share = observed.weights.get(version, 0)
        unready = f"{share} % of the requests go to it; to do: make up"
        reason = server.reason or (unready if share and server.state != "ready" else "")
        harms: Endangered = "clients" if share else "nobody yet"
        yield Part(f"{name}: {version}", f"{server.state}, {share} %", reason, harms)


def _prefect(config: Config) -> Part:
    problem, url = server_problem(config), server_url(local_of(config))
    return Part("Prefect", "down" if problem else f"up at {url}", problem)

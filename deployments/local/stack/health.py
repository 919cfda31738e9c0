"""What of the local stack runs, and what serves where."""

from collections.abc import Sequence
from dataclasses import dataclass

from deployments import Endpoint
from deployments.local import connect
from deployments.local.layout import layout_of
from deployments.local.servers import listener_port, local_of
from deployments.local.stack.orchestrator import server_healthy, server_url
from deployments.local.supervisor.programs import Process, Supervisor
from policy.config import Config
from policy.errors import EndpointError


@dataclass(frozen=True)
class Served:
    version: str
    weight: int  # percent
    ready: bool
    problem: str  # why it never will be ready; empty otherwise


@dataclass(frozen=True)
class Serving:
    """One endpoint; `problem` is empty if its data plane answers."""

    name: str
    url: str
    versions: Sequence[Served]
    problem: str


@dataclass(frozen=True)
class Health:
    """`well`: all programs run, and every version with traffic is ready."""

    well: bool
    supervised: bool
    programs: Sequence[Process]
    endpoints: Sequence[Serving]
    prefect_url: str
    prefect_up: bool


def health(config: Config) -> Health:
    """Look at every part; a part that is down is told, not raised."""
    local = local_of(config)
    supervisor = Supervisor(layout_of(config.root))
    supervised = supervisor.running()
    programs = supervisor.processes() if supervised else []
    endpoints = [
        _serving(endpoint, f"http://127.0.0.1:{listener_port(local, name)}")
        for name, endpoint in connect(config).endpoints.items()
    ]
    prefect_up = server_healthy(local)
    well = (
        supervised
        and prefect_up
        and all(process.state == "RUNNING" for process in programs)
        and not any(endpoint.problem for endpoint in endpoints)
        and all(v.ready for e in endpoints for v in e.versions if v.weight)
    )
    url = server_url(local)
    return Health(well, supervised, programs, endpoints, url, prefect_up)


def _serving(endpoint: Endpoint, url: str) -> Serving:
    try:
        weights = endpoint.weights()
        versions = [_served(endpoint, v, weights.get(v, 0)) for v in endpoint.deployed()]
    except EndpointError as error:
        return Serving(endpoint.name, url, (), str(error))
    return Serving(endpoint.name, url, versions, "")


def _served(endpoint: Endpoint, version: str, weight: int) -> Served:
    try:
        return Served(version, weight, endpoint.ready(version), "")
    except EndpointError as error:
        return Served(version, weight, False, str(error))

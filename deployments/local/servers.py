"""Which ports belong to which endpoint and to which version's servers.

What conf.d says of the servers is all the record there is, so it survives restarts.
"""

from collections.abc import Mapping, Sequence

from deployments.local.envoy.configuration import Guard, Server
from deployments.local.supervisor.programs import Supervisor
from policy.config import Config, Local
from policy.errors import ConfigError

ENDPOINTS = ("staging", "production")


def listener_port(local: Local, endpoint: str) -> int:
    return local.staging_port if endpoint == "staging" else local.production_port


def admin_port(local: Local, endpoint: str) -> int:
    return local.staging_admin_port if endpoint == "staging" else local.production_admin_port


def servers_of(supervisor: Supervisor, endpoint: str) -> Sequence[Server]:
    """The model servers of one endpoint, as conf.d records them."""
    found = []
    prefix = f"model-{endpoint}-"
    for name, settings in supervisor.written(prefix).items():
        first, count = int(settings["numprocs_start"]), int(settings["numprocs"])
        digest = settings["environment"].split('ARR_COC_DIGEST="')[1].split('"')[0]
        ports = tuple(range(first, first + count))
        found.append(Server(name.removeprefix(prefix), digest, ports))
    return found


def reserved_ports(supervisor: Supervisor) -> frozenset[int]:
    """Ports of all model servers, running or not."""
    servers = (server for name in ENDPOINTS for server in servers_of(supervisor, name))
    return frozenset(port for server in servers for port in server.ports)


def local_of(config: Config) -> Local:
    if config.local is None:
        raise ConfigError("the section 'local' is missing", expected="place: local")
    return config.local


def guard_of(config: Config) -> Guard:
    """What guards the endpoints, as the configuration says."""
    serving = config.serving
    return Guard(
        tokens=serving.tokens_required,
        rate_per_s=serving.rate_per_s,
        sticky_header=serving.sticky_header,
        request_bytes_max=serving.request_bytes_max,
    )


def replicas_of(config: Config) -> Mapping[str, int]:
    """Servers of one version at each endpoint; staging has no users who would notice."""
    return {"staging": 1, "production": config.serving.replicas}

"""Which ports belong to which endpoint and to which version's servers.

What conf.d says of the servers is all the record there is, so it survives restarts.
"""

import os
from collections.abc import Sequence

from deployments.local.envoy import TOKENS, Guard, Server
from deployments.local.programs import Supervisor
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
    """What guards the endpoints. Tokens are asked for where the environment holds some."""
    local_of(config)
    return Guard(tokens=bool(os.environ.get(TOKENS)))

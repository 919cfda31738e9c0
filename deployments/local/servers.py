"""Which servers each endpoint has, as supervisord's conf.d records them.

That is all the record there is, so it survives restarts.
"""

import re
from collections.abc import Mapping, Sequence

from deployments.local.envoy.configuration import Guard, Server
from deployments.local.supervisor.programs import Supervisor
from policy.config import Config, Local, LocalEndpoint
from policy.errors import ConfigError

_MODEL = "model-"


def program_name(endpoint: str, version: str) -> str:
    """The supervised program that serves `version` at `endpoint`."""
    return f"{_MODEL}{endpoint}-{version}"


def servers_of(supervisor: Supervisor, endpoint: str) -> Sequence[Server]:
    """The model servers of one endpoint."""
    written = supervisor.written(program_name(endpoint, ""))
    found = [_server(settings) for settings in written.values()]
    # Another endpoint's name may begin with this one's and a dash.
    names = [program_name(endpoint, server.version) for server in found]
    return [server for server, name in zip(found, names, strict=True) if name in written]


def reserved_ports(supervisor: Supervisor) -> frozenset[int]:
    """Ports of all model servers of all endpoints, running or not."""
    servers = map(_server, supervisor.written(_MODEL).values())
    return frozenset(port for server in servers for port in server.ports)


def _server(settings: Mapping[str, str]) -> Server:
    first, count = int(settings["numprocs_start"]), int(settings["numprocs"])
    version, digest = (
        re.findall(rf'{name}="([^"]*)"', settings["environment"])[0]
        for name in ("ARR_COC_VERSION", "ARR_COC_DIGEST")
    )
    return Server(version, digest, tuple(range(first, first + count)))


def local_of(config: Config) -> Local:
    """The section `local`. Raises ConfigError if there is none."""
    if config.local is None:
        raise ConfigError("the section 'local' is missing", expected="place: local")
    return config.local


def ports_of(config: Config, endpoint: str) -> LocalEndpoint:
    """Where an endpoint of the configuration listens."""
    return local_of(config).endpoints[endpoint]


def guard_of(config: Config) -> Guard:
    """What guards the endpoints, as the configuration says."""
    serving = config.serving
    return Guard(
        tokens=serving.tokens_required,
        rate_per_s=serving.rate_per_s,
        sticky_header=serving.sticky_header,
        request_bytes_max=serving.request_bytes_max,
    )

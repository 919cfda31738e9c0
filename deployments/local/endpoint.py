"""The endpoint of the place `local`: Envoy in front of model servers, one group per version.

Nothing is remembered here: the servers stand in supervisord's conf.d, the split in Envoy
and in the file that it loads at its start. So any process may call, and one that dies
between two steps leaves something that the next `apply` completes.
"""

import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import httpx

from deployments import Capability, Desired, Json, Observed, Release, Reply, Server, Store
from deployments.files import exclusive, is_full
from deployments.local import loopback
from deployments.local.envoy import configuration as envoy
from deployments.local.envoy.admin import Admin
from deployments.local.envoy.clusters import clusters, versions_in
from deployments.local.envoy.configuration import Guard, Split
from deployments.local.envoy.plane import DataPlane
from deployments.local.envoy.routes import admitting, routes
from deployments.local.layout import layout_of
from deployments.local.model_servers import ModelServers
from deployments.local.servers import doors_of, guard_of
from deployments.local.tokens import admitted
from deployments.local.warming import warm
from deployments.orders import require_possible
from policy.config import Config
from policy.errors import Busy, EndpointError, EndpointSilent

_LOCK_WAIT_S = 10
_DRAIN_S = 1.0  # a call waits for requests no longer; a later one removes what is left
_HEALTH_TIMEOUT_S = 2.0


class EnvoyEndpoint:
    """`deployments.Endpoint` on this machine.

    With two or more replicas, a server that is killed costs no request even where its version
    has all the traffic.

    Args:
        server: the module that serves a release by the contract of model/README.md.
        guard: what stands before the servers, if not what the configuration says.
    """

    can: frozenset[Capability] = frozenset({"pin", "mirror", "fallback", "empty"})

    def __init__(
        self, config: Config, name: str, store: Store, server: str, guard: Guard | None = None
    ) -> None:
        layout = layout_of(config)
        self._doors = doors_of(config, name)
        self.name, self.url = name, loopback.url(self._doors.port)
        self._guard = guard or guard_of(config)
        self._models = ModelServers(config, name, store, server)
        self._plane = DataPlane(layout, name, Admin(name, self._doors.admin))
        self._lock = layout.endpoint(name) / "lock"
        self._client = loopback.client_at(self._doors.operators)

    def observe(self) -> Observed:
        split, present = self._plane.split(), self._models.present()
        servers = {
            version: Server("failed", digest, reason)
            for version, (digest, reason) in self._models.refused().items()
        }
        ready = [server for server in present if self._ready(server.version)]
        servers |= {server.version: Server("ready", server.digest) for server in ready}
        # Only of the others supervisord must be asked: while it is dead, what answers is seen.
        others = [server for server in present if server not in ready]
        gave_up = self._models.gave_up(others) if others else {}
        for server in others:
            reason = gave_up.get(server.version, "")
            state = "failed" if reason else "starting"
            servers[server.version] = Server(state, server.digest, reason)
        return Observed(servers, split.weights, split.mirror, split.fallback)

    def closed(self) -> Sequence[str]:
        """Where it should listen and nobody does, whether or not its Envoy lives."""
        doors = {self.url: self._doors.port, str(self._doors.operators): self._doors.operators}
        return [name for name, door in doors.items() if not loopback.listens(door)]

    def unwritten(self) -> str:
        """What Envoy has in force and would not come back with. Raises EndpointSilent."""
        return self._plane.unwritten()

    def cut_off(self) -> Sequence[str]:
        """The server processes that run and cannot be reached anew. Raises EndpointSilent."""
        found = self._models.cut_off(self._models.present())
        return [f"{process.program} {process.process}" for process in found]

    def hung(self) -> Sequence[str]:
        """The server processes that run and do not answer. Raises EndpointSilent."""
        found = self._models.hung(self._models.present())
        return [f"{one.program} {one.process} (pid {one.pid})" for one in found]

    def renew(self) -> bool:
        """Restart servers that are cut off or hang, one by one; whether some are left.

        Raises EndpointSilent.
        """
        with self._exclusive():
            return self._models.renew(self._models.present(), hung=True)

    def apply(self, desired: Desired) -> None:
        require_possible(self.name, desired)
        try:
            self._apply(desired)
        except OSError as error:
            raise EndpointSilent(
                f"endpoint {self.name}: nothing can be written: {error}",
                holds="what serves goes on serving",
                do="free some disk space" if is_full(error) else "make up",
            ) from error

    def _apply(self, desired: Desired) -> None:
        versions = [release.version for release in desired.releases]
        with self._exclusive():
            split, servers = self._plane.split(), self._models.present()
            try:
                self._mend(servers)
            except EndpointSilent:
                self._move_traffic(servers, desired, split)
                raise
            servers = self._remove(self._replaced(servers, desired, split), servers, split)
            servers, trouble = self._start(servers, desired)
            split = self._route(servers, desired, split)
            leaving = [server for server in servers if server.version not in versions]
            self._remove(leaving, servers, split)
            self._models.forget_refused(keep=versions)
        if trouble:
            raise trouble[0]

    def _move_traffic(
        self, servers: Sequence[envoy.Server], desired: Desired, split: Split
    ) -> None:
        """All that can be done while supervisord is dead: no server starts or stops.

        An abort, or a rollback of what is bad, must not wait for somebody's `up`.
        """
        stay = tuple(Release(server.version, server.digest) for server in servers)
        self._route(servers, replace(desired, releases=stay), split)

    def ask(
        self, version: str | None, instances: Sequence[Json], timeout_s: float = 10
    ) -> Reply:
        headers = {envoy.PIN_HEADER: version} if version else {}
        body, started = {"instances": [*instances]}, time.perf_counter()
        try:
            reply = self._client.post(
                envoy.PREDICT_ROUTE, json=body, headers=headers, timeout=timeout_s
            )
        except httpx.TransportError as error:
            return Reply(0, "", (), time.perf_counter() - started, repr(error))
        return _reply(reply, time.perf_counter() - started)

    def refresh(self) -> None:
        """Guard the routes as configured now, keeping the split; mend damaged working copies.

        Raises EndpointSilent.
        """
        with self._exclusive():
            servers, split = self._models.present(), self._plane.split()
            self._mend(servers)
            self._write_clusters(servers)
            self._write_routes(servers, split)

    def admit(self) -> None:
        """Let in whose tokens are accepted now, and nobody else; what serves stays as it is.

        Raises EndpointSilent.
        """
        with self._exclusive():
            written = self._plane.written("routes")
            self._plane.write("routes", admitting(written, admitted(self._guard)))

    def _mend(self, servers: Sequence[envoy.Server]) -> None:
        gave_up = self._models.gave_up(servers)
        for server in servers:
            if server.version in gave_up:
                self._models.mend(server)
        self._models.renew(servers)

    def _replaced(
        self, servers: Sequence[envoy.Server], desired: Desired, split: Split
    ) -> Sequence[envoy.Server]:
        """Servers whose version is desired with other bytes. Raises EndpointError."""
        digests = {release.version: release.digest for release in desired.releases}
        found = [s for s in servers if digests.get(s.version, s.digest) != s.digest]
        for server in found:
            if share := split.weights.get(server.version):
                raise EndpointError(
                    f"endpoint {self.name}: {server.version} is deployed with digest "
                    f"{server.digest[:12]} and has {share} %",
                    expected=f"digest {digests[server.version][:12]}, or no weight",
                    holds="it goes on serving",
                    do="take its weight first",
                )
        return found

    def _start(
        self, servers: Sequence[envoy.Server], desired: Desired
    ) -> tuple[Sequence[envoy.Server], Sequence[EndpointSilent]]:
        """Start what is missing, each whatever becomes of the others.

        Returns:
            The servers that are there now, and what got in the way.
        """
        present, trouble = {server.version for server in servers}, []
        missing = [r for r in desired.releases if r.version not in present]
        for release in missing:
            try:
                self._models.start(release)
            except EndpointSilent as error:
                trouble.append(error)
        return (self._models.present() if missing else servers), trouble

    def _route(self, servers: Sequence[envoy.Server], desired: Desired, split: Split) -> Split:
        """Give every server its ways, and the weights if all that get some are ready."""
        self._write_clusters(servers)
        present = {server.version for server in servers}
        weights = {version: share for version, share in desired.weights.items() if share}
        if all(version in present and self._ready(version) for version in weights):
            mirror = {version: share for version, share in desired.mirror.items() if share}
            after = Split(weights, desired.fallback or "", mirror).within(present)
            self._warm([s for s in servers if s.version in after.heard - split.heard])
            split = after
        named = {release.version for release in desired.releases} | {*split.weights}
        self._write_routes([server for server in servers if server.version in named], split)
        return split

    def _warm(self, servers: Sequence[envoy.Server]) -> None:
        for server in servers:

            def ask(instance: Json, left_s: float, version: str = server.version) -> Reply:
                return self.ask(version, [instance], left_s)

            warm(ask, self._models.copy_of(server), len(server.sockets))

    def _remove(
        self, leaving: Sequence[envoy.Server], servers: Sequence[envoy.Server], split: Split
    ) -> Sequence[envoy.Server]:
        """Remove what has no weight and no request: routes, then clusters, then servers.

        Returns:
            The servers that stay, with those that still answer a request.
        """
        leaving = [server for server in leaving if not split.weights.get(server.version)]
        if not leaving:
            return servers
        routed = [server for server in servers if server not in leaving]
        self._write_routes(routed, split.within([server.version for server in routed]))
        deadline = time.monotonic() + _DRAIN_S
        gone = [
            server
            for server in leaving
            if self._plane.idle(server.version, max(0.0, deadline - time.monotonic()))
        ]
        stay = [server for server in servers if server not in gone]
        self._write_clusters(stay)
        for server in gone:
            self._models.remove(server)
        return stay

    def _ready(self, version: str) -> bool:
        try:
            reply = self._client.get(
                envoy.HEALTH_ROUTE,
                headers={envoy.PIN_HEADER: version},
                timeout=_HEALTH_TIMEOUT_S,
            )
        except httpx.TransportError:
            return False  # Envoy's own silence shows at its administration
        return reply.status_code == 200 and reply.headers.get(envoy.PIN_HEADER) == version

    def _write_clusters(self, servers: Sequence[envoy.Server]) -> None:
        gone: Collection[str] = ()
        if self._plane.age_s("clusters") < envoy.REQUEST_TIMEOUT_S + 1:
            gone = versions_in(self._plane.written("clusters"))
        self._plane.write("clusters", clusters(servers, gone))

    def _write_routes(self, servers: Sequence[envoy.Server], split: Split) -> None:
        self._plane.write("routes", routes(self.name, servers, split, admitted(self._guard)))

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        try:
            with exclusive(self._lock, f"endpoint {self.name}", _LOCK_WAIT_S):
                yield
        except Busy as error:
            raise EndpointSilent(str(error)) from error


def _reply(reply: httpx.Response, took_s: float) -> Reply:
    version = reply.headers.get(envoy.PIN_HEADER, "")
    try:
        body = reply.json()
        if reply.status_code == 200 and isinstance(body["predictions"], list):
            return Reply(200, version, tuple(body["predictions"]), took_s)
        error = str(body["error"])
    except (ValueError, KeyError, TypeError, RecursionError):
        error = f"the body is not by the contract: {reply.text[:200]!r}"
    return Reply(reply.status_code, version, (), took_s, error)

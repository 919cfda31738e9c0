"""The endpoint of the place `local`: Envoy in front of model servers, one group per version.

Nothing is remembered here: the servers stand in supervisord's conf.d, the split in Envoy
and in the file that it loads at its start. So any process may call, and one that dies
between two steps leaves something the next call completes.
"""

import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import httpx

from deployments import Json, Release, Reply, Store
from deployments.local import loopback
from deployments.local.envoy import configuration as envoy
from deployments.local.envoy.admin import Admin
from deployments.local.envoy.clusters import clusters
from deployments.local.envoy.configuration import Guard, Server, Split
from deployments.local.envoy.plane import DataPlane
from deployments.local.envoy.routes import routes
from deployments.local.files import alone
from deployments.local.layout import Layout
from deployments.local.servers import (
    admin_port,
    listener_port,
    reserved_ports,
    servers_of,
)
from deployments.local.stack.ports import find_free
from deployments.local.supervisor.programs import Process, Supervisor, tail
from deployments.local.supervisor.sections import Program
from deployments.releases import folder as releases
from deployments.releases.signing import Trusted
from policy.config import Local
from policy.errors import EndpointError, Unsupported

_CAPABILITIES = frozenset({"canary", "pin", "drain", "fallback", "mirror"})


class EnvoyEndpoint:
    """`deployments.Endpoint` on this machine.

    Args:
        server: the module that serves a release by the contract of model/README.md.
        replicas: server processes per version. With two or more, one that is killed costs
            no request even where its version has all the traffic.
        trusted: gives the keys whose releases may serve, asked anew for each of them.
    """

    def __init__(
        self,
        layout: Layout,
        name: str,
        local: Local,
        store: Store,
        guard: Guard,
        server: str,
        replicas: int,
        trusted: Callable[[], Trusted],
    ) -> None:
        self.name = name
        self.url = f"http://127.0.0.1:{listener_port(local, name)}"
        self._layout, self._local, self._store = layout, local, store
        self._guard, self._server, self._replicas = guard, server, replicas
        self._trusted = trusted
        self._supervisor = Supervisor(layout)
        self._plane = DataPlane(layout, name, Admin(name, admin_port(local, name)))
        token = os.environ.get(envoy.TOKENS, "").split(",")[0].strip()
        headers = {"authorization": f"Bearer {token}"} if token else {}
        self._client = loopback.client(self.url, headers=headers)

    def deploy(self, release: Release) -> None:
        with self._alone():
            _must_be_plain(release.version)
            split = self._plane.split()
            self._start(release)
            self._write_clusters(self._servers())
            self._write_routes(self._servers(), split)

    def refresh(self) -> None:
        """Write clusters and routes again as they should be, keeping the split."""
        with self._alone():
            servers, split = self._servers(), self._plane.split()
            self._write_clusters(servers)
            self._write_routes(servers, split)

    def deployed(self) -> Sequence[str]:
        return [server.version for server in self._servers()]

    def ready(self, version: str) -> bool:
        self._must_be_deployed(version)
        try:
            reply = self._client.get(envoy.HEALTH_ROUTE, headers={envoy.PIN_HEADER: version})
            if reply.status_code == 200:
                return reply.headers.get(envoy.PIN_HEADER) == version
        except httpx.TransportError:
            pass  # not ready; whether it ever will be, its process tells
        processes = self._processes(version)
        if processes and all(process.gave_up for process in processes):
            raise _never(self.name, version, processes[0])
        return False

    def weights(self) -> Mapping[str, int]:
        return self._plane.split().weights

    def set_weights(self, percent: Mapping[str, int], fallback: str | None = None) -> None:
        """See the protocol. Answers that `fallback` gives instead show no weight."""
        if percent and (sum(percent.values()) != 100 or min(percent.values()) < 0):
            raise EndpointError(
                f"weights {dict(percent)} of endpoint {self.name} add up to "
                f"{sum(percent.values())}",
                expected="percentages that add up to 100",
                holds="the split is as it was",
            )
        with self._alone():
            for version in {*percent, *filter(None, [fallback])}:
                self._must_be_deployed(version)
            servers, before = self._servers(), self._plane.split()
            heaviest = max(percent, key=lambda version: percent[version], default="")
            some = {version: share for version, share in percent.items() if share > 0}
            still = (before.shadow, before.shadow_percent)
            shadow = ("", 0) if before.shadow in some else still
            after = Split(some, fallback or heaviest, *shadow)
            self._write_routes(servers, after)

    def mirror(self, version: str, percent: int) -> None:
        """Send `version` copies of `percent` of the requests; 0 ends it. Idempotent.

        Nobody sees its answers. Raises EndpointError if nothing serves or `version` does.
        """
        with self._alone():
            self._must_be_deployed(version)
            split = self._plane.split()
            if not split.weights or split.weights.get(version):
                raise EndpointError(
                    f"requests of {self.name} cannot be mirrored to {version}; "
                    f"the split is {dict(split.weights)}",
                    expected="another version with the traffic",
                    holds="nothing is mirrored to it",
                )
            wanted = (version, percent) if percent else ("", 0)
            after = Split(split.weights, split.fallback, *wanted)
            self._write_routes(self._servers(), after)

    def mirrored(self) -> Mapping[str, int]:
        """Which version gets copies of how many percent of the requests; empty for none."""
        split = self._plane.split()
        return {split.shadow: split.shadow_percent} if split.shadow else {}

    def send(
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
        took_s = time.perf_counter() - started
        return _reply(reply, took_s)

    def undeploy(self, version: str) -> None:
        with self._alone():
            servers = self._servers()
            stay = [server for server in servers if server.version != version]
            split = self._plane.split()
            if split.weights.get(version, 0) > 0:
                raise EndpointError(
                    f"{version} has {split.weights[version]} % of endpoint {self.name}",
                    expected="weight 0",
                    holds="it goes on serving",
                    do="set the weights first",
                )
            self._write_routes(stay, split.without(version))
            self._plane.drain(version)
            self._write_clusters(stay, left=[version])
            self._supervisor.remove(self._program(version))
            for server in servers:
                if server.version == version:
                    shutil.rmtree(self._layout.serving(self.name) / server.digest, True)

    def capabilities(self, *needed: str) -> None:
        missing = sorted(set(needed) - _CAPABILITIES)
        if missing:
            raise Unsupported(
                f"endpoint {self.name} cannot do {missing}",
                expected=f"some of {sorted(_CAPABILITIES)}",
            )

    def _start(self, release: Release) -> None:
        for server in self._servers():
            if server.version == release.version and server.digest != release.digest:
                raise EndpointError(
                    f"{release.version} is deployed with digest {server.digest[:12]}",
                    expected=f"digest {release.digest[:12]}",
                    holds="it goes on serving",
                )
            if server.version == release.version:
                return
        serving = self._layout.serving(self.name)
        folder = releases.fetch(self._store, release, serving, self._trusted())
        with alone(self._layout.supervisor / "ports.lock", "the choice of ports"):
            taken = reserved_ports(self._supervisor)
            ports = find_free(*self._local.model_ports, self._replicas, taken)
            self._supervisor.apply(self._model_server(release, folder, tuple(ports)))

    def _model_server(self, release: Release, folder: Path, ports: Sequence[int]) -> Program:
        return Program(
            name=self._program(release.version),
            command=[sys.executable, "-m", self._server, "--release", str(folder)],
            environment={
                "AIP_HTTP_PORT": "{port}",
                "AIP_HEALTH_ROUTE": envoy.HEALTH_ROUTE,
                "AIP_PREDICT_ROUTE": envoy.PREDICT_ROUTE,
                "ARR_COC_VERSION": release.version,
                "ARR_COC_DIGEST": release.digest,
                "OMP_NUM_THREADS": str(self._local.threads),
                "PYTHONUNBUFFERED": "1",
            },
            folder=Path.cwd(),
            ports=ports,
            restart="unexpected",
        )

    def _servers(self) -> Sequence[Server]:
        return servers_of(self._supervisor, self.name)

    def _program(self, version: str) -> str:
        return f"model-{self.name}-{version}"

    def _processes(self, version: str) -> Sequence[Process]:
        name = self._program(version)
        return [p for p in self._supervisor.processes() if p.program == name]

    def _must_be_deployed(self, version: str) -> None:
        if version not in self.deployed():
            raise EndpointError(
                f"{version} is not deployed at endpoint {self.name}",
                expected=f"one of {list(self.deployed())}",
                holds="the split is as it was",
                do="deploy it first",
            )

    def _write_clusters(self, servers: Sequence[Server], left: Sequence[str] = ()) -> None:
        self._plane.write("clusters", clusters(servers, left))

    def _write_routes(self, servers: Sequence[Server], split: Split) -> None:
        self._plane.write("routes", routes(self.name, servers, split, self._guard))

    def _alone(self) -> AbstractContextManager[None]:
        return alone(self._layout.endpoint(self.name) / "lock", f"endpoint {self.name}")


def _must_be_plain(version: str) -> None:
    if not version or set(version) - set("abcdefghijklmnopqrstuvwxyz0123456789.-_"):
        raise EndpointError(
            f"version {version!r} cannot be named in a file and a route",
            expected="lower-case letters, digits, dots, dashes",
        )


def _reply(reply: httpx.Response, took_s: float) -> Reply:
    version = reply.headers.get(envoy.PIN_HEADER, "")
    try:
        body = reply.json()
        if reply.status_code == 200:
            return Reply(200, version, tuple(body["predictions"]), took_s)
        error = str(body["error"])
    except (ValueError, KeyError, TypeError):
        error = f"the body is not by the contract: {reply.text[:200]!r}"
    return Reply(reply.status_code, version, (), took_s, error)


def _never(endpoint: str, version: str, process: Process) -> EndpointError:
    return EndpointError(
        f"{version} will not serve at endpoint {endpoint}: its server is {process.state} "
        f"(exit code {process.exit_code})\n{tail(process.log)}\n",
        holds="it gets no traffic",
        do=f"read {process.log}",
    )

"""Endpoints of the place `memory`: servers that take their time, orders that take effect."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from deployments import Desired, Json, Observed, Release, Reply, Server
from deployments.orders import require_possible
from policy.counts import LATENCY_EDGES_S
from policy.errors import EndpointError, Unsupported
from tests.places.memory_telemetry import Counter, Traffic
from tests.policy.worlds import Behaviour

if TYPE_CHECKING:
    from tests.places.memory import MemoryCloud

US = 1_000_000


@dataclass
class MemoryServer:
    """`ready`: the time at which it is, or at which it `fails` for this reason."""

    digest: str
    life: str
    ready: int
    fails: str = ""

    def at(self, time: int) -> Server:
        if time < self.ready:
            return Server("starting", self.digest)
        return Server("failed" if self.fails else "ready", self.digest, self.fails)


@dataclass
class EndpointState:
    """What one endpoint is. `orders` were taken, and take effect at their time."""

    servers: dict[str, MemoryServer] = field(default_factory=dict)
    weights: dict[str, int] = field(default_factory=dict)
    mirror: dict[str, int] = field(default_factory=dict)
    fallback: str | None = None
    orders: list[tuple[int, Desired]] = field(default_factory=list)
    traffic: Traffic = field(default_factory=Traffic)
    lives: dict[str, int] = field(default_factory=dict)
    served: bool = False
    dips: int = 0

    def life(self, version: str) -> str:
        """Names the counters of the version's present server, or of its last one."""
        return f"{version}#{self.lives.get(version, 0)}"

    def ready(self, version: str | None, time: int) -> bool:
        server = self.servers.get(version or "")
        return server is not None and server.at(time).state == "ready"

    def events(self, now: int) -> Iterator[int]:
        """When something changes by itself."""
        yield from (at for at, _ in self.orders)
        yield from (s.ready for s in self.servers.values() if s.ready > now)

    def settle(self, cloud: "MemoryCloud", name: str) -> None:
        """Carry out the orders that are due, and count what comes from now on."""
        while self.orders and self.orders[0][0] <= cloud.time:
            _, desired = self.orders.pop(0)
            self._start(cloud, desired.releases)
            self._route(desired, cloud.time)
            self._remove({release.version for release in desired.releases})
        keep_us = round(cloud.settings.metrics_late_s * US)
        self.traffic.change(cloud.time, self._rates(cloud), keep_us)

    def _start(self, cloud: "MemoryCloud", releases: Sequence[Release]) -> None:
        for release in releases:
            version, server = release.version, self.servers.get(release.version)
            stays = server is not None and server.at(cloud.time).state != "failed"
            other = server is not None and server.digest != release.digest
            if stays and not (other and not self.weights.get(version)):
                continue
            self.lives[version] = self.lives.get(version, 0) + 1
            fails = cloud.verify(release) or (cloud.failing.get(version) or [""]).pop(0)
            ready = cloud.time + round(cloud.settings.deploy_s * US)
            self.servers[version] = MemoryServer(
                release.digest, self.life(version), ready, fails
            )

    def _route(self, desired: Desired, time: int) -> None:
        """The whole split, or none of it: no weight goes to a server that is not ready."""
        weights = {version: share for version, share in desired.weights.items() if share}
        if all(self.ready(version, time) for version in weights):
            self.weights, self.fallback = weights, desired.fallback
            self.mirror = {v: share for v, share in desired.mirror.items() if share}
            self.served = self.served or bool(weights)

    def _remove(self, desired: set[str]) -> None:
        for version in [v for v in self.servers if v not in desired]:
            if not self.weights.get(version):
                del self.servers[version]
                self.mirror.pop(version, None)

    def _rates(self, cloud: "MemoryCloud") -> Mapping[Counter, float]:
        """What is counted in a second, by the real split and how each version behaves."""
        rates, per_s = dict[Counter, float](), cloud.settings.per_s
        lost = per_s if self.served and not self.weights else 0.0
        for version, share in self.weights.items():
            asked = per_s * share / 100
            if self.ready(version, cloud.time):
                behaviour = cloud.behaviour(version, share)
                rates |= _answers(self.life(version), behaviour, asked)
            else:
                rates |= _answers(self.life(version), Behaviour(errors=1.0), asked)
                lost += 0.0 if self.ready(self.fallback, cloud.time) else asked
        for version, share in self.mirror.items():
            if self.ready(version, cloud.time):
                copies = per_s * share / 100
                rates |= _answers(self.life(version), cloud.behaviour(version), copies)
        return {
            counter: rate for counter, rate in (rates | {("", "lost"): lost}).items() if rate
        }


class MemoryEndpoint:
    """`deployments.Endpoint` of the cloud."""

    def __init__(self, cloud: "MemoryCloud", name: str) -> None:
        self._cloud, self.name, self.can = cloud, name, cloud.settings.can
        self._turn = 0

    def observe(self) -> Observed:
        with self._cloud.call("observe"):
            state, time = self._state, self._cloud.time
            servers = {version: server.at(time) for version, server in state.servers.items()}
            others = any(version != state.fallback for version in state.weights)
            fallback = (state.fallback or "") if others else ""
            return Observed(servers, dict(state.weights), dict(state.mirror), fallback)

    def apply(self, desired: Desired) -> None:
        with self._cloud.call("apply"):
            require_possible(self.name, desired)
            self._must_be_able(desired)
            state, settings = self._state, self._cloud.settings
            if not state.orders or state.orders[-1][1] != desired:
                due = self._cloud.time + round(settings.order_s * US)
                state.orders.append((due, desired))
            self._cloud.pass_time(0)

    def ask(
        self, version: str | None, instances: Sequence[Json], timeout_s: float = 10
    ) -> Reply:
        if version is not None and "pin" not in self.can:
            raise Unsupported(
                f"endpoint {self.name} cannot be asked for {version} by name",
                expected="an endpoint that can pin",
            )
        with self._cloud.call("ask"):
            chosen = version or self._chosen()
            if chosen not in self._state.servers:
                why = f"no such version: {chosen}" if version else "nothing serves"
                return Reply(404 if version else 503, "", (), 0.0, why)
            return self._reply(chosen, tuple(instances), counted=version is None)

    def _reply(self, version: str, instances: tuple[Json, ...], *, counted: bool) -> Reply:
        cloud, state = self._cloud, self._state
        behaviour, ready = cloud.behaviour(version), state.ready(version, cloud.time)
        self._turn += 1
        fails = not ready or int(self._turn * behaviour.errors) > int(
            (self._turn - 1) * behaviour.errors
        )
        if counted:
            one = _answers(state.life(version), Behaviour(float(fails), 0, 0.03), 1)
            for counter, amount in one.items():
                state.traffic.add(cloud.time, counter, amount)
        if fails:
            return Reply(503, version, (), behaviour.latency_s, f"{version} failed")
        return Reply(200, version, cloud.answer(version, instances), behaviour.latency_s)

    def _chosen(self) -> str:
        """The next version by the weights; each gets its share of any 100 in a row."""
        turn = (self._turn * 37) % 100
        for version, share in self._state.weights.items():
            turn -= share
            if turn < 0:
                return version
        return ""

    def _must_be_able(self, desired: Desired) -> None:
        needs = {"fallback": bool(desired.fallback), "mirror": any(desired.mirror.values())}
        needs["empty"] = bool(self._state.weights) and not desired.weights
        for capability, needed in needs.items():
            if needed and capability not in self.can:
                raise EndpointError(
                    f"endpoint {self.name} cannot {capability}",
                    expected=f"an order that needs none of {sorted(needs)}",
                    holds="nothing was changed",
                )

    @property
    def _state(self) -> EndpointState:
        return self._cloud.endpoints[self.name]


def _answers(life: str, behaviour: Behaviour, asked: float) -> Mapping[Counter, float]:
    answered = asked * (1 - behaviour.errors)
    bucket = int(np.searchsorted(LATENCY_EDGES_S, behaviour.latency_s))
    return {
        (life, "requests"): asked,
        (life, "errors"): asked * behaviour.errors,
        (life, "answered"): answered,
        (life, "right"): answered * (1 - behaviour.wrong),
        (life, f"bucket {bucket}"): answered,
    }

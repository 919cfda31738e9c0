"""Waiting until what was started serves what the ledger says."""

import os
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial

from deployments import ledger
from deployments.local import endpoints_of, loopback
from deployments.local.endpoint import EnvoyEndpoint
from deployments.local.envoy.admin import Admin
from deployments.local.envoy.program import program_of
from deployments.local.layout import Layout, layout_of
from deployments.local.servers import local_of
from deployments.local.stack.ports import held_by_another
from deployments.local.stack.waiting import Say, wait_for
from deployments.local.supervisor.programs import Supervisor
from deployments.store import open_store
from policy.config import Config
from policy.errors import Busy, EndpointSilent, LedgerError
from policy.rollout.record import desired_weights, finished

RECONCILER = "reconciler"
_FAILS_S = 30
_STARTS_S = 30.0  # a reconciler that has run for longer has begun to answer
_HANGS_S = 15.0
_LISTENS_S = 10  # an Envoy that is younger may not have made its sockets yet
_BUSY_S = 60  # a call at an endpoint may start a server and write its routes several times
_MODELS_S = 180  # a server that loads on a busy machine, after another has made room


def wait_for_endpoints(config: Config, say: Say) -> None:
    """Return once every Envoy serves. Raises EndpointError with the tail of its log.

    One that lives but hangs, or does not listen where it should, is started anew: it serves
    nobody, or cannot be asked what it serves. So is a model server that hangs. Servers whose
    sockets were deleted are started anew first: a new Envoy would not find them.
    """
    layout, supervisor = layout_of(config), Supervisor(layout_of(config))
    for name, endpoint in endpoints_of(config).items():
        admin, program = Admin(name, layout.admin_socket(name)), program_of(name)
        if endpoint.cut_off():
            say(f"endpoint {name}: servers whose sockets were deleted start anew, one by one")
            log = layout.logs / "supervisord.log"
            renewed = partial(_renewed, endpoint)
            wait_for(f"rest of {name}'s servers", renewed, _MODELS_S, log, say)
        _renew_sockets(layout, name, supervisor, say)
        _renew_hung(layout, name, supervisor, say)
        if hung := endpoint.hung():
            say(
                f"endpoint {name}: {', '.join(hung)} hangs: such servers start anew, one by one"
            )
            log = layout.logs / "supervisord.log"
            wait_for(f"{name}'s servers", partial(_renewed, endpoint), _MODELS_S, log, say)
        wait = partial(
            wait_for, f"endpoint {name}", limit_s=20, log=layout.logs / f"{program}.log",
            say=say, hopeless=partial(supervisor.given_up, program),
        )  # fmt: skip
        wait(admin.ready)
        if closed := endpoint.closed():
            say(
                f"endpoint {name} does not listen at {', '.join(closed)}: its Envoy starts anew"
            )
            supervisor.restart_program(program)
            wait(lambda endpoint=endpoint, admin=admin: admin.ready() and not endpoint.closed())


def _renewed(endpoint: EnvoyEndpoint) -> bool:
    try:
        return not endpoint.renew()
    except EndpointSilent:
        return False  # the reconciler has the endpoint, and does the same


def _renew_sockets(layout: Layout, name: str, supervisor: Supervisor, say: Say) -> None:
    """Start an Envoy anew whose sockets were deleted: it never makes them again by itself."""
    sockets = layout.admin_socket(name), layout.operators_socket(name)
    program = program_of(name)

    while not all(path.exists() for path in sockets):
        [process] = [p for p in supervisor.processes() if p.program == program]
        if not process.alive:
            return  # those who wait for it tell why
        if process.uptime_s >= _LISTENS_S:
            say(f"endpoint {name}: the sockets of its Envoy are gone: it starts anew")
            supervisor.restart_program(program)
            return
        time.sleep(0.1)


def _renew_hung(layout: Layout, name: str, supervisor: Supervisor, say: Say) -> None:
    """Start an Envoy anew that takes connections and answers nobody."""
    [process] = [p for p in supervisor.processes() if p.program == program_of(name)]
    if process.state != "RUNNING" or process.uptime_s < _LISTENS_S:
        return
    if not loopback.reacts_at(layout.admin_socket(name), "/ready", _HANGS_S):
        say(f"endpoint {name}: its Envoy (pid {process.pid}) hangs: it starts anew")
        supervisor.restart_program(process.program)


def wait_for_reconciler(config: Config, say: Say) -> None:
    """Return once a scrape is answered. Raises EndpointError with the tail of the log.

    One that hangs is killed, for it would not hear anybody asking; supervisord starts another.
    """
    layout, supervisor = layout_of(config), Supervisor(layout_of(config))
    port, started, killed = local_of(config).metrics_port, time.monotonic(), False

    def answers() -> bool:
        nonlocal killed
        if others := _without_metrics(supervisor, port):
            say(others)
            return True
        if loopback.answers(port, "/metrics"):
            return True
        waited_s = time.monotonic() - started
        if waited_s > _HANGS_S and not killed and not loopback.reacts(port, "/metrics"):
            killed = _killed(supervisor, say)
        return False

    log, hopeless = layout.logs / f"{RECONCILER}.log", partial(supervisor.given_up, RECONCILER)
    wait_for(RECONCILER, answers, 60, log, say, hopeless)


def _without_metrics(supervisor: Supervisor, port: int) -> str:
    """What to say of a reconciler that goes on without a port that is somebody else's."""
    for process in supervisor.processes():
        runs = process.program == RECONCILER and process.state == "RUNNING"
        if runs and held_by_another(port, process.pid):
            return f"{RECONCILER}: no metrics, port {port} (local.metrics_port) is taken"
    return ""


def _killed(supervisor: Supervisor, say: Say) -> bool:
    """Kill the reconciler, unless it may still be starting or supervisord is on it already."""
    running = [
        process
        for process in supervisor.processes()
        if process.program == RECONCILER
        and process.state == "RUNNING"
        and process.uptime_s > _STARTS_S
    ]
    for process in running:
        say(f"{RECONCILER} (pid {process.pid}) hangs: it is killed and starts anew")
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
    return bool(running)


def wait_for_models(config: Config, say: Say) -> None:
    """Return once each endpoint serves what the ledger says, as the reconciler brings it.

    A rollout under way goes on meanwhile: there, whatever has traffic must answer. If the
    ledger cannot be read, so must what came back. Raises EndpointError.
    """
    layout = layout_of(config)
    log = layout.logs / f"{RECONCILER}.log"
    for name, endpoint in endpoints_of(config).items():
        found = refreshed(endpoint)
        wanted = _wanted(config, name, found, say)
        what = f"{name} with {_shown(wanted)}"
        if wanted != {} or found:
            serving = Serving(endpoint, wanted, partial(_wanted, config, name, found, say))
            wait_for(what, serving.healthy, _MODELS_S, log, say, serving.hopeless)


def refreshed(endpoint: EnvoyEndpoint) -> Mapping[str, int]:
    """What it serves, guarded as configured now: its routes may have been written otherwise.

    Tried again while the reconciler has the endpoint or its Envoy starts anew.
    """
    deadline = time.monotonic() + _BUSY_S
    while True:
        try:
            endpoint.refresh()
            return endpoint.observe().weights
        except (Busy, EndpointSilent):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def _wanted(
    config: Config, endpoint: str, found: Mapping[str, int], say: Say
) -> dict[str, int] | None:
    """The split that the ledger wants; None if it is on its way, or not known."""
    try:
        state = ledger.read(open_store(config.root, layout_of(config).scratch))
    except LedgerError as error:
        say(f"what {endpoint} should serve is not known, it goes on with what it has: {error}")
        return None
    rollout = state.endpoint(endpoint).rollout
    if rollout is not None and not finished(rollout):
        return None
    wanted = {} if rollout is None else desired_weights(rollout)
    unknown = sorted({*found} - {"" if rollout is None else rollout.version})
    if not wanted and unknown:
        names = ", ".join(unknown)
        say(f"{endpoint} serves {names}, which the ledger never promoted: it goes on")
        return None
    return wanted


class Serving:
    """Whether an endpoint serves what it should; and why it will not, once that is known."""

    def __init__(
        self,
        endpoint: EnvoyEndpoint,
        wanted: dict[str, int] | None,
        now_wanted: Callable[[], dict[str, int] | None],
    ) -> None:
        self._endpoint, self._wanted, self._now_wanted = endpoint, wanted, now_wanted
        self._failed = ""
        self._since = time.monotonic()

    def healthy(self) -> bool:
        try:
            seen = self._endpoint.observe()
        except EndpointSilent:
            return False
        needed = {*seen.weights, *(self._wanted or {})}
        servers = [seen.servers[version] for version in needed if version in seen.servers]
        self._note(next((s.reason for s in servers if s.state == "failed"), ""))
        ready = len(servers) == len(needed) and all(s.state == "ready" for s in servers)
        if not ready or self._wanted is None or dict(seen.weights) == self._wanted:
            return ready
        self._wanted = self._now_wanted()  # a rollout may have begun since, or ended
        return False

    def hopeless(self) -> str:
        """Why a server cannot be started: the reconciler mends a copy that was damaged, but
        what fails again and again will fail for ever.
        """
        return self._failed if time.monotonic() - self._since > _FAILS_S else ""

    def _note(self, failed: str) -> None:
        if not failed or not self._failed:
            self._since = time.monotonic()
        self._failed = failed


def _shown(wanted: dict[str, int] | None) -> str:
    if wanted is None:
        return "what it serves"
    return ", ".join(f"{version} at {share} %" for version, share in wanted.items())

"""Somebody who is always there: goes on with whatever nobody drives.

    python -m tasks.reconciler CONFIG FILE

The place `local` keeps this running under its supervisor; FILE is the configuration's own
path, for messages. Elsewhere flows/reconcile.py does one round of the same on a schedule. It
drives every endpoint by the one controller there is, so it does no harm beside a flow that
drives too; aborts what was asked for by a flow run that was cancelled; ends runs whose process
is gone; and answers Prometheus. It does not import Prefect, which would cost a laptop 150 MB:
what people are still to be told is told by a run of flows/reconcile.py, started when there is
something to tell.
"""

import logging
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from pathlib import Path

import httpx
from prometheus_client import CollectorRegistry

from deployments import Place, connect, ledger
from deployments.ledger_head import remember_head
from deployments.local import endpoints_of
from deployments.local.endpoint import EnvoyEndpoint
from deployments.local.servers import local_of
from deployments.local.stack import login
from deployments.local.stack.orchestrator import worker_pid
from deployments.local.stack.runs import DeadRuns, Server
from deployments.local.stack.upkeep import keep_up
from deployments.metrics.exporter import Metrics
from deployments.metrics.server import MetricsServer
from policy.config import Config, load_config
from policy.errors import ArrCocError
from policy.ledger import Ledger
from tasks.rollout.controller import RECONCILER, drive
from tasks.rollout.replays import replay_of
from tasks.rollout.telling import is_due
from tasks.runs import stop_cancelled

TELL_AFTER_S = 60.0  # what is younger, the flow that drives is about to tell
_ROUND_S = 5.0
_AGAIN_S = 5.0
_TELLING_S, _TELLING_AGAIN_S = 300.0, 20.0
_LAST_WORDS_S = 2.0
_BIND_AGAIN_S = 30.0
log = logging.getLogger("arr-coc.reconciler")


def main(config: str, file: str) -> None:
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.INFO)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    settings, stop = load_config(Path(config)), threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    place = connect(settings)
    serve_metrics(settings, place, stop)
    drivers = [
        threading.Thread(target=keep_driving, args=(settings, place, name, stop), daemon=True)
        for name in place.endpoints
    ]
    for driver in drivers:
        driver.start()
    rounds = Rounds(settings, place, [sys.executable, "-m", "flows.reconcile", file])
    while not stop.wait(_ROUND_S):
        rounds.once()
    deadline = time.monotonic() + _LAST_WORDS_S
    for driver in drivers:  # what is left undone, the next one does
        driver.join(max(0.0, deadline - time.monotonic()))


def serve_metrics(config: Config, place: Place, stop: threading.Event) -> None:
    """Answer Prometheus from now on, in threads of their own; once the port is free."""
    registry = CollectorRegistry()
    registry.register(Metrics(place))
    serve = partial(MetricsServer, local_of(config).metrics_port, registry)
    try:
        serve()
    except OSError as error:  # without metrics everything else is as important as ever
        log.error("no metrics, local.metrics_port: %s; tried again", error)
        threading.Thread(target=_keep_trying, args=(serve, stop), daemon=True).start()


def _keep_trying(serve: Callable[[], MetricsServer], stop: threading.Event) -> None:
    while not stop.wait(_BIND_AGAIN_S):
        with suppress(OSError):
            serve()
            log.info("metrics are served now")
            return


def keep_driving(config: Config, place: Place, endpoint: str, stop: threading.Event) -> None:
    """Drive one endpoint until told to stop, whatever happens in between."""
    while not stop.is_set():
        try:
            drive(
                place,
                endpoint,
                lambda _state: stop.is_set(),
                by=RECONCILER,
                say=log.info,
                replay=replay_of(config, place, log.warning),
            )
        except ArrCocError as error:
            log.error("%s: %s; tried again in %.0f s", endpoint, error, _AGAIN_S)
        except Exception:  # a fault of ours must not leave the canary unwatched
            log.exception("%s: tried again in %.0f s", endpoint, _AGAIN_S)
        stop.wait(_AGAIN_S)


class Rounds:
    """What is looked after every few seconds besides the endpoints; each part by itself.

    Args:
        tell: the command that tells people what nobody has told them.
    """

    def __init__(self, config: Config, place: Place, tell: list[str]) -> None:
        server = Server(login.client(config))
        self._place, self._state = place, Ledger()
        self._parts: dict[str, Callable[[], Sequence[str]]] = {
            "runs that were cancelled": lambda: stop_cancelled(
                place, self._state, server.states
            ),
            "runs whose process is gone": DeadRuns(server, partial(worker_pid, config)).round,
            "spare room and logs": lambda: keep_up(config),
            "what people are told": lambda: self._teller.round(self._state),
        }
        if config.serving.tokens:
            self._parts["whose tokens are accepted"] = partial(_admit, endpoints_of(config))
        self._teller, self._failing = Teller(place, tell), dict[str, str]()

    def once(self) -> None:
        self._part("the ledger", self._read)
        for name, part in self._parts.items():
            self._part(name, part)

    def _read(self) -> Sequence[str]:
        try:
            self._state = ledger.read(self._place.store, self._state)
        except ArrCocError:
            self._state = Ledger()  # it may be mended: read from the start then
            raise
        remember_head(self._place.scratch, self._place.store.root, self._state.number)
        return ()

    def _part(self, name: str, part: Callable[[], Sequence[str]]) -> None:
        """Do it and log what it did; what goes wrong is logged once and tried again."""
        try:
            for line in part():
                log.info(line)
            self._failing.pop(name, None)
        except (ArrCocError, httpx.HTTPError) as error:
            if self._failing.get(name) != str(error):
                log.error("%s: %s; tried again", name, error)
            self._failing[name] = str(error)
        except Exception:  # a fault of ours in one part must not end the others
            log.exception("%s: tried again", name)


def _admit(endpoints: Mapping[str, EnvoyEndpoint]) -> Sequence[str]:
    """What `tokens add` and `remove` have done already, unless Envoy was away."""
    for endpoint in endpoints.values():
        endpoint.admit()
    return ()


class Teller:
    """Starts `command` when people are still to be told something; one at a time."""

    def __init__(self, place: Place, command: list[str]) -> None:
        self._place, self._command = place, command
        self._running: subprocess.Popen[bytes] | None = None
        self._again = place.clock.monotonic()

    def round(self, state: Ledger) -> Sequence[str]:
        now = self._place.clock.monotonic()
        ended = None if self._running is None else self._running.poll()
        if self._running is not None and ended is None:
            return ()
        failed = ended not in (None, 0)  # Prefect's server was not up yet, say
        soon = self._again - (_TELLING_S - _TELLING_AGAIN_S)
        if now < (soon if failed else self._again):
            return ()
        if not is_left(state, self._place.clock.now()):
            return ()
        self._running = subprocess.Popen(self._command)
        self._again = now + _TELLING_S
        return ("telling people what nobody has told them",)


def is_left(state: Ledger, now: datetime) -> bool:
    """Whether something has not been told for so long that nobody else will."""
    return any(is_due(untold, now, TELL_AFTER_S) for untold in state.untold)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])

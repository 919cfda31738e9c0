"""Waiting until what was started serves what the ledger says."""

from functools import partial

from deployments import ledger
from deployments.local import endpoints_of, loopback
from deployments.local.endpoint import EnvoyEndpoint
from deployments.local.envoy.admin import Admin
from deployments.local.envoy.program import program_of
from deployments.local.layout import layout_of
from deployments.local.servers import local_of, ports_of
from deployments.local.stack.waiting import Say, wait_for
from deployments.store import open_store
from policy.config import Config
from policy.errors import EndpointSilent, LedgerError
from policy.rollout.record import desired_weights, finished

RECONCILER = "reconciler"
_MODELS_S = 180  # a server that loads on a busy machine, after another has made room


def wait_for_endpoints(config: Config, say: Say) -> None:
    """Return once every Envoy serves. Raises EndpointError with the tail of its log."""
    layout = layout_of(config)
    for name in config.endpoints:
        admin = Admin(name, ports_of(config, name).admin_port)
        log = layout.logs / f"{program_of(name)}.log"
        wait_for(f"endpoint {name}", admin.ready, 20, log, say)


def wait_for_reconciler(config: Config, say: Say) -> None:
    """Return once a scrape is answered. Raises EndpointError with the tail of the log."""
    answered = partial(loopback.answers, local_of(config).metrics_port, "/metrics")
    log = layout_of(config).logs / f"{RECONCILER}.log"
    wait_for(RECONCILER, answered, 60, log, say)


def wait_for_models(config: Config, say: Say) -> None:
    """Return once each endpoint serves what the ledger says, as the reconciler brings it.

    A rollout under way goes on meanwhile: there, whatever has traffic must answer. If the
    ledger cannot be read, so must what came back. Raises EndpointError.
    """
    layout = layout_of(config)
    log = layout.logs / f"{RECONCILER}.log"
    for name, endpoint in endpoints_of(config).items():
        endpoint.refresh()  # it may be guarded otherwise than when its routes were written
        wanted = _wanted(config, name, say)
        what = f"{name} with {_shown(wanted)}"
        if wanted != {} or endpoint.observe().weights:
            wait_for(what, partial(_serves, endpoint, wanted), _MODELS_S, log, say)


def _wanted(config: Config, endpoint: str, say: Say) -> dict[str, int] | None:
    """The split that the ledger wants; None if it is on its way, or not known."""
    try:
        state = ledger.read(open_store(config.root, layout_of(config).scratch))
    except LedgerError as error:
        say(f"what {endpoint} should serve is not known, it goes on with what it has: {error}")
        return None
    rollout = state.endpoint(endpoint).rollout
    if rollout is None:
        return {}
    return desired_weights(rollout) if finished(rollout) else None


def _serves(endpoint: EnvoyEndpoint, wanted: dict[str, int] | None) -> bool:
    try:
        seen = endpoint.observe()
    except EndpointSilent:
        return False
    ready = all(
        version in seen.servers and seen.servers[version].state == "ready"
        for version in seen.weights
    )
    return ready and (wanted is None or dict(seen.weights) == wanted)


def _shown(wanted: dict[str, int] | None) -> str:
    if wanted is None:
        return "what it serves"
    return ", ".join(f"{version} at {share} %" for version, share in wanted.items())

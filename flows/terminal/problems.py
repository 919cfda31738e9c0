"""What is not well at an endpoint, by what the ledger wants, what is there, and who looks."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from deployments import Observed, Server
from policy.ledger import Ledger
from policy.rollout.record import Rollout, deadline_s, desired_weights, shown, split, stayed_s
from policy.words import duration
from tasks.rollout.lead import tolerated_s

UNTOLD_AFTER = timedelta(minutes=3)
FREE_FOR = timedelta(seconds=60)  # with somebody waiting for the endpoint
_SETTLES_S = 60.0  # an order takes a while to become real
ROLL_BACK = "roll back: .venv/bin/python -m flows rollback --why …"
_DO = f"to do: make up repairs what is down; if it cannot serve, {ROLL_BACK}"
_DRIVE = "to do: make up starts the reconciler, or .venv/bin/python -m flows abort --why …"


@dataclass(frozen=True)
class Look:
    """One endpoint as it was seen; `silent` says why it was not.

    `last_look`: when a controller of this machine last looked at it. `driven_here`: all
    controllers run on this machine, so that one that never looked is missing.
    """

    name: str
    observed: Observed | None
    silent: str
    last_look: datetime | None
    driven_here: bool


def problems(
    state: Ledger, look: Look, trusted: Collection[str], now: datetime
) -> Iterator[tuple[str, str]]:
    """What is wrong at one endpoint: the part, and what to do."""
    part, at = f"endpoint {look.name}", state.endpoint(look.name)
    if look.observed is None:
        yield part, look.silent
    else:
        yield from _servers(state, look, look.observed, trusted)
        if at.rollout is not None:
            yield from _weights(part, at.rollout, look.observed, at.last_at or now, now)
    if at.unfinished is not None:
        yield from _undriven(part, at.unfinished, look, at.last_at or now, now)
    waiting = state.waiting(look.name)
    free = at.unfinished is None and now - (at.last_at or now) > FREE_FOR
    if waiting is not None and free:
        asked = waiting.request
        told = f"nobody takes up the request of {asked.by} ({asked.kind} {asked.version})"
        yield f"{part}: request", f"{told}; {_DRIVE}"


def untold(state: Ledger, now: datetime) -> Iterator[tuple[str, str]]:
    """Outcomes that people should have been told by now."""
    for one in state.untold:
        if now - one.at > UNTOLD_AFTER:
            since = duration((now - one.at).total_seconds())
            yield (
                f"rollout {one.rollout}",
                f"nobody was told for {since} that it is {one.phase}; to do: "
                ".venv/bin/python -m flows.reconcile CONFIG says what fails",
            )


def _servers(
    state: Ledger, look: Look, observed: Observed, trusted: Collection[str]
) -> Iterator[tuple[str, str]]:
    for version, share in observed.weights.items():
        if version not in observed.servers:
            yield _of(look, version), f"it has {share} % of the requests and no server; {_DO}"
    for version, server in observed.servers.items():
        share, key = observed.weights.get(version, 0), signer(state, version)
        if server.state == "failed" or (share and server.state != "ready"):
            yield _of(look, version), _unready(server, share)
        elif key not in trusted:
            yield _of(look, version), _not_trusted(key, share)


def signer(state: Ledger, version: str) -> str:
    """Fingerprint of the key that signed a version; "" if it is not known."""
    return state.versions[version].signed_by if version in state.versions else ""


def _unready(server: Server, share: int) -> str:
    why = f": {server.reason}" if server.reason else ""
    return f"its server is {server.state}{why}; it has {share} % of the requests; {_DO}"


def _not_trusted(key: str, share: int) -> str:
    return (
        f"it is signed by {key[:12] or 'nobody'}, which is not trusted, and has {share} % of "
        "the requests; to do: if you know that key, add it to signing.trusted; else "
        f"{ROLL_BACK}"
    )


def _weights(
    part: str, rollout: Rollout, observed: Observed, since: datetime, now: datetime
) -> Iterator[tuple[str, str]]:
    wanted, real = desired_weights(rollout), split(dict(observed.weights))
    settles_s = max(_SETTLES_S, tolerated_s(rollout.plan.look_s))
    if real != wanted and (now - since).total_seconds() > settles_s:
        yield (
            f"{part}: weights",
            f"they are {shown(real)}, the ledger wants {shown(wanted)} since "
            f"{duration((now - since).total_seconds())}; to do: make up starts the reconciler, "
            "which sets them",
        )


def _undriven(
    part: str, rollout: Rollout, look: Look, last_at: datetime, now: datetime
) -> Iterator[tuple[str, str]]:
    where, limit_s = f"{part}: rollout of {rollout.version}", deadline_s(rollout)
    stayed, tolerated = stayed_s(rollout, now), tolerated_s(rollout.plan.look_s)
    seen = max(at for at in (look.last_look, last_at) if at is not None)
    gap_s = (now - seen).total_seconds()
    known = look.last_look is not None or look.driven_here
    if known and gap_s > tolerated:
        since = duration(gap_s)
        yield where, f"it is {rollout.phase}, and nobody has looked at it for {since}; {_DRIVE}"
    elif limit_s is not None and stayed > limit_s + tolerated:
        told = f"{rollout.phase} for {duration(stayed)}, its deadline is {duration(limit_s)}"
        yield where, f"it has been {told}: nobody drives it; {_DRIVE}"


def _of(look: Look, version: str) -> str:
    return f"endpoint {look.name}: {version}"

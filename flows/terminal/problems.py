"""What is not well at an endpoint, by what the ledger wants, what is there, and who looks."""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from deployments import Endangered, Observed, Server
from flows.terminal.problem import Commands, Problem
from policy.ledger import Ledger
from policy.rollout.record import (
    Rollout,
    deadline_s,
    desired_versions,
    desired_weights,
    shown,
    split,
    stayed_s,
)
from policy.words import duration
from tasks.rollout.lead import tolerated_s

UNTOLD_AFTER = timedelta(minutes=3)
FREE_FOR = timedelta(seconds=60)  # with somebody waiting for the endpoint
_SETTLES_S = 60.0  # an order takes a while to become real
_BUSY_S = 60.0  # a reconciler that runs may be kept so long on a busy machine


@dataclass(frozen=True)
class Look:
    """One endpoint as it was seen; `silent` says why it was not.

    `last_look`: when a controller of this machine last looked at it. `driven_here`: all
    controllers run on this machine, so that one that never looked is missing. `driver_log`: of
    the reconciler that runs on this machine; "" if none does. `default`: it is
    the one that commands mean which name none. `falls_back`: it can.
    """

    name: str
    observed: Observed | None
    silent: str
    last_look: datetime | None
    driven_here: bool
    default: bool = True
    falls_back: bool = False
    driver_log: str = ""

    @property
    def part(self) -> str:
        return f"endpoint {self.name}"

    def of(self, version: str) -> str:
        return f"{self.part}: {version}"

    def command(self, commands: Commands, name: str) -> str:
        """Such as `rollback`, for this endpoint."""
        words = () if self.default else ("--endpoint", self.name)
        return commands.flows(name, *words, '--why "…"')

    def drive(self, commands: Commands) -> str:
        """What makes somebody drive it."""
        if self.driver_log:
            return f"tail {shlex.quote(self.driver_log)}  # the reconciler runs: what keeps it?"
        return f"{commands.make('up')}  # starts the reconciler"


def problems(state: Ledger, look: Look, now: datetime, commands: Commands) -> Iterator[Problem]:
    """What differs at one endpoint from what the ledger wants, and what nobody drives there."""
    at = state.endpoint(look.name)
    if look.observed is None:
        if look.silent:
            yield commands.told(look.part, look.silent, "clients")
    else:
        yield from _servers(state, look, look.observed, commands)
        if at.rollout is not None:
            since_s = (now - (at.last_at or now)).total_seconds()
            yield from _split(look, at.rollout, look.observed, since_s, commands)
    if at.unfinished is not None:
        yield from _undriven(look, at.unfinished, at.last_at or now, now, commands)
    waiting = state.waiting(look.name)
    free = at.unfinished is None and now - (at.last_at or now) > FREE_FOR
    if waiting is not None and free:
        asked = waiting.request
        told = f"nobody takes up the request of {asked.by} ({asked.kind} {asked.version})"
        yield Problem(f"{look.part}: request", told, look.drive(commands), "rollbacks")


def untold(state: Ledger, now: datetime, commands: Commands) -> Iterator[Problem]:
    """Outcomes that people should have been told by now."""
    says = f".venv/bin/python -m flows.reconcile {commands.file}  # says what fails"
    late = [one for one in state.untold if now - one.at > UNTOLD_AFTER]
    for one in {one.rollout: one for one in late}.values():  # what it came to in the end
        since = duration((now - one.at).total_seconds())
        told = f"nobody was told for {since} that it is {one.phase}"
        yield Problem(f"rollout {one.rollout}", told, says)


def _servers(
    state: Ledger, look: Look, observed: Observed, commands: Commands
) -> Iterator[Problem]:
    repair = (
        f"{commands.make('up')}  # if it cannot serve: {look.command(commands, 'rollback')}"
    )
    for version, share in observed.weights.items():
        if version not in observed.servers:
            told = f"it has {share} % of the requests and no server"
            yield Problem(look.of(version), told, repair, "clients")
    needed = _needed(state, look)
    for version, server in observed.servers.items():
        share = observed.weights.get(version, 0)
        harms = _harm(share, needed=version in needed)
        if server.state == "failed" or (server.state != "ready" and harms != "nobody yet"):
            yield Problem(look.of(version), _unready(server, share), repair, harms)
        if told := _other_bytes(state, version, server):
            told = f"{told}; it has {share} % of the requests"
            yield Problem(look.of(version), told, look.command(commands, "rollback"), harms)


def _needed(state: Ledger, look: Look) -> tuple[str, ...]:
    """Whose servers must be ready: of a rollout under way, what it would go back to."""
    unfinished = state.endpoint(look.name).unfinished
    stable = unfinished.stable if unfinished is not None else None
    return (stable,) if stable and unfinished and stable in desired_versions(unfinished) else ()


def _harm(share: int, *, needed: bool) -> Endangered:
    return "clients" if share else "rollbacks" if needed else "nobody yet"


def _unready(server: Server, share: int) -> str:
    why = f": {server.reason}" if server.reason else ""
    return f"its server is {server.state}{why}; it has {share} % of the requests"


def _other_bytes(state: Ledger, version: str, server: Server) -> str:
    known = state.versions.get(version)
    if known is None:
        return "it has a server, and the ledger knows no such version"
    if known.digest != server.digest:
        ours, theirs = known.digest[:12], server.digest[:12]
        return f"it serves release {theirs}, the ledger says {ours}"
    return ""


def _split(
    look: Look, rollout: Rollout, observed: Observed, since_s: float, commands: Commands
) -> Iterator[Problem]:
    wanted, real = desired_weights(rollout), split(dict(observed.weights))
    settles_s = max(_SETTLES_S, tolerated_s(rollout.plan.look_s))
    if since_s <= settles_s:
        return
    sets = look.drive(commands)
    if real != wanted:
        told = f"they are {shown(real)}, the ledger wants {shown(wanted)}"
        told += f" since {duration(since_s)}"
        yield Problem(f"{look.part}: weights", told, sets, "clients")
    helper = _helper(rollout, wanted)
    if look.falls_back and real == wanted and observed.fallback != helper:
        told = f"what a version fails to answer, {observed.fallback or 'nobody'} answers; "
        told += f"the ledger wants {helper or 'nobody'}"
        yield Problem(f"{look.part}: fallback", told, sets, "clients")


def _helper(rollout: Rollout, wanted: dict[str, int]) -> str:
    """Who should answer what another version fails to answer."""
    stable = rollout.stable or ""
    others = any(version != stable for version in wanted)
    return stable if others and stable in desired_versions(rollout) else ""


def _undriven(
    look: Look, rollout: Rollout, last_at: datetime, now: datetime, commands: Commands
) -> Iterator[Problem]:
    where, limit_s = f"{look.part}: rollout of {rollout.version}", deadline_s(rollout)
    stayed, tolerated = stayed_s(rollout, now), tolerated_s(rollout.plan.look_s)
    seen = max(at for at in (look.last_look, last_at) if at is not None)
    gap_s = (now - seen).total_seconds()
    known = look.last_look is not None or look.driven_here
    unseen = max(tolerated, _BUSY_S) if look.driver_log else tolerated
    ends = f"{look.drive(commands)}; or: {look.command(commands, 'abort')}"
    harms = _harm(desired_weights(rollout).get(rollout.version, 0), needed=True)
    if known and gap_s > unseen:
        told = f"it is {rollout.phase}, and nobody has looked at it for {duration(gap_s)}"
        yield Problem(where, told, ends, harms)
    elif gap_s < -tolerated:
        told = f"it was last looked at {duration(-gap_s)} from now: whether anybody looks is "
        yield Problem(
            where, f"{told}not known until then", "date  # is this clock right?", harms
        )
    elif limit_s is not None and stayed > limit_s + tolerated:
        told = f"{rollout.phase} for {duration(stayed)}, its deadline is {duration(limit_s)}"
        yield Problem(where, f"it has been {told}: nobody drives it", ends, harms)

"""Rollout steps: the controller's hands. What to do is decided in policy/rollout/machine.py.

The controller is level-triggered: at every look it reads the rollout from the ledger, makes
the endpoint what that record wants, looks, and writes the next record if there is one. So it
may die at any point, run twice, or find that a person wrote a command in between.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from prefect.runtime import flow_run

from deployments import Place, Release, connect, ledger
from deployments.releases import folder as releases
from deployments.releases.keys import trusted
from deployments.replay import read_requests, replaying
from policy.config import Config
from policy.errors import (
    Busy,
    DataError,
    EndpointError,
    LedgerError,
    Refused,
    ReleaseError,
    RolledBack,
    StoreError,
)
from policy.ledger import Ledger, RolloutChanged
from policy.ledger import begin as begin_or_resume
from policy.rollout.commands import abort, promote_now
from policy.rollout.machine import advance
from policy.rollout.plans import at_once, plan_for
from policy.rollout.record import (
    Phase,
    Rollout,
    desired_versions,
    desired_weights,
    finished,
    next_look_s,
    start,
)
from tasks import remote
from tasks.rollout.controller import logger, realize, superfluous, take_shelter


@remote
def begin(config: Config, endpoint: str, version: str, by: str) -> Rollout:
    """Enter the rollout in the ledger, or pick up the one that a dead controller left.

    A version that is stable already gives its finished rollout, and so does a run that is
    retried after it was decided. Raises Busy, NotFound.
    """

    def decide(state: Ledger) -> RolloutChanged | None:
        place = state.endpoint(endpoint)
        decided = place.stable == version or _begun_here(state, endpoint, version)
        if decided and place.unfinished is None:
            return None
        name = f"{endpoint}-{state.number + 1}"
        plan = plan_for(config, endpoint)
        state.version(version)
        new = start(
            name, endpoint, version, _other(place.stable, version), plan, by, ledger.now()
        )
        chosen = begin_or_resume(state, new)
        return None if chosen == place.rollout else RolloutChanged(rollout=chosen)

    return _current(_append(connect(config), decide, by), endpoint)


@remote
def begin_rollback(config: Config, endpoint: str, by: str, why: str) -> Rollout:
    """Abort what is under way; if nothing is, begin to bring back the version before.

    Raises Refused if there is no version before.
    """

    def decide(state: Ledger) -> RolloutChanged:
        place = state.endpoint(endpoint)
        if place.unfinished is not None:
            return RolloutChanged(rollout=abort(place.unfinished, by, why, ledger.now()))
        if place.before is None:
            raise Refused(
                f"{endpoint} has no version before {place.stable or 'the first'}",
                holds="the weights are unchanged",
                do="roll out a version with the deployment rollout/production",
            )
        name, plan = f"{endpoint}-{state.number + 1}", at_once(config.rollout)
        back = start(name, endpoint, place.before, place.stable, plan, by, ledger.now())
        return RolloutChanged(rollout=promote_now(back, by, why, ledger.now()))

    return _current(_append(connect(config), decide, by), endpoint)


@remote
def latest(config: Config, endpoint: str) -> Rollout | None:
    """The last rollout on this endpoint, finished or left by a dead controller, if any."""
    return ledger.read(connect(config).store).endpoint(endpoint).rollout


@remote
def step(config: Config, rollout: Rollout) -> Rollout:
    """Hold what the rollout wants until it tells something new, and return that record.

    Between two returns evidence may be weighed and written; nobody needs a step for that.
    """
    return hold(config, rollout, lambda current: tell(current) != tell(rollout))


def hold(
    config: Config,
    rollout: Rollout,
    until: Callable[[Rollout], bool],
    between: Callable[[], None] = lambda: None,
) -> Rollout:
    """Look again and again, and write what each look changes, `until` a record is reached.

    `between` is called after every look. Without the ledger nobody can say how the rollout
    stands, so stable takes all traffic before the error goes on.

    Raises:
        Busy: if another rollout has taken the endpoint over.
        LedgerError, StoreError: if the ledger cannot be read or written.
    """
    place = connect(config)
    try:
        return _hold(place, rollout, until, between)
    except (LedgerError, StoreError):
        take_shelter(place.endpoint(rollout.endpoint), rollout)
        raise


def _hold(
    place: Place,
    rollout: Rollout,
    until: Callable[[Rollout], bool],
    between: Callable[[], None],
) -> Rollout:
    told, state = tell(rollout), None
    while True:
        state = ledger.read(place.store, state)
        current = _own(state, rollout)
        if tell(current) != told:
            told = tell(current)
            logger().info(told)
        if until(current):
            return current
        seen = realize(place, state, current)
        after = advance(current, seen)
        if after == current:
            time.sleep(next_look_s(current, ledger.now()))
        else:
            follow = partial(_follow, before=current, after=after)
            state = _append(place, follow, current.by, state)
        between()


@remote
def settle(config: Config, rollout: Rollout) -> None:
    """Make the endpoint what a finished rollout wants: its weights, and no spare servers.

    Nothing if a later rollout has the endpoint. Raises EndpointError if some are left.
    """
    place = connect(config)
    state, endpoint = ledger.read(place.store), place.endpoint(rollout.endpoint)
    if _current(state, rollout.endpoint).id != rollout.id:
        return
    realize(place, state, rollout)
    if left := superfluous(endpoint, rollout):
        raise EndpointError(
            f"{sorted(left)} still run at {rollout.endpoint}",
            expected=f"only {list(desired_versions(rollout))}",
            holds=f"{dict(endpoint.weights())} serve",
            do="run the rollout again: it is decided, and only this is left",
        )


@remote
def require_promoted(rollout: Rollout) -> None:
    """Turn the run red if the version was taken back. Raises RolledBack."""
    if rollout.phase is Phase.ROLLED_BACK:
        raise RolledBack(f"{rollout.version} on {rollout.endpoint}: {rollout.reason}")


@contextmanager
def traffic(config: Config, rollout: Rollout) -> Iterator[None]:
    """Replay held-out questions to the endpoint while the block runs, if so configured."""
    if finished(rollout) or not rollout.plan.replay_per_s:
        yield
        return
    try:
        requests = _bring(connect(config), config, rollout.version) / "requests.jsonl"
        read_requests(requests.read_bytes())
    except (
        ReleaseError,
        DataError,
        OSError,
    ) as error:  # the controller finds the same and takes it back
        logger().warning("no questions are replayed: %s", error)
        yield
        return
    with replaying(config, rollout.endpoint, requests, rollout.plan.replay_per_s):
        yield


def tell(rollout: Rollout) -> str:
    """One line for the log: where the rollout stands and why."""
    share = desired_weights(rollout).get(rollout.version, 0)
    where = f"{rollout.version} on {rollout.endpoint}: {rollout.phase}"
    return f"{where} at {share} %: {rollout.reason}"


def _append(place: Place, decide, by: str, known: Ledger | None = None) -> Ledger:
    return ledger.append(place.store, decide, by=by, run=str(flow_run.id or ""), known=known)


def _follow(state: Ledger, before: Rollout, after: Rollout) -> RolloutChanged | None:
    """The next record, unless somebody else wrote one meanwhile."""
    unchanged = state.endpoint(before.endpoint).rollout == before
    return RolloutChanged(rollout=after) if unchanged else None


def _current(state: Ledger, endpoint: str) -> Rollout:
    rollout = state.endpoint(endpoint).rollout
    if rollout is None:
        raise Refused(f"no rollout on {endpoint} in the ledger")
    return rollout


def _own(state: Ledger, rollout: Rollout) -> Rollout:
    """The last record of this rollout, whatever came after its end.

    Raises Busy if another one has the endpoint though this one has not ended.
    """
    current = _current(state, rollout.endpoint)
    if current.id == rollout.id:
        return current
    _, last = state.of_rollout(rollout.id)[-1]
    if finished(last):
        return last
    raise Busy(
        f"{rollout.endpoint} was taken over by the rollout of {current.version}",
        expected=f"the rollout of {rollout.version}, which is {last.phase}",
        holds="whoever drives the other one sets the weights",
        do="see who wrote it with `python -m flows history`",
    )


def _begun_here(state: Ledger, endpoint: str, version: str) -> bool:
    """Whether this very run began the endpoint's last rollout, and it was of `version`."""
    last, run = state.endpoint(endpoint).rollout, str(flow_run.id or "")
    if last is None or last.version != version or not run:
        return False
    first, _ = state.of_rollout(last.id)[0]
    return first.run == run


def _other(stable: str | None, version: str) -> str | None:
    return None if stable == version else stable


def _bring(place: Place, config: Config, version: str) -> Path:
    digest = ledger.read(place.store).version(version).registered.digest
    folder = Path(config.root).absolute() / "copies"
    return releases.fetch(place.store, Release(version, digest), folder, trusted(config))

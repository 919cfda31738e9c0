"""Rollout steps: the controller's hands. What to do is decided in policy/rollout.py.

The controller is level-triggered: at every look it reads the rollout from the ledger, makes
the endpoint what that record wants, looks, and writes the next record if there is one. So it
may die at any point, run twice, or find that a person wrote a command in between.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import cycle, islice
from pathlib import Path

from prefect import get_run_logger
from prefect.runtime import flow_run

from deployments import Endpoint, Place, Release, connect, ledger, releases
from deployments.replay import read_requests, replaying
from policy.commands import abort, promote_now
from policy.config import Config
from policy.counts import Sample
from policy.errors import EndpointError, Refused, ReleaseError, RolledBack
from policy.ledger import Ledger, RolloutChanged
from policy.ledger import begin as begin_or_resume
from policy.plans import at_once, plan_for
from policy.rollout import advance
from policy.state import (
    Compared,
    Phase,
    Rollout,
    Seen,
    Smoke,
    desired_versions,
    desired_weights,
    finished,
    next_look_s,
    shadow_percent,
    split,
    start,
)
from tasks import remote


@remote
def begin(config: Config, endpoint: str, version: str, by: str) -> Rollout:
    """Enter the rollout in the ledger, or pick up the one that a dead controller left.

    A version that is stable already gives its finished rollout. Raises Busy, NotFound.
    """

    def decide(state: Ledger) -> RolloutChanged | None:
        place = state.endpoint(endpoint)
        if place.stable == version and place.unfinished is None:
            return None
        name = f"{endpoint}-{state.number + 1}"
        plan = plan_for(config, endpoint)
        state.version(version)
        new = start(
            name, endpoint, version, _other(place.stable, version), plan, by, ledger.now()
        )
        chosen = begin_or_resume(state, new)
        return None if chosen == place.rollout else RolloutChanged(rollout=chosen)

    return _current(_append(config, decide, by), endpoint)


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

    return _current(_append(config, decide, by), endpoint)


@remote
def unfinished(config: Config, endpoint: str) -> Rollout | None:
    """The rollout that a dead controller left on this endpoint, if there is one."""
    return ledger.read(connect(config).store).endpoint(endpoint).unfinished


@remote
def step(config: Config, rollout: Rollout) -> Rollout:
    """Hold what the rollout wants until it tells something new, and return that record.

    Between two returns evidence may be weighed and written; nobody needs a step for that.
    """
    place, log = connect(config), get_run_logger()
    while True:
        state = ledger.read(place.store)
        current = _current(state, rollout.endpoint)
        if tell(current) != tell(rollout):
            log.info(tell(current))
            return current
        seen = realize(place, state, current)
        after = advance(current, seen)
        if after == current:
            time.sleep(next_look_s(current, ledger.now()))
        else:
            _append(config, partial(_follow, before=current, after=after), current.by)


@remote
def settle(config: Config, rollout: Rollout) -> None:
    """Make the endpoint what a finished rollout wants: its weights, and no spare servers."""
    place = connect(config)
    realize(place, ledger.read(place.store), rollout)


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
    folder = _bring(connect(config), config, rollout.version)
    with replaying(
        config, rollout.endpoint, folder / "requests.jsonl", rollout.plan.replay_per_s
    ):
        yield


def realize(place: Place, state: Ledger, rollout: Rollout) -> Seen:
    """Bring the endpoint nearer to what `rollout` wants and return what was seen.

    Order: servers up, then weights, then superfluous servers down, so that no request meets
    a version that is not there. What the endpoint refuses shows as a difference in `seen`.
    """
    endpoint, log = place.endpoint(rollout.endpoint), get_run_logger()
    failure = ""
    for version in desired_versions(rollout):
        try:
            endpoint.deploy(Release(version, state.version(version).registered.digest))
        except (EndpointError, ReleaseError) as error:
            log.warning("%s is not deployed: %s", version, error)
            failure = str(error) if version == rollout.version else failure
    wanted = desired_weights(rollout)
    try:
        if split(dict(endpoint.weights())) != wanted:
            endpoint.set_weights(wanted, _fallback(rollout))
            log.info("%s: weights %s", rollout.endpoint, wanted)
        shadow(endpoint, rollout)
    except EndpointError as error:
        log.warning("the endpoint refuses: %s", error)
    weights = dict(endpoint.weights())
    if split(weights) == wanted:
        for version in set(endpoint.deployed()) - set(desired_versions(rollout)):
            endpoint.undeploy(version)
    return look(place, endpoint, rollout, weights, failure)


def shadow(endpoint: Endpoint, rollout: Rollout) -> None:
    """Mirror the share of requests that the rollout wants to its version, or none."""
    wanted = {rollout.version: percent} if (percent := shadow_percent(rollout)) else {}
    for version in {*endpoint.mirrored(), *wanted}:
        if endpoint.mirrored().get(version, 0) != wanted.get(version, 0):
            endpoint.mirror(version, wanted.get(version, 0))


def look(
    place: Place, endpoint: Endpoint, rollout: Rollout, weights: dict[str, int], failure: str
) -> Seen:
    """Everything that the decision needs, read once."""
    ready = False
    if not failure and rollout.version in endpoint.deployed():
        try:
            ready = endpoint.ready(rollout.version)
        except EndpointError as error:
            failure = str(error)
    smoking = rollout.phase is Phase.SMOKE and ready
    return Seen(
        at=ledger.now(),
        ready=ready,
        failure=failure,
        smoke=smoke(place, endpoint, rollout) if smoking else None,
        weights=weights,
        canary=_sample(place, rollout.endpoint, rollout.version) if ready else None,
        stable=_sample(place, rollout.endpoint, rollout.stable) if rollout.stable else None,
        shadow=_compared(place, rollout) if shadow_percent(rollout) else None,
    )


def smoke(place: Place, endpoint: Endpoint, rollout: Rollout) -> Smoke:
    """Ask the version held-out questions, whatever its weight."""
    state = ledger.read(place.store)
    digest = state.version(rollout.version).registered.digest
    lines = read_requests(releases.read_file(place.store, digest, "requests.jsonl"))
    wrong, correct, detail = 0, 0, ""
    asked = [*islice(cycle(lines), rollout.plan.smoke_requests)]
    for line in asked:
        reply = endpoint.send(rollout.version, [line.instance])
        if reply.status != 200 or len(reply.predictions) != 1:
            wrong += 1
            detail = f"status {reply.status}: {reply.error}"
        else:
            correct += line.judge(reply.predictions[0])
    return Smoke(
        requests=len(asked),
        wrong=wrong,
        detail=detail,
        labels=len(asked) - wrong,
        correct=correct,
    )


def tell(rollout: Rollout) -> str:
    """One line for the log: where the rollout stands and why."""
    share = desired_weights(rollout).get(rollout.version, 0)
    where = f"{rollout.version} on {rollout.endpoint}: {rollout.phase}"
    return f"{where} at {share} %: {rollout.reason}"


def _append(config: Config, decide, by: str) -> Ledger:
    return ledger.append(connect(config).store, decide, by=by, run=str(flow_run.id or ""))


def _follow(state: Ledger, before: Rollout, after: Rollout) -> RolloutChanged | None:
    """The next record, unless somebody else wrote one meanwhile."""
    unchanged = state.endpoint(before.endpoint).rollout == before
    return RolloutChanged(rollout=after) if unchanged else None


def _current(state: Ledger, endpoint: str) -> Rollout:
    rollout = state.endpoint(endpoint).rollout
    if rollout is None:
        raise Refused(f"no rollout on {endpoint} in the ledger")
    return rollout


def _other(stable: str | None, version: str) -> str | None:
    return None if stable == version else stable


def _sample(place: Place, endpoint: str, version: str) -> Sample | None:
    try:
        counts = place.telemetry.counts(endpoint, version)
        return Sample(counts=counts, labelled=place.telemetry.labels(endpoint, version))
    except EndpointError:
        return None  # metrics are away; policy.rollout never lets missing data pass


def _compared(place: Place, rollout: Rollout) -> Compared | None:
    try:
        return place.telemetry.compared(rollout.endpoint, rollout.version)
    except EndpointError:
        return None


def _fallback(rollout: Rollout) -> str | None:
    """Who answers what the other version fails to: stable, as long as it is there."""
    return rollout.stable if rollout.stable in desired_versions(rollout) else None


def _bring(place: Place, config: Config, version: str) -> Path:
    digest = ledger.read(place.store).version(version).registered.digest
    return releases.fetch(
        place.store, Release(version, digest), Path(config.root).absolute() / "copies"
    )

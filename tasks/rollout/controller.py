"""One look of a rollout's controller: the endpoint made what is wanted, and what was seen.

What is wanted is decided in policy/rollout/record.py, what a look means in policy/rollout/machine.py. Any
call may be the last one of a controller that dies: the next look completes it.
"""

from itertools import cycle, islice

from prefect import get_run_logger
from prefect.exceptions import MissingContextError
from prefect.logging import get_logger

from deployments import Endpoint, Place, Release, ledger
from deployments.releases import folder as releases
from deployments.replay import read_requests
from policy.counts import Sample
from policy.errors import DataError, EndpointError, PortTaken, ReleaseError
from policy.ledger import Ledger
from policy.rollout.record import (
    Compared,
    Phase,
    Rollout,
    Seen,
    Smoke,
    desired_versions,
    desired_weights,
    finished,
    shadow_percent,
    split,
)


def realize(place: Place, state: Ledger, rollout: Rollout) -> Seen:
    """Bring the endpoint nearer to what `rollout` wants and return what was seen.

    Order: servers up, then weights, then superfluous servers down, so that no request meets
    a version that is not there. What the endpoint refuses shows as a difference in `seen`.
    """
    endpoint = place.endpoint(rollout.endpoint)
    found = real_weights(endpoint)
    if found is None:
        return Seen(at=ledger.now(), ready=False, weights=None)
    failure = deploy(endpoint, state, rollout)
    wanted = desired_weights(rollout)
    try:
        if split(dict(endpoint.weights())) != wanted:
            endpoint.set_weights(wanted, _fallback(rollout))
            logger().info("%s: weights %s", rollout.endpoint, wanted)
        shadow(endpoint, rollout)
        for version in superfluous(endpoint, rollout):
            endpoint.undeploy(version)
    except EndpointError as error:
        logger().warning("the endpoint refuses: %s", error)
    weights = real_weights(endpoint)
    if weights is None:  # it fell silent meanwhile, which is no fault of the version
        return Seen(at=ledger.now(), ready=False, weights=None)
    # An open window was measured at what was found, not at what it was just set back to.
    measured = weights if rollout.window is None else found
    return look(place, state, rollout, measured, failure)


def real_weights(endpoint: Endpoint) -> dict[str, int] | None:
    """The real split; None while the endpoint does not answer."""
    try:
        return dict(endpoint.weights())
    except EndpointError as error:
        logger().warning("the endpoint does not answer: %s", error)
        return None


def deploy(endpoint: Endpoint, state: Ledger, rollout: Rollout) -> str:
    """Start what has to run; why the rollout's version cannot, or ""."""
    failure = ""
    for version in desired_versions(rollout):
        try:
            endpoint.deploy(Release(version, state.version(version).registered.digest))
        except (EndpointError, ReleaseError, PortTaken) as error:
            logger().warning("%s is not deployed: %s", version, error)
            failure = str(error) if version == rollout.version else failure
    return failure


def superfluous(endpoint: Endpoint, rollout: Rollout) -> set[str]:
    """Servers that nobody wants any more, once the weights are as they should be."""
    if split(dict(endpoint.weights())) != desired_weights(rollout):
        return set()
    return set(endpoint.deployed()) - set(desired_versions(rollout))


def take_shelter(endpoint: Endpoint, rollout: Rollout) -> None:
    """Give stable all traffic, whatever the rollout wants: nobody can watch its version now."""
    if rollout.stable is None or finished(rollout):
        return
    try:
        endpoint.set_weights({rollout.stable: 100})
        logger().error(
            "without a ledger nobody watches: stable %s serves 100 %%", rollout.stable
        )
    except EndpointError as error:
        logger().error("without a ledger, and the weights stay as they are: %s", error)


def shadow(endpoint: Endpoint, rollout: Rollout) -> None:
    """Mirror the share of requests that the rollout wants to its version, or none."""
    wanted = {rollout.version: percent} if (percent := shadow_percent(rollout)) else {}
    for version in {*endpoint.mirrored(), *wanted}:
        if endpoint.mirrored().get(version, 0) != wanted.get(version, 0):
            endpoint.mirror(version, wanted.get(version, 0))


def look(
    place: Place, state: Ledger, rollout: Rollout, weights: dict[str, int], failure: str
) -> Seen:
    """Everything that the decision needs, read once."""
    endpoint, ready, smoked = place.endpoint(rollout.endpoint), False, None
    try:
        if not failure and rollout.version in endpoint.deployed():
            ready = endpoint.ready(rollout.version)
        if ready and rollout.phase is Phase.SMOKE:
            smoked = smoke(place, endpoint, state, rollout)
    except (EndpointError, ReleaseError, DataError) as error:
        failure = str(error)
    return Seen(
        at=ledger.now(),
        ready=ready,
        failure=failure,
        smoke=smoked,
        weights=weights,
        stable_ready=rollout.phase is not Phase.ROLLING_BACK
        or _stable_ready(endpoint, rollout),
        canary=_sample(place, rollout.endpoint, rollout.version) if ready else None,
        stable=_sample(place, rollout.endpoint, rollout.stable) if rollout.stable else None,
        shadow=_compared(place, rollout) if shadow_percent(rollout) else None,
    )


def smoke(place: Place, endpoint: Endpoint, state: Ledger, rollout: Rollout) -> Smoke:
    """Ask the version held-out questions, whatever its weight."""
    digest = state.version(rollout.version).registered.digest
    lines = read_requests(releases.read_file(place.store, digest, "requests.jsonl"))
    wrong, correct, detail = 0, 0, ""
    asked = [*islice(cycle(lines), rollout.plan.smoke_requests)]
    for line in asked:
        reply = endpoint.send(rollout.version, [line.instance])
        if reply.status != 200 or len(reply.predictions) != 1:
            wrong += 1
            given = f"{len(reply.predictions)} predictions for one instance"
            detail = f"status {reply.status}: {reply.error or given}"
        else:
            correct += line.judge(reply.predictions[0])
    return Smoke(
        requests=len(asked),
        wrong=wrong,
        detail=detail,
        labels=len(asked) - wrong,
        correct=correct,
    )


def logger():
    """The run's own log; the program's where no flow runs."""
    try:
        return get_run_logger()
    except MissingContextError:
        return get_logger("rollout")


def _sample(place: Place, endpoint: str, version: str) -> Sample | None:
    try:
        counts = place.telemetry.counts(endpoint, version)
        return Sample(counts=counts, labelled=place.telemetry.labels(endpoint, version))
    except EndpointError:
        return None  # metrics are away; policy.rollout.machine never lets missing data pass


def _compared(place: Place, rollout: Rollout) -> Compared | None:
    try:
        return place.telemetry.compared(rollout.endpoint, rollout.version)
    except EndpointError:
        return None


def _stable_ready(endpoint: Endpoint, rollout: Rollout) -> bool:
    try:
        return rollout.stable is None or endpoint.ready(rollout.stable)
    except EndpointError as error:
        logger().warning("stable cannot serve: %s", error)
        return False


def _fallback(rollout: Rollout) -> str | None:
    """Who answers what the other version fails to: stable, as long as it is there."""
    return rollout.stable if rollout.stable in desired_versions(rollout) else None

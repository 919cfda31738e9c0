"""Everything that a decision needs, read once at each look."""

from datetime import datetime
from itertools import cycle, islice

from deployments import Endpoint, Observed, Place, Reading
from deployments.questions import read_requests
from deployments.releases.folder import read_file
from policy.counts import Sample
from policy.errors import DataError, EndpointSilent, ReleaseError, StoreError
from policy.ledger import Ledger
from policy.rollout.record import Phase, Rollout, Seen, Smoke, shadow_percent


def look(
    place: Place,
    state: Ledger,
    rollout: Rollout,
    observed: Observed | None,
    at: datetime,
) -> Seen:
    """What is seen of a rollout at a look. What did not answer is None, and blames nobody."""
    reading = _read(place, rollout)
    counted = {
        "canary": _sample(reading, rollout.version),
        "stable": _sample(reading, rollout.stable),
        "shadow": _compared(reading, rollout),
        "counted_until": reading and reading.complete_until,
    }
    if observed is None:
        return Seen(at=at, ready=False, weights=None, **counted)
    server = observed.servers.get(rollout.version)
    ready = server is not None and server.state == "ready"
    failure = server.reason if server is not None and server.state == "failed" else ""
    smoke = None
    if ready and rollout.phase is Phase.SMOKE:
        smoke, failure = _smoke(place, state, rollout)
    return Seen(
        at=at,
        ready=ready,
        failure=failure,
        smoke=smoke,
        weights=dict(observed.weights),
        stable_ready=_stable_ready(observed, rollout),
        **counted,
    )


def smoke_test(endpoint: Endpoint, version: str, requests: bytes, asked: int) -> Smoke:
    """Ask the version held-out questions by name, whatever its weight.

    Raises EndpointSilent if no answer came: a version that fails is answered for, with 5xx.
    """
    failed, correct, detail = 0, 0, ""
    for line in islice(cycle(read_requests(requests)), asked):
        reply = endpoint.ask(version, [line.instance])
        if reply.status == 0:
            raise EndpointSilent(f"endpoint {endpoint.name} gave no answer: {reply.error}")
        if reply.status != 200 or len(reply.predictions) != 1:
            failed += 1
            given = f"{len(reply.predictions)} predictions for one instance"
            detail = f"status {reply.status}: {reply.error or given}"
        else:
            correct += line.is_right(reply.predictions[0])
    return Smoke(
        requests=asked, wrong=failed, detail=detail, labels=asked - failed, correct=correct
    )


def _smoke(place: Place, state: Ledger, rollout: Rollout) -> tuple[Smoke | None, str]:
    """The smoke test, and why the version can never pass one, or ""."""
    asked, version = rollout.plan.smoke_requests, rollout.version
    if not asked:
        return Smoke(requests=0, wrong=0), ""
    try:
        digest = state.version(version).digest
        requests = read_file(place.store, digest, "requests.jsonl")
        return smoke_test(place.endpoint(rollout.endpoint), version, requests, asked), ""
    except (ReleaseError, DataError) as error:
        return None, str(error)
    except (StoreError, EndpointSilent):
        return None, ""  # the store or the endpoint is away; the deadline decides


def _read(place: Place, rollout: Rollout) -> Reading | None:
    versions = [v for v in (rollout.version, rollout.stable) if v is not None]
    try:
        return place.telemetry.read(rollout.endpoint, versions)
    except EndpointSilent:
        return None


def _sample(reading: Reading | None, version: str | None) -> Sample | None:
    return None if reading is None or version is None else reading.samples.get(version)


def _compared(reading: Reading | None, rollout: Rollout):
    wanted = reading is not None and shadow_percent(rollout)
    return reading.compared.get(rollout.version) if reading and wanted else None


def _stable_ready(observed: Observed, rollout: Rollout) -> bool:
    if rollout.phase is not Phase.ROLLING_BACK or rollout.stable is None:
        return True
    server = observed.servers.get(rollout.stable)
    return server is not None and server.state == "ready"

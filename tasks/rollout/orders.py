"""What a rollout's record wants its endpoint to be, and whether it is so."""

from dataclasses import replace

from deployments import Desired, Endpoint, Observed, Release
from policy.ledger import Ledger
from policy.rollout.record import (
    Phase,
    Rollout,
    desired_versions,
    desired_weights,
    shadow_percent,
    shown,
)


def order(state: Ledger, rollout: Rollout, endpoint: Endpoint) -> Desired:
    """What the rollout's record wants the endpoint to be."""
    versions = desired_versions(rollout)
    releases = tuple(Release(v, state.version(v).digest) for v in versions)
    fallback = rollout.stable if rollout.stable in versions else None
    percent = shadow_percent(rollout)
    return Desired(
        releases,
        desired_weights(rollout),
        fallback=fallback if "fallback" in endpoint.can else None,
        mirror={rollout.version: percent} if percent else {},
    )


def sparing(wanted: Desired, rollout: Rollout, observed: Observed) -> Desired:
    """The order, but nobody stops what serves because the ledger knows of nothing that should.

    So it is where a backup was restored that is older than the first promotion. A version that
    is rolled back loses its weight all the same.
    """
    rolls_back = rollout.phase in (Phase.ROLLING_BACK, Phase.ROLLED_BACK)
    serving = {
        version: share
        for version, share in observed.weights.items()
        if version in observed.servers and not (rolls_back and version == rollout.version)
    }
    if wanted.weights or not serving:
        return wanted
    digests = {version: observed.servers[version].digest for version in serving}
    digests |= {release.version: release.digest for release in wanted.releases}
    whole = sum(serving.values()) == 100
    return replace(
        wanted,
        releases=tuple(Release(version, digest) for version, digest in digests.items()),
        weights=serving if whole else {max(serving, key=lambda v: serving[v]): 100},
    )


def helped_by(desired: Desired) -> str:
    """The version that answers what another one fails to answer; "" if there is no other."""
    served = (version for version, share in desired.weights.items() if share)
    others = any(version != desired.fallback for version in served)
    return (desired.fallback or "") if others else ""


def line_of(rollout: Rollout) -> str:
    """One line for the log: where the rollout stands and why."""
    share = desired_weights(rollout).get(rollout.version, 0)
    where = f"{rollout.version} on {rollout.endpoint}: {rollout.phase}"
    return f"{where} at {share} %: {rollout.reason}"


def is_settled(observed: Observed, rollout: Rollout) -> bool:
    """Whether the endpoint is what a finished rollout wants, without spare servers."""
    spare = set(observed.servers) - set(desired_versions(rollout))
    return not spare and dict(observed.weights) == desired_weights(rollout)


def not_settled(observed: Observed | None, rollout: Rollout) -> str:
    """What is left to do."""
    if observed is None:
        return f"{rollout.endpoint} does not answer"
    return (
        f"{rollout.endpoint} has {shown(observed.weights)} and the servers "
        f"{sorted(observed.servers)}, expected {shown(desired_weights(rollout))}"
    )


def is_as_ordered(observed: Observed, wanted: Desired) -> bool:
    """Whether nothing is left to order. A server that failed is ordered again."""
    digests = {v: server.digest for v, server in observed.servers.items()}
    running = all(server.state != "failed" for server in observed.servers.values())
    return (
        running
        and digests == {release.version: release.digest for release in wanted.releases}
        and dict(observed.weights) == dict(wanted.weights)
        and dict(observed.mirror) == dict(wanted.mirror)
        and observed.fallback == helped_by(wanted)
    )

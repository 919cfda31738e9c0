"""The record of one rollout, what it wants of the endpoint, and what a look saw.

    PENDING -> DEPLOYING -> SMOKE -> [SHADOW] -> STEP 0 .. n -> PROMOTING -> [WATCHING] -> DONE
                                                 |  ^
                                     before 100: AWAITING_APPROVAL
    from every state but DONE: ROLLING_BACK -> ROLLED_BACK

The record is all that a controller knows: whoever reads it from the ledger goes on with it.
Words follow Argo Rollouts: canary, stable, weight, step, analysis, limit, promote, abort.
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from math import isinf

from pydantic import AwareDatetime, BaseModel

from policy.counts import Compared, Sample
from policy.errors import Refused
from policy.evidence.analysis import Measurements
from policy.evidence.comparison import Evidence
from policy.evidence.limits import Fault, Verdict
from policy.rollout.plans import Plan


class Phase(StrEnum):
    PENDING = "pending"
    DEPLOYING = "deploying"  # the version's server starts, at weight 0
    SMOKE = "smoke"  # requests pinned to the version, at weight 0
    SHADOW = "shadow"  # mirrored requests, at weight 0
    STEP = "step"  # a share of the live traffic, analysed
    AWAITING_APPROVAL = "awaiting-approval"  # before 100 %; keeps the weight of its step
    PROMOTING = "promoting"  # 100 %, until the endpoint confirms it
    WATCHING = "watching"  # 100 %; stable is kept as a backup
    DONE = "done"
    ROLLING_BACK = "rolling-back"  # until the endpoint confirms stable at 100 %
    ROLLED_BACK = "rolled-back"


FINISHED = frozenset({Phase.DONE, Phase.ROLLED_BACK})
_SERVES_ALL = frozenset({Phase.PROMOTING, Phase.WATCHING, Phase.DONE})
_SERVES_SHARE = frozenset({Phase.STEP, Phase.AWAITING_APPROVAL})


class Tally(BaseModel, frozen=True):
    """One version in one window.

    `latency_p95_s` None: slower than the last bucket's edge, or not known where nothing was
    answered (`latency_known`).
    """

    requests: int
    errors: int
    latency_p95_s: float | None
    labels: int
    correct: int
    latency_known: bool = True


class Row(BaseModel, frozen=True):
    """One judged window, as people see it. `weight` is the canary's, in percent."""

    at: AwareDatetime
    phase: Phase
    step: int
    weight: int
    canary: Tally | None
    stable: Tally | None
    verdict: Verdict
    reason: str


class Reading(BaseModel, frozen=True):
    """Cumulative counters at one moment. None: the metrics were away."""

    at: AwareDatetime
    canary: Sample | None
    stable: Sample | None


class Window(BaseModel, frozen=True):
    """The next verdict is `due`; `block` is where the evidence not yet weighed begins."""

    start: Reading
    due: AwareDatetime
    block: Reading


class Rollout(BaseModel, frozen=True):
    """One version on its way to one endpoint. `step` -1: no step yet.

    `rollback`: it brings back the version before. `request` is the id of the request that it
    answers. `scarce`: a window of this state had too few requests to judge by, so that the
    state may last for `quiet_s`. `began` are the counters when it began, from which today's
    traffic is estimated.
    """

    id: str
    endpoint: str
    version: str
    stable: str | None
    plan: Plan
    phase: Phase = Phase.PENDING
    step: int = -1
    started_at: AwareDatetime
    entered_at: AwareDatetime
    paused_at: AwareDatetime | None = None
    promote_at_once: bool = False
    unready_since: AwareDatetime | None = None
    unready_s: float = 0.0
    window: Window | None = None
    failures: int = 0
    inconclusive: int = 0
    evidence: Evidence = Evidence()
    analyses: tuple[Measurements, ...] = ()
    last: Row | None = None
    reason: str
    by: str
    rollback: bool = False
    request: str = ""
    scarce: bool = False
    began: Reading | None = None
    fault: Fault | None = None
    """Why it was rolled back; None before that, and in records older than this field."""

    @property
    def paused(self) -> bool:
        return self.paused_at is not None


class Smoke(BaseModel, frozen=True):
    """Requests pinned to the version. `wrong`: not a 200 with predictions of right shape."""

    requests: int
    wrong: int
    detail: str = ""
    labels: int = 0
    correct: int = 0


class Seen(BaseModel, frozen=True):
    """What a controller observed at one look.

    `failure` says why the version can never serve ("" as long as it can); `weights` is the
    real split, None while the endpoint does not answer; `canary` and `stable` are cumulative
    counters, None while they cannot be read, and complete until `counted_until` (None: until
    `at`).
    """

    at: AwareDatetime
    ready: bool
    failure: str = ""
    smoke: Smoke | None = None
    weights: dict[str, int] | None
    canary: Sample | None = None
    stable: Sample | None = None
    stable_ready: bool = True
    shadow: Compared | None = None
    counted_until: AwareDatetime | None = None

    @property
    def until(self) -> AwareDatetime:
        """The time up to which the counters are complete: the judge's clock."""
        return self.counted_until or self.at


def start(
    id: str,
    endpoint: str,
    version: str,
    stable: str | None,
    plan: Plan,
    by: str,
    at: AwareDatetime,
    *,
    rollback: bool = False,
    request: str = "",
) -> Rollout:
    """The first record of a rollout. `plan` is kept, whatever happens to the file later.

    Raises Refused if `version` is the stable one already.
    """
    if version == stable:
        raise Refused(
            f"{version} already serves {endpoint}",
            expected="a version other than stable",
            holds=f"{version} serves 100 %",
        )
    return Rollout(
        id=id, endpoint=endpoint, version=version, stable=stable, plan=plan,
        started_at=at, entered_at=at, reason=f"started by {by}", by=by,
        rollback=rollback, request=request,
    )  # fmt: skip


def finished(rollout: Rollout) -> bool:
    return rollout.phase in FINISHED


def desired_weights(rollout: Rollout) -> dict[str, int]:
    """The split that should be real, in percent: adds up to 100, names only who gets some.

    Empty while nothing may serve: a first version that has no weight yet, or was rolled back.
    An unready version gets nothing as long as there is a stable one to take over.
    """
    share = _canary_weight(rollout)
    if rollout.stable is None:
        return {rollout.version: 100} if share else {}
    return split({rollout.stable: 100 - share, rollout.version: share})


def desired_versions(rollout: Rollout) -> tuple[str, ...]:
    """Versions whose servers must run now; others may be undeployed. Stable comes first."""
    stable = () if rollout.stable is None else (rollout.stable,)
    if rollout.phase in (Phase.PENDING, Phase.ROLLED_BACK):
        return stable
    return (rollout.version,) if rollout.phase is Phase.DONE else (*stable, rollout.version)


def as_desired(rollout: Rollout, seen: Seen) -> bool:
    """Whether the real split is the desired one; an endpoint that does not tell has none."""
    return seen.weights is not None and split(seen.weights) == desired_weights(rollout)


def shadow_percent(rollout: Rollout) -> int:
    """Share of the traffic to mirror to the canary now, in percent."""
    return rollout.plan.shadow.percent if rollout.phase is Phase.SHADOW else 0


def next_look_s(rollout: Rollout, at: AwareDatetime) -> float:
    """Seconds until the next look is worth while; 0 for a finished rollout."""
    if finished(rollout):
        return 0.0
    look_s = rollout.plan.look_s
    if rollout.window is None:
        return look_s
    until_due = (rollout.window.due - at).total_seconds()
    return min(look_s, until_due) if until_due > 0 else look_s


def deadline_s(rollout: Rollout) -> float | None:
    """How long it may stay in this state, or paused in it; None: no such limit."""
    deadlines = rollout.plan.deadlines
    if rollout.paused:
        return deadlines.paused_s
    waits = rollout.scarce and rollout.plan.little_traffic != "replay"  # replay never dries up
    wait_s = deadlines.quiet_s if waits else 0.0
    return {
        Phase.DEPLOYING: deadlines.deploying_s,
        Phase.SMOKE: deadlines.smoke_s,
        Phase.SHADOW: max(deadlines.shadow_s, wait_s),
        Phase.STEP: max(deadlines.step_s, wait_s),
        Phase.AWAITING_APPROVAL: deadlines.approval_s,
        Phase.PROMOTING: deadlines.promoting_s,
        Phase.WATCHING: rollout.plan.watch.s + max(deadlines.watch_s, wait_s),
    }.get(rollout.phase)


def stayed_s(rollout: Rollout, at: AwareDatetime) -> float:
    """Seconds in this state, or paused in it, until `at`; 0 if its clock was ahead."""
    return max(0.0, (at - (rollout.paused_at or rollout.entered_at)).total_seconds())


def rows(records: Iterable[Rollout]) -> tuple[Row, ...]:
    """The windows judged in the successive records of one rollout, in order, each once."""
    judged = (record.last for record in records if record.last is not None)
    return tuple(dict.fromkeys(judged))


def split(weights: dict[str, int]) -> dict[str, int]:
    """The weights without those that are 0, so that two splits can be compared."""
    return {version: percent for version, percent in weights.items() if percent}


def shown(weights: Mapping[str, int]) -> str:
    """A split as people read it, as `v1 90 %, v2 10 %`."""
    return ", ".join(f"{version} {share} %" for version, share in weights.items()) or "nothing"


def tally(sample: Sample) -> Tally:
    p95 = sample.latency_p95_s
    return Tally(
        requests=sample.counts.requests,
        errors=sample.counts.errors,
        latency_p95_s=None if p95 is None or isinf(p95) else p95,
        labels=sample.labelled.labels,
        correct=sample.labelled.correct,
        latency_known=p95 is not None,
    )


def _canary_weight(rollout: Rollout) -> int:
    if rollout.unready_since is not None and rollout.stable is not None:
        return 0
    if rollout.phase in _SERVES_ALL:
        return 100
    if rollout.phase in _SERVES_SHARE and rollout.step >= 0:
        return rollout.plan.weights[rollout.step]
    return 0

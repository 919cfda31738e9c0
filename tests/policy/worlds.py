"""A small endpoint with traffic, to drive rollouts with: counters, weights, servers."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import numpy as np

from policy.counts import LATENCY_EDGES_S, Counts, Labelled, Sample
from policy.rollout.machine import Phase, Rollout, Seen, Smoke, advance, finished, start
from policy.rollout.plans import Analysis, Deadlines, Judge, Limits, Plan, Shadow, Watch
from policy.rollout.record import desired_versions, desired_weights

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
ACCURATE = Analysis(
    name="accurate",
    success_condition="result.accuracy >= 0.9",
    failure_condition="result.accuracy < 0.5",
    failure_limit=0,
    inconclusive_limit=1,
    consecutive_error_limit=2,
    interval_s=5,
    count=2,
    dry_run=False,
)


def make_plan(**changes) -> Plan:
    """A canary of 10, 50 and 100 % with windows of 10 s; `section__key` changes a section."""
    plan = Plan(
        strategy="canary",
        weights=(10, 50, 100),
        bake_s=10,
        bake_requests=0,
        look_s=1,
        approval=False,
        smoke_requests=5,
        replay_per_s=20,
        little_traffic="replay",
        limits=Limits(
            requests_min=20,
            error_rate_max=0.05,
            latency_p95_s_max=1.0,
            labels_min=10,
            accuracy_min=0.75,
            failure_limit=1,
            inconclusive_limit=2,
        ),
        judge=Judge(
            alpha=0.01,
            error_rate_margin=0.01,
            slow_margin=0.05,
            accuracy_margin=0.05,
            non_inferiority_margin=0.05,
            block_requests=5,
            block_s=5,
            promotion="within-limits",
        ),
        analyses=(),
        shadow=Shadow(percent=0, bake_s=10, disagreement_max=0.2, compared_min=20),
        watch=Watch(
            s=20,
            requests_min=20,
            error_rate_max=0.15,
            latency_p95_s_max=10.0,
            availability_min=0.8,
        ),
        deadlines=Deadlines(
            deploying_s=30,
            smoke_s=20,
            shadow_s=60,
            step_s=60,
            approval_s=300,
            promoting_s=15,
            paused_s=600,
            unready_s=8,
            quiet_s=600,
            watch_s=30,
        ),
    )
    return Plan.model_validate(changed(plan.model_dump(), **changes))


def changed(tree: dict, **changes) -> dict:
    """The settings with other values; `section__key` changes one of a section."""
    for name, value in changes.items():
        section, _, key = name.rpartition("__")
        (tree[section] if section else tree)[key] = value
    return tree


def seconds(number: float) -> datetime:
    return NOW + timedelta(seconds=number)


def sample(
    requests: int,
    errors: int = 0,
    latency_s: float = 0.03,
    labels: int = 0,
    wrong: int = 0,
    epoch: str = "",
) -> Sample:
    """All answers in the bucket that holds `latency_s`; requests that failed have none."""
    latency = [0] * (len(LATENCY_EDGES_S) + 1)
    latency[int(np.searchsorted(LATENCY_EDGES_S, latency_s))] = requests - errors
    return Sample(
        counts=Counts(requests=requests, errors=errors, latency=tuple(latency)),
        labelled=Labelled(labels=labels, correct=labels - wrong),
        epoch=epoch,
    )


@dataclass
class Behaviour:
    """How one version answers; `latency_s` is the median of a log-normal."""

    errors: float = 0.0
    wrong: float = 0.05
    latency_s: float = 0.03


@dataclass
class World:
    """An endpoint `obey`s a rollout; requests come at `per_s` and are split by the weights.

    Its metrics are `late_s` behind. Requests that fail have no latency.
    """

    behaviours: dict[str, Behaviour]
    weights: dict[str, int]
    per_s: float = 50.0
    seed: int = 0
    late_s: float = 0.0
    at_s: float = 0.0
    servers: set[str] = field(default_factory=set)
    samples: dict[str, Sample] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.seed)
        self.counted = [(self.at_s, dict(self.samples))]
        self.servers |= set(self.weights)

    def obey(self, rollout: Rollout) -> None:
        """Servers up, weights, superfluous servers down: the order of a controller."""
        self.servers |= set(desired_versions(rollout))
        self.weights = desired_weights(rollout)
        self.servers &= set(desired_versions(rollout)) | set(self.weights)

    def pass_time(self, duration_s: float) -> None:
        self.at_s += duration_s
        asked = self.random.poisson(self.per_s * duration_s)
        shares = [percent / 100 for percent in self.weights.values()]
        split = self.random.multinomial(asked, shares) if shares else []
        for version, requests in zip(self.weights, split, strict=True):
            self._answer(version, int(requests))
        self.counted.append((self.at_s, dict(self.samples)))

    def look(self, rollout: Rollout, **changes) -> Seen:
        asked = rollout.plan.smoke_requests
        smoke = Smoke(requests=asked, wrong=0) if rollout.phase is Phase.SMOKE else None
        until_s, samples = self._complete()
        seen = Seen(
            at=seconds(self.at_s),
            counted_until=seconds(until_s) if self.late_s else None,
            ready=rollout.version in self.servers,
            smoke=smoke,
            weights=self.weights,
            canary=samples.get(rollout.version, Sample()),
            stable=samples.get(rollout.stable, Sample()) if rollout.stable else None,
        )
        return seen.model_copy(update=changes)

    def _complete(self) -> tuple[float, dict[str, Sample]]:
        """The newest counters that are complete, and until when they are."""
        while len(self.counted) > 1 and self.counted[1][0] <= self.at_s - self.late_s:
            del self.counted[0]
        return self.counted[0]

    def _sample(self, version: str) -> Sample:
        return self.samples.get(version, Sample())

    def _answer(self, version: str, requests: int) -> None:
        behaviour, before = self.behaviours[version], self._sample(version)
        errors = int(self.random.binomial(requests, behaviour.errors))
        answers = requests - errors
        latencies = behaviour.latency_s * self.random.lognormal(0, 0.3, answers)
        buckets = np.searchsorted(LATENCY_EDGES_S, latencies)
        latency = np.bincount(buckets, minlength=len(LATENCY_EDGES_S) + 1)
        wrong = int(self.random.binomial(answers, behaviour.wrong))
        more = Sample(
            counts=Counts(requests=requests, errors=errors, latency=tuple(latency.tolist())),
            labelled=Labelled(labels=answers, correct=answers - wrong),
        )
        self.samples[version] = plus(before, more)


def plus(before: Sample, more: Sample) -> Sample:
    """Counters after more has been counted, in the life that `before` is in."""
    latency = zip(before.counts.latency, more.counts.latency, strict=True)
    return Sample(
        counts=Counts(
            requests=before.counts.requests + more.counts.requests,
            errors=before.counts.errors + more.counts.errors,
            latency=tuple(a + b for a, b in latency),
        ),
        labelled=Labelled(
            labels=before.labelled.labels + more.labelled.labels,
            correct=before.labelled.correct + more.labelled.correct,
        ),
        epoch=before.epoch,
    )


def run(
    world: World, rollout: Rollout, *, look_s: float = 1.0, stop: Phase | None = None
) -> list[Rollout]:
    """Drive the rollout to its end, or until it is in `stop`; returns every record."""
    records = [rollout]
    for _ in range(5000):
        if finished(rollout) or rollout.phase is stop:
            return records
        world.obey(rollout)
        world.pass_time(look_s)
        after = advance(rollout, world.look(rollout))
        if after is not rollout:
            records.append(after)
        rollout = after
    raise AssertionError(f"no end in sight: {rollout.phase}, {rollout.reason}")


def begin(plan: Plan | None = None, stable: str | None = "v1") -> Rollout:
    return start("r1", "production", "v2", stable, plan or make_plan(), "a test", NOW)


def world(canary: Behaviour | None = None, stable: str | None = "v1", **options) -> World:
    weights = {} if stable is None else {stable: 100}
    behaviours = {"v1": Behaviour(), "v2": canary or Behaviour()}
    return World(behaviours, weights, **options)


def walked(records: list[Rollout]) -> list[int]:
    """The weights of the canary in order, without repetition."""
    weights = [desired_weights(record).get("v2", 0) for record in records]
    return [w for i, w in enumerate(weights) if i == 0 or w != weights[i - 1]]


def phases(records: list[Rollout]) -> list[Phase]:
    """The phases in order, without repetition."""
    found = [record.phase for record in records]
    return [phase for i, phase in enumerate(found) if i == 0 or phase != found[i - 1]]


def until(phase: Phase, a_world: World, plan: Plan | None = None) -> Rollout:
    """The first record in `phase` of a rollout; `a_world` stands where it was reached."""
    return run(a_world, begin(plan), stop=phase)[-1]


def in_phase(phase: Phase, **changes) -> Rollout:
    """A record that stands in `phase` from NOW on."""
    step = {Phase.STEP: 0, Phase.AWAITING_APPROVAL: 1}.get(phase, -1)
    return begin().model_copy(
        update={"phase": phase, "step": step, "entered_at": NOW, **changes}
    )

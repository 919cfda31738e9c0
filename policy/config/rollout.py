"""The section `rollout`: how a version meets live traffic and what rolls it back."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, field_validator

from policy.condition import check
from policy.config import plan_problems
from policy.config.section import (
    Alpha,
    Count,
    Duration,
    Fraction,
    Items,
    Name,
    Percent,
    Positive,
    Seconds,
    Section,
)
from policy.counts import LATENCY_EDGES_S

_SLOW_SHARE_OF_STABLE = 0.05  # by definition: what is slower than stable's own p95


class Limits(Section):
    """Absolute limits of one window of live traffic; missing data never passes.

    A window fails as soon as a value is *proven* to be past its limit (judge.alpha), so that
    few requests do not condemn a good version; past the limit but not proven asks for more.
    """

    requests_min: Positive
    error_rate_max: Fraction = Field(description="1: no limit")
    latency_p95_s_max: float = Field(description="an edge of policy.counts.LATENCY_EDGES_S")
    labels_min: Count = Field(description="0: accuracy is not judged live")
    accuracy_min: Fraction = Field(description="0: no limit")
    failure_limit: Count = Field(description="failed windows tolerated at one weight")
    inconclusive_limit: Count = Field(description="windows with too little data tolerated")

    def problems(self) -> Iterator[str]:
        yield from _not_on_an_edge(self.latency_p95_s_max)


class Judge(Section):
    """Sequential comparison of the canary with stable (policy/evidence/tests.py)."""

    alpha: Alpha = Field(
        description="chance that a version as good as stable is rolled back by comparison, "
        "however often one looks; shared by errors, latency and accuracy"
    )
    error_rate_margin: Fraction = Field(
        description="so much worse than stable is tolerated; 1: not compared"
    )
    slow_margin: Fraction = Field(
        description="the same for the share of answers slower than stable's p95"
    )
    accuracy_margin: Fraction
    non_inferiority_margin: Annotated[float, Field(gt=0, lt=1)] = Field(
        description="within so much of stable each rate is proven to be before 100 %, "
        "where promotion asks for proof"
    )
    block_requests: Positive = Field(description="canary requests in the first block")
    block_s: Duration = Field(
        description="evidence is weighed and written to the ledger at least this often"
    )
    promotion: Literal["within-limits", "non-inferior"] = Field(
        description="non-inferior: 100 % needs proof of being within the margins of stable"
    )

    def problems(self) -> Iterator[str]:
        if 1 - _SLOW_SHARE_OF_STABLE <= self.slow_margin < 1:
            yield (
                f"slow_margin (={self.slow_margin:g}) can never be exceeded, since 5 % of "
                "stable's own answers are slower than its p95; write 1 if latencies are not to "
                "be compared"
            )


class Shadow(Section):
    """Mirrored traffic at weight 0, whose answers nobody gets."""

    percent: Percent = Field(description="share of the traffic mirrored; 0: no shadow")
    bake_s: Seconds
    disagreement_max: Fraction = Field(description="answers that differ from stable's")
    compared_min: Count = Field(description="0: disagreement is not judged")

    def problems(self) -> Iterator[str]:
        if self.percent and not self.bake_s:
            yield "bake_s (=0) leaves no time for a mirrored request: no version would get on"
        if self.compared_min and not self.percent:
            yield (
                f"compared_min (={self.compared_min}) is never looked at, since percent is 0 "
                "and nothing is mirrored; write 0"
            )
        if self.compared_min and self.disagreement_max == 1:
            yield "disagreement_max (=1) can never be exceeded; write compared_min: 0 instead"


class Watch(Section):
    """After the rollout: stable is kept as a backup and takes over past these limits."""

    s: Seconds = Field(description="how long; 0: no watch, the old version goes at once")
    requests_min: Count = Field(description="with fewer the version is rolled back")
    error_rate_max: Fraction
    latency_p95_s_max: float = Field(description="an edge of policy.counts.LATENCY_EDGES_S")
    availability_min: Fraction = Field(description="share of the watch the version is ready")

    def problems(self) -> Iterator[str]:
        yield from _not_on_an_edge(self.latency_p95_s_max)
        if self.requests_min and not self.s:
            yield (
                f"requests_min (={self.requests_min}) is never looked at, since s is 0 and "
                "there is no watch; write 0"
            )


class Analysis(Section):
    """A condition of its own on the window so far, in the words of Argo Rollouts.

    Conditions are comparisons of `result.*` (policy/evidence/analysis.py lists the fields),
    such as `result.error_rate < 0.02 and result.accuracy >= 0.9`; "" for none.
    """

    name: Name
    success_condition: str
    failure_condition: str
    failure_limit: Count
    inconclusive_limit: Count
    consecutive_error_limit: Count
    interval_s: Duration
    count: Count = Field(description="measurements; 0: until the window ends")
    dry_run: bool = Field(description="measured and shown, but decides nothing")

    @field_validator("success_condition", "failure_condition")
    @classmethod
    def _can_be_evaluated(cls, condition: str) -> str:
        if condition:
            check(condition)
        return condition

    def problems(self) -> Iterator[str]:
        conditions = f"{self.success_condition}{self.failure_condition}"
        if not self.dry_run and not conditions:
            yield (
                "success_condition and failure_condition are both empty: every measurement "
                "would succeed, and no version be rolled back; write one, or dry_run: true"
            )
        elif conditions and "result." not in conditions:
            yield (
                "success_condition and failure_condition name no result: every measurement "
                "would end alike, whatever the version does"
            )
        tolerated = self.failure_limit + self.inconclusive_limit
        if 0 < self.count <= tolerated:
            yield (
                f"count (={self.count}) is not above failure_limit (={self.failure_limit}) and "
                f"inconclusive_limit (={self.inconclusive_limit}) together: the analysis would "
                "succeed without one successful measurement"
            )


class Deadlines(Section):
    """How long a rollout may stay in one state before it is rolled back."""

    deploying_s: Duration
    smoke_s: Duration
    shadow_s: Duration
    step_s: Duration
    approval_s: Duration
    promoting_s: Duration
    paused_s: Duration
    unready_s: Duration = Field(
        description="how long a version may be unready after it was ready"
    )
    quiet_s: Duration = Field(description="the longest wait for traffic at one step")
    watch_s: Duration = Field(
        description="how long the watch may last when its figures cannot be read"
    )


class Rollout(Section):
    """Canary: weights [10, 30, 50, 100]. Blue-green: [0, 100]. Immediate: [100]."""

    strategy: Literal["canary", "blue-green", "immediate"]
    weights: Items[Percent] = Field(
        description="rising to 100; at 0 smoke requests and the shadow are the test"
    )
    bake_s: Seconds = Field(description="length of one window of live traffic")
    bake_requests: Count = Field(
        description="canary requests that a window needs beside bake_s; a window that has not "
        "enough goes on"
    )
    look_s: Duration = Field(description="seconds between two looks")
    approval: bool = Field(description="a person says yes before the step to 100 %")
    smoke_requests: Count = Field(
        description="held-out questions asked of the version at weight 0; 0: no smoke test"
    )
    replay_per_s: Seconds = Field(description="held-out questions replayed a second; 0: none")
    little_traffic: Literal["wait", "ask", "replay"] = Field(
        description="what happens when a step has too few requests to judge by: wait for more, "
        "up to deadlines.quiet_s; ask a person (the rollout pauses); replay held-out questions"
    )
    limits: Limits
    judge: Judge
    analyses: Items[Analysis]
    shadow: Shadow
    watch: Watch
    deadlines: Deadlines

    def problems(self) -> Iterator[str]:
        yield from plan_problems.all_of(self)


def _not_on_an_edge(limit_s: float) -> Iterator[str]:
    if limit_s not in LATENCY_EDGES_S:
        yield (
            f"latency_p95_s_max (={limit_s}) must be an edge of the latency buckets, "
            f"one of {list(LATENCY_EDGES_S)}"
        )

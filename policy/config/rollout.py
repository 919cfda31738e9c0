"""The section `rollout`: how a version meets live traffic and what takes it back."""

from typing import Annotated, Literal, Self, TypeVar

from pydantic import Field, field_validator, model_validator

from policy.condition import check
from policy.config.section import (
    Count,
    Duration,
    Fraction,
    Name,
    Percent,
    Positive,
    Seconds,
    Section,
)
from policy.counts import LATENCY_EDGES_S

_S = TypeVar("_S", bound=Section)


class Limits(Section):
    """Absolute limits of one window of live traffic; missing data never passes.

    A window fails as soon as a value is *proven* to be past its limit (judge.alpha), so that
    few requests do not condemn a good version; past the limit but not proven asks for more.
    """

    requests_min: Positive
    error_rate_max: Fraction
    latency_p95_s_max: float = Field(description="an edge of policy.counts.LATENCY_EDGES_S")
    labels_min: Count = Field(description="0: accuracy is not judged live")
    accuracy_min: Fraction
    failure_limit: Count = Field(description="failed windows tolerated at one weight")
    inconclusive_limit: Count = Field(description="windows with too little data tolerated")

    @model_validator(mode="after")
    def _on_an_edge(self) -> Self:
        return _latency_on_an_edge(self, self.latency_p95_s_max)


class Judge(Section):
    """Sequential comparison of the canary with stable (policy/evidence/tests.py)."""

    alpha: Annotated[float, Field(gt=0, lt=0.5)] = Field(
        description="chance that a version as good as stable is taken back by comparison, "
        "however often one looks; shared by errors, latency and accuracy"
    )
    error_rate_margin: Fraction = Field(description="so much worse than stable is tolerated")
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


class Shadow(Section):
    """Mirrored traffic at weight 0, whose answers nobody gets."""

    percent: Percent = Field(description="share of the traffic mirrored; 0: no shadow")
    bake_s: Seconds
    disagreement_max: Fraction = Field(description="answers that differ from stable's")
    compared_min: Count = Field(description="0: disagreement is not judged")


class Watch(Section):
    """After the rollout: stable is kept as a backup and takes over past these limits."""

    s: Seconds = Field(description="how long; 0: no watch, the old version goes at once")
    requests_min: Count = Field(description="with fewer the version is taken back")
    error_rate_max: Fraction
    latency_p95_s_max: float = Field(description="an edge of policy.counts.LATENCY_EDGES_S")
    availability_min: Fraction = Field(description="share of the watch the version is ready")

    @model_validator(mode="after")
    def _on_an_edge(self) -> Self:
        return _latency_on_an_edge(self, self.latency_p95_s_max)


class Analysis(Section):
    """A condition of its own on the window so far, in the words of Argo Rollouts.

    Conditions are comparisons of `result.*` (policy/evidence/analysis.py lists the fields), such as
    `result.error_rate < 0.02 and result.accuracy >= 0.9`; "" for none.
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


class Deadlines(Section):
    """How long a rollout may stay in one state before it is taken back."""

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


class Rollout(Section):
    """Canary: weights [10, 30, 50, 100]. Blue-green: [0, 100]. Immediate: [100]."""

    strategy: Literal["canary", "blue-green", "immediate"]
    weights: tuple[Percent, ...] = Field(
        description="rising to 100; at 0 smoke requests and the shadow are the test"
    )
    bake_s: Seconds = Field(description="length of one window of live traffic")
    look_s: Duration = Field(description="seconds between two looks")
    approval: bool = Field(description="a person says yes before the step to 100 %")
    smoke_requests: Positive
    replay_per_s: Seconds = Field(description="held-out questions replayed a second; 0: none")
    limits: Limits
    judge: Judge
    analyses: tuple[Analysis, ...]
    shadow: Shadow
    watch: Watch
    deadlines: Deadlines

    @model_validator(mode="after")
    def _rising_to_100(self) -> Self:
        weights = list(self.weights)
        if weights != sorted(set(weights)) or weights[-1:] != [100]:
            raise ValueError(f"weights (={weights}) must rise and end at 100")
        fixed = {"blue-green": [0, 100], "immediate": [100]}.get(self.strategy, weights)
        if weights != fixed:
            raise ValueError(f"weights (={weights}) must be {fixed} for {self.strategy}")
        return self

    @model_validator(mode="after")
    def _can_be_met(self) -> Self:
        if self.deadlines.step_s < self.bake_s + self.look_s:
            raise ValueError(
                f"deadlines.step_s (={self.deadlines.step_s}) leaves no time for a window of "
                f"bake_s (={self.bake_s}) and a look of look_s (={self.look_s})"
            )
        if self.shadow.percent and self.deadlines.shadow_s < self.shadow.bake_s + self.look_s:
            raise ValueError(
                f"deadlines.shadow_s (={self.deadlines.shadow_s}) is shorter than "
                f"shadow.bake_s (={self.shadow.bake_s}) and a look"
            )
        compared = any(0 < weight < 100 for weight in self.weights)
        if self.judge.promotion == "non-inferior" and not compared:
            raise ValueError(
                f"judge.promotion (=non-inferior) needs a weight between 0 and 100 at which "
                f"the canary is compared with stable; weights are {list(self.weights)}"
            )
        names = [analysis.name for analysis in self.analyses]
        if len(set(names)) < len(names):
            raise ValueError(f"analyses must have different names (={names})")
        return self


def _latency_on_an_edge(section: _S, limit_s: float) -> _S:
    if limit_s not in LATENCY_EDGES_S:
        raise ValueError(
            f"latency_p95_s_max (={limit_s}) must be an edge of the latency buckets, "
            f"one of {list(LATENCY_EDGES_S)}"
        )
    return section

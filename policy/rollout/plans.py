"""The plan that a rollout follows, as its record keeps it.

A copy of the section `rollout` of the configuration, made when the rollout is asked for. The
record is read for ever, so this schema is lenient where the configuration's is strict: what it
does not know it ignores, and what came later has a default that means what was meant before.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from policy.config import Config
from policy.config import Rollout as Settings


class _Part(BaseModel):
    """Read from old and new records alike."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class Limits(_Part):
    requests_min: int
    error_rate_max: float
    latency_p95_s_max: float
    labels_min: int
    accuracy_min: float
    failure_limit: int
    inconclusive_limit: int


class Judge(_Part):
    alpha: float
    error_rate_margin: float
    slow_margin: float
    accuracy_margin: float
    non_inferiority_margin: float
    block_requests: int
    block_s: float
    promotion: Literal["within-limits", "non-inferior"]


class Shadow(_Part):
    percent: int
    bake_s: float
    disagreement_max: float
    compared_min: int


class Watch(_Part):
    s: float
    requests_min: int
    error_rate_max: float
    latency_p95_s_max: float
    availability_min: float


class Analysis(_Part):
    name: str
    success_condition: str
    failure_condition: str
    failure_limit: int
    inconclusive_limit: int
    consecutive_error_limit: int
    interval_s: float
    count: int
    dry_run: bool


class Deadlines(_Part):
    deploying_s: float
    smoke_s: float
    shadow_s: float
    step_s: float
    approval_s: float
    promoting_s: float
    paused_s: float
    unready_s: float
    quiet_s: float = 600.0
    watch_s: float = 600.0


class Plan(_Part):
    """See policy/config/rollout.py for what each field means."""

    strategy: str
    weights: tuple[int, ...]
    bake_s: float
    bake_requests: int = 0
    look_s: float
    approval: bool
    smoke_requests: int
    replay_per_s: float
    little_traffic: Literal["wait", "ask", "replay"] = "replay"
    limits: Limits
    judge: Judge
    analyses: tuple[Analysis, ...]
    shadow: Shadow
    watch: Watch
    deadlines: Deadlines

    @property
    def replays_per_s(self) -> float:
        """Held-out questions to be replayed a second; 0 where the plan waits or asks."""
        return self.replay_per_s if self.little_traffic == "replay" else 0.0


def plan_of(settings: Settings) -> Plan:
    """The record's copy of the configured plan."""
    return Plan.model_validate(settings.model_dump())


def steps_s(plan: Plan, per_s: float) -> float:
    """How long all steps take at `per_s` requests a second, if every window passes."""
    needed = max(plan.limits.requests_min, plan.bake_requests)
    shares = (weight / 100 for weight in plan.weights if weight)
    return sum(max(plan.bake_s, needed / (per_s * share)) for share in shares)


def plan_for(config: Config, endpoint: str) -> Plan:
    """The plan that the configuration names for this endpoint. Raises ConfigError."""
    plan = plan_of(config.rollout)
    return plan if config.endpoint(endpoint).plan == "rollout" else at_once(plan)


def at_once(plan: Plan) -> Plan:
    """The same limits and deadlines, with all traffic in one step and no watch afterwards.

    For an endpoint without traffic of its own, without a backup and with nobody to ask, and
    for a rollback, which goes to a version that has proved itself before.
    """
    return plan.model_copy(
        update={
            "strategy": "immediate",
            "weights": (100,),
            "approval": False,
            "analyses": (),
            "shadow": plan.shadow.model_copy(update={"percent": 0}),
            "watch": plan.watch.model_copy(update={"s": 0}),
            "judge": plan.judge.model_copy(update={"promotion": "within-limits"}),
        }
    )

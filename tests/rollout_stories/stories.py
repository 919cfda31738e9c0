"""What people ask of an endpoint and what must come of it, on the place `memory`.

How a story is told is in process.py beside this file.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from policy.rollout.record import Phase, Rollout
from policy.rollout.requests import Kind, Request
from tests.policy.worlds import Behaviour, make_plan

ENDPOINT = "production"
PLAN = make_plan(
    look_s=10,
    bake_s=60,
    smoke_requests=0,
    judge__block_s=60,
    judge__block_requests=1000,
    watch__s=120,
    deadlines={
        "deploying_s": 1800, "smoke_s": 60, "shadow_s": 60, "step_s": 1200, "approval_s": 3600,
        "promoting_s": 900, "paused_s": 3600, "unready_s": 300, "quiet_s": 3600, "watch_s": 900,
    },
)  # fmt: skip
WITH_APPROVAL = PLAN.model_copy(update={"approval": True})
BLIND = PLAN.model_copy(
    update={"limits": PLAN.limits.model_copy(update={"error_rate_max": 1.0})}
)
BAD = Behaviour(errors=0.5)

Moment = Callable[[Rollout | None], bool]


@dataclass(frozen=True)
class Step:
    """A request, and the `moment` at which it is made."""

    request: Request
    moment: Moment


@dataclass(frozen=True)
class Story:
    """`promoted`: the versions that have served at the end. `came_true`: of each request."""

    name: str
    served: tuple[str, ...]
    steps: tuple[Step, ...]
    promoted: tuple[str, ...]
    came_true: Mapping[str, bool]
    rollouts: int = 1
    behaviours: Mapping[str, Behaviour] = field(default_factory=dict)
    breaks_at: Mapping[str, int] = field(default_factory=dict)


def at_once(_rollout: Rollout | None) -> bool:
    return True


def in_phase(phase: Phase) -> Moment:
    return lambda rollout: rollout is not None and rollout.phase is phase


def asks(kind: Kind, id: str, moment: Moment = at_once, version: str = "", plan=PLAN) -> Step:
    if kind not in ("rollout", "rollback"):
        plan = None
    request = Request(
        id=id, kind=kind, endpoint=ENDPOINT, by="a person", why="a test", version=version,
        plan=plan,
    )  # fmt: skip
    return Step(request, moment)


APPROVED = Story(
    "a good canary that a person approves",
    served=("v1",),
    steps=(
        asks("rollout", "go", version="v2", plan=WITH_APPROVAL),
        asks("approve", "yes", in_phase(Phase.AWAITING_APPROVAL)),
    ),
    promoted=("v1", "v2"),
    came_true={"go": True, "yes": True},
)

BAD_CANARY = Story(
    "a bad canary, found at 10 %",
    served=("v1",),
    steps=(asks("rollout", "go", version="v2"),),
    promoted=("v1",),
    came_true={"go": False},
    behaviours={"v2": BAD},
)

ROLLBACK = Story(
    "a rollback",
    served=("v1", "v2"),
    steps=(asks("rollback", "back"),),
    promoted=("v1",),
    came_true={"back": True},
)

ABORTED = Story(
    "an abort at 10 %",
    served=("v1",),
    steps=(
        asks("rollout", "go", version="v2"),
        asks("abort", "stop", in_phase(Phase.STEP)),
    ),
    promoted=("v1",),
    came_true={"go": False, "stop": True},
)

WAITING = Story(
    "a rollout that waits for another",
    served=("v1",),
    steps=(
        asks("rollout", "first", version="v2"),
        asks("rollout", "second", in_phase(Phase.STEP), version="v3"),
    ),
    promoted=("v1", "v2", "v3"),
    came_true={"first": True, "second": True},
    rollouts=2,
)

FIRST = Story(
    "a first version",
    served=(),
    steps=(asks("rollout", "go", version="v1"),),
    promoted=("v1",),
    came_true={"go": True},
)
OVERLOADED = Story(
    "a canary that breaks under all of the traffic",
    served=("v1",),
    steps=(asks("rollout", "go", version="v2"),),
    promoted=("v1",),
    came_true={"go": False},
    breaks_at={"v2": 100},
)

WATCHED = Story(
    "a version that the watch takes back",
    served=("v1",),
    steps=(asks("rollout", "go", version="v2", plan=BLIND),),
    promoted=("v1",),
    came_true={"go": False},
    breaks_at={"v2": 100},
)

STORIES = (APPROVED, BAD_CANARY, ROLLBACK, ABORTED, WAITING, FIRST, OVERLOADED, WATCHED)

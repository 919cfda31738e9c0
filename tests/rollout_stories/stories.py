"""What people ask of an endpoint and what must come of it, on the place `memory`.

A story is told by a process: it makes its requests, each when its time has come, and drives the
endpoint until all are decided. Killed anywhere and started again, it goes on: all that it
knows is what it reads.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from deployments import Place, command, ledger
from policy.errors import EndpointSilent
from policy.ledger import Ledger
from policy.records import Registered
from policy.rollout.record import Phase, Rollout
from policy.rollout.requests import Kind, Request
from tasks.rollout.controller import drive, is_settled
from tests.places.memory import MemoryCloud, Settings
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
STORIES = (APPROVED, BAD_CANARY, ROLLBACK, ABORTED, WAITING, FIRST)


def begin(story: Story, scratch: Path, settings: Settings = Settings()) -> MemoryCloud:
    """A cloud in which everything is ready for the story, and nothing of it has happened."""
    cloud = MemoryCloud(settings)
    place = cloud.place(scratch)
    for version in ("v1", "v2", "v3", "v4"):
        register(place, version)
    for version in story.served:
        promote(place, version)
    cloud.behaviours.update(story.behaviours)
    return cloud


def register(place: Place, version: str) -> None:
    event = Registered(
        version=version, digest=version[-1] * 64, accuracy=0.9, families={}, reasons=(),
        lineage={},
    )  # fmt: skip
    ledger.append(place.store, lambda _state: event, by="a test", now=place.clock.now)


def promote(place: Place, version: str) -> Ledger:
    """Bring `version` to 100 % by a rollout of its own."""
    return tell(place, (asks("rollout", f"promote {version} {place.clock.now()}", version=version),))


def tell(place: Place, steps: tuple[Step, ...]) -> Ledger:
    """All that a process does: make each request at its moment, and drive to the end."""
    made = ledger.read(place.store).requests
    for step in steps:
        if step.request.id not in made:
            _drive(place, partial(_is_time, step))
            command.make(place, step.request)
    ids = [step.request.id for step in steps]
    _drive(place, lambda state: all(state.requests[id].decided for id in ids))
    return settle(place)


def settle(place: Place) -> Ledger:
    """What the reconciler does afterwards: drive until the endpoint is as it should be."""

    def settled(state: Ledger) -> bool:
        rollout = state.endpoint(ENDPOINT).rollout
        try:
            return rollout is None or is_settled(place.endpoint(ENDPOINT).observe(), rollout)
        except EndpointSilent:
            return False

    return _drive(place, settled)


def _drive(place: Place, until: Callable[[Ledger], bool]) -> Ledger:
    return drive(place, ENDPOINT, until, by="a process")


def _is_time(step: Step, state: Ledger) -> bool:
    """Also where another process has made the request meanwhile."""
    return step.request.id in state.requests or step.moment(state.endpoint(ENDPOINT).rollout)


def must_have_ended_well(story: Story, cloud: MemoryCloud, scratch: Path) -> None:
    """The right version serves alone, nobody was lost, and each request has its own answer."""
    place = cloud.place(scratch)
    state, endpoint = ledger.audit(place.store), cloud.endpoints[ENDPOINT]
    stable = story.promoted[-1]
    assert state.endpoint(ENDPOINT).promoted == story.promoted
    assert (endpoint.weights, [*endpoint.servers]) == ({stable: 100}, [stable])
    assert cloud.lost(ENDPOINT) == 0
    answers = {step.request.id: state.requests[step.request.id] for step in story.steps}
    assert {id: answer.came_true for id, answer in answers.items()} == story.came_true
    assert all(answer.decided and answer.reason for answer in answers.values())
    _each_rollout_began_once(story, place)


def _each_rollout_began_once(story: Story, place: Place) -> None:
    began = [
        rollout.id
        for record in ledger.records(place.store)
        if (rollout := getattr(record.event, "rollout", None)) is not None
        and rollout.request in story.came_true
        and rollout.phase is Phase.PENDING
        and rollout.paused_at is None
    ]
    assert len(set(began)) == story.rollouts, began


def repeating_changes_nothing(story: Story, cloud: MemoryCloud, scratch: Path) -> None:
    before = ledger.read(cloud.place(scratch).store)
    assert tell(cloud.place(scratch), story.steps) == before

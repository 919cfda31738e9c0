"""The process that tells a story, and what must hold at its end.

It makes its requests, each when its time has come, and drives the endpoint until all are
decided. Killed anywhere and started again, it goes on: all that it knows is what it reads.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from deployments import Place, command, ledger
from policy.errors import EndpointSilent
from policy.ledger import Ledger
from policy.records import Registered
from policy.rollout.record import Phase
from tasks.rollout.controller import drive
from tasks.rollout.orders import is_settled
from tests.places.memory import MemoryCloud, Settings
from tests.rollout_stories.stories import ENDPOINT, Step, Story, asks

SLOW = Settings()


def begin(story: Story, scratch: Path, settings: Settings = SLOW) -> MemoryCloud:
    """A cloud in which everything is ready for the story, and nothing of it has happened."""
    cloud = MemoryCloud(settings)
    place = cloud.place(scratch)
    for version in ("v1", "v2", "v3", "v4"):
        register(place, version)
    for version in story.served:
        promote(place, version)
    cloud.behaviours.update(story.behaviours)
    cloud.breaks_at.update(story.breaks_at)
    return cloud


def register(place: Place, version: str) -> None:
    event = Registered(
        version=version, digest=version[-1] * 64, accuracy=0.9, families={}, reasons=(),
        lineage={},
    )  # fmt: skip
    ledger.append(place.store, lambda _state: event, by="a test", now=place.clock.now)


def promote(place: Place, version: str) -> Ledger:
    """Bring `version` to 100 % by a rollout of its own."""
    return tell(
        place, (asks("rollout", f"promote {version} {place.clock.now()}", version=version),)
    )


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

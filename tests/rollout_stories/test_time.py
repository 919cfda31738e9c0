"""Only time in which somebody looked counts against a version, whatever clocks say.

The place's clock is set, controllers sleep, and machines differ by minutes, in the middle of a
story: a good version ends at 100 %, a bad one does not, and what was not counted is told once.
"""

from functools import partial

import pytest

from deployments import ledger
from policy.rollout.record import Phase
from tasks.rollout.controller import drive
from tests.rollout_stories.process import begin, must_have_ended_well, settle, tell
from tests.rollout_stories.stories import (
    APPROVED,
    BAD_CANARY,
    ENDPOINT,
    PLAN,
    WITH_APPROVAL,
    Story,
    asks,
    in_phase,
)
from tests.rollout_stories.test_two_controllers import Baton

STEP_S = PLAN.deadlines.step_s
LONG_US = 8 * 3600 * 1_000_000
JUMPS = (120.0, STEP_S * 2, 86_400.0 * 400, -60.0, -3600.0, -86_400.0 * 400)
GOOD = Story("", ("v1",), (asks("rollout", "go", version="v2"),), ("v1", "v2"), {"go": True})
BAD = BAD_CANARY
PAUSED = (
    asks("rollout", "go", version="v2"),
    asks("pause", "wait", in_phase(Phase.STEP)),
)


class Moment:
    """Does something once, at the `looks`th sleep from where the rollout enters `phase`."""

    def __init__(self, cloud, act, phase=Phase.STEP, looks=3):
        self.cloud, self.act, self.phase, self.looks = cloud, act, phase, looks
        self.done_at = None

    def __call__(self, call, when):
        if (call, when) != ("sleep", "before"):
            return
        if self.done_at is not None:
            assert self.cloud.time < self.done_at + LONG_US, "no end in sight"
            return
        rollout = rollout_of(self.cloud)
        if rollout is None or rollout.phase is not self.phase:
            return
        self.looks -= 1
        if self.looks == 0:
            self.done_at = self.cloud.time
            self.act()


def rollout_of(cloud):
    """Read through a copy: what a test looks at is no call of the story."""
    twin = cloud.copy()
    return ledger.read(twin.place("/nowhere").store).endpoint(ENDPOINT).rollout


def set_clock(cloud, seconds):
    cloud.clock_s += seconds


def records(cloud):
    """The successive records of the last rollout."""
    store = cloud.copy().place("/nowhere").store
    found = [getattr(record.event, "rollout", None) for record in ledger.records(store)]
    return [rollout for rollout in found if rollout and rollout.id == found_last(found).id]


def found_last(found):
    return next(rollout for rollout in reversed(found) if rollout)


def told_times(cloud, words):
    """How often the rollout's own timeline began to say so."""
    said = [words in rollout.reason for rollout in records(cloud)]
    return sum(now and not before for before, now in zip([False, *said], said, strict=False))


@pytest.mark.parametrize("jump_s", JUMPS)
@pytest.mark.parametrize("looks", [1, 3, 8])
@pytest.mark.parametrize("story", [GOOD, BAD], ids=["good", "bad"])
def test_a_clock_that_is_set_changes_no_ending(tmp_path, story, looks, jump_s):
    """In a window, before it and at its end: forward past every deadline, and back."""
    cloud = begin(story, tmp_path)
    undisturbed = cloud.copy()
    tell(undisturbed.place(tmp_path / "undisturbed"), story.steps)
    cloud.hook = Moment(cloud, partial(set_clock, cloud, jump_s), looks=looks)
    tell(cloud.place(tmp_path / "set"), story.steps)
    assert cloud.hook.done_at is not None
    must_have_ended_well(story, cloud, tmp_path)
    assert abs(cloud.time - undisturbed.time) < 300e6, "nothing waits for the time to return"


@pytest.mark.parametrize(
    ("jump_s", "words"), [(120.0, "2 min forward"), (-3600.0, "60 min back")]
)
def test_a_clock_that_was_set_is_told_once(tmp_path, jump_s, words):
    cloud, said = begin(GOOD, tmp_path), []
    cloud.hook = Moment(cloud, partial(set_clock, cloud, jump_s))
    place = cloud.place(tmp_path / "set")
    tell_saying(place, GOOD, said)
    assert told_times(cloud, f"not counted: the clock went {words}") == 1
    assert len([line for line in said if line.startswith(f"{ENDPOINT}: not counted")]) == 1


def tell_saying(place, story, said):
    from deployments import command

    (step,) = story.steps
    command.make(place, step.request)
    drive(
        place, ENDPOINT, lambda state: state.requests[step.request.id].decided, by="a test",
        say=said.append,
    )  # fmt: skip


@pytest.mark.parametrize("away_s", [147.0, STEP_S * 1.5, 86_400.0])
@pytest.mark.parametrize("same", [True, False], ids=["same process", "another process"])
def test_a_controller_away_for_longer_than_the_step_blames_nobody(tmp_path, away_s, same):
    """Stopped and gone on with, or dead and replaced; the metrics know nothing of the gap."""
    cloud = begin(GOOD, tmp_path)

    class Dead(BaseException):
        pass

    def away():
        cloud.pass_time(away_s)
        cloud.hook.done_at = cloud.time
        if not same:
            raise Dead

    cloud.hook = Moment(cloud, away)
    try:
        tell(cloud.place(tmp_path / "away"), GOOD.steps)
    except Dead:
        tell(cloud.place(tmp_path / "away"), GOOD.steps)
    must_have_ended_well(GOOD, cloud, tmp_path)
    assert told_times(cloud, "in which nobody looked") == 1


def test_a_machine_that_slept_in_the_middle_of_a_look_blames_nobody(tmp_path):
    """The clock that is never set stood still, and that on the wall is an hour on."""
    cloud = begin(GOOD, tmp_path)
    seen = []

    def sleeps(call, when):
        if (call, when) == ("read_counts", "before"):
            rollout = rollout_of(cloud)
            if rollout and rollout.phase is Phase.STEP and not seen:
                seen.append(rollout)
                set_clock(cloud, 3600)

    cloud.hook = sleeps
    tell(cloud.place(tmp_path / "slept"), GOOD.steps)
    assert seen
    must_have_ended_well(GOOD, cloud, tmp_path)


@pytest.mark.parametrize("jump_s", [7200.0, -7200.0])
def test_people_have_as_long_to_answer_as_the_canary_is_watched(tmp_path, jump_s):
    """A deadline of people counts watched time too: a jump neither ends it nor freezes it."""
    cloud = begin(APPROVED, tmp_path)
    cloud.hook = Moment(
        cloud, partial(set_clock, cloud, jump_s), Phase.AWAITING_APPROVAL, looks=5
    )
    go = asks("rollout", "go", version="v2", plan=WITH_APPROVAL)
    state = tell(cloud.place(tmp_path / "set"), (go,))
    rollout = state.endpoint(ENDPOINT).rollout
    assert "awaiting-approval for" in rollout.reason
    waited_s = (cloud.time - cloud.hook.done_at) / 1e6
    approval_s = WITH_APPROVAL.deadlines.approval_s
    assert approval_s - 120 < waited_s < approval_s + 300


@pytest.mark.parametrize("jump_s", [7200.0, -7200.0])
def test_a_pause_lasts_as_long_as_it_would_have(tmp_path, jump_s):
    cloud = begin(GOOD, tmp_path)
    act = partial(set_clock, cloud, jump_s)
    cloud.hook = Moment(cloud, act, Phase.STEP, looks=20)
    state = tell(cloud.place(tmp_path / "set"), PAUSED)
    assert "paused for" in state.endpoint(ENDPOINT).rollout.reason
    waited_s, paused_s = (cloud.time - cloud.hook.done_at) / 1e6, PLAN.deadlines.paused_s
    assert paused_s - 400 < waited_s < paused_s + 300


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("ahead_s", [300.0, -300.0])
@pytest.mark.parametrize("story", [APPROVED, BAD], ids=["good", "bad"])
def test_two_controllers_whose_clocks_differ_by_minutes(tmp_path, story, ahead_s, seed):
    """They take turns; neither sets the other's deadline back, nor ends it early."""
    cloud, baton = begin(story, tmp_path), Baton(seed)
    number = ledger.read(cloud.place(tmp_path).store).number
    alone = cloud.copy()
    tell(alone.place(tmp_path / "alone"), story.steps)
    wrote = ledger.read(alone.place(tmp_path).store).number - number
    cloud.hook = baton.pass_on
    places = cloud.place(tmp_path / "one"), cloud.place(tmp_path / "other", ahead_s)
    assert not baton.run(*(partial(tell, place, story.steps) for place in places))
    cloud.hook = lambda _call, _when: None
    settle(cloud.place(tmp_path / "third"))
    must_have_ended_well(story, cloud, tmp_path / "third")
    both = ledger.read(cloud.place(tmp_path).store).number - number
    assert both < 3 * wrote, "they write no record at each look"


@pytest.mark.parametrize("ahead_s", [300.0, -300.0])
def test_a_version_that_never_gets_ready_ends_although_two_clocks_differ(tmp_path, ahead_s):
    cloud, baton = begin(GOOD, tmp_path), Baton(1)
    cloud.lie("apply", "before", "quota exceeded", times=10_000)
    cloud.hook = baton.pass_on
    places = cloud.place(tmp_path / "one"), cloud.place(tmp_path / "other", ahead_s)
    began = cloud.time
    assert not baton.run(*(partial(tell, place, GOOD.steps) for place in places))
    assert "deploying for" in rollout_of(cloud).reason
    assert (cloud.time - began) / 1e6 < 2 * PLAN.deadlines.deploying_s


@pytest.mark.parametrize("ahead_s", [1500.0, -1500.0])
def test_a_person_whose_clock_is_wrong_costs_the_version_no_time(tmp_path, ahead_s):
    """Approved from a laptop that is off by more than the step may last."""
    from deployments import command

    cloud = begin(APPROVED, tmp_path)
    go, yes = APPROVED.steps
    place = cloud.place(tmp_path / "one")
    command.make(place, go.request)
    laptop = cloud.place(tmp_path / "laptop", ahead_s)

    def approve(state):
        rollout = state.endpoint(ENDPOINT).rollout
        if rollout.phase is Phase.AWAITING_APPROVAL and yes.request.id not in state.requests:
            command.make(laptop, yes.request)

    drive(
        place, ENDPOINT, lambda state: state.requests[go.request.id].decided, by="a test",
        between=approve,
    )  # fmt: skip
    settle(place)
    must_have_ended_well(APPROVED, cloud, tmp_path)

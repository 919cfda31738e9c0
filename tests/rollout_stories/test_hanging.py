"""Who has the lead and hangs: the next one passes it over, and it steps back when it wakes."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from deployments import command, ledger
from policy.rollout.record import Phase
from tasks.rollout.controller import drive
from tasks.rollout.driver import Driver
from tasks.rollout.lead import PASSED_OVER_S, Lead, lock_path, tolerated_s
from tests.places.memory import Settings
from tests.rollout_stories.process import begin, must_have_ended_well, settle, tell
from tests.rollout_stories.stories import (
    ABORTED,
    APPROVED,
    BAD_CANARY,
    ENDPOINT,
    PLAN,
    ROLLBACK,
    WAITING,
    in_phase,
)

QUICK = Settings(deploy_s=1, order_s=0, metrics_late_s=0)
PATIENCE_S = max(PASSED_OVER_S, tolerated_s(PLAN.look_s))
HOLDER = """
import sys, time
from pathlib import Path
from deployments import SystemClock
from tasks.rollout.lead import Lead
lead = Lead(Path(sys.argv[1]), sys.argv[2], SystemClock())
assert lead.take()
print("taken", flush=True)
time.sleep(600)
"""


@contextmanager
def stopped(place) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has the lead and was stopped with SIGSTOP."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(place.scratch), ENDPOINT], stdout=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"taken\n"
            process.send_signal(signal.SIGSTOP)
            yield process
        finally:
            process.kill()


def not_for_ever(cloud):
    """From now on a day may pass, which is more than any story takes."""
    end = cloud.time + 86_400 * 1_000_000

    def hook(_call, _when):
        assert cloud.time < end, "nobody passes over who hangs"

    cloud.hook = hook


def at_10_percent(story, scratch):
    """A canary under way that nobody looks at any more."""
    cloud = begin(story, scratch, QUICK)
    place = cloud.place(scratch)
    command.make(place, story.steps[0].request)
    step = in_phase(Phase.STEP)
    drive(place, ENDPOINT, lambda s: step(s.endpoint(ENDPOINT).rollout), by="a flow")
    assert cloud.endpoints[ENDPOINT].weights["v2"] == 10
    return cloud, place


def test_an_abort_comes_true_though_a_stopped_process_has_the_lead(tmp_path):
    cloud, place = at_10_percent(ABORTED, tmp_path)
    with stopped(place):
        started = place.clock.monotonic()
        not_for_ever(cloud)
        command.make(place, ABORTED.steps[1].request)
        drive(place, ENDPOINT, lambda s: s.requests["stop"].decided, by="abort")
        assert cloud.endpoints[ENDPOINT].weights == {"v1": 100}
        assert place.clock.monotonic() - started < PATIENCE_S + 5 * PLAN.look_s
        settle(place)
        must_have_ended_well(ABORTED, cloud, tmp_path)


@pytest.mark.parametrize(
    "story", [APPROVED, BAD_CANARY, ROLLBACK, ABORTED, WAITING], ids=lambda story: story.name
)
def test_all_that_people_ask_comes_true_though_the_lead_hangs_from_the_start(story, tmp_path):
    """What starts the next rollout too, which nobody is in the middle of."""
    cloud = begin(story, tmp_path)
    place = cloud.place(tmp_path)
    hanging = Lead(place.scratch, ENDPOINT, place.clock)
    assert hanging.take()
    not_for_ever(cloud)
    tell(place, story.steps)
    must_have_ended_well(story, cloud, tmp_path)


def test_a_bad_canary_is_rolled_back_by_any_command_that_comes(tmp_path):
    cloud, place = at_10_percent(BAD_CANARY, tmp_path)
    hanging = Lead(place.scratch, ENDPOINT, place.clock)
    assert hanging.take()
    not_for_ever(cloud)
    tell(place, BAD_CANARY.steps)
    must_have_ended_well(BAD_CANARY, cloud, tmp_path)


@pytest.fixture
def place(tmp_path):
    return begin(BAD_CANARY, tmp_path).place(tmp_path)


def lead(place):
    return Lead(place.scratch, ENDPOINT, place.clock)


def goes_on(leads, place, seconds):
    """Who of them looks, second by second."""
    for _ in range(seconds):
        place.clock.sleep(1)
        yield [one.take() for one in leads]


def test_who_goes_on_is_never_passed_over(place):
    holder, other = lead(place), lead(place)
    assert holder.take()
    assert all(took == [True, False] for took in goes_on([holder, other], place, 200))


def test_who_wakes_steps_back_and_the_other_has_the_lock_from_then_on(place):
    holder, other = lead(place), lead(place)
    assert holder.take()
    assert [*goes_on([other], place, 20)] == [[False]] * 20
    assert [*goes_on([other], place, 6)][1:] == [[True]] * 5
    assert other.is_ours()
    assert not holder.is_ours()
    assert not holder.take()
    assert all(took == [True, False] for took in goes_on([other, holder], place, 100))
    other.release()
    assert holder.take()
    assert holder.is_ours()


def test_of_two_who_pass_over_one_looks(place):
    holder, second, third = lead(place), lead(place), lead(place)
    assert holder.take()
    took = [*goes_on([second, third], place, 100)]
    assert took[0] == [False, False]
    assert all(sum(both) == 1 for both in took[30:])


def test_who_looks_seldom_is_waited_for(place):
    holder, other = lead(place), lead(place)
    assert holder.take(look_s=60)
    for _ in range(10):
        for _ in range(30):
            place.clock.sleep(2)
            assert not other.take(look_s=60)
        assert holder.take(look_s=60)


def test_a_clock_that_is_set_passes_nobody_over(tmp_path):
    cloud = begin(BAD_CANARY, tmp_path)
    place = cloud.place(tmp_path)
    holder, other = lead(place), lead(place)
    assert holder.take()
    assert not other.take()
    cloud.clock_s += 86_400
    assert not other.take()
    assert holder.take()


def test_on_a_disk_that_takes_nothing_who_has_the_lock_keeps_it(place):
    first = lead(place)
    assert first.take()
    first.release()
    turn = lock_path(place.scratch, ENDPOINT).with_suffix(".turn")
    turn.unlink()
    turn.mkdir()  # nobody can write there now
    holder = lead(place)
    assert all(took == [True] for took in goes_on([holder], place, 50))


def test_who_was_stopped_between_deciding_and_ordering_orders_nothing(tmp_path):
    """Its order would be that of before: another 10 % for a canary that was rolled back."""
    cloud, place = at_10_percent(BAD_CANARY, tmp_path)
    sleeper = Driver(place, ENDPOINT, "a flow", "", None, None)
    calls: list[str] = []

    def others_go_on(call, when):
        calls.append(call)
        if (call, when) == ("read_counts", "before"):
            cloud.hook = lambda call, _when: calls.append(call)
            drive(place, ENDPOINT, lambda s: s.requests["go"].decided, by="another")
            calls.clear()

    cloud.hook = others_go_on
    sleeper.look(ledger.read(place.store))
    assert "apply" not in calls
    assert cloud.endpoints[ENDPOINT].weights == {"v1": 100}

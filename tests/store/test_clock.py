"""A clock that goes back: nothing waits for the time to come again."""

from datetime import timedelta

from policy.rollout.machine import advance
from policy.rollout.record import Phase
from tasks.rollout.lead import Lead
from tests.places.memory import START
from tests.policy.worlds import NOW, in_phase, world


class Clock:
    def __init__(self):
        self.time = START

    def now(self):
        return self.time

    def sleep(self, seconds):
        self.time += timedelta(seconds=seconds)


def test_an_hour_back_is_told_as_such_and_an_hour_away_too(tmp_path):
    clock = Clock()
    lead = Lead(tmp_path, "production", clock)
    assert lead.take()
    lead.looked()
    for hours in (-1, 1):
        clock.time = START + timedelta(hours=hours)
        assert lead.unwatched_s(START, look_s=1) == 3600 * hours


def test_what_was_entered_an_hour_from_now_was_entered_now():
    step = in_phase(Phase.STEP, entered_at=NOW + timedelta(hours=1))
    seen = world().look(step, weights={"v1": 90, "v2": 10}, ready=True)
    assert advance(step, seen).window is None, "it would wait for an hour"
    after = advance(step, seen.model_copy(update={"unwatched_s": -3600.0}))
    assert after.entered_at == NOW
    assert after.window is not None

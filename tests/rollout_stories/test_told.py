"""Each outcome is told once, whoever was killed in between."""

from collections import Counter
from itertools import count

import pytest

from deployments import ledger
from tasks.rollout.telling import GIVEN_UP, tell
from tests.rollout_stories.mortal import Killed
from tests.rollout_stories.process import begin
from tests.rollout_stories.stories import Story


class People:
    """A channel that knows ids, as Prefect's events do; `arrived` has every message."""

    def __init__(self, answers=True):
        self.answers, self.arrived = answers, []

    def __call__(self, untold, records):
        assert records[-1][1].phase is untold.phase, "the report is of that very moment"
        self.arrived.append(untold.what)
        return self.answers


@pytest.fixture
def ended(tmp_path):
    """Two versions were promoted, and nobody was told of it."""
    return begin(Story("", ("v1", "v2"), (), (), {}), tmp_path)


def outcomes(cloud, scratch):
    return {untold.what for untold in ledger.read(cloud.place(scratch).store).untold}


def test_nothing_is_told_twice_and_nothing_is_left(ended, tmp_path):
    wanted, people = outcomes(ended, tmp_path), {"report": People(), "chat": People()}
    assert len(wanted) == 4  # each began and was promoted
    for _ in range(2):
        tell(ended.place(tmp_path), people)
    for channel in people.values():
        assert Counter(channel.arrived) == dict.fromkeys(wanted, 1)
    assert not outcomes(ended, tmp_path)


def test_whoever_is_killed_at_any_call_each_outcome_arrives_and_is_marked(ended, tmp_path):
    wanted = outcomes(ended, tmp_path)
    for index in count():
        died = 0
        for when in ("before", "after"):
            cloud, people = ended.copy(), People()
            died += dies(cloud, people, tmp_path, index, when)
            first = list(people.arrived)
            tell(cloud.place(tmp_path), {"report": people})
            assert set(people.arrived) == wanted
            assert not outcomes(cloud, tmp_path)
            again = [what for what, times in Counter(people.arrived).items() if times > 1]
            assert again in ([], first[-1:]), "only what was just being told, under its own id"
        if not died:
            return


def dies(cloud, people, scratch, index, when):
    """Whether a process that tells dies at its call number `index`."""
    calls = count()

    def hook(_call, now):
        if now == when and next(calls) == index:
            raise Killed

    cloud.hook = hook
    try:
        tell(cloud.place(scratch), {"report": people})
    except Killed:
        return True
    finally:
        cloud.hook = lambda _call, _when: None
    return False


def test_a_channel_that_fails_is_tried_again_and_the_others_are_not_repeated(ended, tmp_path):
    wanted = outcomes(ended, tmp_path)
    good, bad = People(), People(answers=False)
    for _ in range(3):
        tell(ended.place(tmp_path), {"report": good, "chat": bad})
    assert Counter(good.arrived) == dict.fromkeys(wanted, 1)
    assert Counter(bad.arrived) == dict.fromkeys(wanted, 3)
    ended.pass_time(GIVEN_UP.total_seconds() + 1)
    tell(ended.place(tmp_path), {"report": good, "chat": bad})
    assert not outcomes(ended, tmp_path), "a channel that never works is not tried for ever"


def test_what_has_just_happened_is_left_to_whoever_drives(ended, tmp_path):
    people = People()
    ended.pass_time(1)
    tell(ended.place(tmp_path), {"report": people}, older_than_s=1e9)
    assert not people.arrived

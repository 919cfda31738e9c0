"""A process killed at any point of a story: the next one brings it to its right end."""

import pytest

from tests.rollout_stories.mortal import Killed, Point, apart
from tests.rollout_stories.process import begin
from tests.rollout_stories.stories import ABORTED, APPROVED, BAD_CANARY, FIRST


def names(value):
    return getattr(value, "name", None)


def test_a_process_killed_at_any_point_is_finished_by_the_next_one(story, mortal, tmp_path):
    points = mortal.undisturbed(begin(story, tmp_path))
    assert {point.call for point in points} >= {"create", "apply", "sleep"}
    for point in points:
        mortal.go_on(point)


def test_the_reconciler_comes_90_s_after_the_kill(story, mortal, tmp_path):
    for point in apart(mortal.undisturbed(begin(story, tmp_path))):
        mortal.go_on(point, after_s=90)


@pytest.mark.parametrize("story", [APPROVED, BAD_CANARY], ids=names, indirect=True)
def test_nobody_comes_for_three_hours_after_the_kill(story, mortal, tmp_path):
    """Past every deadline: a good version is not taken back, a bad one is."""
    for point in apart(mortal.undisturbed(begin(story, tmp_path))):
        mortal.go_on(point, after_s=3 * 3600)


def test_processes_that_each_write_one_record_and_die_finish_together(story, mortal, tmp_path):
    killed = 0

    def after_each_record(call, when):
        nonlocal killed
        if (call, when) == ("create", "after"):
            killed += 1
            raise Killed

    start = Point("start", "before", begin(story, tmp_path), "")
    mortal.go_on(start, hook=lambda _cloud: after_each_record)
    assert killed > 3


@pytest.mark.parametrize("story", [ABORTED, FIRST], ids=names, indirect=True)
def test_a_controller_holds_nothing_between_two_looks(story, mortal, tmp_path):
    """The other tests stop where a run meets one that ended well; here each goes to its end."""
    mortal.merge = False
    for point in mortal.undisturbed(begin(story, tmp_path)):
        mortal.go_on(point)

"""Calls that fail, calls whose answer is lost, and everything at random, in each story."""

from functools import partial
from itertools import product

import numpy as np
import pytest

from tests.places.memory import Settings, silence
from tests.rollout_stories.mortal import READS, At, Killed, Point, apart
from tests.rollout_stories.process import begin
from tests.rollout_stories.stories import ENDPOINT

CALLS = frozenset({*READS, "create", "apply"})


def fail(call):
    raise silence(call, "the connection was reset")


def failing(index, when):
    return lambda _cloud: At(index, when, fail)


def test_a_call_that_fails_or_loses_its_answer_changes_no_ending(story, mortal, tmp_path):
    """Each call of each look: not made, and where it has an effect, made without an answer."""
    points = mortal.undisturbed(begin(story, tmp_path))
    for point in apart([point for point in points if point.call == "sleep"]):
        calls = mortal.calls_of_look(point)
        for (index, call), when in product(enumerate(calls), ("before", "after")):
            if call in CALLS and (when == "before" or call not in READS):
                mortal.go_on(point, hook=failing(index, when))


@pytest.mark.parametrize("seed", range(5))
def test_a_cloud_that_fails_at_random_changes_no_ending(story, mortal, tmp_path, seed):
    """Calls that are not made, calls without an answer, counters that dip, sudden deaths."""
    start, dice = (
        Point("start", "before", begin(story, tmp_path), ""),
        np.random.default_rng(seed),
    )

    def at_random(cloud, call, when):
        if call not in CALLS or dice.random() > (0.001 if call in ("read", "list") else 0.05):
            return
        if dice.random() < 0.2:
            raise Killed
        if call == "read_counts" and when == "before" and dice.random() < 0.5:
            cloud.endpoints[ENDPOINT].dips = int(dice.integers(4))
        else:
            fail(call)

    mortal.merge, mortal.restart_s = False, 10
    mortal.go_on(start, hook=lambda cloud: partial(at_random, cloud))


@pytest.mark.parametrize(("order_s", "late_s"), [(0, 0), (7, 0), (0, 300), (180, 120)])
def test_clouds_of_other_speeds_come_to_the_same_end(story, mortal, tmp_path, order_s, late_s):
    slow = Settings(order_s=order_s, metrics_late_s=late_s)
    mortal.undisturbed(begin(story, tmp_path, slow))

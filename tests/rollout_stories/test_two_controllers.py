"""Two controllers on two machines drive the same endpoint: no wrong end, nobody lost."""

import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import product

import numpy as np
import pytest

from tests.places.memory import nothing
from tests.rollout_stories.mortal import At, apart
from tests.rollout_stories.process import begin, must_have_ended_well, settle, tell
from tests.rollout_stories.stories import APPROVED, BAD_CANARY, ROLLBACK

STALLED_S = 200
TWO = [APPROVED, BAD_CANARY, ROLLBACK]


class Enough(BaseException):
    pass


@pytest.mark.parametrize("story", TWO, ids=lambda story: story.name, indirect=True)
def test_one_stalls_in_a_look_while_another_goes_on(story, mortal, tmp_path):
    """At each call of a look, right before it and right after: then it acts on what it saw."""

    points = mortal.undisturbed(begin(story, tmp_path))
    for point in apart([point for point in points if point.call == "sleep"]):
        calls = mortal.calls_of_look(point)
        for index, when in product(range(len(calls)), ("before", "after")):
            mortal.go_on(point, hook=stalling(mortal, index, when))


def stalling(mortal, index, when):
    """At that call another controller, on a machine of its own, drives for a while."""

    def hook(cloud):
        def other_goes_on(_call):
            mine, cloud.hook = cloud.hook, stop_at(cloud, cloud.time + STALLED_S * 1_000_000)
            with suppress(Enough):
                mortal.process(cloud, mortal.scratch())
            cloud.hook = mine

        return At(index, when, other_goes_on)

    return hook


def stop_at(cloud, time):
    def hook(_call, when):
        if when == "before" and cloud.time >= time:
            raise Enough

    return hook


class Baton:
    """Whoever holds it runs; at any call it may pass on."""

    def __init__(self, seed: int) -> None:
        self._dice, self._turn, self._alive = np.random.default_rng(seed), 0, {0, 1}
        self._changed = threading.Condition()

    def run(self, *works: Callable[[], object]) -> list[BaseException]:
        """Run both, one at a time; what went wrong in them."""
        wrong: list[BaseException] = []
        threads = [
            threading.Thread(target=self._one, args=(number, work, wrong), daemon=True)
            for number, work in enumerate(works)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        return wrong

    def pass_on(self, call: str, _when: str) -> None:
        """A sleep always passes it on, another call now and then."""
        if call == "sleep" or self._dice.random() < 0.2:
            me = int(threading.current_thread().name)
            with self._changed:
                self._turn = next(iter(self._alive - {me}), me)
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._turn == me)

    def _one(self, number: int, work: Callable[[], object], wrong: list[BaseException]) -> None:
        threading.current_thread().name = str(number)
        with self._changed:
            self._changed.wait_for(lambda: self._turn == number)
        try:
            work()
        except BaseException as error:
            wrong.append(error)
        with self._changed:
            self._alive.discard(number)
            self._turn = next(iter(self._alive), number)
            self._changed.notify_all()


@pytest.mark.parametrize("seed", range(4))
def test_two_that_take_turns_at_any_call_end_as_one_does(story, tmp_path, seed):
    cloud, baton = begin(story, tmp_path), Baton(seed)
    cloud.hook = baton.pass_on
    machines = [tmp_path / "one", tmp_path / "other"]
    assert not baton.run(*(partial(tell, cloud.place(m), story.steps) for m in machines))
    cloud.hook = nothing
    settle(cloud.place(tmp_path / "third"))
    must_have_ended_well(story, cloud, tmp_path / "third")


def test_on_one_machine_the_other_only_reads_along(tmp_path):
    """The lock is in the scratch folder: who holds it looks, and the other one takes over."""
    cloud, baton, looked = begin(BAD_CANARY, tmp_path), Baton(1), set()

    def watch(call, when):
        if call == "read_counts":
            looked.add(threading.current_thread().name)
        baton.pass_on(call, when)

    cloud.hook = watch
    work = [lambda: tell(cloud.place(tmp_path / "same"), BAD_CANARY.steps)] * 2
    assert not baton.run(*work)
    assert len(looked) == 1
    cloud.hook = nothing
    must_have_ended_well(BAD_CANARY, cloud, tmp_path)

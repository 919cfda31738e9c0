"""The questions of a rollout go on though whoever sends them is killed."""

from contextlib import contextmanager

from deployments import command
from tasks.rollout.controller import drive
from tasks.rollout.driver import REPLAY_AGAIN_S
from tests.rollout_stories.process import begin
from tests.rollout_stories.stories import ENDPOINT, PLAN, Story, asks

REPLAYED = PLAN.model_copy(update={"replays_per_s": 5.0})


class Sender:
    """Sends nothing; notes when it began and ended. `dies` after so many looks."""

    def __init__(self, place, dies):
        self.place, self.dies = place, dies
        self.began, self.ended = [], 0

    @contextmanager
    def __call__(self, rollout):
        self.began.append(self.place.clock.monotonic())
        looks = iter(range(self.dies))
        yield lambda: next(looks, None) is not None
        self.ended += 1


def rolled_out(tmp_path, dies):
    """The sender that was there during a rollout to its end."""
    place = begin(Story("", ("v1",), (), (), {}), tmp_path).place(tmp_path)
    sender = Sender(place, dies)
    asked = asks("rollout", "go", version="v2", plan=REPLAYED).request
    command.make(place, asked)
    state = drive(
        place, ENDPOINT, lambda state: state.requests["go"].decided, by="a test", replay=sender
    )
    assert state.requests["go"].came_true
    return sender


def test_a_replay_that_was_killed_begins_again_but_not_at_every_look(tmp_path):
    sender = rolled_out(tmp_path, dies=3)
    gaps = [
        after - before for before, after in zip(sender.began, sender.began[1:], strict=False)
    ]
    assert gaps
    assert min(gaps) >= REPLAY_AGAIN_S
    assert sender.ended == len(sender.began)


def test_a_replay_that_lives_is_left_alone(tmp_path):
    sender = rolled_out(tmp_path, dies=10**9)
    assert (len(sender.began), sender.ended) == (1, 1)

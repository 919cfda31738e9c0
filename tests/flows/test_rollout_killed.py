"""A controller killed at every point of a rollout: the next run ends it in the right state.

A kill is a BaseException that no code catches, raised right before or right after a call that
changes the world: a ledger record, a weight, a server. Each run dies at one such point and the
next run finishes; the points are counted on a run that nobody kills, so none is left out.
"""

from dataclasses import replace
from itertools import pairwise

import pytest

from policy.errors import AlreadyExists, NotFound
from policy.ledger import RolloutChanged, fold
from policy.rollout.record import Phase, finished
from tasks.rollout import steps as tasks

ACTIONS = ("record", "set_weights", "deploy", "undeploy")
PLANS = {
    "good": {"bad_from": None, "ends": Phase.DONE},
    "bad from 10 %": {"bad_from": 10, "ends": Phase.ROLLED_BACK},
    "bad from 50 %": {"bad_from": 50, "ends": Phase.ROLLED_BACK},
}


class Killed(BaseException):
    pass


class Reaper:
    """Lets `spare` calls pass and kills at the next one, once, `before` or after it."""

    def __init__(self):
        self.armed, self.calls = None, []

    def arm(self, action, spare, *, before):
        self.armed, self.calls = (action, spare, before), []

    def call(self, action, function, *arguments):
        self.calls.append(action)
        here = self.armed and self.armed[:2] == (action, self.calls.count(action) - 1)
        if here and self.armed[2]:
            self._kill()
        result = function(*arguments)
        if here:
            self._kill()
        return result

    def _kill(self):
        self.armed = None
        raise Killed


class MortalStore:
    """Objects in memory; the reaper stands beside whoever writes one."""

    def __init__(self, objects, reaper):
        self.objects, self.reaper = dict(objects), reaper

    def read(self, key):
        if key not in self.objects:
            raise NotFound(key)
        return self.objects[key]

    def list(self, prefix):
        return sorted(key for key in self.objects if key.startswith(f"{prefix}/"))

    def create(self, key, data):
        if key in self.objects:
            raise AlreadyExists(key)
        self.reaper.call("record", self.objects.__setitem__, key, data)


class MortalEndpoint:
    """The fake endpoint of conftest.py, the reaper beside it; v2 may be bad from a share."""

    def __init__(self, endpoint, reaper, bad_from):
        self._endpoint, self._reaper, self._bad_from = endpoint, reaper, bad_from

    def __getattr__(self, name):
        return getattr(self._endpoint, name)

    def deploy(self, release):
        if release.version not in self._endpoint.servers:
            self._reaper.call("deploy", self._endpoint.deploy, release)

    def undeploy(self, version):
        self._reaper.call("undeploy", self._endpoint.undeploy, version)

    def set_weights(self, percent, fallback=None):
        self._reaper.call("set_weights", self._set_weights, percent, fallback)

    def _set_weights(self, percent, fallback):
        self._endpoint.set_weights(percent, fallback)
        if self._bad_from is not None and percent.get("v2", 0) >= self._bad_from:
            self._endpoint.broken.add("v2")


class Story:
    """v1 serves and v2 is rolled out by the tasks that the flow calls, without Prefect."""

    def __init__(self, world, monkeypatch, bad_from):
        self.reaper = Reaper()
        world.serve("v1")
        world.register("v2")
        plan, watch = world.config.rollout, world.config.rollout.watch
        quick = {
            "bake_s": 0.004,
            "look_s": 0.002,
            "watch": watch.model_copy(update={"s": 0.004}),
        }
        self.config = world.config.model_copy(update={"rollout": plan.model_copy(update=quick)})
        place = tasks.connect(self.config)
        keys = [key for part in ("ledger", "releases") for key in place.store.list(part)]
        self.store = MortalStore({key: place.store.read(key) for key in keys}, self.reaper)
        self.endpoint = MortalEndpoint(world.production, self.reaper, bad_from)
        mortal = replace(place, store=self.store, endpoints={"production": self.endpoint})
        monkeypatch.setattr("tasks.rollout.steps.connect", lambda _config: mortal)
        monkeypatch.setenv("PREFECT__RUNTIME__FLOW_RUN__ID", "one-run")
        self.first = len(self.store.list("ledger"))

    def drive(self):
        """What flows/rollout.py does, in the same order."""
        state = tasks.begin.fn(self.config, "production", "v2", "a test")
        while not finished(state):
            state = tasks.step.fn(self.config, state)
        tasks.settle.fn(self.config, state)

    def killed_at(self, action, spare, *, before):
        """A run that dies at this point; the next one finishes.

        On a busy machine a rollout takes more looks than on a quick one, and so more records:
        a later point that this run does not come to is none of its points.
        """
        died = self.dies(action, spare, before=before)
        assert died or spare > 0
        self.drive()

    def dies(self, action, spare, *, before):
        self.reaper.arm(action, spare, before=before)
        try:
            self.drive()
        except Killed:
            return True
        return False

    def ledger(self):
        """The records of v2's rollouts; the fold raises if the chain is broken."""
        state = fold((key, self.store.read(key)) for key in self.store.list("ledger"))
        events = [record.event for record in state.records[self.first :]]
        assert all(isinstance(event, RolloutChanged) for event in events)
        return state, [event.rollout for event in events]


def path(records):
    """The states in their order."""
    states = [(record.phase, record.step) for record in records]
    return [states[0], *(after for before, after in pairwise(states) if after != before)]


def must_have_ended(story, world, ends, states):
    state, records = story.ledger()
    promoted = ("v1", "v2") if ends is Phase.DONE else ("v1",)
    assert state.endpoint("production").promoted == promoted
    assert records[-1].phase is ends
    assert {record.id for record in records} == {records[0].id}, "one rollout, not a second"
    assert path(records) == states
    assert all(before != after for before, after in pairwise(records)), "a record came twice"
    assert world.production.weights() == {promoted[-1]: 100}
    assert world.production.deployed() == [promoted[-1]]
    assert all(sum(split.values()) == 100 for split in world.production.seen)


def points(story):
    """Every call of an undisturbed run that changes something: (action, which of its calls)."""
    story.reaper.arm("nothing", 0, before=True)
    story.drive()
    calls = story.reaper.calls
    return [(action, spare) for action in ACTIONS for spare in range(calls.count(action))]


@pytest.fixture(params=PLANS)
def kind(request):
    return PLANS[request.param]


@pytest.fixture
def tell_story(tmp_path, monkeypatch, kind, make_world):
    def tell(name):
        world = make_world(tmp_path / name)
        return Story(world, monkeypatch, kind["bad_from"]), world

    return tell


def test_a_controller_killed_at_any_point_is_finished_by_the_next_run(tell_story, kind):
    story, world = tell_story("undisturbed")
    found = points(story)
    _, records = story.ledger()
    states = path(records)
    must_have_ended(story, world, kind["ends"], states)
    assert found.count(("record", 0)) == 1
    assert {action for action, _ in found} == set(ACTIONS)
    for action, spare in found:
        for before in (True, False):
            story, world = tell_story(f"{action}-{spare}-{before}")
            story.killed_at(action, spare, before=before)
            must_have_ended(story, world, kind["ends"], states)


def test_controllers_that_each_write_one_record_and_die_finish_together(tell_story, kind):
    story, world = tell_story("relay")
    killed = 0
    while story.dies("record", 0, before=False):
        killed += 1
    _, records = story.ledger()
    assert killed == len(records) > 3
    must_have_ended(story, world, kind["ends"], path(records))

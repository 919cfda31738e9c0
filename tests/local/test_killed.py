"""A controller killed with -9 before and after every ledger record, on a real Envoy.

Every point has a rollout of its own: a process that drives it kills itself there, and the
next process ends it. Nobody knows beforehand how many records there will be, so the points go
on until a process has none left to die at. Clients ask all the time.
"""

import multiprocessing
import signal
from itertools import count

import pytest

from deployments import ledger
from policy.rollout.record import Phase
from tests.benchmarks.rollout_trials import trials
from tests.local import mortal
from tests.local.load import load

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

PLAN = {
    "weights": (50, 100),
    "bake_s": 0.3,
    "look_s": 0.05,
    "replay_per_s": 0,
    "little_traffic": "wait",
    "watch__s": 0.3,
    "watch__requests_min": 0,
    "limits__labels_min": 0,
    "limits__inconclusive_limit": 60,
    "judge__block_s": 60,
    "judge__block_requests": 100_000,
    "deadlines__deploying_s": 60.0,
    "deadlines__step_s": 60.0,
}
GOOD, BAD = {}, {"after": 15, "late_fails_every": 2}


@pytest.fixture(scope="module")
def live():
    with trials(**PLAN) as made:
        yield made


@pytest.fixture(scope="module")
def processes():
    """Forks of a process that has imported everything: each is new, and quick to start."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([mortal.__name__])
    return context


def driven(live, processes, version, spare=-1, before=False):
    """The exit code of a controller's process; negative for a signal."""
    arguments = (live.config.model_dump_json(), version, spare, before)
    process = processes.Process(target=mortal.drive, args=arguments)
    process.start()
    process.join(120)
    return process.exitcode


def records_of(live, version):
    ledger.audit(live.store)  # raises if the chain is broken
    rollouts = [
        event.rollout
        for record in ledger.records(live.store)
        if (event := record.event).kind in ("rollout", "requested")
        and event.rollout is not None
        and event.rollout.version == version
    ]
    assert len({rollout.id for rollout in rollouts}) <= 1, "one rollout, not a second"
    return rollouts


def points():
    return ((spare, before) for spare in count() for before in (True, False))


@pytest.mark.parametrize(
    ("behaviour", "end", "path"),
    [
        pytest.param(
            GOOD, Phase.DONE, ["pending", "deploying", "smoke", "step", "promoting", "watching",
                               "done"], id="good",
        ),
        pytest.param(
            BAD, Phase.ROLLED_BACK, ["pending", "deploying", "smoke", "step", "rolling-back",
                                     "rolled-back"], id="bad under traffic",
        ),
    ],
)  # fmt: skip
def test_the_next_run_ends_what_a_killed_controller_left(live, processes, behaviour, end, path):
    killed = 0
    with load(live.endpoint.url, threads=2, pause_s=0.01) as seen:
        for spare, before in points():
            stable, version = live.now().stable, live.register(behaviour)
            code = driven(live, processes, version, spare, before)
            if code == 0:
                break
            assert code == -signal.SIGKILL
            killed += 1
            assert len(records_of(live, version)) == spare + (not before)
            assert driven(live, processes, version) == 0
            must_have_ended(live, version, stable, end, path)
        must_have_ended(live, version, stable, end, path)
    print(f"killed at {killed} points; {seen.failed} of {seen.sent} requests failed")
    assert killed >= 2 * len(path)
    assert seen.failed == 0, seen.answers


def must_have_ended(live, version, stable, end, path):
    records = records_of(live, version)
    phases = list(dict.fromkeys(record.phase for record in records))
    assert phases == path, records[-1].reason
    assert records[-1].phase is end
    serves = version if end is Phase.DONE else stable
    assert live.now().stable == serves
    assert live.weights() == {serves: 100}
    assert list(live.endpoint.observe().servers) == [serves]

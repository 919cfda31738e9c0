"""A backup of the ledger is restored: what serves is not what the ledger says.

Whatever is ordered then, what serves goes on serving until something else is ready.
"""

import shutil
import time

import pytest

from deployments import ledger
from deployments.local.stack.serving import wait_for_models
from policy.rollout.record import Phase
from tests.benchmarks.rollout_trials import trials
from tests.local.fixtures import until
from tests.local.load import load

SLOW_START_S = 2.0
PLAN = {
    "weights": (20, 100),
    "bake_s": 0.3,
    "look_s": 0.1,
    "replay_per_s": 0,
    "little_traffic": "wait",
    "watch__s": 0,
    "watch__requests_min": 0,
    "limits__labels_min": 0,
    "deadlines__deploying_s": 60.0,
    "deadlines__step_s": 60.0,
}


@pytest.fixture(scope="module")
def live():
    """`before` is stable and has left; `after` serves alone."""
    with trials(**PLAN) as made, load(made.endpoint.url, threads=1, pause_s=0.02):
        made.before = made.register({"ready_after_s": SLOW_START_S})
        made.roll_out(made.before)
        made.backup = ledger.read(made.store).number
        made.after = made.register({})
        made.roll_out(made.after)
        assert made.weights() == {made.after: 100}
        yield made


def restore(live, number):
    """The ledger as it was after so many records; releases are still there."""
    for path in sorted((live.root / "ledger").glob("*.json"))[number:]:
        path.unlink()
    shutil.rmtree(live.root / "ledger-snapshots", ignore_errors=True)


def test_a_rollout_costs_no_request_though_its_stable_version_does_not_even_run(live):
    restore(live, live.backup)
    assert live.now().stable == live.before
    new = live.register({"ready_after_s": SLOW_START_S})
    with load(live.endpoint.url, threads=3, pause_s=0.01, more_than=100) as seen:
        live.roll_out(new)
        time.sleep(0.3)
    assert (seen.failed, seen.sent > 100) == (0, True), seen.answers
    assert live.now().rollout.phase is Phase.DONE
    until(lambda: live.weights() == {new: 100})


@pytest.mark.slow
def test_what_serves_goes_on_until_a_first_version_is_ready(live):
    """The backup is from the beginning of the very first rollout, which goes on."""
    records = ledger.records(live.store)
    restore(live, next(one.number for one in records if getattr(one.event, "rollout", None)))
    [request] = ledger.read(live.store).requests
    assert (live.now().stable, live.now().rollout.phase) == (None, Phase.PENDING)
    with load(live.endpoint.url, threads=3, pause_s=0.01, more_than=50) as seen:
        live.drive(request)
        time.sleep(0.3)
    assert (seen.failed, seen.sent > 50) == (0, True), seen.answers
    until(lambda: live.weights() == {live.now().stable: 100})


@pytest.mark.slow
def test_up_says_what_serves_though_the_ledger_knows_of_nothing(live):
    restore(live, 0)
    serving, said = live.weights(), []
    wait_for_models(live.config, said.append)
    assert live.weights() == serving
    assert any(f"serves {', '.join(serving)}, which the ledger never" in line for line in said)

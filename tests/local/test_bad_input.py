"""What must not happen to a rollout, happening: real Envoy, real servers, clients asking.

Each story ends with the version before at 100 %, alone, with a reason in the ledger, within
the deadline of the state that it happened in; and no client has lost a request.
"""

import os
import signal
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

import pytest

from deployments import Desired, Observed, Release, Telemetry, command, ledger
from deployments.local.layout import layout_of
from deployments.local.servers import program_name
from deployments.local.supervisor.programs import Supervisor
from policy.config import Rollout as Settings
from policy.errors import EndpointSilent, LedgerError
from policy.evidence.limits import Fault
from policy.records import RolloutChanged
from policy.rollout.plans import plan_for
from policy.rollout.record import Phase
from policy.rollout.requests import Request
from tasks.rollout.controller import drive
from tests.benchmarks.rollout_trials import changed, trials
from tests.local.load import load

PLAN = {
    "weights": (20, 100),
    "bake_s": 0.5,
    "look_s": 0.1,
    "replay_per_s": 0,
    "little_traffic": "wait",
    "watch__s": 0,
    "watch__requests_min": 0,
    "limits__labels_min": 0,
    "deadlines__deploying_s": 30.0,
    "deadlines__step_s": 30.0,
}
SLACK_S = 4.0  # a look, the way back, its confirmation, on a busy machine


@pytest.fixture(scope="module")
def live():
    """One good version serves, and clients of it ask all the time."""
    with trials(**PLAN) as made:
        yield made


@pytest.fixture
def clients(live):
    with load(live.endpoint.url, threads=2, pause_s=0.01, more_than=20) as seen:
        yield seen
    assert (seen.failed, seen.sent > 20) == (0, True), seen.answers


@pytest.fixture
def plan(live, monkeypatch):
    """Changes the plan of the next rollout."""

    def change(**changes):
        settings = Settings.model_validate(changed(live.config.rollout.model_dump(), **changes))
        other = live.config.model_copy(update={"rollout": settings})
        monkeypatch.setattr(live, "config", other)

    return change


@contextmanager
def meanwhile(act, live):
    """`act` again and again, beside the rollout, until it is on its way back."""
    over = threading.Event()

    def repeat():
        while not over.wait(0.05):
            rollout = live.now().rollout
            if rollout.phase is Phase.ROLLING_BACK:
                return
            act(rollout)

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def must_be_back(live, stable, fault, reason):
    """The end that all stories have."""
    rollout = live.now().rollout
    assert rollout.phase is Phase.ROLLED_BACK
    assert rollout.fault is fault, rollout.reason
    assert reason in rollout.reason
    assert rollout.reason.endswith(f"; stable {stable} serves 100 %")
    must_serve(live, stable)
    assert live.endpoint.ask(None, [{"question": "?"}]).version == stable
    return rollout


def must_serve(live, version):
    assert live.weights() == {version: 100}
    assert list(live.endpoint.observe().servers) == [version]


def apply(live, weights):
    """An order from somebody who is no controller, with the servers that there are."""
    seen = live.endpoint.observe().servers
    releases = tuple(Release(version, server.digest) for version, server in seen.items())
    live.endpoint.apply(Desired(releases, weights, fallback=live.now().stable))


@pytest.mark.parametrize(
    ("behaviour", "fault", "reason"),
    [
        pytest.param(
            {"answer": "nonsense"}, Fault.SMOKE, "smoke test: accuracy 0 %",
            id="answers smoke requests wrongly",
        ),
        pytest.param(
            {"fails_every": 1}, Fault.SMOKE, "smoke test: 10 of 10 requests failed: status 500",
            id="answers smoke requests with errors",
        ),
        pytest.param(
            {"says": {"outputs": ["yes"]}}, Fault.SMOKE, "the body is not by the contract",
            id="answers in another schema",
        ),
        pytest.param(
            {"says": {"predictions": []}}, Fault.SMOKE, "0 predictions for one instance",
            id="answers with no prediction",
        ),
        pytest.param(
            {"schema": "image_id"}, Fault.SMOKE, "the field 'image_id' is missing",
            id="wants another input schema",
        ),
        pytest.param(
            {"damaged": True}, Fault.CANNOT_SERVE, "behaviour.json", id="one changed byte"
        ),
    ],
)  # fmt: skip
def test_a_version_that_cannot_serve_is_taken_back(live, clients, behaviour, fault, reason):
    stable, version = live.now().stable, live.register(behaviour)
    live.roll_out(version)
    must_be_back(live, stable, fault, reason)


def test_a_version_that_never_gets_ready_is_taken_back_at_the_deadline(live, clients, plan):
    plan(deadlines__deploying_s=2.0)
    stable, version = live.now().stable, live.register({"ready_after_s": 10_000})
    live.roll_out(version)
    rollout = must_be_back(live, stable, Fault.DEADLINE, "deploying for ")
    assert (rollout.entered_at - rollout.started_at).total_seconds() < 2.0 + 2 * SLACK_S


def test_a_version_that_dies_at_its_start_is_taken_back(live, clients, plan):
    """As soon as supervisord gives up, or at the deadline where each death takes its time."""
    plan(deadlines__deploying_s=12.0)
    stable, version = live.now().stable, live.register({"exit": 3})
    live.roll_out(version)
    fault = live.now().rollout.fault
    assert fault in (Fault.CANNOT_SERVE, Fault.DEADLINE)
    told = {Fault.CANNOT_SERVE: "told to exit with 3", Fault.DEADLINE: "deploying for 12"}
    must_be_back(live, stable, fault, told[fault])


def test_a_version_that_crashes_again_and_again_is_taken_back(live, clients, plan):
    plan(bake_s=3.0)  # longer than it lives: one crash in a step is tolerated, two are not
    stable, version = live.now().stable, live.register({"lives_s": 2.0})
    live.roll_out(version)
    must_be_back(live, stable, live.now().rollout.fault, "")  # whichever fault shows first


def test_a_first_version_that_is_bad_leaves_nothing_serving_and_says_so(live):
    version, staging = live.register({"fails_every": 1}), live.place.endpoint("staging")
    request = Request(
        id="the first", kind="rollout", endpoint="staging", by="ada", why="a test",
        version=version, plan=plan_for(live.config, "staging"),
    )  # fmt: skip
    command.make(live.place, request)
    drive(live.place, "staging", lambda now: now.requests["the first"].decided, by="a test")
    rollout = ledger.read(live.store).endpoint("staging").rollout
    assert (rollout.phase, rollout.fault) == (Phase.ROLLED_BACK, Fault.SMOKE)
    assert staging.observe() == Observed({}, {})
    assert staging.ask(None, []).status == 503


def test_a_stable_that_is_gone_from_the_endpoint_is_brought_back(live):
    stable = live.now().stable
    live.endpoint.apply(Desired((), {}))
    live.roll_out(live.register({"fails_every": 1}))
    must_be_back(live, stable, Fault.SMOKE, "")


def test_weights_that_somebody_else_sets_are_set_back_until_the_deadline(live, clients, plan):
    plan(deadlines__step_s=3.0)
    stable, version = live.now().stable, live.register({})

    def meddle(rollout):
        if rollout.phase is Phase.STEP and rollout.version == version:
            apply(live, {version: 100})

    with meanwhile(meddle, live):
        live.roll_out(version)
    rollout = must_be_back(live, stable, Fault.DEADLINE, "step 0 for ")
    assert f"the weights were {version} 100 % instead of" in rollout.reason


def test_weights_that_somebody_set_once_do_not_stop_a_good_version(live, clients):
    version, done = live.register({}), []

    def meddle(rollout):
        if rollout.phase is Phase.STEP and not done:
            done.append(apply(live, {live.now().stable: 100}))

    with meanwhile(meddle, live):
        live.roll_out(version)
    assert done
    assert live.now().stable == version, live.now().rollout.reason


@pytest.mark.parametrize("behaviour", [{}, {"after": 12, "late_fails_every": 2}])
def test_two_controllers_at_once_end_one_rollout_alike(live, clients, behaviour):
    stable, version = live.now().stable, live.register(behaviour)
    failed, request = [], live.ask("rollout", version)

    def drive_too():
        try:
            live.drive(request)
        except BaseException as error:
            failed.append(error)

    second = threading.Thread(target=drive_too)
    second.start()
    live.drive(request)
    second.join(60)
    assert not failed
    ledger.audit(live.store)  # raises if the chain is broken
    events = [record.event for record in ledger.records(live.store)]
    rollouts = [event.rollout for event in events if isinstance(event, RolloutChanged)]
    assert len({rollout.id for rollout in rollouts if rollout.version == version}) == 1
    serves = stable if behaviour else version
    assert live.now().stable == serves, live.now().rollout.reason
    must_serve(live, serves)


def test_a_ledger_that_nobody_can_read_gives_the_canary_no_traffic(live, clients):
    stable, version = live.now().stable, live.register({})
    foreign = []

    def write(rollout):
        if rollout.phase is Phase.STEP and not foreign:
            number = ledger.read(live.store).number + 1
            path = live.root / "ledger" / f"{number:08d}.json"
            with suppress(FileExistsError), path.open("x") as file:  # the controller was first
                file.write('{"number": 1, "kind": "of another product"}')
                foreign.append(path)

    over = threading.Event()
    thread = threading.Thread(target=lambda: _until_written(over, live, write, foreign))
    thread.start()
    with pytest.raises(LedgerError, match="chain is broken"):
        live.roll_out(version)
    over.set()
    thread.join()
    assert live.weights() == {stable: 100}
    foreign[0].unlink()
    live.roll_out(version)  # the next run goes on where the ledger stands
    assert live.now().stable == version, live.now().rollout.reason


def _until_written(over, live, write, foreign):
    while not over.wait(0.02) and not foreign:
        write(live.now().rollout)


@dataclass
class AwayInAStep:
    """Telemetry that does not answer while a rollout is in a step."""

    live: object
    telemetry: Telemetry

    def __getattr__(self, name):
        return getattr(self.telemetry, name)

    def read(self, endpoint, versions):
        if self.live.now().rollout.phase is Phase.STEP:
            raise EndpointSilent("no metrics")
        return self.telemetry.read(endpoint, versions)


def test_metrics_that_go_away_in_a_step_end_the_rollout(live, clients, plan, monkeypatch):
    plan(limits__inconclusive_limit=1, deadlines__quiet_s=10.0, deadlines__step_s=8.0)
    stable, version = live.now().stable, live.register({})
    away = replace(live.place, telemetry=AwayInAStep(live, live.place.telemetry))
    monkeypatch.setattr(live, "place", away)
    live.roll_out(version)
    must_be_back(live, stable, live.now().rollout.fault, "")


def test_an_endpoint_that_is_away_past_the_deadline_is_taken_back_when_it_answers(live, plan):
    plan(deadlines__step_s=3.0)
    stable, version = live.now().stable, live.register({})
    supervisor = Supervisor(layout_of(live.config))
    stopped = []

    def stop(rollout):
        if rollout.window is not None and not stopped:
            stopped.append(time.monotonic())
            supervisor._calls.stopProcessGroup("envoy-production")

    def start_again():
        while live.now().rollout.phase is not Phase.ROLLING_BACK:
            time.sleep(0.05)
        supervisor.start_program("envoy-production")

    helper = threading.Thread(target=start_again)
    helper.start()
    with meanwhile(stop, live):
        live.roll_out(version)
    helper.join(30)
    assert stopped
    rollout = must_be_back(live, stable, Fault.DEADLINE, "the endpoint does not answer")
    assert time.monotonic() - stopped[0] < 3.0 + 2 * SLACK_S, rollout.reason


def test_stable_that_is_down_on_the_way_back_is_waited_for(live):
    """The way back is not over before stable answers."""
    stable, version = live.now().stable, live.register({"after": 12, "late_fails_every": 1})
    killed = []

    def kill(rollout):
        if rollout.phase is Phase.STEP and not killed:
            program = program_name("production", stable)
            processes = Supervisor(layout_of(live.config)).processes()
            killed.extend(p.pid for p in processes if p.program == program)
            for pid in killed:
                os.kill(pid, signal.SIGKILL)

    with load(live.endpoint.url, threads=2, pause_s=0.01), meanwhile(kill, live):
        live.roll_out(version)
    assert killed
    must_be_back(live, stable, live.now().rollout.fault, "stable")
    assert live.endpoint.observe().servers[stable].state == "ready"

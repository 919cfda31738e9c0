"""What people are asked and told during a rollout, on a real Prefect server."""

import json
import shlex
import threading
import time
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from prefect import flow
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.orchestration import get_client
from prefect.states import Running

from deployments import command, ledger
from flows import __main__ as terminal
from flows.rollout import rollout
from flows.terminal import history
from policy.errors import Refused, RolledBack
from policy.ledger import RolloutChanged
from policy.rollout.record import Phase, start
from tasks.rollout.approval import Form

YES = {"decision": "approve", "who": "ada", "why": "looked at the answers"}


@pytest.fixture
def waiting(world):
    """v1 serves, and v2 will ask before it takes all traffic."""
    configure(world, "approval: false", "approval: true")
    world.serve("v1")
    world.register("v2")
    return world


def configure(world, old, new):
    text = world.path.read_text()
    assert old in text
    world.path.write_text(text.replace(old, new))


def roll_out(world):
    return rollout("v2", "production", str(world.path))


@contextmanager
def somebody(act, but=None):
    """`act` with the paused run's id as soon as there is one; its error is the test's."""
    failed = []

    def wait():
        try:
            act(paused_run(but=but))
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    try:
        yield
    finally:
        thread.join(60)
        if failed:
            raise failed[0]


def paused_run(limit_s=60, but=None):
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        with get_client(sync_client=True) as client:
            runs = [
                run
                for run in client.read_flow_runs(limit=200)
                if run.state.is_paused() and run.id != but
            ]
        if runs:
            return runs[0]
        time.sleep(0.1)
    raise AssertionError("no run asked for approval")


def answer(run, values):
    """What the form in the UI sends."""
    with get_client(sync_client=True) as client:
        reply = client.request(
            "POST",
            "/flow_runs/{id}/resume",
            path_params={"id": run.id},
            json={"run_input": values},
        )
    return reply.json()["status"]


def last(world):
    return world.ledger.endpoint("production").rollout


def reasons(world):
    return [r.event.rollout.reason for r in world.ledger.records if r.event.kind == "rollout"]


def test_an_incomplete_form_is_refused_and_a_whole_one_approves(waiting):
    def act(run):
        assert last(waiting).phase is Phase.AWAITING_APPROVAL
        assert waiting.production.weights() == {"v1": 50, "v2": 50}
        for wrong in ({}, {**YES, "who": ""}, {**YES, "why": "  "}, {"decision": "approve"},
                      {**YES, "decision": "perhaps"}):  # fmt: skip
            assert answer(run, wrong) == "REJECT", wrong
        assert answer(run, YES) == "ACCEPT"

    with somebody(act):
        assert roll_out(waiting) == "v2"
    assert "approved by ada: looked at the answers" in reasons(waiting)
    told = "\n".join(history.tell(waiting.ledger))
    assert told.count("v2  waits for approval on production") == 1
    assert told.count("on production: approved by ada: looked at the answers") == 1
    assert waiting.production.weights() == {"v2": 100}


def test_a_form_that_says_no_takes_the_version_back(waiting):
    with (
        somebody(lambda run: answer(run, {**YES, "decision": "reject", "why": "odd"})),
        pytest.raises(RolledBack, match="rejected by ada: odd"),
    ):
        roll_out(waiting)
    assert waiting.production.weights() == {"v1": 100}


def test_a_command_comes_first_and_the_form_is_told_so_even_in_a_run_inside_another(waiting):
    @flow(name="outer")
    def outer():
        return roll_out(waiting)

    told = []

    def act(run):
        command.give(waiting.store, "production", "approve", "grace", "measured it")
        while last(waiting).phase is Phase.AWAITING_APPROVAL:
            time.sleep(0.05)
        deadline = time.monotonic() + 20
        while answer(run, YES) != "ABORT" and time.monotonic() < deadline:
            time.sleep(0.1)
        told.append(answer(run, YES))
        with pytest.raises(Refused, match="no rollout under way|cannot reject"):
            command.give(waiting.store, "production", "reject", "ada", "too late")

    with somebody(act):
        assert outer() == "v2"
    assert told == ["ABORT"]
    assert "approved by grace: measured it" in reasons(waiting)
    assert not any("ada" in reason for reason in reasons(waiting))


def test_the_command_that_the_form_tells_approves(waiting):
    """Whichever configuration the rollout was started with: another one's ledger is another."""
    waiting.path = waiting.path.rename(waiting.path.with_name("a name with blanks.yaml"))

    def act(run):
        keys = run.state.state_details.run_input_keyset
        with get_client(sync_client=True) as client:
            words = client.read_flow_run_input(run.id, keys["description"])
        told = next(line for line in json.loads(words).split("\n") if "python -m" in line)
        python, *arguments = shlex.split(told)
        assert (python, *arguments[:2]) == (".venv/bin/python", "-m", "flows")
        assert terminal.main([word.replace("…", "measured") for word in arguments[2:]]) == 0

    with somebody(act):
        assert roll_out(waiting) == "v2"
    assert any("measured" in reason for reason in reasons(waiting))


def test_nobody_answers_and_the_deadline_takes_the_version_back(waiting):
    configure(waiting, "approval_s: 600", "approval_s: 1")
    with pytest.raises(RolledBack, match=r"awaiting-approval for .* s > 1 s"):
        roll_out(waiting)
    assert waiting.production.weights() == {"v1": 100}


def test_a_form_that_a_killed_run_left_is_closed_by_the_next_run(waiting):
    """What kill -9 leaves: a rollout in the ledger by a run that is paused for ever."""
    new = start("r9", "production", "v2", "v1", waiting.config.rollout, "a test", ledger.now())
    asking = new.model_copy(update={"phase": Phase.AWAITING_APPROVAL, "step": 2})
    with get_client(sync_client=True) as client:
        dead = client.create_flow_run(rollout, state=Running())
        Form(client, dead.id, "here.yaml").show(asking)
        event = RolloutChanged(rollout=asking)
        ledger.append(waiting.store, lambda _state: event, by="a test", run=str(dead.id))
        left = client.read_flow_run(dead.id).state
    assert left.is_paused()
    lasts_s = (left.state_details.pause_timeout - ledger.now()).total_seconds()
    assert 600 < lasts_s < 661, "Prefect itself gives it up after the deadline"
    told = []

    def act(run):
        assert run.id != dead.id
        told.append(answer(dead, YES))
        assert answer(run, {**YES, "who": "grace"}) == "ACCEPT"

    with somebody(act, but=dead.id):
        assert roll_out(waiting) == "v2"
    assert told != ["ACCEPT"]
    assert "approved by grace: looked at the answers" in reasons(waiting)
    with get_client(sync_client=True) as client:
        state = client.read_flow_run(dead.id).state
    assert state.is_crashed()
    assert "its process is gone" in state.message


def test_a_form_outlives_a_pause_that_moves_the_deadline(waiting, monkeypatch):
    monkeypatch.setattr("tasks.rollout.approval._GRACE", timedelta(seconds=3))
    configure(waiting, "approval_s: 600", "approval_s: 2")

    def act(run):
        command.give(waiting.store, "production", "pause", "ada", "lunch")
        until = run.state.state_details.pause_timeout
        while ledger.now() < until:
            time.sleep(0.1)
        assert last(waiting).paused
        assert answer(paused_run(), YES) == "ACCEPT"

    with somebody(act):
        assert roll_out(waiting) == "v2"
    assert waiting.production.weights() == {"v2": 100}


def test_a_version_that_fails_while_people_think_is_taken_back(waiting):
    with (
        somebody(lambda _run: waiting.production.broken.add("v2")),
        pytest.raises(RolledBack, match="error_rate"),
    ):
        roll_out(waiting)
    assert waiting.production.weights() == {"v1": 100}


@pytest.fixture
def hook():
    """A receiver on loopback; the subjects that arrived, in order."""
    subjects = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            subjects.append(body["subject"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, format, *args):
            pass

    server = HTTPServer(("127.0.0.1", 0), Receiver)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    CustomWebhookNotificationBlock(
        name="hook",
        url=f"http://127.0.0.1:{server.server_port}",
        json_data={"subject": "{{subject}}", "text": "{{body}}"},
    ).save("hook", overwrite=True)
    yield subjects
    server.shutdown()
    thread.join()
    server.server_close()


def test_people_are_told_and_a_message_that_fails_changes_nothing(waiting, hook, caplog):
    configure(waiting, "blocks: []", "blocks: [slack-webhook/nowhere, custom-webhook/hook]")
    with somebody(lambda run: answer(run, YES)):
        assert roll_out(waiting) == "v2"
    assert hook == [
        "production: v2 rollout started",
        "production: v2 waiting for approval",
        "production: v2 promoted",
    ]
    assert "not told by slack-webhook/nowhere" in caplog.text

    hook.clear()
    waiting.production.broken.add(waiting.register("v3"))
    with pytest.raises(RolledBack):
        rollout("v3", "production", str(waiting.path))
    assert hook == ["production: v3 rollout started", "production: v3 taken back"]

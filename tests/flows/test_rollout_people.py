"""What people are asked and told during a rollout, on a real Prefect server."""

import json
import shlex
import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx
import pytest
from prefect import flow
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.orchestration import SyncPrefectClient, get_client

from flows import __main__ as terminal
from flows.rollout import rollout
from policy.errors import Refused, RolledBack
from policy.rollout.record import Phase
from tests.flows.conftest import BROKEN

YES = {"decision": "approve", "who": "ada", "why": "looked at the answers"}


@pytest.fixture
def waiting(live):
    """v1 serves, and v2 will ask before it takes all traffic."""
    live.serve("v1")
    live.configure(rollout={"approval": True})
    live.register("v2")
    return live


def roll_out(world):
    return rollout("v2", "production", str(world.path))


@contextmanager
def somebody(act, but=None):
    """`act` with the paused run's id as soon as there is one; its error is the test's.

    Then the version is rejected, or the rollout would wait for an answer that never comes.
    """
    failed = []

    def wait():
        try:
            act(paused_run(but=but))
        except BaseException as error:
            failed.append(error)
            answer(paused_run(limit_s=5, but=but), {**YES, "decision": "reject"})

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
    return [rollout.reason for rollout in world.rollouts("v2")]


def test_an_incomplete_form_is_refused_and_a_whole_one_approves(waiting):
    def act(run):
        assert last(waiting).phase is Phase.AWAITING_APPROVAL
        assert waiting.production.weights == {"v1": 50, "v2": 50}
        for wrong in ({}, {**YES, "who": ""}, {**YES, "why": "  "}, {"decision": "approve"},
                      {**YES, "decision": "perhaps"}):  # fmt: skip
            assert answer(run, wrong) == "REJECT", wrong
        assert answer(run, YES) == "ACCEPT"

    with somebody(act):
        assert roll_out(waiting) == "v2"
    assert "approved by ada: looked at the answers" in reasons(waiting)
    assert waiting.production.weights == {"v2": 100}


def test_a_form_that_says_no_rolls_the_version_back(waiting):
    with (
        somebody(lambda run: answer(run, {**YES, "decision": "reject", "why": "odd"})),
        pytest.raises(RolledBack, match="rejected by ada: odd"),
    ):
        roll_out(waiting)
    assert waiting.production.weights == {"v1": 100}


def test_a_command_comes_first_and_the_form_is_told_so_even_in_a_run_inside_another(waiting):
    @flow(name="outer")
    def outer():
        return roll_out(waiting)

    told = []

    def act(run):
        waiting.ask("approve", by="grace", why="measured it")
        while last(waiting).phase is Phase.AWAITING_APPROVAL:
            time.sleep(0.05)
        deadline = time.monotonic() + 20
        while answer(run, YES) != "ABORT" and time.monotonic() < deadline:
            time.sleep(0.1)
        told.append(answer(run, YES))
        with pytest.raises(Refused, match="no rollout under way|cannot reject"):
            waiting.ask("reject", by="ada", why="too late")

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


def test_nobody_answers_and_the_deadline_rolls_the_version_back(waiting):
    waiting.configure(deadlines={"approval_s": 1})
    with pytest.raises(RolledBack, match=r"awaiting-approval for .* s, limit 1 s"):
        roll_out(waiting)
    assert waiting.production.weights == {"v1": 100}


def test_an_answer_is_not_lost_when_the_server_or_the_store_is_away_for_a_moment(
    waiting, monkeypatch
):
    """One 503 while the answer is read, one time-out of the store: it is taken all the same."""
    failures = ["the form's answer", "the store"]
    read = SyncPrefectClient.read_flow_run_input

    def away(client, *arguments):
        if failures:
            raise httpx.ConnectError(failures.pop())
        return read(client, *arguments)

    def act(run):
        monkeypatch.setattr(SyncPrefectClient, "read_flow_run_input", away)
        assert answer(run, YES) == "ACCEPT"

    with somebody(act):
        assert roll_out(waiting) == "v2"
    assert not failures
    assert "approved by ada: looked at the answers" in reasons(waiting)


def test_another_run_that_waits_leaves_the_form_and_its_run_alone(waiting):
    """A retraining, say, that finds somebody being asked."""
    waiting.register("v3")
    other = threading.Thread(target=lambda: waiting.roll("v3"))

    def act(run):
        other.start()
        time.sleep(1.5)
        with get_client(sync_client=True) as client:
            assert client.read_flow_run(run.id).state.is_paused()
        assert answer(run, YES) == "ACCEPT"

    with somebody(act):
        assert roll_out(waiting) == "v2"
    while last(waiting).phase is not Phase.AWAITING_APPROVAL:
        time.sleep(0.1)
    waiting.ask("approve", by="grace", why="and the next one")
    other.join(60)
    assert waiting.ledger.endpoint("production").promoted == ("v1", "v2", "v3")


@pytest.mark.slow
def test_a_form_outlives_a_pause_that_moves_the_deadline(waiting, monkeypatch):
    monkeypatch.setattr("tasks.rollout.approval._GRACE", timedelta(seconds=3))
    waiting.configure(deadlines={"approval_s": 6})

    def act(run):
        waiting.ask("pause", by="ada", why="lunch")
        until = run.state.state_details.pause_timeout
        while datetime.now(UTC) < until:
            time.sleep(0.1)
        assert last(waiting).paused
        assert answer(paused_run(), YES) == "ACCEPT"

    with somebody(act):
        assert roll_out(waiting) == "v2"
    assert waiting.production.weights == {"v2": 100}


def test_a_version_that_fails_while_people_think_is_rolled_back(waiting):
    with (
        somebody(lambda _run: breaks(waiting, "v2")),
        pytest.raises(RolledBack, match="errors"),
    ):
        roll_out(waiting)
    assert waiting.production.weights == {"v1": 100}


def breaks(world, version):
    world.break_version(version, BROKEN)
    world.production.settle(world.cloud, "production")


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
    blocks = ["slack-webhook/nowhere", "custom-webhook/hook"]
    waiting.record["notifications"]["blocks"] = blocks
    waiting.write()
    with somebody(lambda run: answer(run, YES)):
        assert roll_out(waiting) == "v2"
    assert hook == [
        "production: v2 rollout started",
        "production: v2 waiting for approval",
        "production: v2 promoted",
    ]
    assert "slack-webhook/nowhere was not told" in caplog.text
    id = last(waiting).id  # of what others asked for the reconciler tells
    left = [untold for untold in waiting.ledger.untold if untold.rollout == id]
    assert {untold.phase for untold in left} == {"pending", "awaiting-approval", "done"}
    assert all("custom-webhook/hook" in untold.channels for untold in left), "each once"

    hook.clear()
    breaks(waiting, waiting.register("v3"))
    with pytest.raises(RolledBack):
        rollout("v3", "production", str(waiting.path))
    assert hook == ["production: v3 rollout started", "production: v3 rolled back"]

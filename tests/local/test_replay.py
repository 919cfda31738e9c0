"""Held-out questions at a steady rate, with a tally that can be trusted."""

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from deployments.replay import read_requests, replaying
from policy.errors import DataError, JobFailed
from tests.local.fixtures import serve

GOOD, WRONG = "2026.11.24-aaaaaaa", "2026.11.24-bbbbbbb"


@pytest.fixture(scope="module")
def questions(root):
    lines = [
        {"instance": {"question": f"q{n}"}, "answer": f"q{n}", "family": "echo"}
        for n in range(10)
    ]
    path = root / "requests.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture(scope="module")
def serving(production, make_release):
    """One version that repeats the question, which is right, and one that always errs."""
    serve(production, make_release(GOOD), make_release(WRONG, answer="nonsense"))
    production.set_weights({GOOD: 50, WRONG: 50})
    return production


def test_answers_are_judged_by_the_version_that_gave_them(serving, endpoints, place, questions):
    before = place.telemetry.labels("production", GOOD)
    with replaying(endpoints, "production", questions, per_s=50) as tally:
        deadline = time.monotonic() + 20
        while tally()["total"]["sent"] < 100:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    final = tally()
    good, wrong = final["versions"][GOOD], final["versions"][WRONG]
    assert good["correct"] == good["labelled"] == good["sent"] > 10
    assert wrong["labelled"] == wrong["sent"] > 10
    assert (wrong["correct"], final["total"]["failed"]) == (0, 0)
    assert final["total"]["sent"] == good["sent"] + wrong["sent"]
    after = place.telemetry.labels("production", GOOD)
    assert after.labels - before.labels == after.correct - before.correct == good["labelled"]


def test_a_shadow_is_compared_with_what_serves(serving, endpoints, place, questions):
    serving.set_weights({GOOD: 100})
    serving.mirror(WRONG, 50)
    with replaying(endpoints, "production", questions, per_s=60) as tally:
        deadline = time.monotonic() + 20
        while tally()["shadows"].get(WRONG, {}).get("compared", 0) < 20:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    seen = tally()["shadows"][WRONG]
    assert seen["compared"] == seen["differed"] <= tally()["total"]["sent"] * 0.55
    assert place.telemetry.compared("production", WRONG).differed == seen["differed"]
    serving.set_weights({GOOD: 50, WRONG: 50})


def test_the_rate_is_held(serving, endpoints, questions):
    with replaying(endpoints, "production", questions, per_s=40) as tally:
        deadline = time.monotonic() + 20
        while not tally()["total"]["sent"]:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        first, start = tally()["total"]["sent"], time.monotonic()
        time.sleep(3)
        sent, took = tally()["total"]["sent"] - first, time.monotonic() - start
    assert sent / took == pytest.approx(40, rel=0.25)  # the tally is half a second old


def test_no_answer_is_a_failure_without_a_version(serving, endpoints, place, questions):
    nobody = endpoints.local.model_ports[1]
    config = endpoints.model_copy(
        update={
            "local": endpoints.local.model_copy(
                update={"production_port": nobody, "model_ports": (1024, 1030)}
            )
        }
    )
    with replaying(config, "production", questions, per_s=50) as tally:
        deadline = time.monotonic() + 20
        while tally()["total"]["sent"] < 20:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    final = tally()
    assert final["total"]["failed"] == final["total"]["sent"] == final["versions"][""]["failed"]


def test_a_replay_ends_with_its_killed_parent(serving, endpoints, questions, root):
    script = (
        "import sys, time; from pathlib import Path\n"
        "from deployments.replay import replaying; from policy.config import parse_config\n"
        "config = parse_config(sys.argv[1], 'test')\n"
        "with replaying(config, 'production', Path(sys.argv[2]), 20): time.sleep(600)\n"
    )
    arguments = [endpoints.model_dump_json(), str(questions)]
    parent = subprocess.Popen([sys.executable, "-c", script, *arguments])
    deadline = time.monotonic() + 20
    while not (mine := psutil.Process(parent.pid).children()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    _, alive = psutil.wait_procs(mine, timeout=10)
    assert alive == []


def test_a_replay_that_cannot_run_is_an_error(serving, endpoints, root):
    with (
        pytest.raises(JobFailed, match="replay to production ended with exit code 1"),
        replaying(endpoints, "production", root / "no such file", 20),
    ):
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "no held-out requests"), ('{"a": 1}\n', "line 1 of"), ("{}\n{\n", "line 1 of")],
)
def test_bad_requests_are_named(text, message):
    with pytest.raises(DataError, match=message):
        read_requests(text.encode())

"""Held-out questions at a steady rate, and a record of them that can be trusted."""

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from deployments import Desired, local
from deployments.local.layout import layout_of
from deployments.local.supervisor.programs import Supervisor
from deployments.questions import read_requests
from deployments.replay import Sent, replayed, replaying
from policy.counts import Compared, Labelled
from policy.errors import DataError, JobFailed
from tests.local.fixtures import SERVER, bring, free_row, until

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
def releases(make_release):
    """One version that repeats the question, which is right, and one that always errs."""
    return make_release(GOOD), make_release(WRONG, answer="nonsense")


@pytest.fixture
def serving(production, releases):
    bring(production, Desired(releases, {GOOD: 50, WRONG: 50}, GOOD))
    return production


def known(place, *versions):
    return place.telemetry.read("production", versions)


def test_answers_are_judged_by_the_version_that_gave_them(serving, endpoints, place, questions):
    before = known(place, GOOD, WRONG).samples
    with replaying(endpoints, "production", questions, per_s=50) as so_far:
        until(lambda: so_far().sent >= 100)
    after = known(place, GOOD, WRONG).samples
    good, wrong = (
        Labelled(
            labels=after[version].labelled.labels - before[version].labelled.labels,
            correct=after[version].labelled.correct - before[version].labelled.correct,
        )
        for version in (GOOD, WRONG)
    )
    assert good.correct == good.labels > 10
    assert (wrong.correct, wrong.labels > 10) == (0, True)
    assert so_far() == Sent(sent=good.labels + wrong.labels, failed=0, late=so_far().late)


def test_a_mirror_is_compared_with_what_serves(serving, releases, endpoints, place, questions):
    bring(serving, Desired(releases, {GOOD: 100}, GOOD, {WRONG: 50}))
    with replaying(endpoints, "production", questions, per_s=60) as so_far:
        until(lambda: known(place, WRONG).compared.get(WRONG, Compared()).compared >= 20)
    seen = known(place, WRONG).compared[WRONG]
    assert seen.compared == seen.differed <= so_far().sent * 0.55


def test_the_rate_is_held(serving, endpoints, questions):
    with replaying(endpoints, "production", questions, per_s=40) as so_far:
        until(lambda: so_far().sent > 0)
        first, start = so_far().sent, time.monotonic()
        time.sleep(3)
        sent, took = so_far().sent - first, time.monotonic() - start
    assert sent / took == pytest.approx(40, rel=0.25)  # the total is half a second old


def test_an_endpoint_that_is_away_costs_questions_and_not_the_replay(
    serving, endpoints, place, questions
):
    envoy = envoy_of(endpoints, "production")
    before = replayed(place, "production")
    with replaying(endpoints, "production", questions, per_s=40) as so_far:
        until(lambda: so_far().sent > 20)
        os.kill(envoy, signal.SIGKILL)
        until(lambda: so_far().failed > 0)
        until(lambda: envoy_of(endpoints, "production") not in (0, envoy))
        failed = so_far().failed
        sent = so_far().sent
        until(lambda: so_far().sent > sent + 60)
    assert so_far().failed < failed + 60, "it answers again"
    after = replayed(place, "production")
    assert after.sent - before.sent == so_far().sent
    assert after.failed - before.failed == so_far().failed > 0


def envoy_of(config, endpoint):
    processes = Supervisor(layout_of(config)).processes()
    return next(p.pid for p in processes if p.program == f"envoy-{endpoint}")


def test_the_environment_s_proxy_sees_no_question(serving, endpoints, questions, monkeypatch):
    """Nobody listens at the proxy, so whatever took it would fail."""
    proxy = f"http://127.0.0.1:{free_row(1)}"
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, proxy)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with replaying(endpoints, "production", questions, per_s=40) as so_far:
        until(lambda: so_far().sent >= 20)
    assert so_far().failed == 0
    place = local.connect(endpoints, SERVER)
    assert place.endpoint("production").ask(None, [{"question": "?"}]).status == 200
    assert known(place, GOOD).samples[GOOD].counts.requests > 0


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

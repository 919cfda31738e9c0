"""The entry of the image elsewhere, as a real process, with the store on a disk and in S3."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from deployments import Job
from deployments.job import Order, progress_of
from policy.errors import NotFound
from tests.places.jobs import CHORES, COMPUTE
from tests.places.stores import STORES, opened


@pytest.fixture(params=STORES)
def at(request, tmp_path):
    with opened(request.param, tmp_path) as opened_store:
        yield opened_store


def order(at, told, **inputs) -> Order:
    return Order(job=Job("k", CHORES, told, inputs, at.uri("runs/out")), compute=COMPUTE)


def start(at, job: str, scratch="elsewhere") -> subprocess.Popen:
    command = [sys.executable, "-m", "deployments.job", "--store", at.store.root, "--job", job]
    return subprocess.Popen(
        [*command, "--scratch", str(at.scratch / scratch)],
        env={**os.environ, **at.environment}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def end(process) -> tuple[int, str]:
    _, told = process.communicate(timeout=60)
    return process.returncode, told


def test_inputs_come_down_and_the_output_goes_up(at, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/data.txt").write_text("from the store")
    at.store.upload(tmp_path / "data", at.uri("data/1"))
    asked = order(at, {"steps": 3}, data=at.uri("data/1"))
    assert end(start(at, asked.encode())) == (0, "")
    out = at.store.download(at.uri("runs/out"))
    assert (out / "done").read_text() == "from the store"
    assert "a line of log" in (out / "job.log").read_text()
    latest, key = progress_of(at.store, at.uri("runs/out"))
    assert latest is not None
    assert latest["phase"] == "chores"
    assert progress_of(at.store, at.uri("runs/out"), key) == (None, key)
    assert end(start(at, asked.encode(), "another machine"))[0] == 0
    assert (at.store.download(at.uri("runs/out")) / "starts").read_text() == "started\n"


def test_the_order_may_lie_in_the_store(at):
    at.store.create("orders/1.json", order(at, {"steps": 1}).encode().encode())
    assert end(start(at, at.uri("orders/1.json"))) == (0, "")
    assert at.store.download(at.uri("runs/out"))


@pytest.mark.parametrize(("told", "code"), [({"exit": 3}, 3), ({"exit": -9}, 137)])
def test_it_ends_as_the_program_did_and_says_why(at, told, code):
    ended, words = end(start(at, order(at, told).encode()))
    assert ended == code
    assert words.startswith(f"error: {CHORES} ended with exit code {told['exit']}")
    with pytest.raises(NotFound):
        at.store.download(at.uri("runs/out"))


def test_told_to_stop_it_saves_its_work_and_can_go_on(at):
    process = start(at, order(at, {"steps": 600, "save_s": 0.5}).encode())
    deadline = time.monotonic() + 20
    while progress_of(at.store, at.uri("runs/out"))[0] is None:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    assert end(process)[0] == 75
    assert end(start(at, order(at, {"steps": 1, "save_s": 0.5}).encode())) == (0, "")
    out = at.store.download(at.uri("runs/out"))
    assert (out / "checkpoint").read_text() == "saved"


@pytest.mark.parametrize("job", ["{}", json.dumps({"job": 1}), "orders/none"])
def test_an_order_that_is_none_is_one_clear_error(at, job):
    code, words = end(start(at, job if job.startswith("{") else at.uri(job)))
    assert code in (1, 2)
    assert words.startswith("error: ")
    assert "Traceback" not in words

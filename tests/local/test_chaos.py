"""The chaos run tells a breach when there is one, and the same seed is the same night."""

import itertools
import json
import os
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from deployments.stores.disk import DiskStore
from policy.errors import EndpointSilent
from policy.rollout.requests import Answer, Request
from tasks.rollout.lead import lock_path
from tests.benchmarks.chaos_run import clients as chaos_clients
from tests.benchmarks.chaos_run import schedule
from tests.benchmarks.chaos_run.clients import Clients
from tests.benchmarks.chaos_run.clock import Clock
from tests.benchmarks.chaos_run.rollouts import Rollouts
from tests.benchmarks.chaos_run.story import Story
from tests.benchmarks.chaos_run.watch import Watch
from tests.local.fixtures import until
from tests.policy.test_ledger import chain, registered


@pytest.fixture
def story(tmp_path):
    return Story(tmp_path / "story.jsonl")


class Failing(BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_error(503)

    def log_message(self, format, *args):
        pass


@pytest.fixture
def failing_port():
    with ThreadingHTTPServer(("127.0.0.1", 0), Failing) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_the_same_seed_is_the_same_night():
    for draw in (lambda seed: schedule.actions(seed, 600), lambda seed: first_versions(seed)):
        assert draw(7) == draw(7)
        assert draw(7) != draw(8)


def first_versions(seed):
    return list(itertools.islice(schedule.versions(seed), 30))


def test_half_an_hour_has_every_action():
    names = {action.name for seed in range(5) for action in schedule.actions(seed, 1800)}
    assert names == set(schedule.WEIGHTS)


def test_a_lost_request_is_a_breach(failing_port, story, capsys):
    story.tell("action", name="kill the worker")
    clients = Clients(failing_port, story, threads=1, each_per_s=50)
    clients.start()
    until(lambda: len(clients.lost) > 2)
    clients.stop()
    assert story.breaches[0].startswith("no lost request: sent at")
    assert "503" in story.breaches[0]
    assert "kill the worker" in capsys.readouterr().out, "what was done before is told"
    lines = [json.loads(line) for line in story.path.read_text().splitlines()]
    assert [line["what"] for line in lines][:2] == ["action", "BREACH"]


def test_a_request_lost_while_its_envoy_was_dead_is_none(failing_port, story, monkeypatch):
    clients = Clients(failing_port, story, threads=1, each_per_s=50)
    clients.envoy_was_killed()
    clients.start()
    until(lambda: clients.excused_count > 2)
    assert story.breaches == []
    monkeypatch.setattr(chaos_clients, "ENVOY_S", 0.0)
    until(lambda: bool(story.breaches))
    clients.stop()


class Observed:
    def __init__(self, weights):
        self.weights = weights

    def observe(self):
        if self.weights is None:
            raise EndpointSilent("away")
        return self


class Place:
    def __init__(self, folder):
        self.scratch, self.store = folder / "s", DiskStore(str(folder / "r"))


class World:
    """As much of one as the watch looks at."""

    def __init__(self, folder, weights):
        self.place, self.endpoint = Place(folder), Observed(weights)
        self.lock = lock_path(self.place.scratch, "production")
        self.lock.parent.mkdir(parents=True)
        self.lock.touch()


def watched(world, story, bad=()):
    """The watch after it has looked at everything."""
    watch = Watch(world, story, Clients(1, story))
    watch.bad.update(bad)
    watch._audited = watch._told = 0.0
    watch._look()
    return watch


def test_a_bad_version_with_all_the_traffic_is_a_breach(tmp_path, story):
    watched(World(tmp_path, {"v1": 50, "v2": 50}), story, bad=["v2"])
    assert story.breaches == []
    watched(World(tmp_path / "2", {"v2": 100}), story, bad=["v2"])
    assert story.breaches == ["no bad version at 100 %: v2 has all the traffic"]


def test_a_canary_that_nobody_watches_is_a_breach(tmp_path, story):
    world = World(tmp_path, {"v1": 90, "v2": 10})
    watched(world, story)
    assert story.breaches == []
    long_ago = time.time() - 100
    os.utime(world.lock, (long_ago, long_ago))
    watched(world, story)
    assert story.breaches[0].startswith("no canary unwatched for 90 s: ")
    world.endpoint.weights = {"v1": 100}
    alone = Story(tmp_path / "alone")
    watched(world, alone)
    assert alone.breaches == [], "stable alone needs nobody"


def test_a_broken_ledger_is_a_breach(tmp_path, story):
    world = World(tmp_path, {"v1": 100})
    for name, data in chain(registered("v1"), registered("v2")):
        world.place.store.create(name, data)
    watched(world, story)
    (tmp_path / "r/ledger/00000001.json").write_text("{}")
    watch = Watch(world, story, Clients(1, story))
    watch._audited = 0.0
    watch.start()
    until(lambda: bool(story.breaches))
    watch.stop()
    assert story.breaches[0].startswith("the ledger verifies: ")


class Excusing:
    def __init__(self, excuse):
        self.excuse = excuse

    def excused(self, version, since_s):
        return self.excuse


def answer(came_true):
    asked = Request(id="x", kind="rollout", endpoint="production", by="a", why="b", version="v")
    return Answer(request=asked, decided=True, came_true=came_true, reason="why")


@pytest.mark.parametrize(
    ("good", "found", "excuse", "breach"),
    [
        (True, answer(True), "", None),
        (False, answer(False), "", None),
        (True, answer(False), "asked for: abort", None),
        (True, answer(False), "", "good versions are promoted"),
        (False, answer(True), "asked for: abort", "bad versions are rolled back"),
        (True, None, "asked for: abort", "every request is decided"),
    ],
)
def test_a_wrong_end_is_a_breach(story, good, found, excuse, breach):
    rollouts = Rollouts(None, story, None, Excusing(excuse), seed=1)
    rollouts._judge("v", "plain", found, 0.0, good=good)
    assert [told.partition(": ")[0] for told in story.breaches] == ([breach] if breach else [])


def test_a_clock_that_jumps_moves_the_day_and_nothing_else(tmp_path):
    clock = Clock(tmp_path)
    if not clock.can_jump:
        pytest.skip("there is no C compiler here")
    read = "import time; print(time.time(), time.monotonic()); time.sleep(0.01)"
    now, monotonic = time.time(), time.monotonic()
    clock.set(-86_400)
    said = subprocess.run(
        [sys.executable, "-c", read], env=os.environ | dict(clock.environment),
        capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    assert now - 86_400 <= float(said[0]) < now - 86_000
    assert monotonic <= float(said[1]) < monotonic + 400


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_bad_minute_has_no_breach():
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.chaos", "--minutes", "1", "--seed", "9"],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=1100,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-5_000:] + done.stderr[-2_000:]
    assert "0 breaches" in done.stdout

"""Real load through a real Envoy while versions come, go, move and are killed."""

import itertools
import json
import os
import signal
import time

import httpx
import pytest

from deployments.local.layout import layout_of
from deployments.local.supervisor.programs import Supervisor
from policy.errors import EndpointError
from tests.local.fixtures import serve, wait_ready
from tests.local.load import load

HEALTHY = {"eds_health_status": "HEALTHY"}
STABLE, CANARY = "2026.11.22-aaaaaaa", "2026.11.22-bbbbbbb"


@pytest.fixture(scope="module")
def pair(production, make_release):
    serve(production, make_release(STABLE), make_release(CANARY))
    return production


@pytest.fixture
def supervisor(config):
    return Supervisor(layout_of(config.root))


def servers(supervisor, version):
    name = f"model-production-{version}"
    return [p for p in supervisor.processes() if p.program == name]


def kill(supervisor, version, count):
    victims = [
        p.pid for p in servers(supervisor, version) if p.state in ("RUNNING", "STARTING")
    ]
    assert len(victims) >= count
    for pid in victims[:count]:
        os.kill(pid, signal.SIGKILL)


def wait_whole(config, supervisor, *versions):
    """Until every server of the versions runs and is healthy to Envoy.

    Two dead at once are one too many, and Envoy sees a death only after a second or two.
    """
    admin = f"http://127.0.0.1:{config.local.production_admin_port}/clusters?format=json"
    deadline = time.monotonic() + 30
    while True:
        states = [p.state for version in versions for p in servers(supervisor, version)]
        clusters = httpx.get(admin).json()["cluster_statuses"]
        health = [
            host["health_status"]
            for cluster in clusters
            if cluster["name"] in versions
            for host in cluster["host_statuses"]
        ]
        if states + health == ["RUNNING"] * len(states) + [HEALTHY] * 2 * len(versions):
            return
        assert time.monotonic() < deadline, (states, health)
        time.sleep(0.05)


def test_no_request_fails_while_weights_change_fifty_times(pair):
    weights = itertools.cycle([10, 30, 50, 100, 0])
    took = []
    with load(pair.url) as seen:
        for canary in itertools.islice(weights, 50):
            start = time.perf_counter()
            pair.set_weights({STABLE: 100 - canary, CANARY: canary})
            took.append(time.perf_counter() - start)
    print(f"{seen.failed} of {seen.sent} failed; {sorted(took)[25]:.3f} s, at most {max(took)}")
    assert seen.failed == 0
    assert seen.of(STABLE) > 100
    assert seen.of(CANARY) > 100


def test_no_request_fails_while_versions_are_replaced(pair, make_release):
    before = STABLE
    pair.undeploy(CANARY)
    with load(pair.url) as seen:
        for number in range(6):
            after = f"2026.11.23-{number:07}"
            pair.deploy(make_release(after))
            wait_ready(pair, after)
            for weight in (10, 50, 100):
                pair.set_weights({before: 100 - weight, after: weight})
                time.sleep(0.05)
            pair.undeploy(before)
            before = after
        serve(pair, make_release(STABLE), make_release(CANARY))
    print(f"{seen.failed} of {seen.sent} failed")
    assert seen.failed == 0
    assert len(seen.answers) == 7


@pytest.mark.parametrize(
    ("weights", "victim", "count"),
    [
        ({STABLE: 90, CANARY: 10}, CANARY, 2),  # both servers of the canary at once
        ({STABLE: 90, CANARY: 10}, STABLE, 1),
        ({STABLE: 100}, STABLE, 1),
    ],
)
def test_no_request_fails_when_a_server_is_killed(
    pair, config, supervisor, weights, victim, count
):
    pair.set_weights(weights)
    wait_whole(config, supervisor, *weights)
    with load(pair.url) as seen:
        for _ in range(2):
            time.sleep(0.3)
            kill(supervisor, victim, count)
            time.sleep(0.5)
            wait_whole(config, supervisor, *weights)
    print(f"{seen.failed} of {seen.sent} failed")
    assert seen.failed == 0
    assert seen.sent > 300
    wait_ready(pair, victim)


def test_a_version_with_a_fallback_survives_all_its_servers(pair, config, supervisor):
    pair.set_weights({CANARY: 100}, fallback=STABLE)
    wait_whole(config, supervisor, STABLE, CANARY)
    with load(pair.url) as seen:
        time.sleep(0.3)
        kill(supervisor, CANARY, 2)
        time.sleep(1.5)
    print(f"{seen.failed} of {seen.sent} failed")
    assert seen.failed == 0
    assert pair.weights() == {CANARY: 100}
    wait_ready(pair, CANARY)


def test_the_way_back_from_a_version_that_only_fails_costs_no_request(pair, make_release):
    """Each request of it is about to be tried again somewhere else when the weights change."""
    bad = make_release("2026.11.22-5005005", fails_every=1)
    with load(pair.url, threads=8) as seen:
        for _ in range(2):
            pair.deploy(bad)
            wait_ready(pair, bad.version)
            for _ in range(20):
                pair.set_weights({bad.version: 100}, fallback=STABLE)
                time.sleep(0.05)
                pair.set_weights({STABLE: 100})
            pair.undeploy(bad.version)
    print(f"{seen.failed} of {seen.sent} failed")
    assert seen.failed == 0
    assert seen.of(bad.version) == 0
    assert seen.sent > 1000


def test_envoy_killed_is_back_with_the_last_weights(pair, supervisor):
    wait_ready(pair, STABLE, CANARY)
    pair.set_weights({STABLE: 70, CANARY: 30})
    envoy = next(p for p in supervisor.processes() if p.program == "envoy-production")
    with load(pair.url) as seen:
        time.sleep(0.3)
        os.kill(envoy.pid, signal.SIGKILL)
        killed = time.monotonic()
        while seen.last_good < killed + 0.1:
            assert time.monotonic() - killed < 5
            time.sleep(0.01)
        gap = time.monotonic() - killed
        assert pair.weights() == {STABLE: 70, CANARY: 30}
    print(f"back after {gap:.2f} s; {seen.failed} of {seen.sent} failed")
    assert gap < 2.5


def test_a_lost_notice_of_a_changed_file_is_made_up_for(pair, config):
    pair.set_weights({STABLE: 100})
    routes = layout_of(config.root).xds("production") / "routes.json"
    before = routes.read_text()
    pair.set_weights({STABLE: 40, CANARY: 60})
    wanted = routes.read_text()
    pair.set_weights({STABLE: 100})
    assert routes.read_text() == before
    routes.write_text(wanted)  # in place, which Envoy does not notice
    time.sleep(0.3)
    assert pair.weights() == {STABLE: 100}
    pair.set_weights({STABLE: 40, CANARY: 60})
    assert pair.weights() == {STABLE: 40, CANARY: 60}


def test_what_envoy_refuses_is_an_error_and_leaves_the_split(pair, config, monkeypatch):
    pair.set_weights({STABLE: 100})
    routes = layout_of(config.root).xds("production") / "routes.json"
    before = json.loads(routes.read_text())
    monkeypatch.setattr("deployments.local.envoy.plane._PATIENCE_S", (0.5, 0.5))
    monkeypatch.setattr("deployments.local.envoy.routes.REQUEST_TIMEOUT_S", "not a number of ")
    with pytest.raises(
        EndpointError, match=r"did not take the new routes(.|\n)*Unable to parse"
    ) as refused:
        pair.set_weights({STABLE: 40, CANARY: 60})
    assert "the split is as it was" in str(refused.value)
    assert pair.weights() == {STABLE: 100}
    assert json.loads(routes.read_text()) == before

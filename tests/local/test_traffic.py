"""Real load through a real Envoy while versions come, go, move and are killed."""

import itertools
import json
import os
import signal
import time

import pytest

from deployments import Desired
from deployments.local import loopback
from deployments.local.layout import layout_of
from deployments.local.supervisor.programs import Supervisor
from policy.errors import EndpointError
from tests.local.fixtures import bring, serve, until
from tests.local.load import load

HEALTHY = {"eds_health_status": "HEALTHY"}
STABLE, CANARY = "2026.11.22-aaaaaaa", "2026.11.22-bbbbbbb"


@pytest.fixture(scope="module")
def releases(make_release):
    return make_release(STABLE), make_release(CANARY)


@pytest.fixture(scope="module")
def pair(production, releases):
    serve(production, *releases)
    return production


@pytest.fixture
def give(pair, releases):
    """Set the weights of the two, each falling back to the one given."""

    def bring_weights(weights, fallback=STABLE):
        bring(pair, Desired(releases, weights, fallback))

    return bring_weights


@pytest.fixture
def supervisor(config):
    return Supervisor(layout_of(config))


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
    admin = loopback.client_at(layout_of(config).admin_socket("production"))
    deadline = time.monotonic() + 30
    while True:
        states = [p.state for version in versions for p in servers(supervisor, version)]
        clusters = admin.get("/clusters?format=json").json()["cluster_statuses"]
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


def test_no_request_fails_while_weights_change_fifty_times(pair, releases):
    weights = itertools.cycle([10, 30, 50, 100, 0])
    took = []
    with load(pair.url) as seen:
        for canary in itertools.islice(weights, 50):
            wanted = {STABLE: 100 - canary, CANARY: canary}
            start = time.perf_counter()
            pair.apply(Desired(releases, wanted, STABLE))
            took.append(time.perf_counter() - start)
            assert pair.observe().weights == {v: share for v, share in wanted.items() if share}
    print(f"{seen.failed} of {seen.sent} failed; {sorted(took)[25]:.3f} s, at most {max(took)}")
    assert seen.failed == 0
    assert seen.of(STABLE) > 100
    assert seen.of(CANARY) > 100


def test_no_request_fails_while_versions_are_replaced(pair, releases, make_release):
    before = releases[0]
    with load(pair.url) as seen:
        for number in range(6):
            after = make_release(f"2026.11.23-{number:07}")
            for weight in (0, 10, 50, 100):
                shares = {before.version: 100 - weight, after.version: weight}
                bring(pair, Desired((before, after), shares, before.version))
            bring(pair, Desired((after,), {after.version: 100}, after.version))
            before = after
        bring(pair, Desired((*releases, before), {STABLE: 100}, STABLE))
        serve(pair, *releases)
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
    pair, give, config, supervisor, weights, victim, count
):
    give(weights)
    wait_whole(config, supervisor, *weights)
    with load(pair.url, more_than=300) as seen:
        for _ in range(2):
            time.sleep(0.3)
            kill(supervisor, victim, count)
            time.sleep(0.5)
            wait_whole(config, supervisor, *weights)
    print(f"{seen.failed} of {seen.sent} failed")
    assert seen.failed == 0
    assert seen.sent > 300
    until(lambda: pair.observe().servers[victim].state == "ready")


def test_a_version_with_a_fallback_survives_all_its_servers(pair, give, config, supervisor):
    give({CANARY: 100})
    wait_whole(config, supervisor, STABLE, CANARY)
    with load(pair.url) as seen:
        time.sleep(0.3)
        kill(supervisor, CANARY, 2)
        time.sleep(1.5)
    print(f"{seen.failed} of {seen.sent} failed")
    assert seen.failed == 0
    assert pair.observe().weights == {CANARY: 100}
    until(lambda: pair.observe().servers[CANARY].state == "ready")


@pytest.mark.slow
def test_the_way_back_from_a_version_that_only_fails_costs_no_request(
    pair, releases, make_release
):
    """Each request of it is about to be tried again somewhere else when the weights change."""
    bad = make_release("2026.11.22-5005005", fails_every=1)
    with load(pair.url, threads=8, more_than=1000) as seen:
        for _ in range(2):
            bring(pair, Desired((*releases, bad), {STABLE: 100}, STABLE))
            for _ in range(20):
                pair.apply(Desired((*releases, bad), {bad.version: 100}, STABLE))
                time.sleep(0.05)
                pair.apply(Desired((*releases, bad), {STABLE: 100}, STABLE))
            serve(pair, *releases)
    print(f"{seen.failed} of {seen.sent} failed")
    assert seen.failed == 0
    assert seen.of(bad.version) == 0
    assert seen.sent > 1000


def test_envoy_killed_is_back_with_the_last_weights(pair, give, supervisor):
    give({STABLE: 70, CANARY: 30})
    envoy = next(p for p in supervisor.processes() if p.program == "envoy-production")
    with load(pair.url) as seen:
        time.sleep(0.3)
        os.kill(envoy.pid, signal.SIGKILL)
        killed = time.monotonic()
        while seen.last_good < killed + 0.1:
            assert time.monotonic() - killed < 20
            time.sleep(0.01)
        gap = time.monotonic() - killed
        assert pair.observe().weights == {STABLE: 70, CANARY: 30}
    print(f"back after {gap:.2f} s; {seen.failed} of {seen.sent} failed")
    assert gap < 20


def test_a_lost_notice_of_a_changed_file_is_made_up_for(pair, give, config):
    give({STABLE: 100})
    routes = layout_of(config).xds("production") / "routes.json"
    before = routes.read_text()
    give({STABLE: 40, CANARY: 60})
    wanted = routes.read_text()
    give({STABLE: 100})
    assert routes.read_text() == before
    routes.write_text(wanted)  # in place, which Envoy does not notice
    time.sleep(0.3)
    assert pair.observe().weights == {STABLE: 100}
    give({STABLE: 40, CANARY: 60})


def test_what_envoy_refuses_is_an_error_and_leaves_the_split(
    pair, give, releases, config, monkeypatch
):
    give({STABLE: 100})
    routes = layout_of(config).xds("production") / "routes.json"
    before = json.loads(routes.read_text())
    monkeypatch.setattr("deployments.local.envoy.routes.REQUEST_TIMEOUT_S", "not a number of ")
    with pytest.raises(
        EndpointError, match=r"refuses the new routes(.|\n)*Unable to parse"
    ) as refused:
        pair.apply(Desired(releases, {STABLE: 40, CANARY: 60}, STABLE))
    assert "the split is as it was" in str(refused.value)
    assert pair.observe().weights == {STABLE: 100}
    assert json.loads(routes.read_text()) == before

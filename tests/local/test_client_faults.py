"""What a client does to itself is nobody's fault; what a version does to it is its own."""

import json
import os
import signal
import socket
import threading
import time
from contextlib import closing

import pytest

from deployments import Desired
from deployments.local import loopback
from deployments.local.layout import layout_of
from deployments.local.supervisor.programs import Supervisor
from policy.counts import between
from tests.local.fixtures import bring, serve, until

STABLE = "2026.11.22-aaaaaaa"
LIMIT_S = 1  # for an answer, in place of the time that clients are given
ASK = {"instances": [{"question": "what colour?"}]}


@pytest.fixture(scope="module")
def stable(make_release):
    return make_release(STABLE)


@pytest.fixture
def soon(monkeypatch):
    """Orders of this process give a version one second to answer."""
    monkeypatch.setattr("deployments.local.envoy.routes._ANSWER_TIMEOUT_S", LIMIT_S)


@pytest.fixture(scope="module")
def slow(make_release):
    """It answers, a little too late."""
    return make_release("2026.11.22-5105105", delay_s=LIMIT_S + 0.7)


@pytest.fixture
def counts(place):
    """Counts of what happens from now on, by version."""
    versions = [STABLE, "2026.11.22-5105105", "2026.11.22-bad0bad", "2026.11.22-b0b0b0b"]

    def now():
        return place.telemetry.read("production", versions).samples

    before = now()

    def since(version):
        new = between(before[version], now()[version]).counts
        return new.requests, new.errors

    return since


@pytest.fixture
def client(production):
    with loopback.client(int(production.url.rsplit(":", 1)[1])) as client:
        yield client


def attempts(endpoints) -> int:
    """Requests that Envoy has sent to all servers of production, health checks apart."""
    with loopback.client_at(layout_of(endpoints).admin_socket("production")) as admin:
        clusters = admin.get("/clusters?format=json").json()["cluster_statuses"]
    hosts = (host for cluster in clusters for host in cluster.get("host_statuses", []))
    stats = (stat for host in hosts for stat in host["stats"] if stat["name"] == "rq_total")
    return sum(int(stat.get("value", 0)) for stat in stats)


def leave(production, after_s, announced=0):
    """Ask, and go away without an answer; `announced` bytes of which not all may be sent."""
    body = json.dumps(ASK).encode()
    head = (
        f"POST /predict HTTP/1.1\r\nhost: localhost\r\ncontent-length: {announced or len(body)}"
    )
    port = int(production.url.rsplit(":", 1)[1])
    with closing(socket.create_connection(("127.0.0.1", port))) as connection:
        connection.sendall(f"{head}\r\n\r\n".encode() + body)
        time.sleep(after_s)


def test_a_request_that_timed_out_is_one_error_of_its_version_and_carried_no_further(
    soon, production, endpoints, stable, slow, client, counts
):
    """Neither to the other server of the version, nor to stable, which answers for it else."""
    bring(production, Desired((stable, slow), {slow.version: 100}, STABLE))
    before = attempts(endpoints)
    reply = client.post("/predict", json=ASK)
    assert (reply.status_code, bool(reply.json()["error"])) == (504, True)
    until(lambda: counts(slow.version) == (1, 1))
    time.sleep(0.5)
    assert attempts(endpoints) == before + 1
    assert counts(STABLE) == (0, 0)


def test_a_client_that_does_not_wait_counts_for_no_version(
    soon, production, stable, slow, client, counts
):
    """However long it waited, and wherever it stopped; others still show that it is slow."""
    bring(production, Desired((stable, slow), {slow.version: 100}, STABLE))
    leavers = [
        threading.Thread(target=leave, args=(production, after_s), kwargs=more)
        for after_s in (0.0, 0.1, 0.2, 0.4)
        for more in ({}, {"announced": 4000})
    ]
    for leaver in leavers:
        leaver.start()
    for leaver in leavers:
        leaver.join()
    assert client.post("/predict", json=ASK).status_code == 504
    until(lambda: counts(slow.version) != (0, 0))
    assert counts(slow.version) == (1, 1)
    assert counts(STABLE) == (0, 0)


def test_what_a_version_refuses_for_too_many_wait_is_no_evidence(
    production, place, stable, make_release, client, counts
):
    """How many wait is up to clients and to its share: neither an error nor a quick answer."""
    busy = make_release("2026.11.22-b0b0b0b", refuses_every=2)
    bring(production, Desired((stable, busy), {busy.version: 100}, STABLE))
    told = [client.post("/predict", json=ASK).status_code for _ in range(20)]
    assert set(told) == {200, 429}
    until(lambda: counts(busy.version) == (told.count(200), 0))
    until(lambda: timed(place, busy.version) == told.count(200))


def timed(place, version) -> int:
    return sum(place.telemetry.read("production", [version]).samples[version].counts.latency)


def test_a_second_attempt_that_times_out_is_charged_to_the_first_alone(
    soon, production, slow, make_release, client, counts
):
    bad = make_release("2026.11.22-bad0bad", fails_every=1)
    bring(production, Desired((bad, slow), {bad.version: 100}, slow.version))
    assert client.post("/predict", json=ASK).status_code == 504
    until(lambda: counts(bad.version) == (1, 1))
    assert counts(slow.version) == (0, 0)


def test_a_mirror_that_does_not_answer_in_time_is_charged_and_no_client_sees_it(
    soon, production, stable, slow, client, counts
):
    bring(production, Desired((stable, slow), {STABLE: 100}, STABLE, {slow.version: 100}))
    assert client.post("/predict", json=ASK).status_code == 200
    until(lambda: counts(slow.version) == (1, 1))
    assert counts(STABLE) == (1, 0)


def test_a_request_that_ends_its_server_leaves_one_of_four(
    production, endpoints, make_release, client
):
    pair = [make_release(f"2026.11.22-{n}1e1d1e", dies_on="poison") for n in range(2)]
    bring(production, Desired(tuple(pair), {pair[0].version: 100}, pair[1].version))
    supervisor = Supervisor(layout_of(endpoints))

    def servers():
        return {
            p.pid for p in supervisor.processes() if p.program.startswith("model-") and p.pid
        }

    before = servers()
    assert len(before) == 4
    reply = client.post("/predict", json={"instances": [{"question": "poison"}]})
    assert reply.status_code == 503
    until(lambda: len(servers()) == 4)
    assert before & servers()
    until(lambda: client.post("/predict", json=ASK).status_code == 200)
    serve(production, pair[0])


def test_one_dead_server_of_each_version_costs_no_request(
    production, endpoints, make_release, client
):
    """Nobody knows yet that they are dead: each request finds one that lives."""
    pair = [make_release(f"2026.11.22-{n}2e2d2e") for n in range(2)]
    bring(production, Desired(tuple(pair), {pair[0].version: 100}, pair[1].version))
    supervisor = Supervisor(layout_of(endpoints))
    for release in pair:
        program = next(p for p in supervisor.processes() if p.program.endswith(release.version))
        os.kill(program.pid, signal.SIGKILL)
    assert {client.post("/predict", json=ASK).status_code for _ in range(40)} == {200}
    until(lambda: all(s.state == "ready" for s in production.observe().servers.values()))
    serve(production, pair[0])

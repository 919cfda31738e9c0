"""The login of Prefect's server: who may see it, which programs know it, who is refused."""

import configparser
import os
import socket
import subprocess
import sys
import threading

import pytest

from deployments import Job
from deployments.local.job_program import Program as ModelProgram
from deployments.local.layout import layout_of
from deployments.local.servers import local_of
from deployments.local.stack import login, ports
from deployments.local.stack.life import programs
from deployments.local.stack.orchestrator import SERVER, WORKER, environment, server_problem
from deployments.local.stack.serving import RECONCILER
from deployments.local.supervisor.programs import Supervisor
from deployments.secrets import PREFECT_LOGIN, PREFECT_SERVER_LOGIN
from policy.errors import ConfigError, PortTaken
from tests.local.fixtures import configured

NOBODY = 65534
needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root acts as another user")


@pytest.fixture
def config(tmp_path):
    return configured(tmp_path)


def test_it_is_made_once_for_its_owners_eyes(config):
    made, path = login.make_login(config), layout_of(config).login
    assert login.make_login(config) == login.read_login(config) == made
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert len(made.partition(":")[2]) == 43  # 256 bits, 6 to a letter


def test_two_stacks_have_two_logins(tmp_path):
    stacks = [configured(tmp_path / name) for name in ("one", "two")]
    assert len({*map(login.make_login, stacks)}) == 2


def test_of_two_that_make_it_at_once_one_counts(config):
    found, start = [], threading.Barrier(8)

    def make():
        start.wait()
        found.append(login.make_login(config))

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [login.read_login(config)] * 8


def readable(path):
    path.chmod(0o640)


def link(path):
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def dangling_link(path):
    path.unlink()
    path.symlink_to("nowhere")


def pipe(path):
    path.unlink()
    os.mkfifo(path, 0o600)


def empty(path):
    path.write_text("")


def guessable(path):
    path.write_text("admin:pass\n")


@pytest.mark.parametrize("damage", [readable, link, dangling_link, pipe, empty, guessable])
def test_one_that_others_may_know_or_have_chosen_is_refused(config, damage):
    login.make_login(config)
    damage(layout_of(config).login)
    with pytest.raises(ConfigError, match=r"is not safe: .* to do: delete .*, then make up"):
        login.make_login(config)


@needs_root
def test_one_that_another_user_laid_there_is_refused(config):
    login.make_login(config)
    os.chown(layout_of(config).login, NOBODY, NOBODY)
    with pytest.raises(ConfigError, match="it belongs to user 65534"):
        login.make_login(config)


def test_before_the_first_up_commands_say_that_there_is_none(config):
    with pytest.raises(ConfigError, match=r"no login for Prefect's server yet.* make up"):
        login.read_login(config)


def test_a_shell_is_told_it_by_env(config):
    assert environment(config)[PREFECT_LOGIN] == login.read_login(config)


def test_only_prefects_own_programs_and_the_reconciler_are_told_it(config, tmp_path):
    started = programs(config, layout_of(config), tmp_path / "local.yaml")
    secret = login.read_login(config)
    told = [program.name for program in started if secret in program.environment.values()]
    assert sorted(told) == sorted([SERVER, WORKER, RECONCILER])
    assert not [program for program in started if secret in " ".join(program.command)]


def test_supervisord_does_not_hand_on_the_login_of_the_shell(config, monkeypatch):
    for name in (PREFECT_LOGIN, PREFECT_SERVER_LOGIN):
        monkeypatch.setenv(name, "someone:secret")
    supervisor = Supervisor(layout_of(config))
    try:
        supervisor.start()
        [daemon] = supervisor._daemons()
        assert not {PREFECT_LOGIN, PREFECT_SERVER_LOGIN} & {*daemon.environ()}
    finally:
        supervisor.shutdown()


def test_what_supervisord_is_told_lies_in_a_closed_folder(config, tmp_path):
    supervisor, layout = Supervisor(layout_of(config)), layout_of(config)
    started = programs(config, layout, tmp_path / "local.yaml")
    [server] = [program for program in started if program.name == SERVER]
    try:
        supervisor.start()
        supervisor.remove(SERVER)
        supervisor.apply(server)
        parser = configparser.RawConfigParser()
        parser.read(layout.programs / f"{SERVER}.conf")
        assert login.read_login(config) in parser[f"program:{SERVER}"]["environment"]
        assert layout.supervisor.stat().st_mode & 0o777 == 0o700
    finally:
        supervisor.shutdown()


def test_programs_of_the_model_are_not_told_it(tmp_path, monkeypatch):
    monkeypatch.setenv(PREFECT_LOGIN, "someone:secret")
    config = configured(tmp_path)
    job = Job(key="k", program="model.train", config={}, inputs={}, output=str(tmp_path))
    program = ModelProgram(job, {}, tmp_path, config.compute)
    assert PREFECT_LOGIN not in program._environment()


TABLE = """  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid
   0: {address}:1068 00000000:0000 {state} 00000000:00000000 00:00000000 00000000  1001   0 1
"""


@pytest.mark.parametrize(
    ("address", "state", "refused"),
    [
        ("0100007F", "0A", True),
        ("00000000", "0A", True),  # every address, this one too
        ("0100007F", "01", False),  # a connection
        ("0500A8C0", "0A", False),  # 192.168.0.5
    ],
)
def test_whoever_listens_on_our_address_is_found(
    tmp_path, monkeypatch, address, state, refused
):
    table = tmp_path / "tcp"
    table.write_text(TABLE.format(address=address, state=state))
    monkeypatch.setattr(ports, "TABLES", (table, tmp_path / "no such table"))
    assert ports.listeners(0x1068) == ({1001} if refused else set())


LISTEN = """
import os, socket, sys
os.setuid(int(sys.argv[2]))
with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as server:
    print("listening", flush=True)
    while True:
        with server.accept()[0] as client:
            print(client.recv(10000).decode(), flush=True)
            client.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 4\\r\\n\\r\\ntrue")
"""


@needs_root
def test_nothing_is_sent_to_another_user_who_took_the_port(config):
    """While the stack is down anybody may listen there and wait for our commands."""
    login.make_login(config)
    port = local_of(config).prefect_port
    stranger = subprocess.Popen(
        [sys.executable, "-I", "-c", LISTEN, str(port), str(NOBODY)],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert stranger.stdout.readline() == "listening\n"
        with login.client(config) as client, pytest.raises(PortTaken) as refused:
            client.get("/admin/version")
        assert "belongs to user 65534 of this machine" in str(refused.value)
        assert "nothing was sent to it" in str(refused.value)
        assert "belongs to user 65534" in server_problem(config)
    finally:
        stranger.kill()
        assert "Authorization" not in stranger.communicate()[0]


BY_PREFECT = {
    "a client": """
import asyncio
from prefect.client.orchestration import get_client
async def call():
    async with get_client() as client:
        await client.read_flow_runs()
asyncio.run(call())
""",
    "a client of a task": """
from prefect.client.orchestration import get_client
with get_client(sync_client=True) as client:
    client.read_flow_runs()
""",
    "a websocket": """
import asyncio
from prefect.events.clients import PrefectEventsClient
async def call():
    async with PrefectEventsClient(reconnection_attempts=0):
        pass
asyncio.run(call())
""",
}
"""What sends the login in a worker and in a flow run."""


def called_by_prefect(config, code, *, by_worker):
    """Run `code` as the wrapper's own, or as a process that it starts."""
    program = """
import os, runpy, subprocess, sys
from deployments.local.stack import lean
def here(*_, **__):
    if sys.argv[2] == "itself":
        exec(sys.argv[1], {"__name__": "__main__"})
    else:
        subprocess.run([sys.executable, "-c", sys.argv[1]], cwd="/")
runpy.run_module = here
lean.main()
"""
    who = "itself" if by_worker else "child"
    told = {**os.environ, **environment(config), "PREFECT_CLIENT_MAX_RETRIES": "0"}
    done = subprocess.run(
        [sys.executable, "-c", program, code, who],
        env=told, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    return done.stderr


@pytest.mark.parametrize("by_worker", [True, False], ids=["worker", "flow run"])
@pytest.mark.parametrize("way", BY_PREFECT)
@pytest.mark.parametrize(
    "user", [pytest.param(NOBODY, marks=needs_root), os.getuid()], ids=["stranger", "ours"]
)
def test_prefect_tells_the_login_to_no_other_user(config, way, by_worker, user):
    login.make_login(config)
    port = local_of(config).prefect_port
    server = subprocess.Popen(
        [sys.executable, "-I", "-c", LISTEN, str(port), str(user)],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert server.stdout.readline() == "listening\n"
        said = called_by_prefect(config, BY_PREFECT[way], by_worker=by_worker)
    finally:
        server.kill()
        heard = server.communicate()[0]
    assert bool(heard.strip()) == (user == os.getuid()), said
    if way != "a websocket":
        assert ("authorization: basic" in heard.lower()) == (user == os.getuid()), said


def test_a_server_that_is_down_is_told_with_what_to_do(config):
    login.make_login(config)
    assert "no answer at" in server_problem(config)
    assert "make up" in server_problem(config)


def test_a_port_of_ours_is_ours(config):
    with socket.create_server(("127.0.0.1", local_of(config).prefect_port)):
        login.require_ours_to_listen(config)

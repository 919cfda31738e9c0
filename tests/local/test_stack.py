"""The stack's life: what it refuses, what comes back, and that it leaves nothing behind."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
import pytest
import yaml

from deployments import Desired, Observed, Server, command, ledger, local
from deployments.local.envoy.program import program_of
from deployments.local.layout import Layout, layout_of
from deployments.local.servers import local_of, ports_of, program_name
from deployments.local.stack import life as stack
from deployments.local.stack import serving
from deployments.local.stack.orchestrator import SERVER as PREFECT
from deployments.local.stack.orchestrator import WORKER
from deployments.local.stack.ports import is_free
from deployments.local.stack.serving import wait_for_endpoints, wait_for_models
from deployments.local.supervisor.processes import descendants
from deployments.local.supervisor.programs import Supervisor
from deployments.store import open_store
from deployments.stores.disk import DiskStore
from policy.errors import Busy, ConfigError, EndpointError, PortTaken, StoreError
from policy.records import Registered
from policy.rollout.plans import at_once, plan_of
from policy.rollout.requests import Request
from tasks.reconciler import keep_driving
from tests.local.fixtures import SERVER, bring, configured, maker, start_endpoints, until
from tests.local.living import processes

VERSION, OTHER = "2026.11.22-aaaaaaa", "2026.11.22-bbbbbbb"


@pytest.fixture
def root():
    """A stack of its own for each test: they stop it."""
    folder = Path(tempfile.mkdtemp(prefix="arr"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def config(root):
    made = configured(root)
    yield made
    Supervisor(layout_of(made)).shutdown()


@pytest.fixture
def make_release(root):
    return maker(root)


def start(config):
    start_endpoints(config)
    return local.connect(config, server=SERVER).endpoint("production")


def up(config, **more):
    stack.up(config, lambda line: None, file=Path("a/file.yaml"), **more)


def down(config):
    stack.down(config, lambda line: None)


def stop_program(layout, name):
    command = ["-c", str(layout.supervisor / "supervisord.conf"), "stop", f"{name}:*"]
    subprocess.run([sys.executable, "-m", "supervisor.supervisorctl", *command], check=True)


@pytest.mark.parametrize(
    "setting",
    ["local.prefect_port", "local.metrics_port", "local.endpoints.production.port"],
)  # fmt: skip
def test_a_taken_port_is_named_with_its_setting(config, setting):
    port = local_of(config).ports[setting]
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        with pytest.raises(PortTaken) as taken:
            up(config)
    message = str(taken.value)
    assert f"port {port} ({setting}) is taken by process {os.getpid()}" in message
    assert "nothing was started" in message
    assert not Supervisor(layout_of(config)).running()


def test_a_store_in_which_the_ledger_would_not_be_safe_is_refused(config, monkeypatch):
    class Forgetful(DiskStore):
        def create(self, key, data):
            """As some servers do that speak S3: the condition is ignored."""

    monkeypatch.setattr(stack, "open_store", lambda _root, _scratch: Forgetful(config.root))
    with pytest.raises(StoreError, match="ignores create-if-absent"):
        up(config)
    assert not Supervisor(layout_of(config)).running()


def test_a_scratch_too_long_for_a_socket_is_named(config, root):
    long = config.model_copy(update={"scratch": str(root / ("long" * 20))})
    with pytest.raises(ConfigError, match=r"scratch \(=.*\) is too long"):
        layout_of(long)


def test_down_leaves_nothing_behind_and_up_brings_the_same_back(config, make_release):
    layout = layout_of(config)
    production = start(config)
    releases = (make_release(VERSION), make_release(OTHER))
    desired = Desired(releases, {VERSION: 80, OTHER: 20})
    bring(production, desired)
    daemon = int((layout.supervisor / "supervisord.pid").read_text())
    mine = [daemon, *(p.pid for p in descendants(Supervisor(layout).url))]
    assert len(mine) == 1 + 2 + 4  # supervisord, two Envoys, two servers of two versions

    down(config)
    assert [pid for pid in mine if psutil.pid_exists(pid)] == []
    assert [p for p in psutil.process_iter(["cmdline"]) if _mentions(p, layout.scratch)] == []
    assert all(is_free(port) for port in local_of(config).ports.values())
    assert not layout.socket.exists()

    again = start(config)
    assert again.observe().weights == desired.weights
    until(lambda: ready(again) == {VERSION, OTHER})
    for program in (program_of("production"), program_name("production", OTHER)):
        stop_program(layout, program)
    again = start(config)
    until(lambda: ready(again) == {VERSION, OTHER})
    down(config)
    down(config)  # twice is fine


def ready(endpoint):
    return {v for v, server in endpoint.observe().servers.items() if server.state == "ready"}


def test_what_serves_is_what_the_ledger_says_though_scratch_was_lost(config, make_release):
    made = make_release(VERSION)
    promoted(config, made)
    start_endpoints(config)
    with Reconciler(config):
        wait_for_models(config, lambda line: None)
    down(config)
    layout = layout_of(config)
    for lost in (layout.scratch / "serving", layout.scratch / "endpoints", layout.programs):
        shutil.rmtree(lost)
    production = start(config)
    assert production.observe().weights == {}
    with Reconciler(config):
        wait_for_models(config, lambda line: None)
    assert production.observe().weights == {VERSION: 100}
    assert ready(production) == {VERSION}


def promoted(config, release):
    """A ledger in which everybody waits for this release to be brought to production."""
    place = local.connect(config, server=SERVER)
    event = Registered(
        version=release.version, digest=release.digest, accuracy=1, families={}, reasons=(),
        lineage={},
    )  # fmt: skip
    ledger.append(place.store, lambda _state: event, by="a test")
    plan = at_once(plan_of(config.rollout)).model_copy(update={"smoke_requests": 0})
    asked = Request(
        id="first", kind="rollout", endpoint="production", by="a test", why="a test",
        version=release.version, plan=plan,
    )  # fmt: skip
    command.make(place, asked)


class Reconciler:
    """Somebody who drives production in this process."""

    def __init__(self, config):
        place, self.stop = local.connect(config, server=SERVER), threading.Event()
        arguments = (config, place, "production", self.stop)
        self.thread = threading.Thread(target=keep_driving, args=arguments, daemon=True)
        self.config = config

    def __enter__(self):
        self.thread.start()

    def __exit__(self, *_):
        until(self.ended, limit_s=60)
        self.stop.set()
        self.thread.join(20)
        assert not self.thread.is_alive()

    def ended(self):
        state = ledger.read(open_store(self.config.root))
        return state.endpoint("production").stable == VERSION


def test_a_changed_port_moves_the_endpoint(config, root):
    start(config)
    moved = configured(root)
    endpoint = start(moved)
    assert endpoint.ask(None, []).status in (200, 503)
    assert is_free(ports_of(config, "production").port)
    down(moved)


@pytest.mark.slow
def test_the_whole_stack_comes_up_twice_and_goes_down(config, root):
    file = root / "config.yaml"
    record = json.loads(config.model_dump_json())
    file.write_text(yaml.safe_dump(record, sort_keys=False))
    try:
        assert "Prefect worker is up" in cli("up", file, "--no-deploy")
        parts = json.loads(cli("status", file, "--json"))["parts"]
        assert {part["name"] for part in parts} >= {PREFECT, WORKER, stack.RECONCILER}
        started = time.monotonic()
        cli("up", file, "--no-deploy")
        assert time.monotonic() - started < 10
        port = local_of(config).prefect_port
        assert f"export PREFECT_API_URL=http://127.0.0.1:{port}/api" in cli("env", file)
        worker = next(part for part in parts if part["name"] == WORKER)
        os.kill(int(worker["state"].split("pid ")[1].split(",")[0]), signal.SIGKILL)
        deadline = time.monotonic() + 30
        while not json.loads(cli("status", file, "--json", check=False))["well"]:
            assert time.monotonic() < deadline
    finally:
        cli("down", file)
    assert cli("status", file, check=False).count("down") >= 1
    assert [p for p in psutil.process_iter(["cmdline"]) if _mentions(p, root)] == []


def cli(*arguments, check=True):
    command = [sys.executable, "-m", "deployments.local", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 or not check, done.stdout + done.stderr
    return done.stdout


def _mentions(process, root):
    own = process.pid in (os.getpid(), os.getppid())
    return not own and any(str(root) in part for part in process.info["cmdline"] or ())


def test_a_supervisord_whose_socket_was_deleted_is_ended_and_not_doubled(tmp_path_factory):
    """Scratch vanished under it: it would start again whatever is ended."""
    folder = Path(tempfile.mkdtemp(prefix="arr"))
    config = configured(folder)
    supervisor = Supervisor(layout_of(config))
    try:
        supervisor.start()
        shutil.rmtree(layout_of(config).scratch)
        assert len(supervisor._daemons()) == 1
        supervisor.start()
        assert len(supervisor._daemons()) == 1
        shutil.rmtree(layout_of(config).scratch)
    finally:
        supervisor.shutdown()
    assert not supervisor._daemons()
    shutil.rmtree(folder)


def test_a_program_that_is_removed_while_they_are_listed_is_no_error(tmp_path):
    """A flow and the reconciler read the folder while one of them undeploys."""
    supervisor = Supervisor(Layout(tmp_path, tmp_path))
    folder = tmp_path / "supervisor" / "conf.d"
    folder.mkdir(parents=True)
    (folder / "one.conf").write_text("[program:one]\ncommand=true\n")
    (folder / "gone.conf").symlink_to(tmp_path / "nowhere")
    assert [*supervisor.written()] == ["one"]


def test_an_envoy_that_refuses_its_configuration_is_told_in_seconds(config):
    start(config)
    layout = layout_of(config)
    (layout.endpoint("production") / "bootstrap.json").write_text("{nonsense")
    for envoy in processes(config, "envoy", "production"):
        os.kill(envoy, signal.SIGKILL)
    until(lambda: Supervisor(layout).given_up(program_of("production")), 30)
    started, log = time.monotonic(), layout.logs / f"{program_of('production')}.log"
    with pytest.raises(EndpointError, match="as soon as it was started") as told:
        wait_for_endpoints(config, lambda line: None)
    assert time.monotonic() - started < 5
    assert f"read {log}, mend that" in str(told.value)
    assert log.read_text()
    start(config)  # as `up` does: it writes the configuration anew and starts what gave up


@pytest.mark.slow
def test_a_release_that_cannot_be_served_again_is_told_with_the_reason(
    config, make_release, monkeypatch
):
    monkeypatch.setattr(serving, "_FAILS_S", 1)
    promoted(config, release := make_release(VERSION))
    start_endpoints(config)
    with Reconciler(config):
        wait_for_models(config, lambda line: None)
    down(config)
    layout = layout_of(config)
    for lost in (layout.scratch / "serving", layout.scratch / "endpoints", layout.programs):
        shutil.rmtree(lost)
    (Path(config.root) / "releases" / release.digest / "behaviour.json").write_text("{}")
    start(config).apply(Desired((release,), {VERSION: 100}))  # as the reconciler does
    with pytest.raises(EndpointError, match="behaviour.json") as told:
        wait_for_models(config, lambda line: None)
    assert f"production with {VERSION} at 100 %" in str(told.value)


def test_a_folder_that_cannot_be_written_is_told_without_a_traceback(config, root):
    (root / "scratch").write_text("somebody's file")
    with pytest.raises(EndpointError, match="could not be started: .*see who owns"):
        up(config)
    (root / "scratch").unlink()


class UnderWay:
    """An endpoint in the middle of a rollout."""

    def observe(self):
        ready = {version: Server("ready", "d") for version in (VERSION, OTHER)}
        return Observed(servers=ready, weights={VERSION: 90, OTHER: 10})


def test_up_does_not_wait_for_a_split_that_a_rollout_has_left_since():
    waited = serving.Serving(UnderWay(), {VERSION: 100}, lambda: None)
    assert [waited.healthy(), waited.healthy()] == [False, True]
    still = serving.Serving(UnderWay(), {VERSION: 100}, lambda: {VERSION: 100})
    assert [still.healthy(), still.healthy()] == [False, False]


class BusyFor(UnderWay):
    """An endpoint at which somebody else has a few calls to make first."""

    def __init__(self, calls):
        self.calls = calls

    def refresh(self):
        self.calls -= 1
        if self.calls >= 0:
            raise Busy("the endpoint has been busy for 10 s")


def test_up_waits_while_the_reconciler_has_the_endpoint(monkeypatch):
    assert serving.refreshed(BusyFor(2)) == {VERSION: 90, OTHER: 10}
    monkeypatch.setattr(serving, "_BUSY_S", 0)
    with pytest.raises(Busy):
        serving.refreshed(BusyFor(9))

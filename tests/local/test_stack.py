"""The stack's life: what it refuses, what comes back, and that it leaves nothing behind."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest
import yaml

from deployments import local
from deployments.local.envoy.configuration import TOKENS
from deployments.local.layout import layout_of
from deployments.local.stack import life as stack
from deployments.local.stack.orchestrator import SERVER as PREFECT
from deployments.local.stack.orchestrator import WORKER
from deployments.local.stack.ports import is_free
from deployments.local.supervisor.programs import Supervisor, descendants
from policy.errors import ConfigError, EndpointError, PortTaken
from tests.local.fixtures import SERVER, configured, maker, wait_ready

VERSION, OTHER = "2026.11.22-aaaaaaa", "2026.11.22-bbbbbbb"


@pytest.fixture
def root():
    """A stack of its own for each test: they stop it."""
    folder = Path(tempfile.mkdtemp(prefix="arr"))
    yield folder
    Supervisor(layout_of(str(folder))).shutdown()
    shutil.rmtree(folder)


@pytest.fixture
def config(root):
    return configured(root)


@pytest.fixture
def make_release(root):
    return maker(root)


def start(config):
    stack.start_programs(config, stack.endpoint_programs(config, layout_of(config.root)))
    stack.wait_for_endpoints(config, lambda line: None)
    return local.connect(config, server=SERVER).endpoint("production")


def stop_program(layout, name):
    command = ["-c", str(layout.supervisor / "supervisord.conf"), "stop", f"{name}:*"]
    subprocess.run([sys.executable, "-m", "supervisor.supervisorctl", *command], check=True)


def ports_of(config):
    single = {name: port for name, port in config.local if name.endswith("_port")}
    return {**single, "model_ports": config.local.model_ports[0]}


@pytest.mark.parametrize("setting", ["prefect_port", "staging_port", "production_admin_port"])
def test_a_taken_port_is_named_with_its_setting(config, setting):
    port = getattr(config.local, setting)
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        with pytest.raises(PortTaken) as taken:
            stack.up(config, lambda line: None)
    message = str(taken.value)
    assert f"port {port} (local.{setting}) is taken by process {os.getpid()}" in message
    assert "nothing was started" in message
    assert not Supervisor(layout_of(config.root)).running()


def test_a_root_too_long_for_a_socket_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"root \(=.*\) is too long"):
        layout_of(str(tmp_path / ("long" * 20)))


def test_down_leaves_nothing_behind_and_up_brings_the_same_back(config, make_release):
    layout = layout_of(config.root)
    production = start(config)
    for version in (VERSION, OTHER):
        production.deploy(make_release(version))
    wait_ready(production, VERSION, OTHER)
    production.set_weights({VERSION: 80, OTHER: 20})
    daemon = int((layout.supervisor / "supervisord.pid").read_text())
    mine = [daemon, *(p.pid for p in descendants(Supervisor(layout).url))]
    assert len(mine) == 1 + 2 + 4  # supervisord, two Envoys, two servers of two versions

    stack.down(config, lambda line: None)
    assert [pid for pid in mine if psutil.pid_exists(pid)] == []
    assert [p for p in psutil.process_iter(["cmdline"]) if _mentions(p, layout.root)] == []
    assert all(is_free(port) for port in ports_of(config).values())
    assert not layout.socket.exists()

    again = start(config)
    assert again.weights() == {VERSION: 80, OTHER: 20}
    wait_ready(again, VERSION, OTHER)
    for program in ("envoy-production", f"model-production-{OTHER}"):
        stop_program(layout, program)
    again = start(config)
    wait_ready(again, VERSION, OTHER)
    stack.down(config, lambda line: None)
    stack.down(config, lambda line: None)  # twice is fine


def test_what_a_killed_supervisord_left_is_ended_before_the_next_start(config, make_release):
    layout = layout_of(config.root)
    production = start(config)
    production.deploy(make_release(VERSION))
    wait_ready(production, VERSION)
    production.set_weights({VERSION: 100})
    orphans = [p.pid for p in descendants(Supervisor(layout).url)]
    os.kill(int((layout.supervisor / "supervisord.pid").read_text()), signal.SIGKILL)
    time.sleep(0.2)
    assert not Supervisor(layout).running()

    again = start(config)
    assert [pid for pid in orphans if psutil.pid_exists(pid)] == []
    wait_ready(again, VERSION)
    assert again.weights() == {VERSION: 100}
    stack.down(config, lambda line: None)


def test_a_changed_port_moves_the_endpoint(config, root):
    start(config)
    moved = configured(root)
    endpoint = start(moved)
    assert endpoint.send(None, []).status in (200, 503)
    assert is_free(config.local.production_port)
    stack.down(moved, lambda line: None)


def test_other_tokens_than_at_the_start_are_an_error(config, monkeypatch):
    start(config)
    monkeypatch.setenv(TOKENS, "new")
    with pytest.raises(EndpointError, match="differs from when the stack was started"):
        stack.up(config, lambda line: None, deployments=False)


@pytest.mark.slow
def test_the_whole_stack_comes_up_twice_and_goes_down(config, root):
    file = root / "config.yaml"
    file.write_text(yaml.safe_dump(json.loads(config.model_dump_json())))
    try:
        assert "Prefect worker is up" in cli("up", file, "--no-deploy")
        status = json.loads(cli("status", file, "--json"))
        assert status["well"]
        assert {p["program"] for p in status["programs"]} >= {PREFECT, WORKER}
        started = time.monotonic()
        cli("up", file, "--no-deploy")
        assert time.monotonic() - started < 10
        assert f"export PREFECT_API_URL=http://127.0.0.1:{config.local.prefect_port}/api" in (
            cli("env", file)
        )
        worker = next(p for p in status["programs"] if p["program"] == WORKER)
        os.kill(worker["pid"], signal.SIGKILL)
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

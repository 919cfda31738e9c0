"""Servers that live and answer nobody: they are told, and `up` puts others in their place."""

import os
import signal

import pytest

from deployments import local
from deployments.local import model_servers
from deployments.local.envoy.program import endpoint_programs, program_of
from deployments.local.layout import layout_of
from deployments.local.servers import program_name
from deployments.local.stack import serving
from deployments.local.stack.health import health
from deployments.local.stack.life import start_programs
from deployments.local.stack.serving import wait_for_endpoints
from deployments.local.supervisor.programs import Supervisor
from tests.local.fixtures import SERVER, configured, maker, serve, start_endpoints, until

ONE = "2026.11.26-aaaaaaa"


@pytest.fixture
def config(tmp_path, monkeypatch):
    made = configured(tmp_path)
    try:
        start_endpoints(made)
        endpoint = local.connect(made, server=SERVER).endpoint("production")
        serve(endpoint, maker(tmp_path)(ONE))
        monkeypatch.setattr(model_servers, "_LOADS_S", 1)
        monkeypatch.setattr(model_servers, "_HANGS_S", 2.0)
        monkeypatch.setattr(serving, "_LISTENS_S", 1)
        monkeypatch.setattr(serving, "_HANGS_S", 2.0)
        supervisor = Supervisor(layout_of(made))
        until(lambda: min(p.uptime_s for p in supervisor.processes()) > 1)
        yield made
    finally:
        Supervisor(layout_of(made)).shutdown()


def stop(config, program):
    """Its processes live on and do nothing."""
    found = [p.pid for p in Supervisor(layout_of(config)).processes() if p.program == program]
    for pid in found:
        os.kill(pid, signal.SIGSTOP)
    return found


def answering(config):
    endpoint = local.connect(config, server=SERVER).endpoint("production")
    return endpoint.ask(None, [{"question": "q"}]).version


def up(config):
    said = []
    start_programs(config, endpoint_programs(config, layout_of(config)))
    wait_for_endpoints(config, said.append)
    return said


@pytest.mark.slow
def test_model_servers_that_hang_are_told_and_replaced(config):
    """One of two would never show: Envoy sends it nothing."""
    one, two = stop(config, program_name("production", ONE))
    told = {p.name: p for p in health(config).parts if p.problem}[
        "endpoint production: servers"
    ]
    assert told.endangers == "clients"
    assert f"(pid {one})" in told.problem
    assert f"(pid {two})" in told.problem
    assert any("hangs" in line for line in up(config))
    until(lambda: answering(config) == ONE, 60)
    assert not [p for p in health(config).parts if "hung" in p.state]


@pytest.mark.slow
def test_an_envoy_that_hangs_is_replaced(config):
    [pid] = stop(config, program_of("production"))
    assert any(f"its Envoy (pid {pid}) hangs" in line for line in up(config))
    until(lambda: answering(config) == ONE, 60)

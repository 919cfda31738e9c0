"""A reconciler that lives and does nothing: it is told, and `up` puts another in its place."""

import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import pytest

from deployments import Observed
from deployments.local import endpoints_of, loopback
from deployments.local.layout import layout_of
from deployments.local.servers import local_of
from deployments.local.stack import health, serving
from deployments.local.stack.serving import RECONCILER, wait_for_reconciler
from deployments.local.supervisor.programs import Supervisor
from deployments.local.supervisor.sections import Program
from tests.local.fixtures import configured, until

ANSWERS = """
import sys, time
from prometheus_client import CollectorRegistry
from deployments.metrics.server import MetricsServer
time.sleep(float(sys.argv[2]))
MetricsServer(int(sys.argv[1]), CollectorRegistry()).thread.join()
"""


@pytest.fixture
def config():
    folder = Path(tempfile.mkdtemp(prefix="arr"))
    made = configured(folder)
    yield made
    Supervisor(layout_of(made)).shutdown()
    shutil.rmtree(folder)


def started(config, starts_s=0.0):
    """A program that answers scrapes as the reconciler does, `starts_s` after its start."""
    supervisor, port = Supervisor(layout_of(config)), local_of(config).metrics_port
    supervisor.start()
    file = layout_of(config).scratch / "answers.py"
    file.write_text(ANSWERS)
    command = [sys.executable, str(file), str(port), str(starts_s)]
    supervisor.apply(Program(RECONCILER, command, {"PYTHONPATH": str(Path.cwd())}, Path.cwd()))
    until(lambda: bool(running(supervisor)))
    return supervisor


def running(supervisor):
    return [p for p in supervisor.processes() if p.state == "RUNNING"]


@pytest.fixture
def stopped(config, monkeypatch):
    """One that was stopped after it had answered, longer ago than its start takes."""
    supervisor = started(config)
    until(lambda: loopback.answers(local_of(config).metrics_port, "/metrics"))
    monkeypatch.setattr(serving, "_STARTS_S", 0.5)
    monkeypatch.setattr(serving, "_HANGS_S", 1.0)
    monkeypatch.setattr(health, "_STARTS_S", 0.5)
    [process] = running(supervisor)
    until(lambda: running(supervisor)[0].uptime_s > 0.5)
    os.kill(process.pid, signal.SIGSTOP)
    return supervisor


def test_up_kills_a_stopped_reconciler_and_another_answers(config, stopped):
    said: list[str] = []
    [before] = running(stopped)
    wait_for_reconciler(config, said.append)
    [after] = stopped.processes()
    assert after.pid != before.pid
    assert loopback.answers(local_of(config).metrics_port, "/metrics")
    assert f"reconciler (pid {before.pid}) hangs: it is killed and starts anew" in said


def test_one_that_still_starts_is_waited_for(config, monkeypatch):
    monkeypatch.setattr(serving, "_HANGS_S", 0.0)
    supervisor, said = started(config, starts_s=4), []
    [before] = running(supervisor)
    wait_for_reconciler(config, said.append)
    assert [process.pid for process in running(supervisor)] == [before.pid]
    assert not [line for line in said if "hangs" in line]


@pytest.mark.slow
def test_a_reconciler_that_hangs_is_a_problem_with_its_pid(config, stopped):
    [process] = running(stopped)
    [told] = [part for part in health.health(config).parts if part.name == RECONCILER]
    assert told.problem == f"hung, pid {process.pid}; to do: make up"
    assert told.endangers == "rollbacks"
    os.kill(process.pid, signal.SIGCONT)
    [told] = [part for part in health.health(config).parts if part.name == RECONCILER]
    assert told.problem == ""


@pytest.mark.slow
def test_it_endangers_clients_while_a_canary_has_a_share(config, stopped):
    [process] = running(stopped)
    for weights, harmed in (({"v1": 90, "v2": 10}, "clients"), ({"v1": 100}, "rollbacks")):
        looks = [(endpoints_of(config)["production"], Observed({}, weights))]
        assert health._hanging(process, looks).endangers == harmed

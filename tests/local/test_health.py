"""What counts as not well, of a stack that is stopped and of one that deploys."""

import shutil
import tempfile
from pathlib import Path

import pytest

from deployments import local
from deployments.local.servers import program_name
from deployments.local.stack import life
from deployments.local.stack.health import health, program_part
from deployments.local.supervisor.programs import Process
from flows.terminal import status
from flows.terminal.problem import Commands
from tests.local.fixtures import SERVER, configured

NEW = program_name("production", "v2")


@pytest.fixture
def stopped():
    """A configuration whose stack does not run."""
    folder = Path(tempfile.mkdtemp(prefix="arr"))
    yield configured(folder)
    shutil.rmtree(folder, ignore_errors=True)


def part(state, uptime_s=5.0, idle=(NEW,)):
    process = Process(NEW, "0", state, 7, uptime_s, 0, Path("a.log"))
    return program_part(process, idle)


def test_a_new_version_s_server_may_start_for_a_minute():
    assert part("STARTING").problem == ""
    assert part("STARTING", uptime_s=61).problem.startswith("starting: see a.log")
    assert part("BACKOFF").problem != ""


@pytest.mark.parametrize("state", ["STARTING", "BACKOFF", "FATAL", "EXITED"])
def test_a_server_endangers_clients_only_if_its_version_gets_requests(state):
    assert part(state).endangers == "nobody yet"
    served = part(state, idle=())
    assert served.endangers == "clients"
    assert served.problem


def test_a_stopped_stack_is_one_problem(stopped):
    ill = [part for part in health(stopped).parts if part.problem]
    assert [(part.name, part.problem) for part in ill] == [
        ("supervisord", "the stack is stopped; to do: make up")
    ]
    found = status.collect(stopped, local.connect(stopped, server=SERVER), Commands())
    assert not found["healthy"]
    assert [(one["what"], one["do"]) for one in found["problems"]] == [
        ("the stack is stopped", "make up")
    ]


def test_clean_says_once_what_is_gone(stopped):
    (Path(stopped.root) / "ledger").mkdir()
    said = []
    life.stop(stopped, said.append)
    life.clean(stopped, said.append)
    assert not Path(stopped.root).exists()
    assert said[:-1] == ["stopping …"]
    assert "the ledger, the releases and the signing key" in said[-1]
    assert "stays" not in str(said)

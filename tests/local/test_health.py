"""What counts as not well, of a stack that is stopped and of one that deploys."""

import shutil
import tempfile
from pathlib import Path

import pytest

from deployments import local
from deployments.local.layout import OF_SCRATCH, is_of_scratch, layout_of
from deployments.local.servers import program_name
from deployments.local.stack import life
from deployments.local.stack.health import health, program_part
from deployments.local.supervisor.programs import Process
from flows.terminal import status
from flows.terminal.problem import Commands
from policy.errors import ConfigError
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


def cleaned(config):
    said = []
    life.stop(config, said.append)
    life.clean(config, said.append)
    assert said[0] == "stopping …"
    return said[1:]


def test_clean_says_once_what_is_gone(stopped):
    for name in ("ledger", "releases", "keys"):
        (Path(stopped.root) / name).mkdir()
    (said,) = cleaned(stopped)
    assert not Path(stopped.root).exists()
    assert "the ledger, the releases and the signing key in it are gone" in said
    assert "stays" not in said


def test_clean_does_not_claim_what_was_not_there(stopped):
    assert cleaned(stopped) == [f"stopped, and deleted {stopped.root}"]
    bucket = stopped.model_copy(update={"root": "s3://somewhere/place"})
    there = "; what lies in s3://somewhere/place stays"
    assert cleaned(bucket) == ["stopped; there was nothing to delete" + there]


def test_of_scratch_clean_deletes_what_this_project_makes_there(stopped):
    scratch, root = Path(stopped.scratch), Path(stopped.root)
    (root / "ledger").mkdir()
    for name in OF_SCRATCH:
        (scratch / name / "inner").mkdir(parents=True)
    (scratch / ".ledger-head.0a1b2c3d.part").touch()
    (scratch / "photos").mkdir()
    (scratch / "photos/one.jpg").touch()
    told, left = cleaned(stopped)
    assert told.startswith(f"stopped, and deleted {root} and {scratch}: the ledger in it")
    assert left.startswith(f"left in {scratch}, ")
    assert left.endswith(": photos")
    assert [path.name for path in root.rglob("*")] == ["scratch", "photos", "one.jpg"]


def test_of_a_link_in_scratch_clean_deletes_the_link_alone(stopped, tmp_path):
    (tmp_path / "kept").touch()
    Path(stopped.scratch).mkdir()
    (Path(stopped.scratch) / "logs").symlink_to(tmp_path)
    cleaned(stopped)
    assert not Path(stopped.scratch).exists()
    assert (tmp_path / "kept").exists()


def test_clean_leaves_a_root_without_a_ledger(stopped):
    (Path(stopped.root) / "a letter").touch()
    with pytest.raises(ConfigError, match=r"no ledger lies.*nothing was deleted"):
        cleaned(stopped)
    assert (Path(stopped.root) / "a letter").exists()


def test_every_name_that_the_layout_gives_is_one_that_clean_knows(stopped):
    layout = layout_of(stopped)
    given = [getattr(layout, name) for name in ("logs", "supervisor", "sockets", "worker")]
    given += [layout.endpoint("one"), layout.serving("one"), layout.login.parent]
    for path in given:
        below = layout.scratch if path.is_relative_to(layout.scratch) else layout.home
        assert is_of_scratch(path.relative_to(below).parts[0])

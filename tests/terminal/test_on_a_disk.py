"""status and repair-ledger at the place `local`, with nothing running and things gone wrong."""

import json
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from deployments import ledger
from deployments.releases.signing import new_key
from deployments.store import open_store
from flows import __main__ as terminal
from policy.ledger import key
from policy.records import Registered, RetrainingStarted, RolloutChanged
from policy.rollout.record import Phase, start
from tests.policy.configurations import changed
from tests.policy.worlds import make_plan


class Laptop:
    """A root with three records and a key; no program runs."""

    def __init__(self, folder):
        self.root, self.scratch = folder / "root", folder / "scratch"
        self.file = folder / "local.yaml"
        self.file.write_text(changed(root=str(self.root), scratch=str(self.scratch)))
        self.root.mkdir(mode=0o700)
        self.scratch.mkdir(mode=0o700)
        (self.root / "keys").mkdir(mode=0o700)
        (self.root / "keys/release.pem").touch(mode=0o600)
        (self.root / "keys/release.pem").write_bytes(new_key().pem)
        self.store = open_store(str(self.root))
        for n in range(3):
            event = RetrainingStarted(key=f"k{n}", cause="hand", why="a test")
            ledger.append(self.store, lambda _state, e=event: e, by="a test")

    def ask(self, *words):
        return terminal.main([*words, str(self.file)])


@pytest.fixture
def laptop(tmp_path):
    umask = os.umask(0o077)
    yield Laptop(tmp_path)
    os.umask(umask)


@pytest.fixture
def problems(laptop, capsys):
    """What status says of a part: what is wrong, and the command."""

    def found(part):
        capsys.readouterr()
        assert laptop.ask("status", "--json") == 1
        told = json.loads(capsys.readouterr().out)["problems"]
        return [(problem["what"], problem["do"]) for problem in told if problem["part"] == part]

    return found


def test_with_nothing_running_status_ends_with_1_and_says_make_up(laptop, problems):
    up = f"make up CONFIG={laptop.file}"
    assert problems("supervisord") == [("the stack is stopped", up)]
    assert problems("endpoint production") == problems("Prefect") == []


@pytest.mark.parametrize("which", ["root", "scratch"])
def test_a_folder_that_others_may_look_into_is_told(laptop, problems, which):
    folder = getattr(laptop, which)
    assert problems(f"folder of {which}") == []
    folder.chmod(0o755)
    told = "others on this machine may look into it (mode 755)"
    assert problems(f"folder of {which}") == [(told, f"chmod 700 {folder}")]


def test_a_disk_that_is_nearly_full_is_told(laptop, problems, monkeypatch):
    few = type("Usage", (), {"free": 100 * 2**20})
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: few)
    assert problems("disk of root") == [("only 100 MB free", f"make room in {laptop.root}")]


def test_a_store_that_cannot_be_opened_is_one_clear_error(laptop, capsys):
    shutil.rmtree(laptop.root)
    laptop.root.write_text("a file")
    assert laptop.ask("status") == 1
    assert "error: the store at " in capsys.readouterr().err


def test_a_scratch_that_is_no_folder_is_one_clear_error(laptop, capsys):
    shutil.rmtree(laptop.scratch)
    laptop.scratch.write_text("a file")
    assert laptop.ask("status") == 1
    assert "error: " in capsys.readouterr().err


def test_a_torn_last_record_is_told_set_aside_and_gone(laptop, problems, capsys):
    path = laptop.root / key(3)
    path.write_bytes(path.read_bytes()[:70])
    ((what, do),) = problems("ledger")
    assert "00000003.json, was cut short after 70 bytes" in what
    assert do == f".venv/bin/python -m flows repair-ledger {laptop.file}"
    assert laptop.ask("repair-ledger") == 0
    said = capsys.readouterr().out
    assert "ledger/00000003.json was cut short after 70 bytes" in said
    assert f"it lies at {laptop.root}/ledger-torn/00000003-" in said
    assert problems("ledger") == []
    assert laptop.ask("repair-ledger") == 0
    assert "nothing to repair: 2 records" in capsys.readouterr().out


def test_a_record_that_was_changed_is_not_for_repair(laptop, capsys):
    path = laptop.root / key(2)
    path.write_bytes(path.read_bytes().replace(b"k1", b"k9"))
    assert laptop.ask("repair-ledger") == 1
    assert "restore the record from a copy of the store" in capsys.readouterr().err
    assert not [*laptop.root.glob("ledger-torn/*.json")]


@pytest.mark.parametrize("make", [Path.touch, os.mkfifo, lambda path: path.symlink_to("/dev")])
def test_what_is_no_folder_in_the_place_of_a_release_hides_nothing_else(
    laptop, problems, capsys, make
):
    digest, now = "d" * 64, datetime.now(UTC)
    registered = Registered(
        version="v1", digest=digest, accuracy=0.9, families={}, reasons=(), lineage={}
    )
    walks = [
        start(version, "production", version, stable, make_plan(), "a test", now)
        for version, stable in (("v1", None), ("v2", "v1"))
    ]
    other = registered.model_copy(update={"version": "v2", "digest": "e" * 64})
    done = [walk.model_copy(update={"phase": Phase.DONE}) for walk in walks]
    changes = [RolloutChanged(rollout=walk) for walk in done]
    for event in (registered, other, *changes):
        ledger.append(laptop.store, lambda _state, e=event: e, by="a test")
    (path := laptop.root / "releases" / digest).parent.mkdir()
    make(path)
    ((what, _),) = problems("endpoint production: v1")
    assert what.startswith("a rollback to it would fail: release")
    assert f"{path} is not a folder" in what
    assert problems("supervisord"), "all else is told too"
    capsys.readouterr()
    assert laptop.ask("show", "v1") == 0
    said = capsys.readouterr().out
    assert f"{path} is not a folder" in said
    assert "accuracy    90 %" in said

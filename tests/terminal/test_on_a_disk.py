"""status and repair-ledger at the place `local`, with nothing running and things gone wrong."""

import json
import os
import shutil

import pytest

from deployments import ledger
from deployments.releases.signing import new_key
from deployments.store import open_store
from flows import __main__ as terminal
from policy.ledger import key
from policy.records import RetrainingStarted
from tests.policy.configurations import changed


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

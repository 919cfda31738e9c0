"""A record that was cut short is set aside; what else is wrong with a ledger is left alone."""

import os
import shlex
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments import ledger
from deployments.ledger_repair import in_the_way, repair, strangers
from deployments.stores.disk import DiskStore
from policy.errors import LedgerError, Unsupported
from policy.ledger import key
from policy.records import RetrainingStarted, cut_short
from tests.places.memory import MemoryCloud

ODD_NAMES = (".DS_Store", "notes.txt", "00000002.json.bak", "00000001 2.json", "8", "x/y")


def append(store, number, first=0):
    for n in range(first, first + number):
        event = RetrainingStarted(key=f"k{n}", cause="hand", why="a test")
        ledger.append(store, lambda _state, e=event: e, by="a test")
    return ledger.read(store)


@pytest.fixture
def store(tmp_path):
    """Three records."""
    store = DiskStore(str(tmp_path))
    append(store, 3)
    return store


def record(store, number):
    return Path(store.root) / key(number)


def cut(store, number, to):
    path = record(store, number)
    path.write_bytes(path.read_bytes()[:to])


def everything(store):
    """All files of the ledger by name, with their bytes."""
    files = sorted(Path(store.root).rglob("*.json"))
    return {path.name: path.read_bytes() for path in files}


@pytest.mark.parametrize("to", [0, 1, 40, -2, -3])
def test_a_last_record_that_was_cut_short_is_set_aside_and_the_ledger_goes_on(store, to):
    whole = record(store, 3).read_bytes()
    cut(store, 3, to)
    with pytest.raises(LedgerError, match=r"00000003.json, was cut short.*flows repair-ledger"):
        ledger.read(store)
    torn = record(store, 3).read_bytes()
    found = repair(store)
    assert (found.name, found.size) == (key(3), len(torn))
    assert (Path(store.root) / found.to).read_bytes() == torn == whole[: len(torn)]
    assert ledger.read(store).number == 2
    assert append(store, 2, first=7).number == 4
    assert repair(store) is None


def test_zeros_that_a_disk_left_in_a_record_s_place_are_a_record_cut_short(store):
    length = record(store, 3).stat().st_size
    cut(store, 3, 100)
    with record(store, 3).open("ab") as file:
        file.truncate(length)
    assert repair(store).size == length
    assert ledger.read(store).number == 2


def test_whoever_had_read_more_is_told_too(store):
    known = ledger.read(store)
    record(store, 4).write_bytes(record(store, 3).read_bytes()[:50])
    with pytest.raises(LedgerError, match="00000004.json, was cut short"):
        ledger.read(store, known)
    for way in (lambda: list(ledger.records(store)), lambda: ledger.audit(store)):
        with pytest.raises(LedgerError, match="00000004.json, was cut short"):
            way()


def changed(store):
    path = record(store, 3)
    path.write_bytes(path.read_bytes().replace(b'"k2"', b'"kk"'))
    append_forged = path.read_bytes().replace(b'"number": 3', b'"number": 4')
    record(store, 4).write_bytes(append_forged)


def cut_in_the_middle(store):
    cut(store, 2, 50)


def garbage(store):
    record(store, 3).write_bytes(b"hello")


def gone(store):
    record(store, 1).unlink()


def both(store):
    cut(store, 3, 50)
    path = record(store, 1)
    path.write_bytes(path.read_bytes().replace(b'"k0"', b'"kk"'))


def linked(store):
    record(store, 3).unlink()
    record(store, 3).symlink_to(record(store, 2))


@pytest.mark.parametrize(
    "harm", [changed, cut_in_the_middle, garbage, gone, both, linked], ids=lambda f: f.__name__
)
def test_anything_but_a_cut_tail_is_refused_and_nothing_is_touched(store, harm):
    harm(store)
    before = everything(store)
    with pytest.raises(LedgerError):
        repair(store)
    assert everything(store) == before


def test_a_record_that_a_snapshot_was_made_of_was_whole_and_is_not_set_aside(
    store, monkeypatch
):
    monkeypatch.setattr(ledger, "SNAPSHOT_EVERY", 4)
    append(store, 1, first=3)
    record(store, 5).unlink()
    cut(store, 4, 50)
    with pytest.raises(LedgerError, match="records 4 to 4 of the ledger are gone"):
        repair(store)
    assert record(store, 4).stat().st_size == 50


def test_two_repairs_at_once_set_one_record_aside(store):
    cut(store, 3, 50)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: repair(store), range(4)))
    assert sum(one is not None for one in found) == 1
    assert ledger.read(store).number == 2


def test_in_a_bucket_there_is_nothing_to_repair(tmp_path):
    store = MemoryCloud().place(tmp_path).store
    append(store, 1)
    with pytest.raises(Unsupported, match="in a bucket no record is ever cut short"):
        repair(store)


@given(st.integers(0, 2000), st.integers(0, 40))
def test_every_beginning_of_a_record_is_one_that_was_cut_short(to, zeros):
    event = RetrainingStarted(key="k", cause="hand", why='odd "}\n{" words\n}')
    data = ledger.next_record(
        ledger.Ledger(), event, at=ledger.now(), by="a test", run=""
    ).encode()
    end = min(to, len(data))
    whole = end >= len(data) - 1
    assert cut_short(data[:end] + b"\0" * zeros) is not whole


class TestOddNames:
    def test_they_are_ignored_and_told(self, store):
        state = ledger.read(store)
        folder = record(store, 1).parent
        for name in ODD_NAMES:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text("")
        (folder / "9").symlink_to("/dev/zero")
        assert ledger.read(store) == ledger.audit(store) == state
        assert strangers(store) == sorted(f"ledger/{name}" for name in (*ODD_NAMES, "9"))
        assert in_the_way(store, 3) == ""

    @pytest.mark.parametrize(
        "make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/dev/zero")]
    )
    def test_what_is_no_record_in_the_place_of_one_is_one_clear_error(self, store, make):
        make(record(store, 4))
        assert in_the_way(store, 3) == key(4)
        with pytest.raises(
            LedgerError, match=r"00000004\.json (is gone, or|exists and cannot)"
        ):
            append(store, 1)

    @pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
    def test_so_is_one_in_the_middle(self, store, make):
        record(store, 2).unlink()
        make(record(store, 2))
        with pytest.raises(LedgerError, match="the ledger's chain is broken"):
            ledger.read(store)


class TestGone:
    """Snapshots outlive the records that they were made of only where somebody took these."""

    @pytest.fixture
    def long(self, tmp_path, monkeypatch):
        monkeypatch.setattr(ledger, "SNAPSHOT_EVERY", 4)
        store = DiskStore(str(tmp_path))
        append(store, 10)
        return store

    @pytest.mark.parametrize("left", [0, 1, 3, 6])
    def test_an_older_or_empty_ledger_is_neither_believed_nor_written_to(self, long, left):
        for number in range(left + 1, 20):
            record(long, number).unlink(missing_ok=True)
        for way in (ledger.read, ledger.audit, lambda store: append(store, 1)):
            with pytest.raises(LedgerError, match=rf"records {left + 1} to \d+ .* are gone"):
                way(long)
        assert not record(long, left + 1).exists()

    def test_what_the_error_says_mends_it(self, long):
        state = ledger.read(long)
        shutil.copytree(Path(long.root) / "ledger", Path(long.root) / "copy")
        shutil.rmtree(Path(long.root) / "ledger")
        with pytest.raises(LedgerError) as raised:
            ledger.read(long)
        shutil.copytree(Path(long.root) / "copy", Path(long.root) / "ledger")
        assert ledger.read(long) == state

        shutil.rmtree(Path(long.root) / "ledger")
        command = str(raised.value).rpartition("what you want: ")[2]
        subprocess.run(shlex.split(command), check=True)
        assert append(long, 1).number == 1

    def test_whoever_reads_while_another_writes_is_never_told_so(self, long):
        with ThreadPoolExecutor(2) as pool:
            writing = pool.submit(append, long, 30, 10)
            while not writing.done():
                ledger.read(DiskStore(long.root))
        assert ledger.audit(long).number >= 40

"""The ledger in a store: snapshots save reading and never decide; what was read must stay."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import pytest

from deployments import ledger
from deployments.stores.disk import DiskStore
from policy.errors import LedgerError, StoreError
from policy.ledger import STATE_VERSION, Ledger, extend, fold, key, next_record
from policy.records import RetrainingStarted, Snapshotted, Told
from policy.rollout.record import Phase
from tests.places.memory import MemoryCloud
from tests.places.stores import opened
from tests.policy.test_ledger import NOW, chain, registered, requested, rollout

EVERY = 10  # instead of 200, so that a test has several
OLD = Path(__file__).parents[1] / "policy/records/2026-11-25"
SHAPE = {1: "2f0004692780f82f5792270c21219cf837b57c93b2e006a3a2721c8e66f4c768"}
"""SHA-256 of one state's snapshot, by STATE_VERSION."""


@pytest.fixture(autouse=True)
def snapshots_often(monkeypatch):
    monkeypatch.setattr(ledger, "SNAPSHOT_EVERY", EVERY)


@pytest.fixture
def cloud():
    return MemoryCloud()


@pytest.fixture
def store(cloud, tmp_path):
    return cloud.place(tmp_path).store


def append(store, *events):
    """The state after these events, each written by one `append`."""
    known = ledger.read(store)
    for event in events:
        known = ledger.append(
            store, lambda _state, e=event: e, by="a test", known=known, now=lambda: NOW
        )
    return known


def starts(number, first=0):
    return [RetrainingStarted(key=f"k{n}", cause="hand", why="") for n in range(first, number)]


def records_read(cloud, store):
    """How many records a reader from nothing asks for."""
    reads = []
    cloud.hook = lambda call, when: (
        reads.append(call) if (call, when) == ("read", "after") else ()
    )
    ledger.read(store)
    return len(reads)


def snapshots(store):
    return list(store.list("ledger-snapshots"))


class TestAppend:
    def test_what_could_not_be_read_again_is_never_written(self, store):
        state = append(store, registered("v1"))
        for event, told in [
            (registered("v1"), "registers v1 a second time"),
            (registered("v2", accuracy=float("inf")), "event.registered.accuracy"),
            (registered("v2", accuracy=float("nan")), "event.registered.accuracy"),
            (registered("v2", accuracy=60.0), "event.registered.accuracy"),
        ]:
            with pytest.raises(
                LedgerError, match=f"could not be read again.*{told}.*nothing wa"
            ):
                append(store, event)
        assert ledger.read(store) == state

    def test_a_request_is_made_once(self, store):
        append(store, requested("one"))
        with pytest.raises(LedgerError, match="makes the request one a second time"):
            append(store, requested("one"))
        assert ledger.read(store).number == 1

    def test_writers_that_race_each_write_their_own(self, tmp_path):
        with opened("disk", tmp_path) as at, ThreadPoolExecutor(8) as pool:
            events = starts(40)
            list(pool.map(lambda event: append(at.again(), event), events))
            state = ledger.audit(at.store)
        assert set(state.retrainings) == {event.key for event in events}

    def test_one_that_loses_the_race_decides_again_on_what_it_finds(self, store):
        """The other one writes between its reading and its writing."""
        decided_on, other = [], iter(starts(1))

        def decide(state):
            decided_on.append(state.number)
            if event := next(other, None):
                append(store, event)
            return registered("v1")

        state = ledger.append(store, decide, by="a test")
        assert decided_on == [0, 1]
        assert (state.number, state.version("v1").number) == (2, 2)

    def test_a_lost_answer_is_an_error_and_what_is_written_is_written(self, cloud, store):
        cloud.lie("create", "after")
        with pytest.raises(StoreError):
            append(store, registered("v1"))
        assert ledger.read(store).version("v1").number == 1

    def test_nothing_is_written_where_nothing_is_decided(self, store):
        assert ledger.append(store, lambda _state: None, by="a test") == Ledger()


class TestReading:
    def test_only_what_came_since_is_read(self, cloud, store):
        known = append(store, *starts(5))
        append(store, *starts(7, first=5))
        reads = []
        cloud.hook = lambda call, when: reads.append(call) if when == "before" else None
        state = ledger.read(store, known)
        assert state == fold((k, cloud.objects[k]) for k in sorted(cloud.objects))
        assert reads == ["read"] * 3, "two that are new, and one that is not there yet"

    @pytest.mark.parametrize("change", ["gone", "another"])
    def test_records_that_were_read_must_stay(self, cloud, store, change):
        known = append(store, *starts(3))
        if change == "gone":
            del cloud.objects[key(3)]
        else:
            cloud.objects[key(3)] = chain(*starts(5, first=2))[-1][1]
        with pytest.raises(LedgerError, match="record 3 of the ledger is gone or was changed"):
            ledger.read(store, known)

    def test_a_gap_is_found(self, cloud, store):
        append(store, *starts(5))
        del cloud.objects[key(3)]
        with pytest.raises(LedgerError, match="00000004.json found where .*00000003.json"):
            ledger.read(store)

    def test_a_stranger_in_the_folder_changes_nothing(self, cloud, store):
        state = append(store, *starts(2))
        cloud.objects["ledger/notes.txt"] = b"hello"
        assert ledger.read(store) == state

    def test_records_come_in_order_from_any_to_any(self, store):
        append(store, *starts(9))
        assert [r.number for r in ledger.records(store)] == [*range(1, 10)]
        assert [r.number for r in ledger.records(store, 3, 5)] == [3, 4, 5]

    def test_all_that_was_recorded_of_a_version_is_found_by_its_number(self, cloud, store):
        state = append(store, *starts(3), registered("v1", reasons=("best so far",)))
        assert ledger.registered(store, state, "v1").reasons == ("best so far",)
        cloud.objects[key(4)] = cloud.objects[key(4)].replace(b"best", b"BEST")
        with pytest.raises(LedgerError, match="is not what it was when v1 was registered"):
            ledger.registered(store, state, "v1")


class TestSnapshots:
    def test_they_come_every_so_many_records_and_save_reading_the_old_ones(self, cloud, store):
        written = append(store, *starts(95))
        numbers = [int(name.split("/")[1][:8]) for name in snapshots(store)]
        assert numbers == [*range(10, 101, 10)]
        assert records_read(cloud, store) < 2 * EVERY
        assert ledger.read(store) == ledger.audit(store) == written

    def test_one_is_not_believed_without_a_record_that_names_it(self, cloud, store):
        append(store, *starts(30))
        state = ledger.read(store)
        false = state.model_copy(update={"retrainings": {}})
        data = b"%d\n" % STATE_VERSION + false.model_dump_json().encode()
        sha = hashlib.sha256(data).hexdigest()
        cloud.objects[f"ledger-snapshots/{state.number:08d}-{sha[:12]}.json"] = data
        assert ledger.read(store) == ledger.audit(store) == state

    @pytest.mark.parametrize(
        "lie", ["bytes", "cut", "other records", "another number", "shape"]
    )
    def test_one_that_lies_is_not_believed(self, cloud, store, lie):
        state, names = append(store, *starts(30)), snapshots(store)
        other = MemoryCloud()
        append(other.place(Path("/")).store, *starts(60, first=30))
        for name in names:
            data = cloud.objects.pop(name)
            number = int(name.split("/")[1][:8])
            strange = next(n for n in other.objects if f"snapshots/{number:08d}" in n)
            new_name, new = {
                "bytes": (name, data.replace(b"k3", b"k4")),
                "cut": (name, data[:-20]),
                "other records": (strange, other.objects[strange]),
                "another number": (name.replace(f"{number:08d}", f"{number + 1:08d}"), data),
                "shape": (name, b"999\n" + data.partition(b"\n")[2]),
            }[lie]
            assert (new_name, new) != (name, data)
            cloud.objects[new_name] = new
        assert ledger.read(store) == state

    def test_the_older_one_serves_where_the_newest_lies(self, cloud, store):
        state = append(store, *starts(60))
        newest = snapshots(store)[-1]
        cloud.objects[newest] = b"damaged"
        assert ledger.read(store) == state
        assert records_read(cloud, store) < 4 * EVERY

    @pytest.mark.parametrize("late", [False, True])
    def test_the_audit_finds_a_record_that_vouches_for_a_false_one(self, cloud, store, late):
        """Whoever can write records can write that one; only the records themselves tell."""
        state = append(store, *starts(5))
        false = state.model_copy(update={"versions": {}, "retrainings": {}})
        data = b"%d\n" % STATE_VERSION + false.model_dump_json().encode()
        sha = hashlib.sha256(data).hexdigest()
        store.create(f"ledger-snapshots/{state.number:08d}-{sha[:12]}.json", data)
        if late:
            append(store, *starts(25, first=5))
        append(store, Snapshotted(version=STATE_VERSION, number=5, sha256=sha))
        with pytest.raises(LedgerError, match="vouches for a snapshot that the records do not"):
            ledger.audit(store)

    def test_a_writer_killed_at_any_point_leaves_a_ledger_that_goes_on(
        self, cloud, store, tmp_path
    ):
        """Between the snapshot and its record, too: the next writer makes it anew."""
        append(store, *starts(9))
        for spare in range(100):
            dying, calls = cloud.copy(), count()

            def die(_call, _when, calls=calls, spare=spare):
                if next(calls) == spare:
                    raise KeyboardInterrupt

            dying.hook = die
            try:
                append(dying.place(tmp_path).store, *starts(10, first=9))
                break
            except KeyboardInterrupt:
                dying.hook = lambda _call, _when: None
            again = dying.place(tmp_path).store
            state = append(again, *starts(30, first=10))
            assert ledger.read(again) == ledger.audit(again) == state
            assert len(snapshots(again)) >= 2
        else:
            raise AssertionError("it never came to its end")
        assert spare > 8

    def test_a_snapshot_that_cannot_be_written_costs_no_record(self, cloud, store):
        append(store, *starts(9))
        creates = count()

        def no_room(call, when):
            if (call, when) == ("create", "before") and next(creates) > 0:
                raise StoreError("no room")

        cloud.hook = no_room
        state = append(store, *starts(10, first=9))
        cloud.hook = lambda _call, _when: None
        assert (state.number, snapshots(store)) == (10, [])
        assert append(store, *starts(11, first=10)).snapshot == 11

    def test_the_shape_of_the_state_has_a_version(self, cloud, store):
        """Fails if the shape of `Ledger` changed: raise STATE_VERSION, and pin it here."""
        records = sorted(OLD.iterdir())
        state = fold((f"ledger/{path.name}", path.read_bytes()) for path in records)
        for event in (
            requested("waits"),
            requested("joined", rollout="production-1"),
            rollout("v1", Phase.DONE, endpoint="staging"),
            Told(what="staging-v1:done", channel="slack"),
            Snapshotted(version=1, number=64, sha256="s" * 64),
        ):
            record = next_record(state, event, at=NOW, by="a test", run="")
            state = extend(state, key(record.number), record.encode())
        shown = hashlib.sha256(state.model_dump_json().encode()).hexdigest()
        assert {STATE_VERSION: shown} == SHAPE


def test_what_else_lies_among_the_records_is_no_record(tmp_path):
    store = DiskStore(str(tmp_path))
    state = append(store, *starts(3))
    for name in ("notes.txt", "00000002.json.bak", "00000001 2.json", "Thumbs.db"):
        (tmp_path / "ledger" / name).write_text("hello")
    assert ledger.read(store) == ledger.audit(store) == state


def test_a_folder_in_the_next_record_s_place_is_told_and_not_waited_for(tmp_path):
    store = DiskStore(str(tmp_path))
    append(store, *starts(3))
    (tmp_path / "ledger" / "00000004.json").mkdir()
    with pytest.raises(LedgerError, match=r"00000004\.json exists and cannot be read"):
        append(store, *starts(10, first=9))


def test_a_link_among_the_snapshots_costs_the_snapshot_and_not_the_ledger(tmp_path):
    store = DiskStore(str(tmp_path))
    state = append(store, *starts(3))
    (tmp_path / "ledger-snapshots").mkdir()
    (tmp_path / "ledger-snapshots" / "00000003-aaaaaaaaaaaa.json").symlink_to("/dev/null")
    assert ledger.read(store) == state

"""The store creates objects once; releases are verified to the last byte; one writer wins."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from deployments import Release, ledger
from deployments.releases import folder as releases
from deployments.releases.signing import new_key
from deployments.store import open_store
from policy.errors import AlreadyExists, LedgerError, NotFound, ReleaseError, StoreError
from policy.ledger import RetrainingStarted

KEY = new_key()
TRUSTED = {KEY.public.fingerprint: KEY.public}


@pytest.fixture
def store(tmp_path):
    return open_store(str(tmp_path / "store"))


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "release"
    (folder / "sub").mkdir(parents=True)
    (folder / "weights.safetensors").write_bytes(bytes(range(256)))
    (folder / "sub/architecture.json").write_text("{}")
    return folder


def test_an_object_is_created_once(store):
    store.create("a/1", b"x")
    with pytest.raises(AlreadyExists):
        store.create("a/1", b"y")
    assert store.read("a/1") == b"x"


def test_a_missing_object_is_named(store):
    with pytest.raises(NotFound, match="no a/2"):
        store.read("a/2")


def test_keys_are_listed_in_order_and_by_folder(store):
    for name in ("a/2", "a/10", "ab/1", "a/1"):
        store.create(name, b"")
    assert list(store.list("a")) == ["a/1", "a/10", "a/2"]


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="does not open"):
        open_store(str(tmp_path / "file"))


def test_of_many_writers_each_number_has_one_winner(store):
    """Every event is written exactly once, however many write at the same time."""

    def write(name):
        event = RetrainingStarted(key=name, cause="hand", why="a race")
        ledger.append(store, lambda _state: event, by=name)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, [f"w{n}" for n in range(40)]))
    state = ledger.read(store)
    assert state.number == 40
    assert len(state.retrainings) == 40


def test_a_decision_that_raises_writes_nothing(store):
    def decide(state):
        raise LedgerError("no")

    with pytest.raises(LedgerError):
        ledger.append(store, decide, by="a test")
    assert ledger.read(store).number == 0


def test_a_broken_chain_stops_the_next_writer(store, tmp_path):
    event = RetrainingStarted(key="k", cause="hand", why="a test")
    for _ in range(3):
        ledger.append(store, lambda _state: event, by="a test")
    path = tmp_path / "store/ledger/00000002.json"
    path.write_bytes(path.read_bytes().replace(b"a test", b"A test"))
    with pytest.raises(LedgerError, match="00000003.json follows"):
        ledger.append(store, lambda _state: event, by="a test")
    assert len(store.list("ledger")) == 3


class TestReleases:
    def test_a_release_comes_back_as_it_was(self, store, folder, tmp_path):
        digest = releases.seal(folder, KEY)
        releases.publish(store, folder, digest, TRUSTED)
        releases.publish(store, folder, digest, TRUSTED)  # a crash between may repeat it
        copy = releases.fetch(store, Release("v1", digest), tmp_path / "copies", TRUSTED)
        assert (copy / "weights.safetensors").read_bytes() == bytes(range(256))
        assert releases.seal(copy, KEY) == digest

    def test_the_manifest_is_one_of_sha256sum(self, folder):
        releases.seal(folder, KEY)
        lines = (folder / "MANIFEST").read_text().splitlines()
        assert [line.split("  ")[1] for line in lines] == [
            "sub/architecture.json",
            "weights.safetensors",
        ]

    @pytest.mark.parametrize(
        "name", ["weights.safetensors", "sub/architecture.json", "MANIFEST"]
    )
    def test_one_changed_byte_in_the_store_is_refused(self, store, folder, tmp_path, name):
        digest = releases.seal(folder, KEY)
        releases.publish(store, folder, digest, TRUSTED)
        path = tmp_path / "store/releases" / digest / name
        path.write_bytes(_flip(path.read_bytes()))
        with pytest.raises(ReleaseError, match=name.split("/")[-1]):
            releases.fetch(store, Release("v1", digest), tmp_path / "copies", TRUSTED)

    def test_a_damaged_copy_is_fetched_anew(self, store, folder, tmp_path):
        digest = releases.seal(folder, KEY)
        releases.publish(store, folder, digest, TRUSTED)
        copy = releases.fetch(store, Release("v1", digest), tmp_path / "copies", TRUSTED)
        (copy / "weights.safetensors").write_bytes(b"")
        again = releases.fetch(store, Release("v1", digest), tmp_path / "copies", TRUSTED)
        assert (again / "weights.safetensors").read_bytes() == bytes(range(256))

    @pytest.mark.parametrize(
        ("spoil", "found"),
        [
            (lambda f: (f / "weights.safetensors").unlink(), "weights.safetensors is missing"),
            (lambda f: (f / "extra").write_text(""), "extra is not listed"),
            (lambda f: (f / "MANIFEST").unlink(), "MANIFEST is missing"),
            (lambda f: (f / "weights.safetensors").write_bytes(b""), "not the listed one"),
            (lambda f: (f / "SIGNATURE").unlink(), "it has no SIGNATURE"),
        ],
    )
    def test_a_spoiled_folder_is_not_published(self, store, folder, spoil, found):
        digest = releases.seal(folder, KEY)
        spoil(folder)
        with pytest.raises(ReleaseError, match=found):
            releases.publish(store, folder, digest, TRUSTED)
        assert not store.list("releases")

    def test_a_manifest_cannot_write_outside_its_folder(self, store, folder, tmp_path):
        (folder / "MANIFEST").write_text("0" * 64 + "  ../../escape\n")
        digest = hashlib.sha256((folder / "MANIFEST").read_bytes()).hexdigest()
        store.create(f"releases/{digest}/MANIFEST", (folder / "MANIFEST").read_bytes())
        with pytest.raises(ReleaseError, match="escape"):
            releases.fetch(store, Release("v1", digest), tmp_path / "copies", TRUSTED)
        assert not Path(tmp_path / "escape").exists()


def _flip(data):
    return bytes([data[0] ^ 1]) + data[1:]


def test_records_that_were_read_before_and_are_gone_stop_the_reader(store, tmp_path):
    event = RetrainingStarted(key="k", cause="hand", why="a test")
    for _ in range(3):
        known = ledger.append(store, lambda _state: event, by="a test")
    assert ledger.read(store, known) == known
    (tmp_path / "store/ledger/00000003.json").unlink()
    with pytest.raises(LedgerError, match=r"has 2 records; expected at least the 3"):
        ledger.read(store, known)

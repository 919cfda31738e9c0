"""The store creates objects once; releases are verified to the last byte; one writer wins."""

import hashlib
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from deployments import Release, ledger
from deployments.releases import folder as releases
from deployments.releases.signing import new_key
from deployments.store import open_store
from policy.errors import AlreadyExists, LedgerError, NotFound, ReleaseError, StoreError
from policy.ledger import RetrainingStarted
from tests.places.stores import opened

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


def test_a_store_on_disk_gives_its_root_as_an_absolute_address(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert open_store("store").root == str(tmp_path / "store")


class TestOnDisk:
    """A folder on this disk is its own upload and its own download."""

    def test_a_folder_that_lies_there_is_not_copied(self, store, tmp_path):
        lies_there, uri = tmp_path / "store/runs/1", f"{store.root}/runs/1"
        lies_there.mkdir(parents=True)
        (lies_there / "weights").write_text("w")
        made = (lies_there / "weights").stat().st_ino
        with pytest.raises(NotFound):
            store.download(uri)
        store.upload(lies_there, uri)
        assert store.download(uri) == lies_there
        assert (lies_there / "weights").stat().st_ino == made
        assert list(store.list("runs/1")) == ["runs/1/weights"], "the done file lies beside"

    def test_one_that_lost_a_file_is_not_whole(self, store, folder, tmp_path):
        uri = f"{store.root}/runs/1"
        store.upload(folder, uri)
        (tmp_path / "store/runs/1/one more").write_text("is nobody's business")
        assert store.download(uri)
        (tmp_path / "store/runs/1/sub/architecture.json").unlink()
        with pytest.raises(NotFound, match="run the step that makes it"):
            store.download(uri)

    def test_what_is_about_to_change_is_not_whole(self, store, folder):
        uri = f"{store.root}/runs/1"
        store.upload(folder, uri)
        store.withdraw(uri)
        with pytest.raises(NotFound):
            store.download(uri)

    def test_an_upload_replaces_a_link_and_does_not_write_through_it(
        self, store, folder, tmp_path
    ):
        outside = tmp_path / "outside"
        outside.mkdir()
        (tmp_path / "store/x").symlink_to(outside)
        store.upload(folder, f"{store.root}/x")
        assert not list(outside.iterdir())
        assert (tmp_path / "store/x/weights.safetensors").read_bytes() == bytes(range(256))

    @pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
    def test_what_is_no_plain_file_is_not_read(self, store, tmp_path, make):
        make(tmp_path / "store/odd")
        with pytest.raises((NotFound, StoreError), match="odd"):
            store.read("odd")

    def test_an_object_is_not_read_through_a_link(self, store, tmp_path):
        (tmp_path / "secret").write_text("secret")
        (tmp_path / "store/key").symlink_to(tmp_path / "secret")
        with pytest.raises(NotFound, match="key"):
            store.read("key")
        with pytest.raises(AlreadyExists):
            store.create("key", b"x")
        assert (tmp_path / "secret").read_text() == "secret"

    def test_what_a_killed_writer_left_is_no_object(self, store, tmp_path):
        store.create("ledger/1", b"x")
        (tmp_path / "store/ledger/.2.0123abcd.part").write_text("half")
        assert list(store.list("ledger")) == ["ledger/1"]


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


LISTED = "weights.safetensors"


def linked(copy, outside):
    """The listed file is a link to what somebody else owns."""
    (copy / LISTED).unlink()
    (copy / LISTED).symlink_to(outside / "precious")


def linked_folder(copy, outside):
    shutil.rmtree(copy / "sub")
    (copy / "sub").symlink_to(outside)


def linked_whole(copy, outside):
    shutil.rmtree(copy)
    copy.symlink_to(outside)


def a_folder_for_a_file(copy, outside):
    (copy / LISTED).unlink()
    (copy / LISTED).mkdir()


def a_file_for_a_folder(copy, outside):
    shutil.rmtree(copy / "sub")
    (copy / "sub").write_text("")


def a_pipe_for_a_file(copy, outside):
    (copy / LISTED).unlink()
    os.mkfifo(copy / LISTED)


def a_file_for_the_whole(copy, outside):
    shutil.rmtree(copy)
    copy.write_text("")


SPOILED = {
    "a file too many": lambda copy, _: (copy / ".DS_Store").write_text("of a file manager"),
    "a link too many": lambda copy, outside: (copy / "link").symlink_to(outside / "precious"),
    "a pipe too many": lambda copy, _: os.mkfifo(copy / "pipe"),
    "a linked file": linked,
    "a linked manifest": lambda copy, outside: (
        (copy / "MANIFEST").unlink(),
        (copy / "MANIFEST").symlink_to(outside / "precious"),
    ),
    "a linked folder": linked_folder,
    "a linked release": linked_whole,
    "a folder for a file": a_folder_for_a_file,
    "a file for a folder": a_file_for_a_folder,
    "a pipe for a file": a_pipe_for_a_file,
    "a file for the release": a_file_for_the_whole,
    "no manifest": lambda copy, _: (copy / "MANIFEST").unlink(),
}


class TestWorkingCopies:
    """A copy that is wrong in any way is replaced whole, and nothing outside is touched."""

    @pytest.fixture
    def release(self, store, folder):
        digest = releases.seal(folder, KEY)
        releases.publish(store, folder, digest, TRUSTED)
        return Release("v1", digest)

    @pytest.fixture
    def outside(self, tmp_path):
        outside = tmp_path / "outside"
        outside.mkdir()
        (outside / "precious").write_text("not ours")
        return outside

    def fetched(self, store, release, tmp_path):
        return releases.fetch(store, release, tmp_path / "copies", TRUSTED)

    @pytest.mark.parametrize("how", SPOILED)
    def test_a_wrong_one_is_made_anew(self, store, release, outside, tmp_path, how):
        copy = self.fetched(store, release, tmp_path)
        SPOILED[how](copy, outside)
        again = self.fetched(store, release, tmp_path)
        assert again == copy
        assert releases.verify(again, release.digest, TRUSTED)
        assert not again.is_symlink()
        assert {path.name: path.read_text() for path in outside.iterdir()} == {
            "precious": "not ours"
        }
        assert [path.name for path in (tmp_path / "copies").iterdir() if path.is_dir()] == [
            release.digest
        ]

    @pytest.mark.parametrize("how", SPOILED)
    def test_a_wrong_one_is_never_taken_for_a_good_one(
        self, store, release, outside, tmp_path, how
    ):
        copy = self.fetched(store, release, tmp_path)
        SPOILED[how](copy, outside)
        with pytest.raises(ReleaseError):
            releases.verify(copy, release.digest, TRUSTED)

    def test_a_good_one_is_left_alone(self, store, release, tmp_path):
        copy = self.fetched(store, release, tmp_path)
        made = (copy / LISTED).stat().st_ino
        assert (self.fetched(store, release, tmp_path) / LISTED).stat().st_ino == made

    def test_who_has_a_file_of_the_old_one_open_keeps_it(self, store, release, tmp_path):
        copy = self.fetched(store, release, tmp_path)
        with (copy / LISTED).open("rb") as served:
            (copy / ".DS_Store").write_text("")
            self.fetched(store, release, tmp_path)
            assert served.read() == bytes(range(256))

    def test_several_at_once_do_not_disturb_each_other(self, store, release, tmp_path):
        copy = self.fetched(store, release, tmp_path)
        for _ in range(5):
            (copy / ".DS_Store").write_text("")
            with ThreadPoolExecutor(6) as pool:
                found = list(
                    pool.map(lambda _: self.fetched(store, release, tmp_path), range(6))
                )
            assert set(found) == {copy}
            assert releases.verify(copy, release.digest, TRUSTED)

    def test_what_a_killed_process_left_half_done_does_no_harm(self, store, release, tmp_path):
        half = tmp_path / "copies" / f".{release.digest}.part/new"
        half.mkdir(parents=True)
        (half / "MANIFEST").write_text("half")
        copy = self.fetched(store, release, tmp_path)
        assert releases.verify(copy, release.digest, TRUSTED)
        assert not half.parent.exists()

    def test_one_that_is_wrong_in_the_store_does_not_touch_the_copy(
        self, store, release, tmp_path
    ):
        copy = self.fetched(store, release, tmp_path)
        (copy / ".DS_Store").write_text("")
        path = tmp_path / "store/releases" / release.digest / LISTED
        path.write_bytes(_flip(path.read_bytes()))
        with pytest.raises(ReleaseError, match=LISTED):
            self.fetched(store, release, tmp_path)
        assert (copy / LISTED).read_bytes() == bytes(range(256)), "who serves from it goes on"

    def test_one_that_cannot_be_written_blames_no_version(self, store, release, tmp_path):
        (tmp_path / "copies").write_text("a file where the folder should be")
        with pytest.raises(StoreError, match="could not be written"):
            self.fetched(store, release, tmp_path)

    def test_one_in_a_bucket_can_be_the_input_of_a_job(self, folder, tmp_path):
        with opened("s3", tmp_path) as at:
            digest = releases.seal(folder, KEY)
            releases.publish(at.store, folder, digest, TRUSTED)
            copy = at.store.download(at.uri(f"releases/{digest}"))
            assert releases.verify(copy, digest, TRUSTED)
            fetched = releases.fetch(at.store, Release("v1", digest), tmp_path / "c", TRUSTED)
            assert releases.verify(fetched, digest, TRUSTED)


def _flip(data):
    return bytes([data[0] ^ 1]) + data[1:]

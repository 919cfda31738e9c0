"""What every store holds: objects are created once, folders come back as they went."""

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from deployments.store import require_create_if_absent
from policy.errors import AlreadyExists, NotFound, StoreError
from tests.contract.memory import OpenedMemory
from tests.places.stores import STORES, opened


@pytest.fixture(params=[*STORES, "memory"])
def at(request, tmp_path):
    if request.param == "memory":
        yield OpenedMemory(tmp_path)
        return
    with opened(request.param, tmp_path) as opened_store:
        yield opened_store


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "made"
    (folder / "sub/deep").mkdir(parents=True)
    (folder / "weights").write_bytes(os.urandom(12 << 20))  # in parts, where there are parts
    (folder / "sub/deep/a b ü.json").write_text("{}")
    (folder / "empty").write_bytes(b"")
    (folder / ".hidden").write_text("too")
    return folder


def files_of(folder):
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


class TestObjects:
    def test_one_is_created_once(self, at):
        at.store.create("a/1", b"x")
        with pytest.raises(AlreadyExists):
            at.again().create("a/1", b"y")
        assert at.store.read("a/1") == b"x"

    def test_of_many_creators_one_wins(self, at):
        def create(text):
            try:
                at.store.create("a/1", text)
            except AlreadyExists:
                return None
            return text

        with ThreadPoolExecutor(8) as pool:
            won = [text for text in pool.map(create, [b"%d" % n for n in range(16)]) if text]
        assert won == [at.store.read("a/1")]

    def test_a_missing_one_is_named(self, at):
        with pytest.raises(NotFound, match="no a/2"):
            at.store.read("a/2")

    def test_a_folder_is_none(self, at):
        at.store.create("a/1", b"x")
        with pytest.raises(NotFound, match="no a in"):
            at.store.read("a")

    def test_they_are_listed_in_order_and_by_folder(self, at):
        for name in ("a/2", "a/10", "ab/1", "a/1"):
            at.store.create(name, b"")
        assert list(at.store.list("a")) == ["a/1", "a/10", "a/2"]

    def test_only_those_after_a_key_are_listed(self, at):
        for name in ("a/1", "a/1.x", "a/10", "a/2", "a/b/1", "a/b/2", "b/1"):
            at.store.create(name, b"")
        every = list(at.store.list("a"))
        assert every == ["a/1", "a/1.x", "a/10", "a/2", "a/b/1", "a/b/2"]
        for after in [*every, "a/", "a/15", "a/b", "a/b/", "a/b.", "a/c", "b"]:
            assert list(at.store.list("a", after)) == [key for key in every if key > after]
        assert list(at.store.list("nothing")) == []

    @pytest.mark.parametrize("key", ["../x", "/x", "a/../../x", "a//b", "a/./b", "", "a/"])
    def test_a_key_cannot_leave_the_store(self, at, key):
        with pytest.raises(StoreError, match="is not a key of the store"):
            at.store.create(key, b"x")
        with pytest.raises(StoreError, match="is not a key of the store"):
            at.store.read(key)
        assert list(at.store.list("")) == []

    def test_one_that_keeps_what_is_there_may_hold_a_ledger(self, at):
        for _ in range(3):
            require_create_if_absent(at.again())


class TestFolders:
    def test_one_comes_back_as_it_went(self, at, folder):
        at.store.upload(folder, at.uri("runs/1/train"))
        at.store.upload(folder, at.uri("runs/1/train"))  # a retry
        assert files_of(at.again().download(at.uri("runs/1/train"))) == files_of(folder)

    def test_one_that_was_not_uploaded_to_its_end_is_not_there(self, at):
        at.store.create("runs/1/train/weights", b"half")
        with pytest.raises(NotFound, match="runs/1"):
            at.store.download(at.uri("runs/1/train"))

    def test_another_one_takes_its_place_whole(self, at, folder, tmp_path):
        uri, other = at.uri("scores"), tmp_path / "other"
        at.store.upload(folder, uri)
        (other / "new").mkdir(parents=True)
        (other / "new/scores.json").write_text("1")
        at.store.upload(other, uri)
        assert files_of(at.store.download(uri)) == {"new/scores.json": b"1"}
        assert list(at.store.list("scores")) == ["scores/new/scores.json"]

    def test_links_and_pipes_stay_behind(self, at, folder, tmp_path):
        (tmp_path / "outside").write_text("not ours")
        (folder / "link").symlink_to(tmp_path / "outside")
        (folder / "linked").symlink_to(tmp_path)
        os.mkfifo(folder / "pipe")
        at.store.upload(folder, at.uri("x"))
        copy = at.store.download(at.uri("x"))
        assert not {"link", "linked", "pipe"} & {path.name for path in copy.iterdir()}
        assert (copy / "empty").exists()

    def test_an_address_outside_the_store_is_refused(self, at, folder):
        for uri in ("/elsewhere/x", "s3://elsewhere/x", at.store.root, at.uri("../x")):
            with pytest.raises(StoreError, match="nothing was read or written"):
                at.store.upload(folder, uri)
            with pytest.raises(StoreError, match="nothing was read or written"):
                at.store.download(uri)

    def test_a_folder_that_is_not_there_is_an_error(self, at, tmp_path):
        with pytest.raises(StoreError, match="was not written"):
            at.store.upload(tmp_path / "nowhere", at.uri("x"))
        with pytest.raises(NotFound):
            at.store.download(at.uri("x"))

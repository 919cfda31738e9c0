"""What only a bucket does: downloads that are checked, and servers that are careless."""

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest

from deployments.store import open_store, require_create_if_absent
from policy.errors import StoreError, Unsupported
from tests.places.buckets import BUCKET, KEY, Careless, client, environment_of
from tests.places.stores import opened


@pytest.fixture
def at(tmp_path):
    with opened("s3", tmp_path) as opened_store:
        yield opened_store


@pytest.fixture
def uploaded(at, tmp_path):
    folder = tmp_path / "made"
    (folder / "sub").mkdir(parents=True)
    (folder / "weights").write_bytes(os.urandom(1 << 20))
    (folder / "sub/scores.json").write_text("{}")
    at.store.upload(folder, at.uri("train"))
    return folder


def overwrite(at, key, data):
    """As somebody would who has rights in the bucket."""
    prefix = at.store.root.rpartition("/")[2]
    client(at.environment).put_object(Bucket=BUCKET, Key=f"{prefix}/{key}", Body=data)


def same(one, other):
    return (one / "weights").read_bytes() == (other / "weights").read_bytes()


class TestDownloads:
    def test_one_is_used_again(self, at, uploaded):
        first = at.store.download(at.uri("train"))
        made = (first / "weights").stat().st_ino
        assert at.again().download(at.uri("train")) == first
        assert (first / "weights").stat().st_ino == made
        assert first.parent == at.scratch / "downloads"

    def test_a_changed_object_is_refused(self, at, uploaded):
        overwrite(at, "train/weights", b"other")
        with pytest.raises(StoreError, match=r"train/weights in .* has SHA-256"):
            at.store.download(at.uri("train"))
        assert not [path for path in (at.scratch / "downloads").iterdir() if path.is_dir()]

    def test_a_missing_object_is_named(self, at, uploaded):
        prefix = at.store.root.rpartition("/")[2]
        client(at.environment).delete_object(Bucket=BUCKET, Key=f"{prefix}/train/weights")
        with pytest.raises(StoreError, match="train/weights in .* is gone"):
            at.store.download(at.uri("train"))

    @pytest.mark.parametrize(
        "spoil",
        [
            lambda copy: (copy / "weights").write_bytes(b""),
            lambda copy: (copy / "weights").unlink(),
            lambda copy: (copy / ".DS_Store").write_text("of a file manager"),
            lambda copy: shutil.rmtree(copy / "sub"),
        ],
    )
    def test_a_spoiled_one_is_replaced_whole(self, at, uploaded, spoil):
        copy = at.store.download(at.uri("train"))
        spoil(copy)
        again = at.store.download(at.uri("train"))
        assert same(again, uploaded)
        assert {path.name for path in again.iterdir()} == {"sub", "weights"}

    def test_a_link_in_one_is_not_written_through(self, at, uploaded, tmp_path):
        copy, outside = at.store.download(at.uri("train")), tmp_path / "outside"
        outside.write_text("not ours")
        (copy / "weights").unlink()
        (copy / "weights").symlink_to(outside)
        again = at.store.download(at.uri("train"))
        assert same(again, uploaded)
        assert not (again / "weights").is_symlink()
        assert outside.read_text() == "not ours"

    def test_several_at_once_get_the_same_whole_folder(self, at, uploaded):
        with ThreadPoolExecutor(8) as pool:
            copies = list(pool.map(lambda _: at.again().download(at.uri("train")), range(8)))
        assert len(set(copies)) == 1
        assert same(copies[0], uploaded)

    @pytest.mark.parametrize(
        "name", ["../outside", "/outside", "sub/../../outside", "", ".", "a//b"]
    )
    def test_a_done_file_cannot_name_a_file_outside(self, at, uploaded, name):
        entry = {"sha256": "0" * 64, "bytes": 1}
        overwrite(at, ".train.done.json", json.dumps({"files": {name: entry}}).encode())
        with pytest.raises(StoreError, match=r"the done file of .* names the file"):
            at.store.download(at.uri("train"))
        assert not list(at.scratch.glob("**/outside"))

    @pytest.mark.parametrize("data", [b"", b"[]", b'{"files": 1}', b"\xff"])
    def test_a_damaged_done_file_is_refused(self, at, uploaded, data):
        overwrite(at, ".train.done.json", data)
        with pytest.raises(StoreError, match="is damaged"):
            at.store.download(at.uri("train"))

    def test_without_scratch_there_is_nowhere_to_put_them(self, at, uploaded):
        with pytest.raises(Unsupported, match="without a scratch folder"):
            open_store(at.store.root).download(at.uri("train"))


class TestCarelessServers:
    """A server that ignores conditions is found before a ledger is kept there."""

    @pytest.fixture
    def careless(self):
        with Careless() as server:
            yield server

    def test_s3(self, careless, monkeypatch):
        for name, value in environment_of(careless.port).items():
            monkeypatch.setenv(name, value)
        store = open_store(f"s3://{BUCKET}/root")
        with pytest.raises(StoreError, match="ignores create-if-absent.*was created twice"):
            require_create_if_absent(store)
        assert careless.conditions == ["If-None-Match"] * 2

    def test_gcs(self, careless, monkeypatch):
        monkeypatch.setenv("GOOGLE_BASE_URL", f"http://127.0.0.1:{careless.port}")
        monkeypatch.setenv("GOOGLE_BEARER_TOKEN", KEY)
        monkeypatch.setenv("GOOGLE_ALLOW_HTTP", "true")
        store = open_store(f"gs://{BUCKET}/root")
        with pytest.raises(StoreError, match="ignores create-if-absent.*was created twice"):
            require_create_if_absent(store)
        assert careless.conditions == ["x-goog-if-generation-match"] * 2


def test_an_address_that_is_none_is_an_error():
    with pytest.raises(StoreError, match="does not open"):
        open_store("ftp://somewhere/x")

"""Whether a release could be loaded is known for little work, and never known wrongly."""

import os
import shutil
from pathlib import Path

import pytest

from deployments import Release
from deployments.releases import checking
from deployments.releases import folder as releases
from deployments.releases.checking import checked
from deployments.releases.signing import new_key
from deployments.store import open_store
from tests.places.stores import opened

OURS, STRANGER = new_key(), new_key()
TRUSTED = {OURS.public.fingerprint: OURS.public}


class Released:
    """A release in a store on a disk."""

    def __init__(self, folder):
        self.scratch, self.store = folder / "scratch", open_store(str(folder / "store"))
        made = folder / "made"
        made.mkdir()
        (made / "weights").write_bytes(b"x" * 1000)
        (made / "scores.json").write_text("{}")
        digest = releases.seal(made, OURS)
        releases.publish(self.store, made, digest, TRUSTED)
        self.release = Release("v1", digest)
        self.folder = folder / "store/releases" / digest

    def check(self, trusted=TRUSTED):
        return checked(self.store, self.release, self.scratch, trusted)


@pytest.fixture
def released(tmp_path):
    return Released(tmp_path)


@pytest.fixture
def verified(monkeypatch):
    """The folders of which every byte was read, as they are read."""
    found = []
    real = releases.verify

    def spy(folder, digest, trusted):
        found.append(folder)
        return real(folder, digest, trusted)

    monkeypatch.setattr(checking, "verify", spy)
    return found


def test_it_says_by_whom_it_is_signed_and_how_large_it_is(released):
    found = released.check()
    assert (found.signed_by, found.problem) == (OURS.public.fingerprint, "")
    assert found.size > 1000


def test_all_is_read_once_as_long_as_no_file_is_touched(released, verified):
    assert released.check() == released.check() == released.check()
    assert verified == [released.folder]


def same_size_and_time(path):
    """As somebody does it who wants to hide it."""
    at = path.stat()
    path.write_bytes(b"y" * at.st_size)
    os.utime(path, ns=(at.st_atime_ns, at.st_mtime_ns))


def replaced(path):
    new = path.with_name("new")
    new.write_bytes(b"y" * path.stat().st_size)
    new.replace(path)


@pytest.mark.parametrize(
    "harm",
    [
        same_size_and_time,
        replaced,
        lambda path: path.unlink(),
        lambda path: path.with_name("one more").write_text(""),
        lambda path: shutil.rmtree(path.parent),
        lambda path: (path.unlink(), path.symlink_to("/dev/zero")),
        lambda path: path.with_name("SIGNATURE").write_text("{}"),
    ],
)
def test_whatever_is_done_to_a_file_is_found_at_the_next_look(released, harm):
    assert not released.check().problem
    harm(released.folder / "weights")
    found = released.check()
    assert released.release.digest[:12] in found.problem
    assert found.signed_by == ""


def as_a_link(folder):
    """To the very same files, so that nothing of them has changed."""
    folder.rename(folder.with_name("moved"))
    folder.symlink_to("moved")


def in_place_of(make):
    def harm(folder):
        shutil.rmtree(folder)
        make(folder)

    return harm


@pytest.mark.parametrize(
    "harm",
    [
        in_place_of(Path.touch),
        in_place_of(os.mkfifo),
        in_place_of(lambda folder: folder.symlink_to("nothing")),
        as_a_link,
    ],
    ids=["file", "FIFO", "link to nothing", "link"],
)
def test_what_is_no_folder_is_no_release_and_says_so(released, harm):
    assert not released.check().problem
    harm(released.folder)
    found = released.check()
    assert released.release.digest[:12] in found.problem
    assert f"{released.folder} is not a folder; expected" in found.problem


@pytest.mark.skipif(os.getuid() == 0, reason="root may look into every folder")
def test_a_folder_that_may_not_be_looked_into_is_told(released):
    released.folder.chmod(0)
    assert "cannot be read: " in released.check().problem
    released.folder.chmod(0o700)


def test_a_folder_that_fails_when_looked_into_is_told(released, monkeypatch):
    def fail(folder):
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(checking, "entries", fail)
    assert "it cannot be read: [Errno 13] Permission denied" in released.check().problem


def test_a_file_in_the_place_of_all_releases_is_told(released):
    shutil.rmtree(released.folder.parent)
    released.folder.parent.touch()
    assert "it cannot be read: [Errno 20]" in released.check().problem


def test_trust_is_asked_for_each_time(released):
    assert not released.check().problem
    other = {STRANGER.public.fingerprint: STRANGER.public}
    assert "which is not trusted" in released.check(other).problem
    assert not released.check().problem


def test_what_was_known_yesterday_is_verified_again(released, verified):
    released.check()
    (note,) = (released.scratch / "checked").glob("*.json")
    at = note.stat().st_mtime
    for moved in (-90_000, 90_000):
        os.utime(note, (at + moved, at + moved))
        released.check()
    assert len(verified) == 3


@pytest.mark.parametrize("text", ["", "{", "[]", '{"files": 3}'])
def test_a_damaged_note_is_worth_nothing(released, verified, text):
    released.check()
    (note,) = (released.scratch / "checked").glob("*.json")
    note.write_text(text)
    assert not released.check().problem
    assert len(verified) == 2


def test_a_note_that_cannot_be_written_costs_time_alone(released, verified):
    released.scratch.write_text("a file where the folder should be")
    assert not released.check().problem
    assert not released.check().problem
    assert len(verified) == 2


def test_one_in_a_bucket_is_copied_once_and_then_must_still_be_there(
    tmp_path, released, verified
):
    with opened("s3", tmp_path / "s3") as at:
        made = tmp_path / "made"
        releases.publish(at.store, made, released.release.digest, TRUSTED)

        def check():
            return checked(at.store, released.release, tmp_path / "there", TRUSTED)

        assert check() == check()
        assert (check().signed_by, len(verified)) == (OURS.public.fingerprint, 1)
        assert not [*(tmp_path / "there/checked").glob("*/")], "the copy is not kept"

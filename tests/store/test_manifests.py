"""Whatever a MANIFEST lists, a release verifies or is refused; a refused one leaves nothing."""

import hashlib
import json
import os
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from deployments import Release
from deployments.releases import folder as releases
from deployments.releases.manifest import parsed, wrong_names
from deployments.releases.signing import new_key
from deployments.store import open_store
from policy.errors import ReleaseError
from tests.places.memory import MemoryCloud

KEY = new_key()
TRUSTED = {KEY.public.fingerprint: KEY.public}
HINT = json.dumps({"verificationMaterial": {"publicKey": {"hint": KEY.public.fingerprint}}})
ODD = {
    "this folder": ".",
    "nul": "a\0b",
    "two slashes": "a//b",
    "absolute": "/etc/passwd",
    "above": "../../escape",
    "above, further in": "sub/../../escape",
    "slash at the end": "sub/",
    "a long part": "x" * 201,
    "a long path": "/".join(["x" * 100] * 7),
    "a bell": "a\x07b",
    "carriage return": "a\rb",
    "line separator": "a\u2028b",
    "right to left": "a\u202eb",
    "backslash": "sub\\name",
    "its own seal": "MANIFEST",
    "its own seal in small letters": "signature",
}
NASTY = st.one_of(
    st.text(max_size=30),
    st.sampled_from([*ODD.values()]),
    st.lists(st.sampled_from(["a", "A", "b", ".", "..", "", "é", "e\u0301"]), max_size=4).map(
        "/".join
    ),
)
once = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def line(name, data=b"x"):
    return f"{hashlib.sha256(data).hexdigest()}  {name}\n"


def lay(store, manifest, files=()):
    """A release as somebody lays it there who has rights in the store, but no key."""
    digest = hashlib.sha256(manifest).hexdigest()
    for name, data in (("MANIFEST", manifest), ("SIGNATURE", HINT.encode()), *files):
        store.create(f"releases/{digest}/{name}", data)
    return Release("v1", digest)


def below(folder):
    """What a fetch left there; its lock is no file of the release."""
    return [path for path in folder.rglob("*") if not path.name.endswith(".lock")]


def refusal(store, release, folder):
    with pytest.raises(ReleaseError) as raised:
        releases.fetch(store, release, folder, TRUSTED)
    assert not below(folder)
    return str(raised.value)


@pytest.mark.parametrize("what", ODD)
def test_an_odd_name_is_refused_before_anything_is_copied(tmp_path, what):
    store = MemoryCloud().place(tmp_path).store
    told = refusal(store, lay(store, line(ODD[what]).encode()), tmp_path / "copies")
    assert "MANIFEST" in told
    assert "it is not served and nothing else was changed" in told


@pytest.mark.parametrize(
    "names",
    [
        ("a", "a"),
        ("a", "A"),
        ("\u00e9", "e\u0301"),
        ("a", "a/b"),
        ("a/b/c", "a/b"),
        ("A/x", "a"),
    ],
)
def test_two_names_that_cannot_both_be_files_are_refused(tmp_path, names):
    store = MemoryCloud().place(tmp_path).store
    manifest = "".join(map(line, names)).encode()
    told = refusal(store, lay(store, manifest), tmp_path / "copies")
    assert "one name on some disks" in told or "a file and a folder at once" in told


@pytest.mark.parametrize(
    "manifest", [b"\xff\xfe", b"\n", b"hello\n", b"  a\n", line("a").upper().encode()]
)
def test_what_is_no_list_is_refused(tmp_path, manifest):
    store = MemoryCloud().place(tmp_path).store
    assert "MANIFEST" in refusal(store, lay(store, manifest), tmp_path / "copies")


@pytest.mark.parametrize("digest", ["", "..", "../../x", "A" * 64, "1" * 63, "1" * 64 + "\n"])
def test_what_is_no_digest_is_part_of_no_path(tmp_path, digest):
    store = open_store(str(tmp_path / "store"))
    (tmp_path / "x").mkdir()
    assert "is not a SHA-256 digest" in refusal(
        store, Release("v1", digest), tmp_path / "copies"
    )


@once
@given(st.lists(NASTY, max_size=5), st.booleans())
@example(["a", "a/b"], True)
def test_any_manifest_of_a_stranger_is_refused_and_leaves_nothing(tmp_path, names, there):
    """Even if every file is there, byte for byte, and only the signature is not."""
    store = MemoryCloud().place(tmp_path).store
    manifest = "".join(map(line, names)).encode(errors="surrogatepass")
    files = [(name, b"x") for name in dict.fromkeys(names) if there and not wrong_names([name])]
    refusal(store, lay(store, manifest, files), tmp_path / "copies")
    assert {path.name for path in tmp_path.iterdir()} <= {"copies"}


@once
@given(st.binary(max_size=300))
def test_any_bytes_are_names_below_the_folder_or_refused(data):
    try:
        names = parsed(data, hashlib.sha256(data).hexdigest())
    except ReleaseError:
        return
    for name in names:
        assert ".." not in PurePosixPath(name).parts
        assert not PurePosixPath(name).is_absolute()


@once
@given(st.lists(NASTY, min_size=1, max_size=4))
def test_names_that_are_not_wrong_can_be_files_beside_each_other(tmp_path_factory, names):
    if wrong_names(names):
        return
    folder = tmp_path_factory.mktemp("m")
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb"):
            pass


def test_what_could_not_be_listed_is_not_sealed(tmp_path):
    (tmp_path / "line\nbreak").write_text("")
    with pytest.raises(ReleaseError, match="cannot be signed or served: it has 'line"):
        releases.seal(tmp_path, KEY)
    assert not (tmp_path / "MANIFEST").exists()


class TestInTheStore:
    """Only plain files are a release, there as in a copy."""

    @pytest.fixture
    def released(self, tmp_path):
        store, folder = open_store(str(tmp_path / "store")), tmp_path / "release"
        folder.mkdir()
        (folder / "weights").write_bytes(b"x")
        digest = releases.seal(folder, KEY)
        releases.publish(store, folder, digest, TRUSTED)
        return store, Release("v1", digest), tmp_path / "store/releases" / digest / "weights"

    @pytest.mark.parametrize("name", ["weights", "MANIFEST", "SIGNATURE"])
    def test_a_link_to_the_same_bytes_is_refused(self, released, tmp_path, name):
        store, release, weights = released
        path = weights.with_name(name)
        (tmp_path / "same").write_bytes(path.read_bytes())
        path.unlink()
        path.symlink_to(tmp_path / "same")
        told = refusal(store, release, tmp_path / "copies")
        assert name in told

    @pytest.mark.parametrize(
        "make", [os.mkfifo, Path.mkdir, lambda p: p.symlink_to("/dev/zero")]
    )
    def test_so_is_a_pipe_a_folder_and_a_device(self, released, tmp_path, make):
        store, release, weights = released
        weights.unlink()
        make(weights)
        assert "weights is missing" in refusal(store, release, tmp_path / "copies")

    def test_a_copy_with_a_second_name_is_replaced(self, released, tmp_path):
        store, release, _ = released
        copy = releases.fetch(store, release, tmp_path / "copies", TRUSTED)
        os.link(copy / "weights", tmp_path / "mine")
        releases.fetch(store, release, tmp_path / "copies", TRUSTED)
        (tmp_path / "mine").write_text("changed by its other name")
        assert (copy / "weights").read_bytes() == b"x"

    def test_a_stored_release_may_have_second_names_as_backups_make_them(
        self, released, tmp_path
    ):
        store, release, weights = released
        os.link(weights, tmp_path / "backup")
        assert releases.fetch(store, release, tmp_path / "copies", TRUSTED)

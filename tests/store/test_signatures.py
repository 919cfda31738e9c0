"""Only what a trusted key signed is published, fetched and served; anybody can check it."""

import base64
import json
import shutil
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deployments import Release
from deployments.releases import folder as releases
from deployments.releases.signing import new_key
from deployments.store import open_store
from policy.errors import ReleaseError

OURS, OLD, STRANGER = new_key(), new_key(), new_key()
TRUSTED = {key.public.fingerprint: key.public for key in (OURS, OLD)}


@pytest.fixture
def store(tmp_path):
    return open_store(str(tmp_path / "store"))


def make(folder, key, text="weights"):
    (folder / "sub").mkdir(parents=True, exist_ok=True)
    (folder / "weights.safetensors").write_text(text)
    (folder / "sub/architecture.json").write_text("{}")
    (folder / ".gitignore").write_text("covered as well")
    return releases.seal(folder, key)


@pytest.fixture
def sealed(tmp_path):
    folder = tmp_path / "release"
    return folder, make(folder, OURS)


def put(store, folder, digest):
    """Lay a folder in the store as somebody would who has rights there, but no key."""
    for path in folder.rglob("*"):
        if path.is_file():
            name = path.relative_to(folder).as_posix()
            store.create(f"releases/{digest}/{name}", path.read_bytes())


def fetch(store, digest, folder, trusted=TRUSTED):
    return releases.fetch(store, Release("v1", digest), folder, trusted)


def by_a_stranger(folder):
    make(folder, STRANGER)


def of_another_release(folder):
    other = folder.parent / "other"
    make(other, OURS, "other weights")
    shutil.copy(other / "SIGNATURE", folder / "SIGNATURE")


def by_a_stranger_who_names_our_key(folder):
    make(folder, STRANGER)
    edit(folder, ["verificationMaterial", "publicKey", "hint"], OURS.public.fingerprint)


def without_a_key(folder):
    edit(folder, ["verificationMaterial", "publicKey"], {})


def with_no_signature_in_it(folder):
    edit(folder, ["dsseEnvelope", "signatures"], [])


def payload(bundle):
    return base64.b64decode(json.loads(bundle)["dsseEnvelope"]["payload"])


def edit(folder, path, value):
    bundle = json.loads((folder / "SIGNATURE").read_text())
    place = bundle
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    (folder / "SIGNATURE").write_text(json.dumps(bundle))


FORGERIES = {
    "missing": (lambda f: (f / "SIGNATURE").unlink(), "it has no SIGNATURE"),
    "empty": (lambda f: (f / "SIGNATURE").write_text(""), "is not a bundle that names a key"),
    "a list": (
        lambda f: (f / "SIGNATURE").write_text("[]"),
        "is not a bundle that names a key",
    ),
    "deep": (lambda f: (f / "SIGNATURE").write_text("[" * 100_000), "is not a bundle"),
    "without a key": (without_a_key, "is not a bundle that names a key"),
    "by a stranger": (by_a_stranger, "which is not trusted"),
    "by a stranger who names our key": (by_a_stranger_who_names_our_key, "InvalidSignature"),
    "no signature in it": (with_no_signature_in_it, "SIGNATURE does not hold"),
    "of another release": (of_another_release, "Hash mismatch"),
}


@pytest.mark.parametrize("kind", FORGERIES)
def test_a_release_without_a_trusted_signature_gets_nowhere(sealed, store, tmp_path, kind):
    folder, digest = sealed
    forge, told = FORGERIES[kind]
    forge(folder)
    with pytest.raises(ReleaseError, match=told) as raised:
        releases.publish(store, folder, digest, TRUSTED)
    assert not store.list("releases"), "nothing was stored"

    put(store, folder, digest)
    with pytest.raises(ReleaseError, match=told) as raised:
        fetch(store, digest, tmp_path / "copies")
    message = str(raised.value)
    assert message.startswith(f"release {digest[:12]}: ")
    assert "it is not served and nothing else was changed" in message


def test_what_is_not_trusted_is_not_even_copied(sealed, store, tmp_path):
    folder, digest = sealed
    by_a_stranger(folder)
    put(store, folder, digest)
    with pytest.raises(ReleaseError, match=STRANGER.public.fingerprint[:12]) as raised:
        fetch(store, digest, tmp_path / "copies")
    assert OURS.public.fingerprint[:12] in str(raised.value), "whom we would trust"
    assert not (tmp_path / "copies").exists()


@settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_no_changed_byte_of_a_signature_passes_as_another_one(sealed, data):
    """Whatever still verifies says the same by the same key: white space, at most."""
    folder, digest = sealed
    good = (folder / "SIGNATURE").read_bytes()
    at = data.draw(st.integers(0, len(good) - 1))
    bad = good[:at] + bytes([data.draw(st.integers(0, 255))]) + good[at + 1 :]
    (folder / "SIGNATURE").write_bytes(bad)
    try:
        assert releases.verify(folder, digest, TRUSTED) == OURS.public.fingerprint
        assert payload(bad) == payload(good)
    except ReleaseError:
        pass
    finally:
        (folder / "SIGNATURE").write_bytes(good)


def test_a_release_of_an_old_key_serves_as_long_as_that_key_is_trusted(store, tmp_path):
    folder = tmp_path / "release"
    digest = make(folder, OLD)
    published = releases.publish(store, folder, digest, TRUSTED)
    assert published.signed_by == OLD.public.fingerprint
    copy = fetch(store, digest, tmp_path / "copies")
    assert releases.verify(copy, digest, TRUSTED) == OLD.public.fingerprint
    today = {OURS.public.fingerprint: OURS.public}
    with pytest.raises(ReleaseError, match="which is not trusted"):
        fetch(store, digest, tmp_path / "copies", today)


def test_a_copy_made_before_the_trust_was_taken_away_is_refused_too(sealed, store, tmp_path):
    folder, digest = sealed
    releases.publish(store, folder, digest, TRUSTED)
    fetch(store, digest, tmp_path / "copies")
    with pytest.raises(ReleaseError, match=r"trusted keys \[\]"):
        fetch(store, digest, tmp_path / "copies", {})


def test_the_same_release_sealed_twice_keeps_its_first_signature(sealed, store, tmp_path):
    folder, digest = sealed
    releases.publish(store, folder, digest, TRUSTED)
    first = store.read(f"releases/{digest}/SIGNATURE")
    assert make(folder, OLD) == digest, "the signature is no part of the digest"
    again = releases.publish(store, folder, digest, TRUSTED)
    assert again == releases.Published(digest, OURS.public.fingerprint)
    assert store.read(f"releases/{digest}/SIGNATURE") == first


def test_a_link_is_not_signed(tmp_path):
    folder = tmp_path / "release"
    make(folder, OURS)
    (folder / "link").symlink_to("/etc/hostname")
    with pytest.raises(ReleaseError, match="cannot be signed"):
        releases.seal(folder, OURS)


def test_the_standards_own_program_checks_a_release_with_the_public_key(sealed, tmp_path):
    folder, _ = sealed
    public = tmp_path / "release.pub"
    public.write_bytes(OURS.public.pem)
    command = [
        *(sys.executable, "-m", "model_signing", "verify", "key", str(folder)),
        *("--signature", str(folder / "SIGNATURE"), "--public_key", str(public)),
        "--no-ignore-git-paths",
    ]

    def verified():
        return subprocess.run(command, capture_output=True, text=True, check=False)

    good = verified()
    assert good.returncode == 0, good.stdout + good.stderr
    (folder / "weights.safetensors").write_text("Weights")
    assert verified().returncode != 0

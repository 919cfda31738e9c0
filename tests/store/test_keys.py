"""The key made here is its owner's alone; elsewhere it comes from where it is kept."""

import hashlib
import os
import shutil
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization as text
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from deployments import Job
from deployments.local.jobs import LocalJobs
from deployments.releases.keys import VARIABLE, require_keys, signing_key, trusted
from deployments.releases.signing import new_key, private_key, public_key
from deployments.store import open_store
from policy.config import Config, Signing, load_config
from policy.errors import ConfigError, JobFailed, Unsupported
from tests.places.jobs import COMPUTE

LOCAL = Path(__file__).parents[2] / "deployments/local.yaml"
KEY, OTHER = new_key(), new_key()
SECRET = KEY.pem.decode().splitlines()[1]


def configured(root, source="made-here", *keys) -> Config:
    public = tuple(key.public.pem.decode() for key in keys)
    signing = Signing(private_key=source, trusted=public)
    return load_config(LOCAL).model_copy(update={"root": str(root), "signing": signing})


def pem(key, password=None):
    lock = text.BestAvailableEncryption(password) if password else text.NoEncryption()
    return key.private_bytes(text.Encoding.PEM, text.PrivateFormat.PKCS8, lock)


def lay(kind, path, folder):
    """Put something of this kind there; a link leads to `other` in the folder."""
    if kind == "folder":
        path.mkdir()
    elif kind == "FIFO":
        os.mkfifo(path)
    elif kind == "another":
        path.write_text("another")
    elif kind != "none":
        path.symlink_to(folder / ("other" if kind == "link" else "nothing"))


class TestMadeHere:
    def test_it_is_made_once_and_only_its_owner_can_read_it(self, tmp_path):
        config = configured(tmp_path)
        require_keys(config)
        first = signing_key(config)
        assert signing_key(config) == first
        assert first.public == trusted(config)[first.public.fingerprint]
        assert (tmp_path / "keys/release.pem").stat().st_mode & 0o777 == 0o600
        assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o700
        assert {file.name for file in (tmp_path / "keys").iterdir()} == {
            "release.pem",
            "release.pub",
        }

    def test_its_fingerprint_is_what_sha256sum_prints_of_the_public_half(self, tmp_path):
        key = signing_key(configured(tmp_path))
        public = (tmp_path / "keys/release.pub").read_bytes()
        assert hashlib.sha256(public).hexdigest() == key.public.fingerprint

    def test_of_many_that_make_it_at_once_one_wins(self, tmp_path):
        with ThreadPoolExecutor(8) as pool:
            made = list(pool.map(signing_key, [configured(tmp_path)] * 16))
        assert len({key.public.fingerprint for key in made}) == 1
        assert len(list((tmp_path / "keys").iterdir())) == 2

    def test_one_that_others_can_read_is_not_used(self, tmp_path):
        config = configured(tmp_path)
        signing_key(config)
        (tmp_path / "keys/release.pem").chmod(0o640)
        with pytest.raises(ConfigError, match=r"mode 640.*chmod 600"):
            signing_key(config)

    def test_a_new_one_signs_while_the_old_one_stays_trusted(self, tmp_path):
        old = signing_key(configured(tmp_path))
        for file in (tmp_path / "keys").iterdir():
            file.unlink()
        config = configured(tmp_path, "made-here", old)
        new = signing_key(config)
        assert set(trusted(config)) == {old.public.fingerprint, new.public.fingerprint}
        assert (tmp_path / "keys/release.pub").read_bytes() == new.public.pem

    @pytest.mark.parametrize("lost", ["release.pem", "."])
    def test_one_that_was_lost_is_not_made_anew_unasked(self, tmp_path, lost):
        """It would trust nothing that was signed before: no server could start again."""
        config, keys = configured(tmp_path), tmp_path / "keys"
        old = signing_key(config)
        (tmp_path / "releases/some").mkdir(parents=True)
        (keys / "release.pem").unlink()
        if lost == ".":
            shutil.rmtree(keys)
        for look in (signing_key, trusted, require_keys):
            with pytest.raises(ConfigError, match=r"release\.pem is not there.*restore"):
                look(config)
        assert not (keys / "release.pem").exists()
        shutil.rmtree(keys, ignore_errors=True)
        keys.mkdir()
        assert signing_key(config) != old

    @pytest.mark.skipif(os.getuid() != 0, reason="only root may give a file away")
    def test_one_of_another_user_is_not_used(self, tmp_path):
        config = configured(tmp_path)
        signing_key(config)
        os.chown(tmp_path / "keys/release.pem", 12345, -1)
        with pytest.raises(ConfigError, match=r"belongs to user 12345; expected"):
            signing_key(config)

    @pytest.mark.parametrize("kind", ["folder", "FIFO", "link", "link to nothing"])
    @pytest.mark.parametrize("make", [True, False])
    def test_what_is_no_plain_file_is_no_key_and_nothing_waits_for_it(
        self, tmp_path, kind, make
    ):
        config = configured(tmp_path)
        signing_key(config)
        (path := tmp_path / "keys/release.pem").rename(tmp_path / "other")
        lay(kind, path, tmp_path)
        with pytest.raises(ConfigError, match=r"release\.pem is not a plain file; expected"):
            trusted(config, make=make)

    @pytest.mark.parametrize("kind", ["FIFO", "link", "link to nothing", "another", "none"])
    def test_its_public_half_is_written_by_who_makes_keys_and_through_no_link(
        self, tmp_path, kind
    ):
        config, public = configured(tmp_path), tmp_path / "keys/release.pub"
        key = signing_key(config)
        (tmp_path / "other").write_text("a letter")
        public.unlink()
        lay(kind, public, tmp_path)
        before = public.lstat() if kind != "none" else None
        assert set(trusted(config, make=False)) == {key.public.fingerprint}
        assert (public.lstat() if os.path.lexists(public) else None) == before, "only looked at"
        assert signing_key(config) == key
        assert stat.S_ISREG(public.lstat().st_mode)
        assert public.read_bytes() == key.public.pem
        assert [path.name for path in tmp_path.iterdir() if path.name != "keys"] == ["other"]
        assert (tmp_path / "other").read_text() == "a letter"

    def test_one_whose_public_half_is_there_is_used_without_writing(self, tmp_path):
        signing_key(configured(tmp_path))
        before = (tmp_path / "keys/release.pub").stat()
        require_keys(configured(tmp_path))
        after = (tmp_path / "keys/release.pub").stat()
        assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)

    def test_a_folder_in_the_place_of_the_public_half_is_told(self, tmp_path):
        config = configured(tmp_path)
        signing_key(config)
        (tmp_path / "keys/release.pub").unlink()
        (tmp_path / "keys/release.pub").mkdir()
        with pytest.raises(ConfigError, match=r"release\.pub is not a plain file"):
            require_keys(config)
        assert len(trusted(config, make=False)) == 1

    @pytest.mark.parametrize("root", ["gs://bucket/place", "s3://bucket/place"])
    @pytest.mark.parametrize("look", [signing_key, trusted, require_keys])
    def test_none_is_made_in_a_bucket(self, root, look):
        with pytest.raises(ConfigError, match=r"made-here, but root \(=.*environment.*secret"):
            look(configured(root))


class TestFromElsewhere:
    def test_from_the_environment(self, tmp_path, monkeypatch):
        monkeypatch.setenv(VARIABLE, KEY.pem.decode())
        assert signing_key(configured(tmp_path, "environment", OTHER, KEY)) == KEY
        assert not list(tmp_path.iterdir()), "it lies on no disk"

    def test_from_a_secret(self, tmp_path):
        config, told = configured(tmp_path, "secret/release-key", KEY), {}
        told["release-key"] = KEY.pem.decode()
        assert signing_key(config, told.__getitem__) == KEY
        require_keys(config)  # nobody tells a secret to `make up`
        with pytest.raises(Unsupported, match="'release-key' cannot be read here"):
            signing_key(config)

    def test_a_missing_variable_is_told_before_anything_starts(self, tmp_path, monkeypatch):
        monkeypatch.delenv(VARIABLE, raising=False)
        with pytest.raises(ConfigError, match=f"{VARIABLE} is not set"):
            require_keys(configured(tmp_path, "environment", KEY))

    def test_a_signer_whom_nobody_trusts_is_told_what_to_add(self, tmp_path, monkeypatch):
        monkeypatch.setenv(VARIABLE, KEY.pem.decode())
        with pytest.raises(ConfigError, match=r"not in signing\.trusted") as raised:
            signing_key(configured(tmp_path, "environment", OTHER))
        assert KEY.public.pem.decode() in str(raised.value)

    def test_a_program_of_the_model_never_sees_it(self, tmp_path, monkeypatch):
        monkeypatch.setenv(VARIABLE, KEY.pem.decode())
        monkeypatch.setenv("A_SETTING", "of the user")
        tell = "import os; print(sorted(os.environ)); raise SystemExit(2)"
        (tmp_path / "telling.py").write_text(tell)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        store, job = open_store(str(tmp_path / "s")), Job("k", "telling", {}, {}, "")
        job = replace(job, output=f"{store.root}/out")
        with pytest.raises(JobFailed) as raised:
            LocalJobs(COMPUTE, store, tmp_path / "scratch").run(job, lambda record: None)
        assert "A_SETTING" in str(raised.value)
        assert VARIABLE not in str(raised.value)


@pytest.mark.parametrize(
    "wrong",
    [
        b"",
        b"no key",
        KEY.pem[:60],
        KEY.public.pem,
        pem(ec.generate_private_key(ec.SECP256R1()), b"password"),
        pem(ec.generate_private_key(ec.SECP256K1())),
        pem(ed25519.Ed25519PrivateKey.generate()),
    ],
    ids=["empty", "text", "cut", "public", "with a password", "another curve", "another kind"],
)
def test_what_is_no_key_is_refused_by_its_source_and_not_shown(wrong):
    with pytest.raises(ConfigError, match="^the source is not a key for signatures") as raised:
        private_key(wrong, "the source")
    assert SECRET[:20] not in str(raised.value)


@pytest.mark.parametrize("wrong", [b"", KEY.pem, KEY.public.pem[:60]])
def test_what_is_no_public_key_is_refused(wrong):
    with pytest.raises(ConfigError, match=r"^signing\.trusted\.0 is not a key"):
        public_key(wrong, "signing.trusted.0")


def test_no_representation_shows_a_private_key():
    assert SECRET not in f"{KEY} {KEY!r}"


def test_looking_at_keys_does_not_import_what_signs():
    modules = "sys, deployments.releases.keys, deployments.releases.folder"
    code = f"import {modules}; print('sigstore' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"

"""Whole runs with releases that nobody trusted signed: stable serves on, with a reason.

The endpoint is the fake of conftest.py, but brings each release as every real place does:
fetched from the store and verified before anything starts.
"""

import json
import shutil

import pytest

from deployments import Release, ledger
from deployments.releases import folder as releases
from deployments.releases.keys import VARIABLE, signing_key, trusted
from deployments.releases.signing import new_key
from flows.reproduce import reproduce
from flows.retrain import retrain
from flows.rollback import rollback
from flows.rollout import rollout
from flows.terminal import history
from policy.config import Signing
from policy.errors import ConfigError, ReleaseError, RolledBack
from policy.ledger import Registered
from policy.rollout.record import Phase

STRANGER = new_key()


@pytest.fixture
def strict(world, monkeypatch):
    """The world with an endpoint that verifies what it is given."""
    endpoint = world.production

    def deploy(release):
        if release.version not in endpoint.servers:
            releases.fetch(world.store, release, world.root / "serving", trusted(world.config))
            endpoint.servers[release.version] = release.digest

    monkeypatch.setattr(endpoint, "deploy", deploy)
    return world


def roll_out(world, version):
    return rollout(version, "production", str(world.path))


def stored(world, version):
    digest = world.ledger.version(version).registered.digest
    return world.root / "releases" / digest


def by_a_stranger(world):
    """Somebody with rights in the store, but no key, enters a release of theirs."""
    folder = world.root / "made" / "stranger"
    shutil.copytree(stored(world, "v1"), folder)
    (folder / "lineage.json").write_text("{}")
    digest = releases.seal(folder, STRANGER)
    for path in folder.iterdir():
        world.store.create(f"releases/{digest}/{path.name}", path.read_bytes())
    event = Registered(
        version="v2", digest=digest, accuracy=1, families={}, reasons=(), lineage={},
        signed_by=STRANGER.public.fingerprint,
    )  # fmt: skip
    ledger.append(world.store, lambda _state: event, by="a stranger")


def registered_and(spoil):
    def make(world):
        spoil(stored(world, world.register("v2")), stored(world, "v1"))

    return make


def change_weights(release, _other):
    (release / "lineage.json").write_text("{}")


def forge(release, _other):
    bundle = json.loads((release / "SIGNATURE").read_text())
    bundle["dsseEnvelope"]["signatures"][0]["sig"] = "MEUCIQDRKSy9"
    (release / "SIGNATURE").write_text(json.dumps(bundle))


BAD = {
    "no signature": (
        registered_and(lambda release, _other: (release / "SIGNATURE").unlink()),
        "it has no SIGNATURE",
    ),
    "a forged signature": (registered_and(forge), "SIGNATURE does not hold"),
    "the signature of another release": (
        registered_and(lambda release, other: shutil.copy(other / "SIGNATURE", release)),
        "SIGNATURE does not hold: Signature mismatch",
    ),
    "one changed byte": (registered_and(change_weights), "lineage.json has SHA-256"),
    "the key of a stranger": (by_a_stranger, f"key '{STRANGER.public.fingerprint[:12]}'"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_version_that_fails_its_signature_is_taken_back(strict, kind):
    strict.serve("v1")
    make, told = BAD[kind]
    make(strict)
    with pytest.raises(RolledBack, match="stable v1 serves 100 %") as raised:
        roll_out(strict, "v2")
    assert told in str(raised.value)
    production = strict.ledger.endpoint("production")
    assert (production.stable, production.rollout.phase) == ("v1", Phase.ROLLED_BACK)
    assert told in production.rollout.reason
    assert strict.production.weights() == {"v1": 100}
    assert strict.production.deployed() == ["v1"]
    assert all("v2" not in split for split in strict.production.seen), "it never had traffic"


def test_a_version_signed_by_the_key_made_here_is_promoted(strict):
    strict.serve("v1")
    roll_out(strict, strict.register("v2"))
    assert strict.production.weights() == {"v2": 100}


def test_questions_changed_in_the_store_condemn_the_version_before_its_traffic(strict):
    """The release is deployed; what it is asked in its smoke test is changed afterwards."""
    strict.serve("v1")
    release = stored(strict, strict.register("v2"))
    deploy = strict.production.deploy

    def then_change(one):
        deploy(one)
        (release / "requests.jsonl").write_text('{"instance": {}, "answer": "any"}\n')

    strict.production.deploy = then_change
    with pytest.raises(RolledBack, match=r"requests\.jsonl has SHA-256"):
        roll_out(strict, "v2")
    assert strict.production.weights() == {"v1": 100}


def test_no_rollback_brings_a_version_back_whose_signature_is_gone(strict):
    strict.serve("v1")
    strict.serve("v2")
    (stored(strict, "v1") / "SIGNATURE").unlink()
    assert rollback("wrong answers", config=str(strict.path)) == "v2"
    last = strict.ledger.endpoint("production").rollout
    assert last.phase is Phase.ROLLED_BACK
    assert "it has no SIGNATURE" in last.reason
    assert strict.production.weights() == {"v2": 100}


def test_a_retraining_signs_what_it_registers_and_history_says_by_which_key(strict):
    version = retrain(config=str(strict.path), seed=1)
    key = signing_key(strict.config)
    registered = strict.ledger.version(version).registered
    assert registered.signed_by == key.public.fingerprint
    copies, keys = strict.root / "again", trusted(strict.config)
    release = Release(version, registered.digest)
    assert releases.verify(
        releases.fetch(strict.store, release, copies, keys), registered.digest, keys
    )
    told = "\n".join(history.tell(strict.ledger))
    assert f"signed by {key.public.fingerprint[:12]}" in told
    secret = key.pem.decode().splitlines()[1]
    files = [path for path in strict.root.rglob("*") if path.is_file()]
    holding = {path.name for path in files if secret.encode() in path.read_bytes()}
    assert holding == {"release.pem"}, "and the private key stands nowhere else"

    (stored(strict, version) / "SIGNATURE").unlink()
    shutil.rmtree(strict.root / "copies", ignore_errors=True)
    with pytest.raises(ReleaseError, match="it has no SIGNATURE"):
        reproduce(version, str(strict.path))
    with pytest.raises(ReleaseError, match="it has no SIGNATURE"):
        retrain(config=str(strict.path), seed=2)  # it would be compared with that version


def test_without_a_key_nothing_is_trained(strict, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    public = "".join(f"      {line}\n" for line in STRANGER.public.pem.decode().splitlines())
    text = strict.path.read_text().replace("made-here", "environment")
    strict.path.write_text(text.replace("trusted: []", f"trusted:\n    - |\n{public}"))
    with pytest.raises(ConfigError, match=f"{VARIABLE} is not set"):
        retrain(config=str(strict.path), seed=1)
    assert strict.jobs.ran == []
    assert strict.ledger.number == 0


def test_a_secret_block_of_prefect_signs(strict):
    from prefect.blocks.system import Secret

    from tasks.release import signer

    Secret(value=STRANGER.pem.decode()).save("release-key")
    public = (STRANGER.public.pem.decode(),)
    for name, found in (("release-key", True), ("another-key", False)):
        signing = Signing(private_key=f"secret/{name}", trusted=public)
        config = strict.config.model_copy(update={"signing": signing})
        if found:
            assert signer(config) == STRANGER
        else:
            with pytest.raises(ConfigError, match="no secret block 'another-key'"):
                signer(config)

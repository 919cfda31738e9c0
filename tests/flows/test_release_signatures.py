"""Whole runs with releases that nobody trusted signed: stable serves on, with a reason.

The endpoint of conftest.py brings each release as every real place does: fetched from the
store and verified before anything starts.
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
from policy.config import Signing
from policy.errors import ConfigError, ReleaseError, RolledBack
from policy.records import Registered
from policy.rollout.record import Phase, desired_weights

STRANGER = new_key()


def roll_out(world, version):
    return rollout(version, "production", str(world.path))


def stored(world, version):
    digest = world.ledger.version(version).digest
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
def test_a_version_that_fails_its_signature_is_rolled_back(world, kind):
    world.serve("v1")
    make, told = BAD[kind]
    make(world)
    with pytest.raises(RolledBack, match="stable v1 serves 100 %") as raised:
        roll_out(world, "v2")
    assert told in str(raised.value)
    production = world.ledger.endpoint("production")
    assert (production.stable, production.rollout.phase) == ("v1", Phase.ROLLED_BACK)
    assert told in production.rollout.reason
    assert world.production.weights == {"v1": 100}
    assert list(world.production.servers) == ["v1"]
    assert not any("v2" in desired_weights(rollout) for rollout in world.rollouts("v2"))


def test_a_version_signed_by_the_key_made_here_is_promoted(world):
    world.serve("v1")
    roll_out(world, world.register("v2"))
    assert world.production.weights == {"v2": 100}


def test_questions_changed_in_the_store_condemn_the_version_before_its_traffic(world):
    """The release is deployed; what it is asked in its smoke test is changed afterwards."""
    world.serve("v1")
    release = stored(world, world.register("v2"))
    verify = world.cloud.verify

    def then_change(one):
        found = verify(one)
        (release / "requests.jsonl").write_text('{"instance": {}, "answer": "any"}\n')
        return found

    world.cloud.verify = then_change
    with pytest.raises(RolledBack, match=r"requests\.jsonl has SHA-256"):
        roll_out(world, "v2")
    assert world.production.weights == {"v1": 100}


def test_no_rollback_brings_a_version_back_whose_signature_is_gone(world):
    world.serve("v1")
    world.serve("v2")
    (stored(world, "v1") / "SIGNATURE").unlink()
    shutil.rmtree(world.place.scratch / "serving")  # a copy of before would still verify
    with pytest.raises(RolledBack, match="it has no SIGNATURE"):
        rollback("wrong answers", config=str(world.path))
    last = world.ledger.endpoint("production").rollout
    assert last.phase is Phase.ROLLED_BACK
    assert world.production.weights == {"v2": 100}


def test_a_retraining_signs_what_it_registers_and_history_says_by_which_key(world):
    version = retrain(config=str(world.path), seed=1)
    key = signing_key(world.config)
    registered = ledger.registered(world.store, world.ledger, version)
    assert registered.signed_by == key.public.fingerprint
    copies, keys = world.root / "again", trusted(world.config)
    release = Release(version, registered.digest)
    assert releases.verify(
        releases.fetch(world.store, release, copies, keys), registered.digest, keys
    )
    secret = key.pem.decode().splitlines()[1]
    files = [path for path in world.root.rglob("*") if path.is_file()]
    holding = {path.name for path in files if secret.encode() in path.read_bytes()}
    assert holding == {"release.pem"}, "and the private key stands nowhere else"

    (stored(world, version) / "SIGNATURE").unlink()
    shutil.rmtree(world.place.scratch / "copies", ignore_errors=True)
    with pytest.raises(ReleaseError, match="it has no SIGNATURE"):
        reproduce(version, str(world.path))
    with pytest.raises(ReleaseError, match="it has no SIGNATURE"):
        retrain(config=str(world.path), seed=2)  # it would be compared with that version


def test_without_a_key_nothing_is_trained(world, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    public = "".join(f"      {line}\n" for line in STRANGER.public.pem.decode().splitlines())
    text = world.path.read_text().replace("made-here", "environment")
    world.path.write_text(text.replace("trusted: []", f"trusted:\n    - |\n{public}"))
    with pytest.raises(ConfigError, match=f"{VARIABLE} is not set"):
        retrain(config=str(world.path), seed=1)
    assert world.jobs.ran == []
    assert world.ledger.number == 0


def test_a_secret_block_of_prefect_signs(world):
    from prefect.blocks.system import Secret

    from tasks.release import signer

    Secret(value=STRANGER.pem.decode()).save("release-key")
    public = (STRANGER.public.pem.decode(),)
    for name, found in (("release-key", True), ("another-key", False)):
        signing = Signing(private_key=f"secret/{name}", trusted=public)
        config = world.config.model_copy(update={"signing": signing})
        if found:
            assert signer(config) == STRANGER
        else:
            with pytest.raises(ConfigError, match="no secret block 'another-key'"):
                signer(config)

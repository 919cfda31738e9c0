"""Old records are read for ever: 64 of a demo, as main of 2026-11-25 wrote them."""

import json
from pathlib import Path

import pytest

from policy.ledger import extend, fold, key, next_record
from policy.records import Snapshotted
from policy.rollout.record import Phase
from tests.policy.test_ledger import NOW, registered

FOLDER = Path(__file__).parent / "records/2026-11-25"


@pytest.fixture(scope="module")
def old():
    found = sorted(FOLDER.iterdir())
    return [(f"ledger/{path.name}", path.read_bytes()) for path in found]


def test_they_fold_to_what_they_meant(old):
    state, first, second = fold(old), "2026.11.26-a8bd9b5", "2026.11.26-20f2322"
    assert state.number == 64
    assert list(state.versions) == [first, second, "2026.11.26-1d8e324"]
    assert state.version(second).accuracy == 0.998906
    assert state.version(second).key == "6af60d0e9746"
    assert {name: at.promoted for name, at in state.endpoints.items()} == {
        "staging": (first, second),
        "production": (first, second),
    }
    last = state.endpoint("production").rollout
    assert (last.version, last.phase) == ("2026.11.26-1d8e324", Phase.ROLLED_BACK)
    assert list(state.retrainings) == ["4761d35c591b", "6af60d0e9746"]


def test_whoever_wrote_them_has_told_of_them(old):
    assert fold(old).untold == ()


def test_rollouts_in_them_are_rollbacks_only_if_they_began_promoted(old):
    assert not fold(old).endpoint("production").rollout.rollback
    raw = json.loads(old[-1][1])
    raw["event"]["rollout"] |= {"promote_at_once": True}
    raw["event"]["rollout"]["plan"]["weights"] = [100]
    lifted = fold([*old[:-1], (old[-1][0], json.dumps(raw).encode())])
    assert lifted.endpoint("production").rollout.rollback


def test_new_records_go_on_from_them(old):
    state = fold(old)
    record = next_record(state, registered("v9"), at=NOW, by="a test", run="")
    assert extend(state, key(65), record.encode()).version("v9").number == 65


def test_a_snapshot_is_in_no_state_but_its_number(old):
    state = fold(old)
    event = Snapshotted(version=1, number=64, sha256="s" * 64)
    record = next_record(state, event, at=NOW, by="a test", run="")
    after = extend(state, key(65), record.encode())
    assert after.snapshot == 64
    assert after.endpoints == state.endpoints

"""The ledger folds records into the state and refuses every break of its chain."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from policy.config import load_config
from policy.errors import Busy, LedgerError, NotFound
from policy.ledger import (
    Ledger,
    Registered,
    RetrainingStarted,
    RolloutChanged,
    begin,
    extend,
    fold,
    key,
    next_record,
)
from policy.rollout.record import Phase, start

NOW = datetime(2026, 11, 22, tzinfo=UTC)
PLAN = load_config(Path(__file__).parents[2] / "deployments/local.yaml").rollout


def registered(version):
    return Registered(
        version=version, digest="d" * 64, accuracy=0.9, families={}, reasons=(), lineage={}
    )


def rollout(version, phase, stable=None, endpoint="production"):
    new = start("r", endpoint, version, stable, PLAN, "a test", NOW)
    return RolloutChanged(rollout=new.model_copy(update={"phase": phase}))


def chain(*events):
    """The (key, bytes) pairs of a ledger with these events."""
    ledger, blobs = Ledger(), []
    for event in events:
        record = next_record(ledger, event, at=NOW, by="a test", run="")
        blobs.append((key(record.number), record.encode()))
        ledger = extend(ledger, *blobs[-1])
    return blobs


def test_promotions_make_stable_and_the_version_before():
    ledger = fold(
        chain(
            registered("v1"),
            registered("v2"),
            rollout("v1", Phase.DONE),
            rollout("v2", Phase.STEP, "v1"),
        )
    )
    assert ledger.endpoint("production").stable == "v1"
    assert ledger.endpoint("production").unfinished.version == "v2"
    ledger = fold(
        chain(
            registered("v1"),
            registered("v2"),
            rollout("v1", Phase.DONE),
            rollout("v2", Phase.DONE, "v1"),
        )
    )
    assert ledger.endpoint("production").stable == "v2"
    assert ledger.endpoint("production").before == "v1"
    assert ledger.endpoint("production").unfinished is None
    assert [ledger.stage(v) for v in ("v1", "v2")] == ["candidate", "production"]


def test_a_rollback_goes_back_in_history_instead_of_adding_to_it():
    done = [rollout(v, Phase.DONE) for v in ("v1", "v2", "v3")]
    back = rollout("v2", Phase.DONE, "v3")
    state = fold(chain(*done, back)).endpoint("production")
    assert (state.stable, state.before) == ("v2", "v1")


def test_a_version_taken_back_leaves_stable_as_it_was():
    state = fold(chain(rollout("v1", Phase.DONE), rollout("v2", Phase.ROLLED_BACK, "v1")))
    assert state.endpoint("production").stable == "v1"


def test_endpoints_do_not_touch_each_other():
    ledger = fold(chain(rollout("v1", Phase.DONE, endpoint="staging")))
    assert ledger.endpoint("production").stable is None
    assert ledger.stage("v1") == "staging"


def test_starts_of_retrainings_are_kept_by_their_key():
    event = RetrainingStarted(key="k", cause="hand", why="a test")
    assert fold(chain(event, event)).retrainings == {"k": NOW}


def damaged(blobs):
    name, data = blobs[1]
    return [
        ("a byte changed", [blobs[0], (name, data.replace(b"a test", b"a tesT")), blobs[2]]),
        ("a record missing", [blobs[0], blobs[2]]),
        ("the first missing", blobs[1:]),
        ("a record cut short", [blobs[0], (name, data[:40]), blobs[2]]),
        ("an empty record", [blobs[0], (name, b""), blobs[2]]),
        ("a stranger in the folder", [*blobs, ("ledger/notes.txt", b"hello")]),
        ("records swapped", [blobs[0], (name, blobs[2][1]), (key(3), data)]),
        ("an unknown field", [blobs[0], (name, data.replace(b'"by"', b'"who"'))]),
    ]


BLOBS = chain(registered("v1"), registered("v2"), rollout("v1", Phase.DONE))


@pytest.mark.parametrize(("what", "blobs"), damaged(BLOBS), ids=lambda x: x if x is str else "")
def test_a_broken_chain_is_refused(what, blobs):
    with pytest.raises(LedgerError, match="the ledger's chain is broken"):
        fold(blobs)


def test_a_version_is_registered_once():
    with pytest.raises(LedgerError, match="registers v1 a second time"):
        chain(registered("v1"), registered("v1"))


def test_an_unknown_version_is_named_with_those_there_are():
    with pytest.raises(NotFound, match="no version 'v9'.*one of: v1, v2"):
        fold(BLOBS).version("v9")


class TestBegin:
    new = start("r2", "production", "v2", "v1", PLAN, "a test", NOW)

    def test_a_free_endpoint_takes_the_new_rollout(self):
        assert begin(fold(BLOBS), self.new) is self.new

    def test_the_same_version_goes_on_where_it_was(self):
        ledger = fold([*chain(registered("v1"), registered("v2"), rollout("v2", Phase.STEP))])
        assert begin(ledger, self.new).phase is Phase.STEP

    def test_another_version_finds_the_endpoint_busy(self):
        ledger = fold(chain(registered("v1"), registered("v2"), rollout("v1", Phase.STEP)))
        with pytest.raises(Busy, match="production is in the rollout of v1 .step"):
            begin(ledger, self.new)

    def test_an_unregistered_version_is_refused(self):
        with pytest.raises(NotFound):
            begin(Ledger(), self.new)

"""The ledger folds records into the state and refuses every break of its chain."""

import json
from datetime import UTC, datetime

import pytest

from policy.errors import LedgerError, NotFound
from policy.ledger import Ledger, extend, fold, key, next_record
from policy.records import (
    SCHEMA_VERSION,
    Decided,
    Registered,
    Requested,
    RetrainingStarted,
    RolloutChanged,
    Told,
)
from policy.rollout.record import Phase, start
from policy.rollout.requests import Answer, Request
from tests.policy.worlds import make_plan

NOW = datetime(2026, 11, 22, tzinfo=UTC)
PLAN = make_plan()
ROLES = {"staging": "staging", "production": "production"}


def registered(version, **changes):
    event = Registered(
        version=version, digest="d" * 64, accuracy=0.9, families={}, reasons=(), lineage={}
    )
    return event.model_copy(update=changes)


def rollout(version, phase, stable=None, endpoint="production", **changes):
    new = start(f"{endpoint}-{version}", endpoint, version, stable, PLAN, "a test", NOW)
    return RolloutChanged(rollout=new.model_copy(update={"phase": phase, **changes}))


def requested(id, version="v2", rollout="", kind="rollout", **changes):
    request = Request(
        id=id, kind=kind, endpoint="production", by="a", why="b", version=version,
        plan=PLAN,
    )  # fmt: skip
    answer = Answer(request=request, rollout=rollout, **changes)
    return Requested(answer=answer, rollout=None)


def chain(*events):
    """The (key, bytes) pairs of a ledger with these events."""
    ledger, blobs = Ledger(), []
    for event in events:
        record = next_record(ledger, event, at=NOW, by="a test", run="")
        blobs.append((key(record.number), record.encode()))
        ledger = extend(ledger, *blobs[-1])
    return blobs


def state_after(*events):
    return fold(chain(*events)).endpoint("production")


class TestWhatServes:
    def test_promotions_make_stable_and_the_version_before(self):
        begun = fold(
            chain(
                registered("v1"),
                registered("v2"),
                rollout("v1", Phase.DONE),
                rollout("v2", Phase.STEP, "v1"),
            )
        )
        assert begun.endpoint("production").stable == "v1"
        assert begun.endpoint("production").unfinished.version == "v2"
        done = fold(
            chain(
                registered("v1"),
                registered("v2"),
                rollout("v1", Phase.DONE),
                rollout("v2", Phase.DONE, "v1"),
            )
        )
        assert done.endpoint("production").stable == "v2"
        assert done.endpoint("production").before == "v1"
        assert done.endpoint("production").unfinished is None
        assert [done.stage(v, ROLES) for v in ("v1", "v2")] == ["candidate", "production"]

    def test_a_rollback_goes_back_in_history_instead_of_adding_to_it(self):
        done = [rollout(v, Phase.DONE) for v in ("v1", "v2", "v3")]
        state = state_after(*done, rollout("v2", Phase.DONE, "v3", rollback=True))
        assert (state.stable, state.before) == ("v2", "v1")

    def test_a_rollout_of_an_old_version_adds_to_history(self):
        """Then a rollback returns to what served minutes ago, not to what served before."""
        done = [rollout(v, Phase.DONE) for v in ("v1", "v2", "v3", "v4")]
        state = state_after(*done, rollout("v2", Phase.DONE, "v4"))
        assert (state.stable, state.before) == ("v2", "v4")

    def test_a_version_that_served_twice_goes_back_to_its_last_time(self):
        done = [rollout(v, Phase.DONE) for v in ("v1", "v2", "v1", "v3")]
        state = state_after(*done, rollout("v1", Phase.DONE, "v3", rollback=True))
        assert state.promoted == ("v1", "v2", "v1")

    def test_a_version_taken_back_leaves_stable_as_it_was(self):
        done = rollout("v1", Phase.DONE)
        assert state_after(done, rollout("v2", Phase.ROLLED_BACK, "v1")).stable == "v1"

    def test_endpoints_do_not_touch_each_other(self):
        ledger = fold(chain(rollout("v1", Phase.DONE, endpoint="staging")))
        assert ledger.endpoint("production").stable is None
        assert ledger.stage("v1", ROLES) == "staging"


class TestRequests:
    def test_one_gets_the_outcome_of_its_own_rollout_and_of_no_other(self):
        own = {"request": "mine", "id": "production-2"}
        ledger = fold(
            chain(
                requested("mine", rollout="production-2"),
                rollout("v2", Phase.ROLLED_BACK, "v1", reason="too slow", **own),
                requested("other", rollout="production-4"),
                rollout(
                    "v2", Phase.DONE, "v1", request="other", id="production-4", reason="good"
                ),
            )
        )
        answers = [ledger.requests[id] for id in ("mine", "other")]
        assert [(a.decided, a.came_true, a.reason) for a in answers] == [
            (True, False, "too slow"), (True, True, "good"),
        ]  # fmt: skip

    def test_those_that_wait_are_served_in_their_order(self):
        ledger = fold(chain(requested("first"), requested("second")))
        assert ledger.waiting("production").request.id == "first"
        assert ledger.waiting("staging") is None
        decided = ledger.requests["first"].model_copy(update={"decided": True})
        later = fold(chain(requested("first"), requested("second"), Decided(answer=decided)))
        assert later.waiting("production").request.id == "second"

    def test_one_is_made_once(self):
        with pytest.raises(LedgerError, match="makes the request one a second time"):
            chain(requested("one"), requested("one"))

    def test_the_newest_200_that_are_decided_are_kept_and_all_that_wait(self):
        decided = [requested(f"r{n}", decided=True) for n in range(300)]
        ledger = fold(chain(requested("waits"), *decided))
        assert len(ledger.requests) == 201
        assert {"waits", "r100", "r299"} <= set(ledger.requests)
        assert "r99" not in ledger.requests

    def test_a_plan_is_kept_only_as_long_as_something_may_start_from_it(self):
        ledger = fold(chain(requested("waits"), requested("joined", rollout="production-1")))
        plans = [ledger.requests[id].request.plan for id in ("waits", "joined")]
        assert plans == [PLAN, None]


class TestUntold:
    def test_what_people_want_to_hear_is_untold_until_it_is_told(self):
        phases = Phase.PENDING, Phase.STEP, Phase.AWAITING_APPROVAL, Phase.DONE
        events = [rollout("v1", phase) for phase in phases]
        assert [untold.phase for untold in fold(chain(*events)).untold] == [
            Phase.PENDING, Phase.AWAITING_APPROVAL, Phase.DONE,
        ]  # fmt: skip
        told = [
            Told(what=f"production-v1:{phase}", channel="")
            for phase in (Phase.PENDING, Phase.DONE)
        ]
        (left,) = fold(chain(*events, *told)).untold
        assert (left.phase, left.first, left.number) == (Phase.AWAITING_APPROVAL, 1, 3)

    def test_each_channel_tells_on_its_own(self):
        events = rollout("v1", Phase.DONE), Told(what="production-v1:done", channel="slack")
        (left,) = fold(chain(*events)).untold
        assert left.channels == ("slack",)

    def test_a_state_that_goes_on_is_untold_once(self):
        events = [rollout("v1", Phase.PENDING), rollout("v1", Phase.PENDING, reason="still")]
        assert [untold.number for untold in fold(chain(*events)).untold] == [1]


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
        ("a list for a record", [blobs[0], (name, b"[]"), blobs[2]]),
        ("a record of version 0", [blobs[0], (name, b'{"schema_version": 0}'), blobs[2]]),
        ("a record of version x", [blobs[0], (name, b'{"schema_version": "x"}'), blobs[2]]),
        ("a stranger in the folder", [*blobs, ("ledger/notes.txt", b"hello")]),
        ("records swapped", [blobs[0], (name, blobs[2][1]), (key(3), data)]),
        ("an unknown field", [blobs[0], (name, data.replace(b'"by"', b'"who"'))]),
        ("infinite accuracy", [blobs[0], (name, data.replace(b"0.9", b"Infinity")), blobs[2]]),
    ]


BLOBS = chain(registered("v1"), registered("v2"), rollout("v1", Phase.DONE))


@pytest.mark.parametrize(
    ("what", "blobs"), damaged(BLOBS), ids=lambda x: x if isinstance(x, str) else ""
)
def test_a_broken_chain_is_refused(what, blobs):
    with pytest.raises(LedgerError, match="the ledger's chain is broken"):
        fold(blobs)


def test_a_record_of_a_future_version_says_that_the_program_is_old():
    raw = {**json.loads(BLOBS[1][1]), "schema_version": SCHEMA_VERSION + 1, "mood": "sunny"}
    future = json.dumps(raw, indent=1).encode()
    with pytest.raises(
        LedgerError, match=r"00000002.json has schema version 3.*at most 2.*upd"
    ):
        fold([BLOBS[0], (key(2), future)])


def test_a_version_is_registered_once():
    with pytest.raises(LedgerError, match="registers v1 a second time"):
        chain(registered("v1"), registered("v1"))


def test_an_unknown_version_is_named_with_those_there_are():
    with pytest.raises(NotFound, match="no version 'v9'.*such as: v1, v2"):
        fold(BLOBS).version("v9")


def test_folding_in_parts_is_folding_at_once():
    """Also where old things are forgotten: an id may come again once its request is."""
    asked = [requested(f"r{n}", decided=True) for n in range(201)]
    begun = [RetrainingStarted(key=f"k{n % 210}", cause="hand", why="") for n in range(420)]
    blobs = chain(*asked, requested("r0"), *begun)
    whole = fold(blobs)
    assert (len(whole.requests), len(whole.retrainings)) == (201, 200)
    for n in (0, 1, 200, 201, 202, 300, len(blobs)):
        in_parts = fold(blobs[n:], fold(blobs[:n]))
        assert in_parts.model_dump_json() == whole.model_dump_json()


def test_the_state_does_not_grow_with_the_number_of_records():
    looks = [rollout("v2", Phase.STEP, "v1", failures=n) for n in range(100)]
    sizes = [len(fold(chain(*looks[:n])).model_dump_json()) for n in (10, 100)]
    assert abs(sizes[1] - sizes[0]) < 20


def test_folding_is_linear_in_the_number_of_records(monkeypatch):
    """Counted: each record is looked at once, and what is folded already is not copied."""
    copies = 0

    class Counted(dict):
        def __init__(self, *given):
            nonlocal copies
            copies += 1
            super().__init__(*given)

    events = [registered(f"v{n}") for n in range(200)]
    blobs = chain(*events)
    monkeypatch.setattr("policy.ledger.dict", Counted, raising=False)
    fold(blobs[:20])
    few, copies = copies, 0
    fold(blobs)
    assert copies == few

"""Whatever lies in the ledger: the state that it means, or a LedgerError, soon."""

import copy
import hashlib
import json
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deployments import ledger
from deployments.stores.disk import DiskStore
from policy.errors import LedgerError
from policy.ledger import Ledger, extend, fold, key
from policy.records import SCHEMA_VERSION, Decided, Snapshotted, Told, decode
from policy.rollout.record import Phase
from policy.rollout.requests import Answer, Request
from tests.policy.test_ledger import chain, registered, requested, rollout

OLD = Path(__file__).parents[1] / "policy/records/2026-11-25"
PROCESSOR_S_MAX = 10.0  # for one ledger; of this thread alone
ASKED = Request(id="one", kind="rollout", endpoint="production", by="a", why="b")


def known_records():
    """One record of every kind, of today's schema and of the one before."""
    new = chain(
        registered("v1"), registered("v2"), requested("one"), rollout("v1", Phase.DONE),
        rollout("v2", Phase.STEP, "v1"), requested("two", rollout="production-v2"),
        Told(what="production-v1:done", channel="x"), Decided(answer=Answer(request=ASKED)),
        rollout("v2", Phase.ROLLED_BACK, "v1"),
        Snapshotted(version=1, number=1, sha256="0" * 64),
    )  # fmt: skip
    old = [(f"ledger/{path.name}", path.read_bytes()) for path in sorted(OLD.iterdir())]
    return {"new": new, "old": old}


CHAINS = known_records()
PLACES = [(name, number) for name, blobs in CHAINS.items() for number in range(len(blobs))]
HOSTILE = [
    None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, 10**300, 1e308, 1e400, float("nan"), -0.0,
    "", "\0", "x" * 5_000, "\ud800", "0" * 64, "1970-01-01T00:00:00Z", "9999-12-31T23:59:59Z",
    "2026-11-26T00:00:00", "done", "rolled-back", "rollout", "production", "one", "v1", "v2",
    [], {}, [[]], [None], {"": {}}, {"kind": "registered"}, ["v1"], [100], [[100]], [0, 0],
]  # fmt: skip

fast = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def require_a_clear_end(blobs):
    """The state of these (key, bytes), or None if a LedgerError says why there is none."""
    start = time.thread_time()
    try:
        state = fold(blobs)
    except LedgerError as error:
        require_printable(error)
        return None
    finally:
        assert time.thread_time() - start < PROCESSOR_S_MAX
    require_usable(state)
    return state


def require_printable(error):
    assert len(str(error)) < 1_000
    assert str(error).isprintable()


def require_usable(state):
    """What every reader of a state does with it; nothing that was read may fail later."""
    again = Ledger.model_validate_json(state.model_dump_json())
    assert again.model_dump_json() == state.model_dump_json()
    for name in state.endpoints:
        state.waiting(name)
        _ = state.endpoint(name).stable, state.endpoint(name).unfinished


def rechained(name, number, data):
    """The chain with one record replaced by `data`, and all after it made to fit."""
    blobs = [*CHAINS[name]]
    blobs[number] = (blobs[number][0], data)
    for n in range(number + 1, len(blobs)):
        raw = json.loads(blobs[n][1])
        raw["previous"] = hashlib.sha256(blobs[n - 1][1]).hexdigest()
        blobs[n] = (blobs[n][0], json.dumps(raw, indent=1).encode())
    return blobs


def paths(tree, path=()):
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for name, value in items:
        yield (*path, name)
        if isinstance(value, dict | list):
            yield from paths(value, (*path, name))


def at(tree, path):
    for name in path:
        tree = tree[name]
    return tree


@st.composite
def forged(draw):
    """A chain in which a writer of the store has changed a record and all the hashes."""
    name, number = draw(st.sampled_from(PLACES))
    raw = json.loads(CHAINS[name][number][1])
    for _ in range(draw(st.integers(1, 3))):
        *above, last = draw(st.sampled_from(sorted(paths(raw), key=str)))
        value = draw(st.sampled_from(HOSTILE) | st.integers() | st.text(max_size=9))
        if draw(st.booleans()) or not isinstance(at(raw, above), dict):
            at(raw, above)[last] = copy.deepcopy(value)
        elif draw(st.booleans()):
            del at(raw, above)[last]
        else:
            at(raw, above)[str(value)] = at(raw, above).pop(last)
        if not raw:
            break
    raw = raw | {"number": number + 1} if draw(st.booleans()) else raw
    return rechained(name, number, json.dumps(raw, indent=1).encode())


@st.composite
def damaged(draw):
    """The bytes of one record with some of them changed, lost, doubled or added."""
    name, number = draw(st.sampled_from(PLACES))
    data = bytearray(CHAINS[name][number][1])
    for _ in range(draw(st.integers(1, 4))):
        where, length = draw(st.integers(0, len(data))), draw(st.integers(0, 40))
        part = bytes(data[where : where + length])
        new = draw(st.sampled_from([b"", part * 2, part[::-1]]) | st.binary(max_size=20))
        data[where : where + length] = new
    return name, number, bytes(data)


@fast
@given(forged())
def test_a_forged_chain_is_a_state_or_a_ledger_error(blobs):
    require_a_clear_end(blobs)


@fast
@given(damaged())
def test_damaged_bytes_are_a_ledger_error_or_the_same_record(found):
    name, number, data = found
    before = CHAINS[name]
    blobs = [*before[:number], (before[number][0], data), *before[number + 1 :]]
    state = require_a_clear_end(blobs)
    if data != before[number][1]:
        assert state is None or number == len(before) - 1, "a changed record breaks the chain"


@fast
@given(damaged())
def test_damaged_bytes_that_all_hashes_fit_are_a_state_or_a_ledger_error(found):
    require_a_clear_end(rechained(*found))


@fast
@given(st.binary(max_size=200) | st.text().map(str.encode))
def test_any_bytes_under_the_name_of_a_record_are_a_ledger_error(data):
    with pytest.raises(LedgerError):
        extend(Ledger(), key(1), data)


@fast
@given(st.permutations(CHAINS["new"]), st.integers(0, 20))
def test_records_in_another_order_or_missing_are_a_ledger_error(blobs, kept):
    if blobs[:kept] != CHAINS["new"][:kept]:
        with pytest.raises(LedgerError):
            fold(blobs[:kept])


HEAD = b'{\n "schema_version": %d,' % SCHEMA_VERSION
BOMBS = {
    "lists": b"[" * 500_000,
    "objects": b'{"a":' * 200_000,
    "lists in today's schema": HEAD + b' "event": ' + b"[" * 500_000,
    "objects in today's schema": HEAD + b' "event": ' + b'{"event":' * 200_000,
    "a number of a million digits": b'{"schema_version": ' + b"9" * 1_000_000 + b"}",
    "a number of this schema": HEAD + b' "number": ' + b"9" * 1_000_000 + b"}",
    "a version below all": b'{"schema_version": -1000000000}',
    "a version of nought": b'{"schema_version": 0}',
    "a version that is true": b'{"schema_version": true}',
    "a version with a fraction": b'{"schema_version": 1.0}',
    "infinite": b'{"schema_version": Infinity}',
    "ten megabytes of spaces": b" " * 10_000_000,
    "ten megabytes of text": HEAD + b' "by": "' + b"x" * 10_000_000 + b'"}',
    "a key a hundred thousand times": b"{" + b'"number": 1,' * 100_000 + b'"number": 1}',
    "UTF-16": '{"schema_version": 1}'.encode("utf-16"),
    "a byte order mark": b"\xef\xbb\xbf{}",
    "nothing": b"",
    "zeros": b"\0" * 4096,
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_a_ledger_error(name):
    assert require_a_clear_end([(key(1), BOMBS[name])]) is None


NAMES = [
    ".DS_Store", "00000011.json.tmp", "00000011.json~", "0000001.json", "000000011.json",
    "00000011.JSON", "copy of 00000001.json", ".00000011.json.swp", "٠٠٠٠٠٠١١.json", "a\nb",
    "00000000.json", "99999999.json",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_what_else_lies_in_the_folder_is_no_record_or_a_ledger_error(tmp_path, name):
    store = stored(tmp_path, CHAINS["new"][:-1])
    whole = ledger.read(store)
    (tmp_path / "ledger" / name).write_bytes(b"")
    for look in (ledger.read, ledger.audit):
        try:
            assert look(store).number == whole.number
        except LedgerError:
            assert name in ("00000000.json", "99999999.json"), "it is named like a record"


@settings(fast, max_examples=50)
@given(damaged(), st.binary(max_size=50))
def test_a_damaged_snapshot_never_decides(tmp_path_factory, found, garbage):
    """Snapshots only save reading: without one that the chain vouches for, all is read."""
    _, number, data = found
    folder = tmp_path_factory.mktemp("snapshots")
    store = stored(folder, CHAINS["new"][:3])
    whole = ledger.read(store)
    for text in (data, garbage, b"1\n" + data, b"1\n{}", b"1\n" + b"[" * 5_000):
        sha = hashlib.sha256(text).hexdigest()[:12]
        path = folder / "ledger-snapshots" / f"{number % 3 + 1:08d}-{sha}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text)
    assert ledger.read(store) == ledger.audit(store) == whole


def stored(folder, blobs):
    store = DiskStore(folder)
    for name, data in blobs:
        store.create(name, data)
    return store


@pytest.mark.slow
@pytest.mark.timeout(1200)
@settings(fast, max_examples=3_000)
@given(forged())
def test_thousands_of_forged_chains_are_states_or_ledger_errors(blobs):
    require_a_clear_end(blobs)


def test_every_kind_of_record_is_among_those_that_are_damaged():
    kinds = {decode(*blob).event.kind for blobs in CHAINS.values() for blob in blobs}
    assert kinds == {
        "registered", "rollout", "retraining", "requested", "decided", "told", "snapshot",
    }  # fmt: skip

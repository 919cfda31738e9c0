"""The ledger read aloud: requests with what came of them, in lines of today and of before."""

import json
from pathlib import Path

import pytest

from deployments import command, ledger
from deployments.store import open_store
from flows.terminal import history
from policy.errors import LedgerError
from policy.records import RetrainingStarted
from policy.rollout.requests import Request

OLD = Path(__file__).parents[1] / "policy/records"


def lines(world):
    return history.tell(ledger.records(world.place.store))


def one(world, *parts):
    """The only line that has all of `parts`."""
    found = [line for line in lines(world) if all(part in line for part in parts)]
    assert len(found) == 1, found
    return found[0]


def test_a_request_is_one_line_with_who_what_why_and_what_came_of_it(walking):
    assert "-> not decided yet" in one(
        walking, "ada asked to roll out v2 to production: a test"
    )
    assert walking.ask("abort", "--why", "customers\ncomplain", "--by", "grace") == 0
    told = one(walking, "grace asked to abort the rollout on production: customers complain")
    assert "-> came true: aborted by grace" in told
    assert "-> did not come true: " in one(walking, "ada asked to roll out v2 to production")
    assert one(walking, "v2  rolled back on production")


def test_a_request_that_waited_is_decided_by_the_rollout_that_it_began(walking):
    command.make(walking.place, walking.request("v3", "next"))
    waits = "ada asked to roll out v3 to production"
    assert one(walking, waits).endswith("-> not decided yet")
    asked = lambda: walking.state.requests["next"].decided  # noqa: E731
    walking.drive_until(asked)
    assert "-> came true: v3 serves 100 %" in one(walking, waits)
    assert one(walking, "v3  rollout began on production")


def test_a_pause_is_told_once(walking):
    assert walking.ask("pause", "--why", "lunch", "--by", "ada") == 0
    told = one(walking, "lunch")
    assert "ada asked to pause the rollout on production: lunch -> came true" in told


def test_a_retraining_is_told_with_the_version_that_came_of_it(walking):
    for key in ("4f2a", "77ab"):
        walking.write(RetrainingStarted(key=key, cause="hand", why="a test"))
    assert one(walking, "retraining 77ab started").endswith("-> no version registered so far")
    walking.register("v4", lineage={"key": "77ab"})
    assert one(walking, "retraining 77ab started").endswith("-> registered as v4")


def test_history_ends_with_the_audit_of_the_whole_chain(walking, capsys):
    assert walking.ask("history") == 0
    *_, last = capsys.readouterr().out.splitlines()
    state = walking.state
    assert last == f"{state.number} records, head {state.head[:12]}, chain intact"


def test_a_broken_chain_is_told_up_to_the_break_and_ends_with_1(walking, capsys):
    key = "ledger/00000003.json"
    walking.cloud.objects[key] = walking.cloud.objects[key].replace(b'"by"', b'"By"')
    assert walking.ask("history") == 1
    said = capsys.readouterr()
    assert "v2  registered by a test" in said.out
    assert "chain intact" not in said.out
    assert "00000003.json is damaged" in said.err


def test_json_holds_every_record_as_it_is(walking, capsys):
    assert walking.ask("history", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [record["number"] for record in found] == [*range(1, walking.state.number + 1)]
    assert found[0]["event"]["kind"] == "registered"


@pytest.mark.parametrize("day", sorted(path.name for path in OLD.iterdir() if path.is_dir()))
def test_records_of_before_are_told(tmp_path, day):
    (tmp_path / "ledger").mkdir()
    for record in (OLD / day).glob("*.json"):
        (tmp_path / "ledger" / record.name).write_bytes(record.read_bytes())
    store = open_store(str(tmp_path))
    told = "\n".join(history.tell(ledger.records(store)))
    assert "registered by" in told
    assert "promoted on " in told
    assert ledger.audit(store).number == len(list((OLD / day).glob("*.json")))


def test_a_record_that_is_missing_is_an_error(walking):
    del walking.cloud.objects["ledger/00000002.json"]
    with pytest.raises(LedgerError):
        lines(walking)


def test_every_kind_of_request_has_its_words():
    kinds = Request.model_fields["kind"].annotation.__args__
    assert {*history.ASKED} == {*kinds}

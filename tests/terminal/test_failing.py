"""Safety does not need what has just failed, and no command reports what did not happen.

A canary has a share of the traffic and nobody drives it. One thing fails, for good or for a
while; then somebody aborts, and the reconciler looks. Whatever failed, the canary is without
traffic as soon as the endpoint takes an order, and exit code 0 means that it is.
"""

import shutil
from contextlib import suppress
from dataclasses import dataclass

import pytest

from policy.errors import ArrCocError
from policy.rollout.record import Phase
from tasks.rollout.controller import RECONCILER, drive
from tasks.rollout.safety import safe_version
from tests.places.memory import nothing, silence

WHY = ("--why", "customers complain", "--by", "ada")
STORE = ("read", "list", "create")


@dataclass(frozen=True)
class Failing:
    """`calls` of the place fail, or the disk under scratch takes `no_file`."""

    name: str
    calls: tuple[str, ...]
    code: int
    says: str
    sheltered: bool = True
    no_file: bool = False


TABLE = (
    Failing("nothing", (), 0, "abort came true"),
    Failing("the ledger takes no record", ("create",), 1, "error: create"),
    Failing("the store is away", STORE, 1, "error: "),
    Failing("the metrics are away", ("read_counts",), 0, "abort came true"),
    Failing("the endpoint tells nothing", ("observe",), 1, "abort is not decided"),
    Failing("the endpoint takes no order", ("apply",), 1, "abort is not decided", False),
    Failing("the endpoint is silent", ("observe", "apply"), 1, "abort is not decided", False),
    Failing("no file can be made", (), 1, "error: ", no_file=True),
)


def fail(walking, failing):
    def hook(call, when):
        if when == "before" and call in failing.calls:
            raise silence(call, "it has failed")

    walking.cloud.hook = hook
    if failing.no_file:
        folder = walking.scratch / "driving"
        shutil.rmtree(folder)
        folder.write_text("a file, so that no file can be made below it")


def heal(walking):
    walking.cloud.hook = nothing
    folder = walking.scratch / "driving"
    if folder.is_file():
        folder.unlink()


def reconcile(walking, rounds=10):
    """What the reconciler does: it tries again whatever went wrong."""
    for _ in range(rounds):
        looks = iter(range(5))
        with suppress(ArrCocError, OSError):
            drive(
                walking.place, "production", lambda _s, n=looks: next(n, None) is None,
                by=RECONCILER,
            )  # fmt: skip
        walking.place.clock.sleep(5)


def canary_share(walking):
    return walking.cloud.endpoints["production"].weights.get("v2", 0)


@pytest.mark.parametrize("failing", TABLE, ids=lambda failing: failing.name)
def test_an_abort_holds_or_says_that_it_does_not(walking, capsys, failing):
    assert canary_share(walking)
    fail(walking, failing)
    code = walking.ask("abort", "--wait-s", "60", *WHY)
    told = capsys.readouterr()
    assert (code, failing.says in told.out + told.err) == (failing.code, True), told
    reconcile(walking)
    assert (canary_share(walking) == 0) is failing.sheltered
    heal(walking)
    if walking.rollout.phase is not Phase.ROLLED_BACK:
        walking.ask("abort", *WHY)
    reconcile(walking)
    assert walking.rollout.phase is Phase.ROLLED_BACK
    assert walking.cloud.endpoints["production"].weights == {"v1": 100}
    assert walking.cloud.lost("production") == 0


@pytest.mark.parametrize("failing", TABLE[1:3], ids=lambda failing: failing.name)
def test_a_canary_that_nobody_can_watch_has_no_traffic_until_the_ledger_is_back(
    walking, failing
):
    """The reconciler has just been started, and has never read the ledger."""
    assert safe_version(walking.scratch, "production") == "v1"
    fail(walking, failing)
    reconcile(walking, rounds=3)
    assert walking.cloud.endpoints["production"].weights == {"v1": 100}
    heal(walking)
    reconcile(walking)
    assert canary_share(walking)
    assert walking.rollout.fault is None


@pytest.mark.parametrize("failing", TABLE, ids=lambda failing: failing.name)
def test_a_rollback_that_ends_with_0_has_come_true(serving, capsys, failing):
    serving.serve("v2")
    fail(serving, failing)
    code = serving.ask("rollback", "--wait-s", "120", *WHY)
    serves = serving.cloud.endpoints["production"].weights
    assert code == 1 or serves == {"v1": 100}, capsys.readouterr()
    heal(serving)
    if code:
        serving.ask("rollback", *WHY)
    reconcile(serving)
    assert serving.cloud.endpoints["production"].weights == {"v1": 100}
    assert serving.cloud.lost("production") == 0


def test_a_finished_rollout_leaves_nobody_to_shelter(serving):
    serving.serve("v2")
    assert safe_version(serving.scratch, "production") is None
    fail(serving, TABLE[2])
    reconcile(serving, rounds=2)
    assert serving.cloud.endpoints["production"].weights == {"v2": 100}

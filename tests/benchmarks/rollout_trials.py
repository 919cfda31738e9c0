"""Ten bad canaries and ten good ones, live: real Envoy, real HTTP, steady load from clients.

    python tests/benchmarks/rollout_trials.py [all]

Prints how each trial ended, what clients saw, and how long a rollback by hand takes. Without
`all` three of each kind. Servers are stand-ins for the model; everything else is the product.
"""

import json
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

sys.path.insert(0, str(Path(__file__).parents[2]))

from deployments import command, ledger, local
from deployments.local.layout import layout_of
from deployments.local.supervisor.programs import Supervisor
from deployments.releases import folder as releases
from deployments.releases.keys import signing_key, trusted
from policy.config import Rollout as Settings
from policy.ledger import EndpointState
from policy.records import Registered
from policy.rollout.plans import plan_for
from policy.rollout.record import Phase
from policy.rollout.requests import Kind, Request
from tasks.rollout.controller import drive
from tasks.rollout.replays import replay_of
from tests.local.fixtures import configured, start_endpoints
from tests.local.load import load
from tests.policy.worlds import changed

SERVER = "tests.e2e.trial_server"
BAD = {
    "errors under traffic": {"after": 20, "late_fails_every": 3},
    "wrong answers": {"answer": "nonsense"},
    "degrades while it is watched": {"fails_once_there_is": "FLAG"},
    "wrong answers under traffic": {"after": 20, "wrong_every": 2},
    "slow under traffic": {"after": 20, "late_delay_s": 3},
    "never ready": {"ready_after_s": 10_000},
    "crashes at its start": {"exit": 3},
    "crashes under traffic": {"after": 20, "dies_every": 5},
    "another input schema": {"schema": "image_id"},
    "a damaged release": {"damaged": True},
}
GOOD = {
    "plain": {},
    "wrong once in twenty": {"wrong_every": 20},
    "fails once in two hundred": {"after": 30, "late_fails_every": 200},
    "starts slowly": {"ready_after_s": 1.5},
    "takes 2 ms": {"delay_s": 0.002},
    "takes 5 ms": {"delay_s": 0.005},
    "takes 10 ms": {"delay_s": 0.01},
    "takes 20 ms": {"delay_s": 0.02},
    "takes 40 ms": {"delay_s": 0.04},
    "plain again": {},
}


QUICK = {
    "bake_s": 2.0,
    "look_s": 0.25,
    "analyses": [],
    "watch__s": 3.0,
    "deadlines__deploying_s": 8.0,
}


@dataclass(frozen=True)
class Trial:
    name: str
    good: bool
    ended: Phase
    reason: str
    took_s: float
    sent: int
    failed: int
    others: tuple[tuple[int, str], ...]  # status and version of what failed

    @property
    def right(self) -> bool:
        return self.ended is (Phase.DONE if self.good else Phase.ROLLED_BACK)


class Trials:
    """A production endpoint with its load; versions come one after another."""

    def __init__(self, root: Path, **changes: Any) -> None:
        self.root = root
        config = configured(root)
        settings = changed(config.rollout.model_dump(), **{**QUICK, **changes})
        self.config = config.model_copy(update={"rollout": Settings.model_validate(settings)})
        self.place = local.connect(self.config, server=SERVER)
        self.store, self.endpoint = self.place.store, self.place.endpoint("production")
        self.count = 0

    def register(self, behaviour: dict) -> str:
        self.count += 1
        version = f"v{self.count}"
        folder = self.root / "made" / version
        folder.mkdir(parents=True)
        (folder / "behaviour.json").write_text(json.dumps({"version": version, **behaviour}))
        lines = [
            {"instance": {"question": f"q{n}"}, "answer": f"q{n}", "family": "echo"}
            for n in range(10)
        ]
        (folder / "requests.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
        digest = releases.seal(folder, signing_key(self.config))
        releases.publish(self.store, folder, digest, trusted(self.config))
        if behaviour.get("damaged"):
            (self.root / "releases" / digest / "behaviour.json").write_text("{}")
        event = Registered(
            version=version, digest=digest, accuracy=1, families={}, reasons=(), lineage={}
        )
        ledger.append(self.store, lambda _state: event, by="a trial")
        return version

    def ask(self, kind: Kind, version: str = "") -> str:
        """Make the request; returns its id."""
        plan = plan_for(self.config, "production")
        request = Request(
            id=uuid4().hex, kind=kind, endpoint="production", by="ada", why="a trial",
            version=version, plan=plan,
        )  # fmt: skip
        return command.make(self.place, request).request.id

    def drive(self, request: str) -> None:
        drive(
            self.place,
            "production",
            lambda state: state.requests[request].decided,
            by="a trial",
            replay=replay_of(self.config, self.place, print),
        )

    def roll_out(self, version: str) -> None:
        self.drive(self.ask("rollout", version))

    def now(self) -> EndpointState:
        return ledger.read(self.store).endpoint("production")

    def weights(self) -> dict[str, int]:
        return dict(self.endpoint.observe().weights)

    def trial(self, name: str, good: bool) -> Trial:
        """One version on its way, with clients asking all the time."""
        behaviour = dict((GOOD if good else BAD)[name])
        flag = self.root / f"flag-{self.count}"
        if behaviour.get("fails_once_there_is"):
            behaviour["fails_once_there_is"] = str(flag)
        version, before = self.register(behaviour), self.now().stable
        start = time.monotonic()
        with load(self.endpoint.url, threads=3, pause_s=0.02) as seen, self.degrading(flag):
            self.roll_out(version)
            time.sleep(0.3)
        rollout = self.now().rollout
        assert rollout is not None
        serves = version if rollout.phase is Phase.DONE else before
        assert self.weights() == {serves: 100}, "and that is what serves"
        assert list(self.endpoint.observe().servers) == [serves]
        return Trial(
            name, good, rollout.phase, rollout.reason, time.monotonic() - start,
            seen.sent, seen.failed, tuple(key for key in seen.answers if key[0] != 200),
        )  # fmt: skip

    @contextmanager
    def degrading(self, flag: Path) -> Iterator[None]:
        """Make the flag as soon as the version is watched at 100 %."""
        over = threading.Event()

        def wait() -> None:
            while not over.wait(0.1):
                if (r := self.now().rollout) and r.phase is Phase.WATCHING:
                    flag.touch()

        thread = threading.Thread(target=wait)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def rolled_back_by_hand(self) -> tuple[float, int]:
        """Seconds until the version before has all traffic, and how many requests failed."""
        if self.now().before is None:
            self.roll_out(self.register({}))
        before = self.now().before
        took: list[float] = []
        start = time.monotonic()

        def wait() -> None:
            while self.weights() != {before: 100}:
                time.sleep(0.02)
            took.append(time.monotonic() - start)

        watcher = threading.Thread(target=wait)
        with load(self.endpoint.url, threads=3, pause_s=0.02) as seen:
            watcher.start()
            self.drive(self.ask("rollback"))
            watcher.join(60)
        return took[0], seen.failed

    def aborted_by_hand(self) -> float:
        """The same while a canary has a share: seconds until stable has all traffic."""
        version, stable = self.register({}), self.now().stable
        controller = threading.Thread(target=self.roll_out, args=(version,))
        controller.start()
        while not self.weights().get(version):
            time.sleep(0.05)
        start = time.monotonic()
        self.ask("rollback")
        while self.weights() != {stable: 100}:
            time.sleep(0.02)
        took_s = time.monotonic() - start
        controller.join(60)
        return took_s


@contextmanager
def trials(**changes: Any) -> Iterator[Trials]:
    """A stack of its own with one good version serving; gone afterwards."""
    root = Path(tempfile.mkdtemp(prefix="arr"))
    made = Trials(root, **changes)
    try:
        start_endpoints(made.config)
        with load(made.endpoint.url, threads=1, pause_s=0.02):
            made.roll_out(made.register({}))
        yield made
    finally:
        Supervisor(layout_of(made.config)).shutdown()
        shutil.rmtree(root, ignore_errors=True)


def all_trials(made: Trials, number: int) -> Iterator[Trial]:
    """Bad and good by turns, `number` of each."""
    for bad, good in zip([*BAD][:number], [*GOOD][:number], strict=True):
        yield made.trial(bad, good=False)
        yield made.trial(good, good=True)


def main(number: int) -> int:
    with trials() as made:
        done = []
        for trial in all_trials(made, number):
            done.append(trial)
            kind, mark = "good" if trial.good else "bad", "ok" if trial.right else "WRONG"
            print(
                f"{mark:5} {kind:4} {trial.name:30} {trial.ended:12} {trial.took_s:5.1f} s  "
                f"{trial.failed} of {trial.sent} failed  {trial.reason[:110]}", flush=True,
            )  # fmt: skip
        took_s, failed = made.rolled_back_by_hand()
        aborted_s = made.aborted_by_hand()
    right = sum(trial.right for trial in done)
    print(f"{right} of {len(done)} decided right; clients: {sum(t.failed for t in done)} of "
          f"{sum(t.sent for t in done)} requests failed")  # fmt: skip
    print(f"rollback by hand: {took_s:.2f} s until the version before has all traffic, "
          f"{failed} failed; of a canary: {aborted_s:.2f} s")  # fmt: skip
    return 0 if right == len(done) else 1


if __name__ == "__main__":
    sys.exit(main(10 if sys.argv[1:] == ["all"] else 3))

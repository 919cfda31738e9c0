"""What must hold all the time, looked at every second."""

import threading
import time

from deployments import ledger
from policy.errors import ArrCocError, EndpointSilent, LedgerError
from tasks.rollout.lead import lock_path
from tests.benchmarks.chaos_run.clients import Clients
from tests.benchmarks.chaos_run.story import Story
from tests.benchmarks.chaos_run.world import World

UNWATCHED_S = 90.0
AUDIT_EVERY_S, TOLD_EVERY_S = 10.0, 10.0


class Watch:
    """`bad` are the versions that must never have all the traffic."""

    def __init__(self, world: World, story: Story, clients: Clients) -> None:
        self._world, self._story, self._clients = world, story, clients
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep_looking, daemon=True)
        self._audited = self._told = time.monotonic()
        self._weights: dict[str, int] = {}
        self._said = set[str]()
        self.bad, self.longest_unwatched_s, self.rollouts = set[str](), 0.0, 0

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def canary(self) -> str:
        """The version with the smallest share."""
        return min(self._weights, key=lambda v: self._weights[v], default="none")

    def _keep_looking(self) -> None:
        while not self._stop.wait(1.0):
            try:
                self._look()
            except EndpointSilent:
                continue  # Envoy was killed; who asks it in vain is counted by the clients
            except LedgerError as error:
                self._breach_once("the ledger verifies", str(error))
            except ArrCocError as error:
                self._story.tell("could not look", error=str(error))

    def _look(self) -> None:
        if time.monotonic() > self._told + TOLD_EVERY_S:
            self._told = time.monotonic()
            self._tell()
        if time.monotonic() > self._audited + AUDIT_EVERY_S:
            self._audited = time.monotonic()
            ledger.audit(self._world.place.store)
        weights = dict(self._world.endpoint.observe().weights)
        if weights != self._weights:
            self._story.tell("weights", weights=weights)
        self._weights = weights
        for version in self.bad:
            if weights.get(version) == 100:
                self._breach_once("no bad version at 100 %", f"{version} has all the traffic")
        self._require_watched(weights)

    def _require_watched(self, weights: dict[str, int]) -> None:
        """By the file's own time, which no clock of the stack's moves."""
        if len(weights) < 2:
            return
        path = lock_path(self._world.place.scratch, "production")
        unwatched_s = time.time() - path.stat().st_mtime
        self.longest_unwatched_s = max(self.longest_unwatched_s, unwatched_s)
        if unwatched_s > UNWATCHED_S:
            told = f"{weights}, nobody has looked for {unwatched_s:.0f} s"
            self._breach_once("no canary unwatched for 90 s", told)

    def _breach_once(self, invariant: str, found: str) -> None:
        if invariant not in self._said:
            self._said.add(invariant)
            self._story.breach(invariant, found)

    def _tell(self) -> None:
        clients, share = (
            self._clients,
            ", ".join(f"{v} {w} %" for v, w in self._weights.items()),
        )
        print(
            f"{self._story.now_s():7.0f} s  {share:24}  {self.rollouts:3} rollouts ended  "
            f"{clients.answers.total()} requests, {len(clients.lost)} lost, "
            f"{clients.excused_count} while Envoy was dead  slowest {clients.slowest_s:.1f} s  "
            f"unwatched at most {self.longest_unwatched_s:.0f} s  "
            f"{len(self._story.breaches)} breaches", flush=True,
        )  # fmt: skip

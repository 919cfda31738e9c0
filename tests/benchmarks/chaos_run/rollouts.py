"""Versions that are rolled out one after another, and whether each ended as it should."""

import threading
from collections import Counter
from uuid import uuid4

from deployments import command
from policy.errors import ArrCocError
from policy.rollout.plans import plan_for
from policy.rollout.requests import Answer, Request
from tests.benchmarks.chaos_run import schedule
from tests.benchmarks.chaos_run.actions import Actions
from tests.benchmarks.chaos_run.story import Story
from tests.benchmarks.chaos_run.watch import Watch
from tests.benchmarks.chaos_run.world import World

ASKED_FOR = "aborted by chaos"
DECIDED_S = 420.0  # all deadlines of a rollout, and the time in which nobody could look


class Rollouts:
    def __init__(
        self, world: World, story: Story, watch: Watch, actions: Actions, seed: int
    ) -> None:
        self._world, self._story, self._watch, self._actions = world, story, watch, actions
        self._versions, self._stop = schedule.versions(seed), threading.Event()
        self._thread = threading.Thread(target=self._keep_going, daemon=True)
        self.ended = Counter[str]()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Begin no other; returns when the one under way has ended."""
        self._stop.set()
        self._thread.join()

    def first(self) -> None:
        """One good version, so that there is something to lose."""
        self._roll_out("plain", good=True)

    def _keep_going(self) -> None:
        while not self._stop.wait(1.0):
            kind, good = next(self._versions)
            self._roll_out(kind, good=good)

    def _roll_out(self, kind: str, *, good: bool) -> None:
        behaviour = (schedule.GOOD if good else schedule.BAD)[kind]
        version = self._patiently(lambda: self._world.register(behaviour))
        if version is None:
            return
        if not good:
            self._watch.bad.add(version)
        since_s = self._story.now_s()
        self._story.tell("rollout", version=version, kind=kind, good=good)
        request = Request(
            id=uuid4().hex, kind="rollout", endpoint="production", by="chaos", why="chaos",
            version=version, plan=plan_for(self._world.config, "production"),
        )  # fmt: skip
        if self._patiently(lambda: command.make(self._world.place, request)) is None:
            return
        answer = self._decided(request.id)
        self._watch.rollouts += 1
        self._judge(version, kind, answer, since_s, good=good)

    def _patiently(self, act):
        """Again and again while the disk is full, say; None once the run is over."""
        while True:
            try:
                return act()
            except (ArrCocError, OSError) as error:
                self._story.tell("tried again", error=str(error)[:200])
                if self._stop.wait(1.0):
                    return None

    def _decided(self, id: str) -> Answer | None:
        deadline = self._story.now_s() + DECIDED_S
        while self._story.now_s() < deadline:
            threading.Event().wait(0.5)
            try:
                answer = self._world.state().requests.get(id)
            except ArrCocError as error:
                self._story.tell("tried again", error=str(error)[:200])
                continue
            if answer is not None and answer.decided:
                return answer
        return None

    def _judge(
        self, version: str, kind: str, answer: Answer | None, since_s: float, *, good: bool
    ) -> None:
        reason = answer.reason if answer else ""
        came_true = bool(answer and answer.came_true)
        excuse = self._actions.excused(version, since_s)
        if reason.startswith(ASKED_FOR):
            excuse = excuse or reason  # it was asked for in the moment in which it began
        end = "undecided" if answer is None else "promoted" if came_true else "rolled back"
        self.ended[f"{'good' if good else 'bad'} {end}"] += 1
        self._story.tell("ended", version=version, end=end, reason=reason[:300], excuse=excuse)
        told = f"{version} ({kind}) {end}: {reason[:300]}"
        if answer is None:
            self._story.breach("every request is decided", told)
        elif good and not came_true and not excuse:
            self._story.breach("good versions are promoted", told)
        elif not good and came_true:
            self._story.breach("bad versions are rolled back", told)

"""One process that drives one endpoint: a look, and what follows from it."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime
from functools import partial
from typing import NamedTuple

from deployments import Desired, Observed, Place, Release, ledger
from deployments.command import start_next
from policy.errors import ArrCocError, EndpointError, EndpointSilent
from policy.ledger import Ledger
from policy.records import RolloutChanged
from policy.rollout.machine import advance
from policy.rollout.observed import told
from policy.rollout.record import Rollout, finished, next_look_s
from tasks.rollout.lead import Lead
from tasks.rollout.looking import look
from tasks.rollout.moments import Moments
from tasks.rollout.orders import is_as_ordered, is_settled, line_of, not_settled, order, sparing
from tasks.rollout.safety import keep_safe_version, safe_version

Say = Callable[[str], None]
Replay = Callable[[Rollout], AbstractContextManager[Callable[[], bool]]]
"""Sends questions while it is entered; what it gives says whether it still does."""
REST_S = 10.0  # between two looks at an endpoint where nothing is under way
SETTLE_S = 40.0  # longer than the longest request, which a server that goes may still answer
REPLAY_AGAIN_S = 5.0
IDLE_S = 1.0  # between two reads of the ledger while nothing is under way, or another looks


class _Replaying(NamedTuple):
    """Questions for one rollout; should they stop, they begin again, not before `again`."""

    rollout: str
    context: AbstractContextManager[Callable[[], bool]]
    runs: Callable[[], bool]
    again: float


class Driver:
    """One process that drives one endpoint; everything it keeps may be lost."""

    def __init__(
        self,
        place: Place,
        endpoint: str,
        by: str,
        run: str,
        say: Say | None,
        replay: Replay | None,
    ) -> None:
        self._place, self._endpoint = place, place.endpoint(endpoint)
        self._by, self._run, self._replay = by, run, replay
        self._say: Say = say or (lambda _line: None)
        self._lead = Lead(place.scratch, endpoint, place.clock)
        self._told, self._last, self._silent = "", None, False
        self._moments = Moments(self._lead, place.clock)
        self._rests_until = place.clock.monotonic()
        self._replaying: _Replaying | None = None

    def tell(self, state: Ledger) -> None:
        rollout = state.endpoint(self._endpoint.name).rollout
        if rollout is None:
            return
        self._last = rollout
        line = line_of(rollout)
        if line != self._told and (self._told or not finished(rollout)):
            self._say(line)
        self._told = line

    def look(self, state: Ledger) -> tuple[Ledger, float]:
        """One look, if nobody else on this machine looks; the state and the pause after it."""
        current = state.endpoint(self._endpoint.name).unfinished
        look_s = IDLE_S if current is None else current.plan.look_s
        if not self._lead.take(look_s):
            self._stop_replay()
            self._moments.forget()
            return state, min(IDLE_S, look_s)
        name, known = self._endpoint.name, state.number
        state = self._append(lambda now: start_next(now, self._place, name), state)
        rollout = state.endpoint(name).rollout
        if rollout is None or finished(rollout):
            self._moments.rest()
        if rollout is None or self._rests(rollout):
            return state, IDLE_S
        self._keep_replaying(rollout)
        observed = self._observe()
        if not finished(rollout):
            state = self._go_on(state, rollout, observed)
            rollout = state.endpoint(name).rollout or rollout
        keep_safe_version(self._place.scratch, rollout)
        self._apply(state, rollout, observed)
        self._lead.looked()  # a look that ends in an error is none
        if finished(rollout) and observed is not None and is_settled(observed, rollout):
            self._rests_until = self._place.clock.monotonic() + REST_S
        changed = state.number != known
        return state, 0.0 if changed else _pause_s(rollout, self._place.clock.now())

    def _go_on(self, state: Ledger, rollout: Rollout, observed: Observed | None) -> Ledger:
        """Decide what this look changes, and write it."""
        moment = self._moments.look(rollout, state.endpoint(rollout.endpoint).last_at)
        seen = look(self._place, state, moment.rollout, observed, moment.at)
        after = advance(moment.rollout, seen)
        if moment.missed:
            self._say(f"{rollout.endpoint}: not counted: {moment.missed.words}")
            after = told(after, moment.missed)
        # What was missed is written even in the same words: the next process reads it there.
        if after == moment.rollout and not moment.missed:
            return state
        state = self._append(partial(_follow, before=rollout, after=after), state)
        if state.endpoint(rollout.endpoint).rollout == after:
            self._moments.wrote(after)
        return state

    def settle(self, state: Ledger) -> Ledger:
        """Look on until the endpoint is what the ended rollout wants, for a while.

        Whoever drives the endpoint next goes on with what is left.
        """
        deadline = self._place.clock.monotonic() + SETTLE_S
        while (rollout := state.endpoint(self._endpoint.name).rollout) is not None:
            observed = self._observe()
            done = observed is not None and is_settled(observed, rollout)
            if done or not finished(rollout) or not self._lead.take():
                return state
            if self._place.clock.monotonic() > deadline:
                self._say(
                    f"not done yet, the reconciler goes on: {not_settled(observed, rollout)}"
                )
                return state
            self._apply(state, rollout, observed)
            self._place.clock.sleep(min(IDLE_S, rollout.plan.look_s))
            state = ledger.read(self._place.store, state)
        return state

    def _rests(self, rollout: Rollout) -> bool:
        """Whether nothing is under way, and the endpoint was seen to be right just now."""
        rests = finished(rollout) and self._place.clock.monotonic() < self._rests_until
        return rests and self._replaying is None

    def fail_safe_to_stable(self, error: Exception) -> None:
        """Give stable all traffic, whatever the rollout wants: nobody can watch it now.

        It needs neither the ledger nor room on the disk, and says so if it could not.
        """
        try:
            stable = self._stable_at_risk()
            if stable is None or not self._is_ours_to_save():
                return
            observed = self._endpoint.observe()
            if observed.weights == {stable: 100}:
                return
            releases = tuple(
                Release(version, server.digest) for version, server in observed.servers.items()
            )
            self._endpoint.apply(Desired(releases, {stable: 100}))
            self._say(f"nobody can watch the canary, {stable} gets all traffic: {error!r}")
        except (ArrCocError, OSError) as silent:
            self._say(f"nobody can watch the canary, and its weight stays: {silent}")

    def _stable_at_risk(self) -> str | None:
        """The stable version of the rollout under way; None if there is no such rollout."""
        if self._last is None:  # the ledger has not answered yet: what was known before
            return safe_version(self._place.scratch, self._endpoint.name)
        return None if finished(self._last) else self._last.stable

    def _is_ours_to_save(self) -> bool:
        """Not if another process of this machine looks: it does so itself."""
        try:
            return self._lead.take()
        except OSError:
            return True  # no lock can be had on this disk, and two who do this do no harm

    def close(self) -> None:
        self._stop_replay()
        self._lead.release()

    def _append(self, decide, state: Ledger) -> Ledger:
        place = self._place
        if decide(state) is None:
            return state
        return ledger.append(
            place.store, decide, by=self._by, run=self._run, known=state, now=place.clock.now
        )

    def _observe(self) -> Observed | None:
        """What the endpoint is; None while it does not answer."""
        try:
            observed = self._endpoint.observe()
        except EndpointSilent as error:
            if not self._silent:
                self._say(f"{self._endpoint.name} does not answer: {error}")
            self._silent = True
            return None
        self._silent = False
        return observed

    def _apply(self, state: Ledger, rollout: Rollout, observed: Observed | None) -> None:
        wanted = order(state, rollout, self._endpoint)
        if observed is not None:
            wanted = sparing(wanted, rollout, observed)
            if is_as_ordered(observed, wanted):
                return
        elif not wanted.weights:
            return  # what serves is not known, so nobody says that it may stop
        if not self._lead.is_ours():
            return  # it hung since it decided, and what it wants is out of date
        try:
            self._endpoint.apply(wanted)
        except EndpointSilent as error:
            if observed is not None:
                self._say(f"{self._endpoint.name} did not take the order: {error}")
        except EndpointError as error:
            self._say(f"{self._endpoint.name} refuses: {error}")

    def _keep_replaying(self, rollout: Rollout) -> None:
        replays = self._replay is not None and rollout.plan.replays_per_s > 0
        wanted = rollout.id if replays and not finished(rollout) else ""
        now, known = self._place.clock.monotonic(), self._replaying
        if known is not None and known.rollout == wanted:
            if known.runs() or now < known.again:
                return
            self._say("the replay has ended; it begins again")
        self._stop_replay()
        if wanted and self._replay is not None:
            context = self._replay(rollout)
            again = now + REPLAY_AGAIN_S
            self._replaying = _Replaying(wanted, context, context.__enter__(), again)

    def _stop_replay(self) -> None:
        if self._replaying is not None:
            context, self._replaying = self._replaying.context, None
            context.__exit__(None, None, None)


def _follow(state: Ledger, before: Rollout, after: Rollout) -> RolloutChanged | None:
    """The next record, unless somebody else wrote one meanwhile."""
    unchanged = state.endpoint(before.endpoint).rollout == before
    return RolloutChanged(rollout=after) if unchanged else None


def _pause_s(rollout: Rollout, now: datetime) -> float:
    return IDLE_S if finished(rollout) else next_look_s(rollout, now)

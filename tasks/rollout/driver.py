"""One process that drives one endpoint: a look, and what follows from it."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from functools import partial

from deployments import Desired, Observed, Place, Release, ledger
from deployments.command import start_next
from policy.errors import EndpointError, EndpointSilent
from policy.ledger import Ledger
from policy.records import RolloutChanged
from policy.rollout.machine import advance
from policy.rollout.record import Rollout, finished, next_look_s
from tasks.rollout.lead import Lead
from tasks.rollout.looking import look
from tasks.rollout.orders import is_as_ordered, is_settled, not_settled, order, told

Say = Callable[[str], None]
Replay = Callable[[Rollout], AbstractContextManager[None]]
REST_S = 10.0  # between two looks at an endpoint where nothing is under way
SETTLE_S = 40.0  # longer than the longest request, which a server that goes may still answer
IDLE_S = 1.0  # between two reads of the ledger while nothing is under way, or another looks


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
        self._rests_until = place.clock.now()
        self._replaying: tuple[str, AbstractContextManager[None]] | None = None

    def tell(self, state: Ledger) -> None:
        rollout = state.endpoint(self._endpoint.name).rollout
        if rollout is None:
            return
        self._last = rollout
        line = told(rollout)
        if line != self._told and (self._told or not finished(rollout)):
            self._say(line)
        self._told = line

    def look(self, state: Ledger) -> tuple[Ledger, float]:
        """One look, if nobody else on this machine looks; the state and the pause after it."""
        if not self._lead.take():
            self._stop_replay()
            current = state.endpoint(self._endpoint.name).unfinished
            return state, IDLE_S if current is None else min(IDLE_S, current.plan.look_s)
        name, known = self._endpoint.name, state.number
        state = self._append(lambda now: start_next(now, self._place, name), state)
        rollout = state.endpoint(name).rollout
        if rollout is None or self._rests(rollout):
            return state, IDLE_S
        self._keep_replaying(rollout)
        observed = self._observe()
        unwatched_s = self._lead.unwatched_s(state.endpoint(name).last_at, rollout.plan.look_s)
        if not finished(rollout):
            seen = look(self._place, state, rollout, observed, unwatched_s)
            after = advance(rollout, seen)
            if after != rollout:
                follow = partial(_follow, before=rollout, after=after)
                state = self._append(follow, state)
                rollout = state.endpoint(name).rollout or after
        self._apply(state, rollout, observed)
        self._lead.looked()  # a look that ends in an error is none
        if finished(rollout) and observed is not None and is_settled(observed, rollout):
            self._rests_until = self._place.clock.now() + timedelta(seconds=REST_S)
        changed = state.number != known
        return state, 0.0 if changed else _pause_s(rollout, self._place.clock.now())

    def settle(self, state: Ledger) -> Ledger:
        """Look on until the endpoint is what the ended rollout wants, for a while.

        Whoever drives the endpoint next goes on with what is left.
        """
        deadline = self._place.clock.now() + timedelta(seconds=SETTLE_S)
        while (rollout := state.endpoint(self._endpoint.name).rollout) is not None:
            observed = self._observe()
            done = observed is not None and is_settled(observed, rollout)
            if done or not finished(rollout) or not self._lead.take():
                return state
            if self._place.clock.now() > deadline:
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
        rests = finished(rollout) and self._place.clock.now() < self._rests_until
        return rests and self._replaying is None

    def fail_safe_to_stable(self, error: Exception) -> None:
        """Give stable all traffic, whatever the rollout wants: nobody can watch it now."""
        rollout = self._last
        if rollout is None or rollout.stable is None or finished(rollout):
            return
        if not self._lead.take():
            return  # whoever looks on this machine does it
        try:
            observed = self._endpoint.observe()
            if observed.weights == {rollout.stable: 100}:
                return
            releases = tuple(
                Release(version, server.digest) for version, server in observed.servers.items()
            )
            self._endpoint.apply(Desired(releases, {rollout.stable: 100}))
            self._say(
                f"nobody can watch the canary, {rollout.stable} gets all traffic: {error!r}"
            )
        except (EndpointSilent, EndpointError) as silent:
            self._say(f"nobody can watch the canary, and its weight stays: {silent}")

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
        if observed is not None and is_as_ordered(observed, wanted):
            return
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
        if self._replaying is not None and self._replaying[0] == wanted:
            return
        self._stop_replay()
        if wanted and self._replay is not None:
            context = self._replay(rollout)
            context.__enter__()
            self._replaying = (wanted, context)

    def _stop_replay(self) -> None:
        if self._replaying is not None:
            _, context = self._replaying
            self._replaying = None
            context.__exit__(None, None, None)


def _follow(state: Ledger, before: Rollout, after: Rollout) -> RolloutChanged | None:
    """The next record, unless somebody else wrote one meanwhile."""
    unchanged = state.endpoint(before.endpoint).rollout == before
    return RolloutChanged(rollout=after) if unchanged else None


def _pause_s(rollout: Rollout, now: datetime) -> float:
    return IDLE_S if finished(rollout) else next_look_s(rollout, now)

"""What time it is at a look, and how much of the time since the one before it counts.

Within a process a clock that is never set tells them apart: nobody looked, or the clock was
set. Across processes only the clock on the wall is left, and no look counts for more than a
few pauses between looks.
"""

from dataclasses import dataclass
from datetime import datetime

from deployments import Clock
from policy.rollout.observed import Missed, by_our_clock, not_later, without
from policy.rollout.record import Rollout
from tasks.rollout.lead import Lead, tolerated_s

JUMP_S = 5.0  # the clock on the wall may drift by so much from the one that is never set


@dataclass(frozen=True)
class Moment:
    """`rollout` has its times as this process has seen them pass."""

    at: datetime
    rollout: Rollout
    missed: Missed


class Moments:
    """The times of one process's looks at one endpoint."""

    def __init__(self, lead: Lead, clock: Clock) -> None:
        self._lead, self._clock = lead, clock
        self._before: tuple[datetime, float] | None = None
        self._set_at: tuple[datetime, float] | None = None
        self._known: tuple[Rollout, Rollout] | None = None

    def forget(self) -> None:
        """Somebody else looks, whose file is read when it is this process's turn again."""
        self._before = self._known = None

    def rest(self) -> None:
        """Nothing is under way now."""
        self._before = self._set_at = (self._clock.now(), self._clock.monotonic())
        self._known = None

    def look(self, rollout: Rollout, written_at: datetime | None) -> Moment:
        """This look begins; `written_at` is the time of the last record of its endpoint."""
        now = self._clock.now(), self._clock.monotonic()
        tolerated = tolerated_s(rollout.plan.look_s)
        if self._before is None:
            missed = self._missed_by_others(now[0], written_at, tolerated)
            self._set_at = now
        else:
            missed = self._missed(now, self._before, written_at, tolerated)
        ours = self._in_our_time(rollout, now[0], missed)
        self._before, self._known = now, (rollout, ours)
        return Moment(now[0], ours, missed)

    def wrote(self, rollout: Rollout) -> None:
        """The record as this process wrote it: its times are ours."""
        self._known = (rollout, rollout)

    def _in_our_time(self, rollout: Rollout, at: datetime, missed: Missed) -> Rollout:
        if self._before is None:
            return not_later(without(rollout, missed), at)
        since = min(at, self._before[0] + missed.total)
        known, ours = self._known or (None, rollout)
        return by_our_clock(rollout, known, without(ours, missed), since, at)

    def _missed(
        self,
        now: tuple[datetime, float],
        before: tuple[datetime, float],
        written_at: datetime | None,
        tolerated: float,
    ) -> Missed:
        at, ticks = now
        away_s = ticks - before[1]
        if written_at is not None and before[0] < written_at <= at:
            away_s = min(away_s, (at - written_at).total_seconds())  # another machine looked
        set_at = self._set_at or before
        jumped_s = (at - set_at[0]).total_seconds() - (ticks - set_at[1])
        if jumped := abs(jumped_s) > JUMP_S:
            self._set_at = now
        return Missed(max(0.0, away_s - tolerated), jumped_s if jumped else 0.0)

    def _missed_by_others(
        self, at: datetime, written_at: datetime | None, tolerated: float
    ) -> Missed:
        """Since the last look of this machine, or the last record of any."""
        looked = self._lead.last_look()
        if looked is not None and (ahead_s := (looked - at).total_seconds()) > JUMP_S:
            return Missed(clock_s=-ahead_s)
        past = [time for time in (looked, written_at) if time is not None and time <= at]
        away_s = (at - max(past)).total_seconds() if past else 0.0
        return Missed(max(0.0, away_s - tolerated))

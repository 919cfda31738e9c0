"""Time as whoever looks has seen it pass: nothing else counts against a version.

The times in a record are those of the clocks of whoever wrote it. A clock is set, a laptop
sleeps, a process is stopped, two machines differ by minutes: each look moves the times of the
record so that their differences are time that somebody watched.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from policy.evidence.analysis import Measurements
from policy.rollout.record import Reading, Rollout, Window
from policy.rollout.transitions import note, replaced
from policy.words import duration

_NOT_COUNTED = "; not counted: "


@dataclass(frozen=True)
class Missed:
    """What lies between a look and the one before, beyond the time that counts.

    Nobody looked for `unwatched_s`, while requests were answered and counted. The clock went
    `clock_s` forward (back, if negative) in no time; a machine that slept looks the same.
    """

    unwatched_s: float = 0.0
    clock_s: float = 0.0

    def __bool__(self) -> bool:
        return bool(self.unwatched_s or self.clock_s)

    @property
    def total(self) -> timedelta:
        return timedelta(seconds=self.unwatched_s + self.clock_s)

    @property
    def words(self) -> str:
        parts = []
        if self.unwatched_s:
            parts.append(f"{duration(self.unwatched_s)} in which nobody looked")
        if self.clock_s:
            way = "forward" if self.clock_s > 0 else "back"
            parts.append(f"the clock went {duration(abs(self.clock_s))} {way}")
        return ", ".join(parts)


def without(rollout: Rollout, missed: Missed) -> Rollout:
    """The record as if what was missed had not been: no deadline ran meanwhile.

    People's deadlines (a pause, an approval) move too: whoever has an hour to answer has an
    hour in which the canary is watched.
    """
    if not missed:
        return rollout
    clock, gap = timedelta(seconds=missed.clock_s), missed.total
    return replaced(
        rollout,
        entered_at=rollout.entered_at + gap,
        paused_at=rollout.paused_at and rollout.paused_at + gap,
        unready_since=rollout.unready_since and rollout.unready_since + gap,
        began=rollout.began and _reading(rollout.began, clock),
        window=rollout.window and _window(rollout.window, clock, gap),
        analyses=tuple(_measured(run, clock) for run in rollout.analyses),
    )


def told(rollout: Rollout, missed: Missed) -> Rollout:
    """The record with a word of what was missed, in place of an earlier one."""
    if not missed:
        return rollout
    reason = rollout.reason.partition(_NOT_COUNTED)[0]
    return note(rollout, f"{reason}{_NOT_COUNTED}{missed.words}")


def by_our_clock(
    record: Rollout, known: Rollout | None, ours: Rollout, since: datetime, now: datetime
) -> Rollout:
    """What somebody else wrote since our last look, in our own time.

    Their clock may be minutes off. What they changed, they changed between our last look and
    now; what they left as it was, we know better.

    Args:
        known, ours: the record at our last look, as it was written and in our time; None
            if there was none, and then `ours` is not used.
        since, now: our last look and this one.
    """
    if known is None:
        return not_later(_not_earlier(record, since), now)
    if known == record:
        return ours
    same = (record.id, record.phase, record.step) == (known.id, known.phase, known.step)
    entered = ours.entered_at if same else max(record.entered_at, since)
    if same and known.paused and not record.paused:
        entered += record.entered_at - known.entered_at  # the pause is given back
    seen = replaced(
        record,
        entered_at=entered,
        paused_at=_began(record.paused_at, ours.paused_at if same else None, since),
        unready_since=_began(record.unready_since, ours.unready_since if same else None, since),
    )
    return not_later(seen, now)


def _began(began: datetime | None, ours: datetime | None, since: datetime) -> datetime | None:
    """When what goes on at the record's time began: we know, or it was since our last look."""
    return None if began is None else ours or max(began, since)


def _not_earlier(rollout: Rollout, since: datetime) -> Rollout:
    return replaced(
        rollout,
        entered_at=max(rollout.entered_at, since),
        paused_at=rollout.paused_at and max(rollout.paused_at, since),
        unready_since=rollout.unready_since and max(rollout.unready_since, since),
    )


def not_later(rollout: Rollout, now: datetime) -> Rollout:
    """The record with no beginning in the future, as a clock ahead of ours writes it."""
    window = rollout.window
    ahead = window.start.at - now if window else timedelta(0)
    return replaced(
        rollout,
        entered_at=min(rollout.entered_at, now),
        paused_at=rollout.paused_at and min(rollout.paused_at, now),
        unready_since=rollout.unready_since and min(rollout.unready_since, now),
        window=window and (_window(window, -ahead, -ahead) if ahead > timedelta(0) else window),
    )


def _window(window: Window, clock: timedelta, gap: timedelta) -> Window:
    """Requests were counted while nobody looked, so that only its end moves by that."""
    return Window(
        start=_reading(window.start, clock),
        due=window.due + gap,
        block=_reading(window.block, clock),
    )


def _reading(reading: Reading, clock: timedelta) -> Reading:
    return reading.model_copy(update={"at": reading.at + clock})


def _measured(run: Measurements, clock: timedelta) -> Measurements:
    at = run.measured_at
    return run if at is None else run.model_copy(update={"measured_at": at + clock})

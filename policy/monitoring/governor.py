"""May a retraining start now? Automatic ones are limited; a person never is."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal

from policy.config import Retraining
from policy.errors import Refused

_ALMOST_A_MINUTE = timedelta(minutes=1) - timedelta(microseconds=1)  # to round up
_CLOCKS_DIFFER = timedelta(minutes=10)  # of two machines; a start so far ahead is just now
Cause = Literal["hand", "schedule", "event"]


def permit(cause: Cause, starts: Sequence[datetime], config: Retraining, now: datetime) -> None:
    """Check the cooldown and the daily budget against earlier `starts` (any order).

    A start that lies in the future was written by a clock that was wrong, and tells nothing of
    when it was: it must not stop retrainings until that day comes.

    Raises:
        Refused: naming the limit and when the next one is possible.
    """
    if cause == "hand":
        return
    starts = [min(start, now) for start in starts if start - now <= _CLOCKS_DIFFER]
    latest = max(starts, default=None)
    if latest is not None and now - latest < timedelta(seconds=config.cooldown_s):
        ready = latest + timedelta(seconds=config.cooldown_s)
        raise _refused(f"the last retraining started at {_minute(latest)}", "cooldown_s", ready)
    today = sorted(start for start in starts if now - start < timedelta(days=1))
    if len(today) >= config.per_day_max:
        ready = today[-config.per_day_max] + timedelta(days=1)
        raise _refused(f"{len(today)} retrainings in 24 hours", "per_day_max", ready)


def _refused(found: str, limit: str, ready: datetime) -> Refused:
    return Refused(
        found,
        expected=f"none before {_minute(ready + _ALMOST_A_MINUTE)} (retraining.{limit})",
        holds="nothing was started; production is as it was",
        do="wait, or start one by hand: prefect deployment run 'retrain/on-demand'",
    )


def _minute(at: datetime) -> str:
    return at.strftime("%Y-%m-%d %H:%M UTC")

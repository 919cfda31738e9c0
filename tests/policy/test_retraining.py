"""Automatic retrainings are limited; a person never is."""

from datetime import UTC, datetime, timedelta

import pytest

from policy.config import Retraining
from policy.errors import Refused
from policy.monitoring.governor import permit

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
LIMITS = Retraining(cooldown_s=3600, per_day_max=3)


def ago(*hours):
    return [NOW - timedelta(hours=h) for h in hours]


@pytest.mark.parametrize(
    ("starts", "limit"),
    [
        ([], None),
        (ago(1.01), None),
        (ago(0.99), "cooldown_s"),
        (ago(5, 0.1), "cooldown_s"),  # the newest counts, in whatever order
        (ago(2, 5, 23), "per_day_max"),
        (ago(2, 5, 25), None),
        (ago(-1, -24 * 3650, -2, -3), None),  # written by clocks that were wrong
        (ago(-24 * 3650, 0.5), "cooldown_s"),
        (ago(-0.1), "cooldown_s"),  # another machine's clock is six minutes ahead
    ],
)
@pytest.mark.parametrize("cause", ["schedule", "event"])
def test_automatic_retrainings_keep_cooldown_and_budget(cause, starts, limit):
    if limit is None:
        permit(cause, starts, LIMITS, NOW)
    else:
        with pytest.raises(Refused, match=limit):
            permit(cause, starts, LIMITS, NOW)


def test_a_person_is_never_refused():
    permit("hand", ago(0.01, 0.02, 0.03, 0.04), LIMITS, NOW)


def test_the_refusal_says_when_the_next_one_is_possible():
    with pytest.raises(Refused, match="none before 2026-11-22 12:30 UTC"):
        permit("event", ago(0.5), LIMITS, NOW)
    a_second_later = NOW + timedelta(seconds=1)
    with pytest.raises(Refused, match="none before 2026-11-22 12:31 UTC"):
        permit("event", [a_second_later - timedelta(hours=0.5)], LIMITS, a_second_later)

"""The section `retraining`: how often a retraining may start by itself."""

from policy.config.section import Positive, Seconds, Section


class Retraining(Section):
    """Limits of automatic retraining (schedule, event, drift); a person is never limited."""

    cooldown_s: Seconds
    per_day_max: Positive

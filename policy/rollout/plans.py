"""Which plan a rollout follows: production's own, or a shorter one made from it."""

from policy.config import Config
from policy.config import Rollout as Plan


def plan_for(config: Config, endpoint: str) -> Plan:
    """The configured plan for production; for every other endpoint all at once.

    Staging has no traffic of its own, no backup and nobody to ask: smoke requests and, where
    questions are replayed, one window at 100 percent decide.
    """
    if endpoint == "production":
        return config.rollout
    return at_once(config.rollout)


def at_once(plan: Plan) -> Plan:
    """The same limits and deadlines, with all traffic in one step and no watch afterwards."""
    return plan.model_copy(
        update={
            "strategy": "immediate",
            "weights": (100,),
            "approval": False,
            "analyses": (),
            "shadow": plan.shadow.model_copy(update={"percent": 0}),
            "watch": plan.watch.model_copy(update={"s": 0}),
            "judge": plan.judge.model_copy(update={"promotion": "within-limits"}),
        }
    )

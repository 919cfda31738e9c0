"""The canary against stable: errors, slow answers and wrong answers, weighed block by block.

Evidence is written into the ledger at the end of every block, so that a controller that takes
over goes on with it, and nothing is weighed twice. A block lies inside one window, in which
the weights are constant: an incident hits both versions alike there.
"""

from collections.abc import Mapping
from math import exp, log

from pydantic import BaseModel

from policy.counts import LATENCY_EDGES_S, Sample
from policy.evidence.tests import Prior, block_is_full, not_worse, worse
from policy.rollout.plans import Plan
from policy.words import percent, points

_NAMES = ("error_rate", "slow_rate", "wrong_rate")
PRIORS = (Prior(0.01, 50), Prior(0.05, 20), Prior(0.1, 20))
ALPHA_SHARES = (0.5, 0.25, 0.25)
TOLD = {"error_rate": "errors", "slow_rate": "slow answers", "wrong_rate": "wrong answers"}
_TRIALS = {"error_rate": "requests", "slow_rate": "answers", "wrong_rate": "labels"}
_EDGE_ANSWERS = 20  # answers of stable from which its 95th percentile is taken
AGE_SHARE = 0.2  # of the time in the present state: from then on a block is old enough
Pair = tuple[int, int]  # events, trials


class Bet(BaseModel, frozen=True):
    """What is known of one metric: (events, trials) of each side, and the log evidence."""

    canary: Pair = (0, 0)
    stable: Pair = (0, 0)
    worse: float = 0.0
    not_worse: float = 0.0


class Evidence(BaseModel, frozen=True):
    """Of one rollout. `slow_edge_s` is stable's p95 to the nearest bucket; 0: not known yet."""

    error_rate: Bet = Bet()
    slow_rate: Bet = Bet()
    wrong_rate: Bet = Bet()
    slow_edge_s: float = 0.0


def full(
    evidence: Evidence, plan: Plan, canary: Sample, age_s: float, stayed_s: float = 0.0
) -> bool:
    """Whether a block of this age is to be weighed now.

    Blocks get longer the longer a rollout stays in one state (`stayed_s`): each is a record,
    and one that waits for a person for a day must not write one every few seconds.
    """
    requests, before = canary.counts.requests, evidence.error_rate.canary[1]
    enough = bool(block_is_full(float(requests), float(before), plan.judge.block_requests))
    old = age_s >= max(plan.judge.block_s, AGE_SHARE * stayed_s)
    return enough or (old and requests > 0)


def weigh(evidence: Evidence, plan: Plan, canary: Sample, stable: Sample) -> Evidence:
    """The evidence after one more block of both versions."""
    edge_s, within = evidence.slow_edge_s, plan.judge.non_inferiority_margin
    blocks = {
        "error_rate": (_errors(canary), _errors(stable)),
        "slow_rate": (_slow(canary, edge_s), _slow(stable, edge_s)),
        "wrong_rate": (_wrong(canary), _wrong(stable)),
    }
    weighed = {
        name: _weighed(getattr(evidence, name), *blocks[name], prior, margin, within)
        for name, prior, margin in zip(_NAMES, PRIORS, _margins(plan), strict=True)
    }
    return Evidence(**weighed, slow_edge_s=edge_s or p95_edge(stable))


def found_worse(evidence: Evidence, plan: Plan) -> str:
    """The reason to roll the canary back; "" as long as nothing is proven."""
    for name, share, margin in _judged(plan):
        bet: Bet = getattr(evidence, name)
        if bet.worse >= -log(plan.judge.alpha * share):
            return (
                f"{TOLD[name]} {percent(_rate(bet.canary))}, stable "
                f"{percent(_rate(bet.stable))} (allowed +{points(margin)}, "
                f"{bet.canary[1]} {_TRIALS[name]}); odds {_odds(bet.worse)}, "
                f"limit {1 / (plan.judge.alpha * share):.0f}:1"
            )
    return ""


def decides_at(plan: Plan) -> Mapping[str, float]:
    """The log evidence at which each judged metric rolls the canary back."""
    return {name: -log(plan.judge.alpha * share) for name, share, _ in _judged(plan)}


def proves_at(plan: Plan) -> Mapping[str, float]:
    """The log evidence at which each judged metric counts as no worse than stable."""
    return {name: -log(plan.judge.alpha) for name, _, _ in _judged(plan)}


def not_proven(evidence: Evidence, plan: Plan) -> str:
    """What is still to be shown before the canary counts as good as stable; "" if nothing.

    Each metric is proven at alpha by itself: all have to be, so no share is lost.
    """
    within = plan.judge.non_inferiority_margin
    for name, *_ in _judged(plan):
        bet: Bet = getattr(evidence, name)
        if bet.not_worse < -log(plan.judge.alpha):
            return (
                f"{TOLD[name]} not yet proven to be within {points(within)} of stable's; "
                f"{_more(bet, plan.judge.alpha)} (odds {_odds(bet.not_worse)}, "
                f"needed {1 / plan.judge.alpha:.0f}:1, {bet.canary[1]} {_TRIALS[name]})"
            )
    return ""


def _weighed(
    bet: Bet, canary: Pair, stable: Pair, prior: Prior, margin: float, within: float
) -> Bet:
    """One side alone only teaches; a bet needs both."""
    gained = lost = 0.0
    if canary[1] and stable[1]:
        known = (_floats(bet.canary), _floats(bet.stable), _floats(canary), _floats(stable))
        # Nothing can be more than 100 points worse: a margin of 1 turns the metric off.
        gained = float(worse(*known, prior, margin)) if margin < 1 else 0.0
        lost = float(not_worse(*known, prior, within))
    return Bet(
        canary=_plus(bet.canary, canary),
        stable=_plus(bet.stable, stable),
        worse=bet.worse + gained,
        not_worse=bet.not_worse + lost,
    )


def _judged(plan: Plan) -> tuple[tuple[str, float, float], ...]:
    """Name, share of alpha and margin of each metric that this plan judges."""
    metrics = tuple(zip(_NAMES, ALPHA_SHARES, _margins(plan), strict=True))
    return metrics if plan.limits.labels_min else metrics[:2]


def _margins(plan: Plan) -> tuple[float, float, float]:
    judge = plan.judge
    return judge.error_rate_margin, judge.slow_margin, judge.accuracy_margin


def _errors(sample: Sample) -> Pair:
    return sample.counts.errors, sample.counts.requests


def _wrong(sample: Sample) -> Pair:
    return sample.wrong, sample.labelled.labels


def _slow(sample: Sample, edge_s: float) -> Pair:
    return (sample.slower_than(edge_s), sum(sample.counts.latency)) if edge_s else (0, 0)


def p95_edge(stable: Sample) -> float:
    """The bucket edge that the share of slower answers is nearest to 5 % at; 0: too few."""
    answers = sum(stable.counts.latency)
    if answers < _EDGE_ANSWERS:
        return 0.0

    def distance(edge_s: float) -> float:
        slower = (stable.slower_than(edge_s) + 0.5) / (answers + 1)
        return abs(log(slower / (1 - slower)) - log(0.05 / 0.95))

    return min(LATENCY_EDGES_S, key=distance)


def _more(bet: Bet, alpha: float) -> str:
    if bet.not_worse <= 0 or not bet.canary[1]:
        return "how many more are needed is not known"
    more = bet.canary[1] * (-log(alpha) / bet.not_worse - 1)
    return f"about {more:.0f} more needed"


def _rate(pair: Pair) -> float:
    return pair[0] / max(pair[1], 1)


def _odds(log_evidence: float) -> str:
    """Odds of 1,460 to 1 as `1460:1`; astronomic ones are cut off."""
    if log_evidence > 18:
        return "over 10^7:1"
    return f"{exp(log_evidence):.3g}:1" if log_evidence < 6.9 else f"{exp(log_evidence):.0f}:1"


def _plus(a: Pair, b: Pair) -> Pair:
    return a[0] + b[0], a[1] + b[1]


def _floats(pair: Pair) -> tuple[float, float]:
    return float(pair[0]), float(pair[1])

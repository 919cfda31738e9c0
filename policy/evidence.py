"""Evidence that may be looked at after every request, and stays honest.

An e-value is a bet against a hypothesis: under the hypothesis its expectation is at most 1,
however often one looks and whenever one stops, so that it reaches 1/alpha with a chance of
at most alpha (Ville's inequality). Logarithms throughout, since evidence multiplies.
"""

from math import lgamma, log


def against_limit(events: int, trials: int, limit: float) -> float:
    """Log evidence that events happen more often than `limit`, of `trials` so far.

    The likelihood of the counts, averaged over all rates above `limit` (uniform), against
    their likelihood at `limit`: a closed form of the counts alone, so nothing need be kept
    between looks.

    Source: Robbins 1970, "Statistical methods related to the law of the iterated logarithm"
    (mixtures of likelihood ratios).
    """
    from scipy.special import betaincc

    if limit >= 1 or trials == 0:
        return 0.0  # nothing can be above 1: no evidence either way
    if limit <= 0:
        return float("inf") if events else 0.0
    rest = trials - events
    above = float(betaincc(events + 1, rest + 1, limit))
    if above == 0.0:
        return -float("inf")
    beta = lgamma(events + 1) + lgamma(rest + 1) - lgamma(trials + 2)
    at_limit = events * log(limit) + rest * log(1 - limit)
    return beta + log(above) - log(1 - limit) - at_limit


def chance_of_so_few(correct: int, trials: int, rate: float) -> float:
    """Chance of at most `correct` successes of `trials` at a success rate of `rate`."""
    from scipy.special import bdtr

    return float(bdtr(correct, trials, rate)) if trials else 1.0

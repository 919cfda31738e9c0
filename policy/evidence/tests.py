"""Evidence that may be looked at after every request, and stays honest.

An e-value is a bet against a hypothesis: under the hypothesis its expectation is at most 1,
however often one looks and whenever one stops, so that it reaches 1/alpha with a chance of
at most alpha (Ville's inequality). Logarithms throughout, since evidence multiplies. Numbers
and numpy arrays are both welcome, and are treated alike.

Words
    events, trials   errors of requests, slow answers of answers, wrong answers of labels
    rate             the probability of an event, estimated from blocks *before* the one bet on
    block            what both versions did between two looks; its evidence multiplies
"""

from math import log
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Number = float | Array

_LIFT = 0.05  # so much worse than stable is the canary taken to be before it has shown itself
_LIFT_TRIALS = 20  # ... with the weight of so many trials; an eager bet, paid for if wrong
_GROWTH = 0.25  # a block ends when it holds this share of all trials before it
_HALVINGS = 40  # of the interval that holds the closest pair of rates


class Prior(NamedTuple):
    """What the rate of stable is taken to be before its first trial, and how firmly."""

    rate: float
    trials: float


def against_limit(events: Number, trials: Number, limit: float) -> Array:
    """Log evidence that events happen more often than `limit`, of `trials` so far.

    The likelihood of the counts, averaged over all rates above `limit` (uniform), against
    their likelihood at `limit`: a closed form of the counts alone, so nothing need be kept
    between looks. No trial is no evidence.

    Source: Robbins 1970, "Statistical methods related to the law of the iterated logarithm"
    (mixtures of likelihood ratios).
    """
    from scipy.special import betaincc, betaln

    events, rest = np.asarray(events, float), np.asarray(trials, float) - events
    if limit >= 1:
        return np.zeros_like(rest)  # nothing can be above 1
    if limit <= 0:
        return np.where(events > 0, np.inf, 0.0)
    with np.errstate(divide="ignore"):  # the log of 0, far below the limit, is no evidence
        above = np.log(betaincc(events + 1, rest + 1, limit))
    at_limit = events * log(limit) + (rest + 1) * log(1 - limit)
    return betaln(events + 1, rest + 1) + above - at_limit


def chance_of_so_few(correct: int, trials: int, rate: float) -> float:
    """Chance of at most `correct` successes of `trials` at a success rate of `rate`."""
    from scipy.special import bdtr

    return float(bdtr(correct, trials, rate)) if trials else 1.0


def block_is_full(block: Number, before: Number, first: int) -> NDArray[np.bool_]:
    """Whether `block` canary requests are enough to weigh, with `before` in earlier blocks.

    Blocks grow with what is known: each makes one record in the ledger, and the evidence of
    many small blocks is that of a few big ones once the rates are known.
    """
    return np.asarray(block >= np.maximum(first, _GROWTH * before))


def rates(
    canary: tuple[Number, Number], stable: tuple[Number, Number], prior: Prior, lift: float
) -> tuple[Array, Array]:
    """Estimated rates of canary and stable from (events, trials) of earlier blocks.

    Without trials the canary is taken to be `lift` above stable.
    """
    stable_rate = np.asarray(stable[0] + prior.rate * prior.trials) / (stable[1] + prior.trials)
    expected = np.minimum(stable_rate + lift, 0.95)
    canary_rate = np.asarray(canary[0] + expected * _LIFT_TRIALS) / (canary[1] + _LIFT_TRIALS)
    return canary_rate, stable_rate


def worse(
    canary: tuple[Number, Number],
    stable: tuple[Number, Number],
    canary_block: tuple[Number, Number],
    stable_block: tuple[Number, Number],
    prior: Prior,
    margin: float,
) -> Array:
    """Log evidence of one block against `canary rate <= stable rate + margin`.

    All four are (events, trials); `canary` and `stable` are the blocks before this one.
    """
    p, q = rates(canary, stable, prior, _LIFT)
    return np.where(p > q + margin, _bet(p, q, canary_block, stable_block, margin), 0.0)


def not_worse(
    canary: tuple[Number, Number],
    stable: tuple[Number, Number],
    canary_block: tuple[Number, Number],
    stable_block: tuple[Number, Number],
    prior: Prior,
    margin: float,
) -> Array:
    """The test turned round: evidence of one block against `canary >= stable + margin`."""
    p, q = rates(canary, stable, prior, 0.0)
    return np.where(p < q + margin, _bet(p, q, canary_block, stable_block, margin), 0.0)


def _bet(
    p: Array,
    q: Array,
    canary: tuple[Number, Number],
    stable: tuple[Number, Number],
    margin: float,
) -> Array:
    """Log likelihood ratio of a block: the estimated rates against the closest ones allowed.

    Why its expectation is at most 1 for every pair of rates that the hypothesis allows, and
    for any number of trials on either side: let (p, q) be the estimates and (p0, q0) the
    allowed pair closest to them in Kullback-Leibler divergence, weighted by the trials (m, n).
    At true rates (a, b) the expectation is (1 + s (a - p0))^m (1 + t (b - q0))^n with
    s = (p - p0) / (p0 (1 - p0)) and t alike, which is at most
    exp(m s (a - p0) + n t (b - q0)). The exponent is minus the slope of the divergence at
    (p0, q0) towards (a, b); the allowed pairs are a convex set and (p0, q0) is the closest of
    them, so that slope is not negative. The rates may even change from block to block.

    Source: Turner, Ly and Grünwald 2024, "Generic E-variables for exact sequential k-sample
    tests that allow for optional stopping", arXiv:2106.02693.
    """
    q0 = _closest(p, q, canary[1], stable[1], margin)
    p0 = q0 + margin
    return _log_ratio(canary, p, p0) + _log_ratio(stable, q, q0)


def _log_ratio(counts: tuple[Number, Number], rate: Array, allowed: Array) -> Array:
    events, trials = counts
    rest = np.log((1 - rate) / (1 - allowed))
    return events * np.log(rate / allowed) + (trials - events) * rest


def _closest(p: Array, q: Array, m: Number, n: Number, margin: float) -> Array:
    """The q0 for which (q0 + margin, q0) is closest to (p, q), by bisection of the slope."""
    low = np.clip(np.minimum(q, p - margin), 1e-9, 1 - margin - 2e-9)
    high = np.clip(np.maximum(q, p - margin), 1e-9, 1 - margin - 1e-9)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        shifted = middle + margin
        slope = m * (shifted - p) / (shifted * (1 - shifted))
        slope = slope + n * (middle - q) / (middle * (1 - middle))
        low = np.where(slope < 0, middle, low)
        high = np.where(slope < 0, high, middle)
    return (low + high) / 2

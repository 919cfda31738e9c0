"""Evidence is a fair bet: its expectation is at most 1 wherever the hypothesis is true."""

from itertools import product
from math import exp, inf, log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.optimize import minimize_scalar
from scipy.stats import binom

from policy.evidence.tests import (
    Prior,
    against_limit,
    block_is_full,
    chance_of_so_few,
    not_worse,
    rates,
    worse,
)

PRIOR = Prior(0.05, 20)
RATE = st.floats(0.001, 0.95)
KNOWN = st.tuples(st.integers(0, 60), st.integers(60, 300)).map(lambda p: (p[0], float(p[1])))


def expectation(test, canary, stable, m, n, true_canary, true_stable, margin):
    """The exact mean of one block's evidence over everything that may happen in it."""
    j, k = np.meshgrid(np.arange(m + 1.0), np.arange(n + 1.0), indexing="ij")
    chance = np.outer(
        binom.pmf(np.arange(m + 1), m, true_canary), binom.pmf(np.arange(n + 1), n, true_stable)
    )
    block = (j, np.full_like(j, m)), (k, np.full_like(k, n))
    return float((chance * np.exp(test(canary, stable, *block, PRIOR, margin))).sum())


@settings(deadline=None)  # scipy is imported by the first example
@given(KNOWN, KNOWN, st.integers(1, 12), st.integers(1, 12), RATE, RATE, st.floats(0, 0.2))
def test_no_bet_on_worse_gains_where_the_canary_is_not_worse(
    canary, stable, m, n, true_stable, share, margin
):
    true_canary = share * min(true_stable + margin, 1.0)  # anywhere in the hypothesis
    mean = expectation(worse, canary, stable, m, n, true_canary, true_stable, margin)
    assert mean <= 1 + 1e-9


@settings(deadline=None)  # scipy is imported by the first example
@given(KNOWN, KNOWN, st.integers(1, 12), st.integers(1, 12), RATE, RATE, st.floats(0.005, 0.2))
def test_no_bet_on_good_gains_where_the_canary_is_past_the_margin(
    canary, stable, m, n, true_stable, share, margin
):
    room = 1 - true_stable - margin
    true_canary = true_stable + margin + share * max(room, 0.0)
    if true_canary > 1:
        return
    mean = expectation(not_worse, canary, stable, m, n, true_canary, true_stable, margin)
    assert mean <= 1 + 1e-9


def test_a_bet_gains_where_the_canary_is_worse():
    gain = expectation(worse, (8.0, 100.0), (9.0, 900.0), 10, 12, 0.08, 0.01, 0.0)
    assert gain > 1.2


@pytest.mark.parametrize(
    ("canary", "stable", "m", "n", "margin"),
    [((20, 100), (10, 200), 5, 45, 0.0), ((9, 30), (1, 90), 30, 3, 0.05)],
)
def test_the_rates_bet_against_are_the_closest_allowed_ones(canary, stable, m, n, margin):
    """The same by a general minimiser of the divergence."""
    p, q = (float(rate) for rate in rates(canary, stable, PRIOR, 0.05))

    def divergence(q0):
        p0 = q0 + margin
        return m * (p * log(p / p0) + (1 - p) * log((1 - p) / (1 - p0))) + n * (
            q * log(q / q0) + (1 - q) * log((1 - q) / (1 - q0))
        )

    q0 = minimize_scalar(
        divergence, bounds=(1e-6, 1 - margin - 1e-6), method="bounded", options={"xatol": 1e-10}
    ).x
    errors = {(j, k): j * log(p / (q0 + margin)) for j, k in product(range(2), range(1))}
    found = worse(canary, stable, (float(m), float(m)), (0.0, float(n)), PRIOR, margin)
    expected = m * errors[1, 0] + n * log((1 - q) / (1 - q0))
    assert float(found) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("events", "trials", "limit"), [(7, 14, 0.05), (0, 9, 0.2), (3, 40, 0.1)]
)
def test_evidence_against_a_limit_is_the_mean_over_all_rates_above_it(events, trials, limit):
    def likelihood(rate):
        return rate**events * (1 - rate) ** (trials - events)

    mean = quad(likelihood, limit, 1)[0] / (1 - limit)
    expected = log(mean / likelihood(limit))
    assert float(against_limit(events, trials, limit)) == pytest.approx(expected, rel=1e-6)


def test_evidence_against_a_limit_is_fair_at_the_limit_and_holds_at_any_look():
    """4,000 walks at the limit itself, looked at after every trial, are accused in <= 1 %."""
    rng = np.random.default_rng(1)
    events = np.cumsum(rng.random((4_000, 150)) < 0.05, axis=1)
    trials = np.arange(1, 151)[None, :]
    accused = (against_limit(events, trials, 0.05) >= log(100)).any(axis=1).mean()
    assert 0 < accused <= 0.01


@pytest.mark.parametrize(
    ("events", "trials", "limit", "expected"),
    [(0, 0, 0.05, 0.0), (5, 5, 1.0, 0.0), (0, 5, 0.0, 0.0), (1, 5, 0.0, inf)],
)
def test_the_edges_of_a_limit(events, trials, limit, expected):
    assert float(against_limit(events, trials, limit)) == pytest.approx(expected)


def test_millions_of_good_requests_are_no_evidence_and_no_overflow():
    assert float(against_limit(0, 10_000_000, 0.05)) < 0
    assert exp(min(float(against_limit(900_000, 10_000_000, 0.05)), 700)) > 1e300


def test_blocks_grow_with_what_is_known():
    sizes, before = [], 0.0
    while before < 2000:
        size = next(s for s in range(1, 10_000) if block_is_full(float(s), before, 5))
        sizes.append(size)
        before += size
    assert sizes[:4] == [5, 5, 5, 5]
    assert sizes == sorted(sizes)
    assert len(sizes) < 35


def test_the_binomial_bound_of_the_smoke_is_exact():
    chance = sum(binom.pmf(k, 20, 0.75) for k in range(9))
    assert chance_of_so_few(8, 20, 0.75) == pytest.approx(chance)
    assert chance_of_so_few(0, 0, 0.75) == 1

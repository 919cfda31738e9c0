"""How often the judge is wrong, and how fast it is right: simulated hours of live traffic.

    python -m tests.benchmarks.judge_simulation              # the figures, 2,000 hours each
    python -m tests.benchmarks.judge_simulation --hours 200  # the same, quicker

Many hours are simulated side by side with the judge's own functions
(policy/evidence/tests.py), in the order in which policy/rollout/windows.py calls them;
tests/policy/test_judge_simulation.py holds that order against the state machine itself, look
by look on the same counts.

Every scenario: 50 requests a second, alpha 0.01 for the whole rollout, margins of 0. The
canary is rolled back when errors, slow answers or wrong answers are proven to be more frequent
than stable's, or the error rate is proven to be past 0.05 while stable's is not past it.
"""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import log

import numpy as np
from numpy.typing import NDArray

from policy.evidence.comparison import AGE_SHARE, ALPHA_SHARES, PRIORS
from policy.evidence.tests import against_limit, block_is_full, not_worse, worse

Array = NDArray[np.float64]
REQUESTS_PER_S = 50
BLOCK_REQUESTS, BLOCK_S = 5, 30.0
REQUESTS_MIN = 50
NEVER = np.inf
Rates = tuple[float | Array, ...]


@dataclass(frozen=True)
class Scenario:
    """Rates are (errors, slow, wrong), of one hour or of each; `at` maps seconds to both.

    `within` 0: non-inferiority is not tested.
    """

    at: Callable[[float], tuple[Rates, Rates]]
    hours: int
    share: float = 0.10
    look_s: float = 10.0
    duration_s: float = 3600.0
    alpha: float = 0.01
    margin: float = 0.0
    within: float = 0.0
    error_rate_max: float = 0.05


@dataclass(frozen=True)
class Outcome:
    """Per hour: canary requests until it was taken back (NEVER: it was not), and cleared."""

    requests: Array
    cleared: NDArray[np.bool_]
    records: float

    @property
    def taken_back(self) -> float:
        return float(np.isfinite(self.requests).mean())

    @property
    def median_requests(self) -> float:
        return float(np.median(self.requests))


def constant(canary: Rates, stable: Rates) -> Callable[[float], tuple[Rates, Rates]]:
    return lambda _at_s: (canary, stable)


def simulate(scenario: Scenario, seed: int) -> Outcome:
    """Play `scenario.hours` hours side by side and judge each at every look."""
    rng = np.random.default_rng(seed)
    hours, looks = scenario.hours, round(scenario.duration_s / scenario.look_s)
    known = np.zeros((3, 4, hours))  # metric; canary events, trials, stable events, trials
    block = np.zeros((3, 4, hours))
    evidence, inferior = np.zeros((3, hours)), np.zeros((3, hours))
    age_s, blocks = np.zeros(hours), 0
    taken_back = np.full(hours, NEVER)
    for look in range(looks):
        block += traffic(rng, scenario, *scenario.at(look * scenario.look_s))
        age_s += scenario.look_s
        full = _full(block, known, age_s, stayed_s=(look + 1) * scenario.look_s)
        for metric in range(3):
            parts = known[metric][:, full], block[metric][:, full]
            evidence[metric, full] += _weigh(worse, metric, *parts, scenario.margin)
            if scenario.within:
                inferior[metric, full] += _weigh(not_worse, metric, *parts, scenario.within)
        found = _found_worse(evidence, scenario.alpha) | _past_limit(known + block, scenario)
        now = found & ~np.isfinite(taken_back)
        taken_back[now] = (known + block)[0, 1, now]
        known[:, :, full] += block[:, :, full]
        block[:, :, full] = age_s[full] = 0.0
        blocks += int(full.sum())
    cleared = np.all(inferior >= -log(scenario.alpha), axis=0)
    return Outcome(taken_back, cleared, blocks / hours)


def traffic(
    rng: np.random.Generator,
    scenario: Scenario,
    canary: Rates,
    stable: Rates,
) -> Array:
    """What happens between two looks: (metric, counter, hour)."""
    hours, total = scenario.hours, REQUESTS_PER_S * scenario.look_s
    asked = (
        rng.poisson(total * scenario.share, hours),
        rng.poisson(total * (1 - scenario.share), hours),
    )
    sides = list(zip(asked, (canary, stable), strict=True))
    return np.array(
        [
            [x for trials, rates in sides for x in (rng.binomial(trials, rates[i]), trials)]
            for i in range(3)
        ],
        dtype=float,
    )


def _full(block: Array, known: Array, age_s: Array, stayed_s: float) -> NDArray[np.bool_]:
    asked, before = block[0, 1], known[0, 1]
    old = age_s >= max(BLOCK_S, AGE_SHARE * stayed_s)
    full = block_is_full(asked, before, BLOCK_REQUESTS) | old
    return full & (asked > 0) & (block[0, 3] > 0)


def _weigh(test: Callable, metric: int, known: Array, block: Array, margin: float) -> Array:
    pairs = [(part[i], part[i + 1]) for part in (known, block) for i in (0, 2)]
    return test(*pairs, PRIORS[metric], margin)


def _found_worse(evidence: Array, alpha: float) -> NDArray[np.bool_]:
    needed = -np.log(alpha * np.array(ALPHA_SHARES))
    return np.any(evidence >= needed[:, None], axis=0)


def _past_limit(seen: Array, scenario: Scenario) -> NDArray[np.bool_]:
    """The error rate is proven past its limit, and stable's is not past it."""
    errors, asked, stable_errors, stable_asked = seen[0]
    exceeded = errors > scenario.error_rate_max * asked
    evidence = against_limit(errors, asked, scenario.error_rate_max)
    stable_exceeds = stable_errors > scenario.error_rate_max * stable_asked
    shared = stable_exceeds & (stable_asked >= REQUESTS_MIN)
    return exceeded & (evidence >= -log(scenario.alpha)) & ~shared


def slow_shares(
    median_s: float, slowdown: float, seed: int, answers: int = 45
) -> tuple[float, float]:
    """True shares of slow answers of a canary `slowdown` times slower, and of stable.

    Latencies are log-normal (sigma 0.3); slow is what the judge calls slow after a first
    block of `answers` answers of stable.
    """
    from scipy.special import ndtr

    from policy.counts import LATENCY_EDGES_S, Counts, Sample
    from policy.evidence.comparison import p95_edge

    rng = np.random.default_rng(seed)
    latencies = rng.lognormal(log(median_s), 0.3, answers)
    buckets = np.searchsorted(LATENCY_EDGES_S, latencies)
    counted = np.bincount(buckets, minlength=len(LATENCY_EDGES_S) + 1)
    stable = Sample(counts=Counts(requests=answers, latency=tuple(counted.tolist())))
    edge_s = p95_edge(stable)

    def slower(median: float) -> float:
        return float(ndtr(-log(edge_s / median) / 0.3))

    return slower(median_s * slowdown), slower(median_s)


def figures(hours: int) -> dict[str, dict[str, float]]:
    """All figures of the issue, by name."""
    found: dict[str, dict[str, float]] = {}
    for rate in (0.01, 0.03, 0.06):
        for share in (0.10, 0.12, 0.15):
            rates = (rate, 0.05, rate)
            outcome = simulate(Scenario(constant(rates, rates), hours, share=share), seed=1)
            found[f"equal at {rate:g}, share {share:g}"] = {
                "taken_back": outcome.taken_back,
                "records": outcome.records,
            }
    found["8 % against 1 %, a look each second"] = _eight_against_one(hours)
    found["slower by 20 %"] = slowdown(hours, 1.2)
    found["as fast"] = slowdown(hours, 1.0)
    found["incident of both: 40 % errors for 5 minutes"] = incident(hours)
    found["non-inferior at a margin of 0.01"] = _non_inferior(hours)
    return found


def _eight_against_one(hours: int) -> dict[str, float]:
    rates = constant((0.08, 0.05, 0.05), (0.01, 0.05, 0.05))
    outcome = simulate(Scenario(rates, hours, look_s=1, duration_s=180), seed=2)
    return {"taken_back": outcome.taken_back, "median_requests": outcome.median_requests}


def slowdown(hours: int, factor: float) -> dict[str, float]:
    """Over medians from 10 to 400 ms, so that bucket edges fall everywhere."""
    medians = np.geomspace(0.01, 0.4, hours)
    slow, usual = np.array(
        [slow_shares(median_s, factor, seed=i) for i, median_s in enumerate(medians)]
    ).T
    outcome = simulate(Scenario(constant((0.01, slow, 0.05), (0.01, usual, 0.05)), hours), 6)
    return {"taken_back": outcome.taken_back, "median_requests": outcome.median_requests}


def incident(hours: int) -> dict[str, float]:
    def at(seconds: float) -> tuple[Rates, Rates]:
        errors = 0.4 if 1200 <= seconds < 1500 else 0.01
        return (errors, 0.05, 0.05), (errors, 0.05, 0.05)

    return {"taken_back": simulate(Scenario(at, hours), seed=3).taken_back}


def _non_inferior(hours: int) -> dict[str, float]:
    good, bad = (0.01, 0.05, 0.05), (0.02, 0.06, 0.06)
    scenario = Scenario(constant(good, good), hours, within=0.01)
    return {
        "equal_cleared": float(simulate(scenario, seed=4).cleared.mean()),
        "at_the_margin_cleared": float(
            simulate(replace(scenario, at=constant(bad, good)), seed=5).cleared.mean()
        ),
    }


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--hours", type=int, default=2000)
    json.dump(figures(arguments.parse_args().hours), sys.stdout, indent=2)

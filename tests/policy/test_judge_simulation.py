"""Simulated hours of traffic: a smaller sample of tests/benchmarks/judge_simulation.py, and
proof that the simulation decides as the state machine does."""

from datetime import timedelta

import numpy as np
import pytest

from policy.counts import Counts, Labelled, Sample
from policy.rollout.machine import Phase, Seen, advance
from tests.benchmarks import judge_simulation as simulation
from tests.benchmarks.judge_simulation import Scenario, constant, simulate
from tests.policy.worlds import NOW, in_phase, make_plan

HOURS = 150


@pytest.mark.parametrize(("rate", "share"), [(0.01, 0.10), (0.03, 0.15), (0.06, 0.12)])
def test_an_equal_version_is_hardly_ever_taken_back(rate, share):
    """At most 1 % is promised; 150 hours can tell it from 4 %."""
    rates = (rate, 0.05, rate)
    assert simulate(Scenario(constant(rates, rates), HOURS, share=share), 1).taken_back < 0.04


def test_8_against_1_percent_is_gone_within_100_canary_requests():
    rates = constant((0.08, 0.05, 0.05), (0.01, 0.05, 0.05))
    outcome = simulate(Scenario(rates, 1000, look_s=1, duration_s=180), seed=2)
    assert outcome.taken_back == 1
    assert outcome.median_requests <= 100


def test_a_slowdown_of_20_percent_is_found_wherever_the_buckets_fall():
    slower = simulation.slowdown(HOURS, 1.2)
    assert slower["taken_back"] == 1
    assert simulation.slowdown(HOURS, 1.0)["taken_back"] < 0.04


def test_an_incident_of_both_versions_blames_nobody():
    assert simulation.incident(HOURS)["taken_back"] < 0.04


def test_the_ledger_gets_few_records():
    rates = constant((0.01, 0.05, 0.05), (0.01, 0.05, 0.05))
    assert simulate(Scenario(rates, 20), seed=1).records < 130  # of 360 looks


@pytest.mark.parametrize("errors", [0.01, 0.03, 0.05, 0.09, 0.2])
def test_the_simulation_decides_as_the_state_machine_does(errors):
    """The same counts, look by look, through policy.rollout.machine.advance."""
    canary, stable = (errors, 0.0, 0.08), (0.01, 0.0, 0.05)
    scenario = Scenario(constant(canary, stable), 8, duration_s=600)
    simulated = simulate(scenario, seed=3).requests
    for hour in range(scenario.hours):
        assert machine(scenario, hour, seed=3) == simulated[hour]


def machine(scenario, hour, seed):
    """Canary requests until the state machine takes the version back, in one hour."""
    plan = make_plan(
        bake_s=scenario.duration_s + 100,
        deadlines__step_s=scenario.duration_s * 2 + 200,
        limits__failure_limit=0,
        limits__requests_min=simulation.REQUESTS_MIN,
        limits__labels_min=1,
        limits__accuracy_min=0,
        judge__error_rate_margin=0,
        judge__slow_margin=0,
        judge__accuracy_margin=0,
        judge__block_s=simulation.BLOCK_S,
    )
    rng, total = np.random.default_rng(seed), np.zeros((3, 4))
    rollout = look(in_phase(Phase.STEP, plan=plan), total, NOW)
    for index in range(round(scenario.duration_s / scenario.look_s)):
        at_s = (index + 1) * scenario.look_s
        total += simulation.traffic(rng, scenario, *scenario.at(at_s))[:, :, hour]
        rollout = look(rollout, total, NOW + timedelta(seconds=at_s))
        if rollout.phase is Phase.ROLLING_BACK:
            return total[0, 1]
    return simulation.NEVER


def look(rollout, total, at):
    errors, slow, wrong = total.astype(int).tolist()
    samples = [
        Sample(
            counts=Counts(
                requests=errors[i + 1],
                errors=errors[i],
                latency=(errors[i + 1], *[0] * 16),
            ),
            labelled=Labelled(labels=wrong[i + 1], correct=wrong[i + 1] - wrong[i]),
        )
        for i in (0, 2)
    ]
    assert slow[0] == slow[2] == 0
    weights = {"v1": 90, "v2": 10}
    return advance(
        rollout,
        Seen(at=at, ready=True, weights=weights, canary=samples[0], stable=samples[1]),
    )

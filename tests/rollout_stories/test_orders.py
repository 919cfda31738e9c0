"""What is ordered where the ledger knows of nothing that should serve, and something does."""

from datetime import UTC, datetime

import pytest

from deployments import Desired, Observed, Release, Server
from policy.config import load_config
from policy.rollout.plans import plan_for
from policy.rollout.record import Phase, start
from tasks.rollout.orders import sparing
from tests.policy.configurations import LOCAL

FIRST, OTHER, THIRD = "v1", "v2", "v3"
AT = datetime(2026, 11, 22, tzinfo=UTC)
NOTHING = Desired((), {})


def first(phase):
    plan = plan_for(load_config(LOCAL), "production")
    rollout = start("1", "production", FIRST, None, plan, "ada", AT)
    return rollout.model_copy(update={"phase": phase})


def serving(**weights):
    """An endpoint with these versions ready, and one more that has no weight."""
    servers = {
        version: Server("ready", f"digest of {version}") for version in (*weights, "idle")
    }
    return Observed(servers, weights)


def release(version):
    return Release(version, f"digest of {version}")


@pytest.mark.parametrize("phase", [Phase.PENDING, Phase.DEPLOYING, Phase.SMOKE])
def test_what_serves_goes_on_beside_a_first_version(phase):
    seen = serving(v2=70, v3=30)
    wanted = Desired((release(FIRST),), {})
    spared = sparing(wanted, first(phase), seen)
    assert {one.version for one in spared.releases} == {FIRST, OTHER, THIRD}
    assert spared.weights == {OTHER: 70, THIRD: 30}


def test_a_first_version_that_is_ready_takes_over():
    wanted = Desired((release(FIRST),), {FIRST: 100})
    assert sparing(wanted, first(Phase.STEP), serving(v2=100)) == wanted


@pytest.mark.parametrize("phase", [Phase.ROLLING_BACK, Phase.ROLLED_BACK])
def test_a_first_version_that_is_rolled_back_loses_its_weight_and_nobody_else_does(phase):
    assert sparing(NOTHING, first(phase), serving(v1=100)) == NOTHING
    assert sparing(NOTHING, first(phase), serving(v2=100)).weights == {OTHER: 100}
    assert sparing(NOTHING, first(phase), serving(v1=90, v2=10)).weights == {OTHER: 100}


def test_an_endpoint_that_serves_nobody_is_ordered_what_is_wanted():
    assert sparing(NOTHING, first(Phase.PENDING), Observed({}, {})) == NOTHING

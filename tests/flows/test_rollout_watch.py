"""After the rollout: a version that degrades while it is watched is rolled back."""

import pytest

from flows.rollout import rollout
from policy.errors import RolledBack
from policy.rollout.record import Phase
from tests.flows.conftest import BROKEN


@pytest.fixture
def watched(world):
    """v1 serves, and v2 is promoted and watched."""
    world.configure(watch={"s": 60, "requests_min": 20})
    world.serve("v1")
    world.register("v2")
    world.roll("v2", until=Phase.WATCHING)
    assert world.production.weights == {"v2": 100}
    assert sorted(world.production.servers) == ["v1", "v2"], "v1 was kept as a backup"
    return world


def go_on(world):
    return rollout("v2", "production", str(world.path))


def test_a_version_that_degrades_while_watched_is_rolled_back(watched):
    watched.break_version("v2", BROKEN)
    watched.production.settle(watched.cloud, "production")
    with pytest.raises(RolledBack, match=r"errors .*stable v1 serves 100 %"):
        go_on(watched)
    assert watched.ledger.endpoint("production").promoted == ("v1",)
    assert watched.production.weights == {"v1": 100}
    assert list(watched.production.servers) == ["v1"]


def test_a_version_whose_server_gives_up_while_watched_is_rolled_back(watched):
    watched.production.servers["v2"].fails = "its server gave up"
    with pytest.raises(RolledBack, match=r"gave up.*stable v1 serves 100 %"):
        go_on(watched)
    assert watched.production.weights == {"v1": 100}


def test_a_version_that_stays_well_is_promoted_after_its_watch(watched):
    assert go_on(watched) == "v2"
    last = watched.ledger.endpoint("production").rollout
    assert "watched for 60 s" in last.reason
    assert list(watched.production.servers) == ["v2"]

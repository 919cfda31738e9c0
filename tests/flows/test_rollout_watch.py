"""After the rollout: a version that degrades while it is watched is taken back."""

import threading
import time

import pytest

from flows.rollout import rollout
from policy.errors import RolledBack
from policy.rollout.record import Phase


@pytest.fixture
def watched(world):
    """v1 serves; a promoted version is watched until its traffic says enough."""
    text = world.path.read_text()
    assert "  s: 0\n" in text
    world.path.write_text(text.replace("  s: 0\n", "  s: 3\n"))
    world.serve("v1")
    world.register("v2")
    return world


def last(world):
    return world.ledger.endpoint("production").rollout


@pytest.mark.parametrize(
    ("degrade", "reason"),
    [
        pytest.param(lambda production: production.broken.add("v2"), "error_rate", id="errors"),
        pytest.param(
            lambda production: production.broken.add("v2 never ready"), "gave up", id="its end"
        ),
    ],
)
def test_a_version_that_degrades_while_watched_is_taken_back(watched, degrade, reason):
    found = []

    def wait():
        deadline = time.monotonic() + 60
        while last(watched).phase is not Phase.WATCHING and time.monotonic() < deadline:
            time.sleep(0.02)
        found.append((watched.production.weights(), sorted(watched.production.deployed())))
        degrade(watched.production)

    thread = threading.Thread(target=wait)
    thread.start()
    with pytest.raises(RolledBack, match=rf"{reason}.*stable v1 serves 100 %"):
        rollout("v2", "production", str(watched.path))
    thread.join(30)
    assert found == [({"v2": 100}, ["v1", "v2"])], "v1 was kept as a backup"
    assert watched.ledger.endpoint("production").promoted == ("v1",)
    assert watched.production.weights() == {"v1": 100}
    assert watched.production.deployed() == ["v1"]


def test_a_version_that_stays_well_is_promoted_after_its_watch(watched):
    assert rollout("v2", "production", str(watched.path)) == "v2"
    assert "watched 3 s" in last(watched).reason
    assert watched.production.deployed() == ["v2"]

"""Bad and good canaries on a real Envoy with clients asking all the time."""

import pytest

from tests.benchmarks.rollout_trials import BAD, GOOD, trials

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def live():
    with trials() as made:
        yield made


@pytest.mark.parametrize("name", BAD)
def test_a_bad_canary_is_taken_back_and_no_client_notices(live, name):
    before = live.now().stable
    trial = live.trial(name, good=False)
    assert trial.right, trial.reason
    assert live.now().stable == before
    assert (trial.failed, trial.sent > 20) == (0, True), trial.others


@pytest.mark.parametrize("name", GOOD)
def test_a_good_canary_is_promoted_and_no_client_notices(live, name):
    trial = live.trial(name, good=True)
    assert trial.right, trial.reason
    assert (trial.failed, trial.sent > 20) == (0, True)


def test_a_rollback_by_hand_shifts_the_traffic_within_5_s(live):
    took_s, failed = live.rolled_back_by_hand()
    assert failed == 0
    assert took_s < 5
    assert live.aborted_by_hand() < 5

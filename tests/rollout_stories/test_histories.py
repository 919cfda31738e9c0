"""What an endpoint has behind it decides what a request means there."""

import pytest

from deployments import command, ledger
from policy.errors import Refused
from policy.evidence.limits import Fault
from policy.rollout.record import Phase
from tests.places.memory import Settings
from tests.rollout_stories.process import begin, promote, tell
from tests.rollout_stories.stories import (
    BAD,
    BAD_CANARY,
    ENDPOINT,
    OVERLOADED,
    PLAN,
    WATCHED,
    Story,
    asks,
    in_phase,
)


def cloud_after(*served, scratch):
    return begin(Story("", served, (), (), {}), scratch)


def asked(cloud, scratch, *steps):
    """The answer to the last of the requests, and the state at their end."""
    state = tell(cloud.place(scratch), steps)
    return state.requests[steps[-1].request.id], state.endpoint(ENDPOINT)


def test_a_rollback_asked_again_with_the_same_id_is_the_same_rollback(tmp_path):
    """It was killed after its first record: asked anew, it must not abort itself."""
    cloud, back = cloud_after("v1", "v2", scratch=tmp_path), asks("rollback", "back")
    command.make(cloud.place(tmp_path), back.request)
    answer, at = asked(cloud, tmp_path, back)
    assert (answer.came_true, at.stable, at.promoted) == (True, "v1", ("v1",))


def test_another_rollback_joins_the_one_under_way(tmp_path):
    cloud = cloud_after("v1", "v2", scratch=tmp_path)
    steps = asks("rollback", "back"), asks("rollback", "by another person")
    answer, at = asked(cloud, tmp_path, *steps)
    assert (answer.came_true, at.stable) == (True, "v1")


def test_a_rollback_whose_target_cannot_serve_does_not_come_true(tmp_path):
    cloud = cloud_after("v1", "v2", scratch=tmp_path)
    cloud.fail_deploy("v1", "its image is gone")
    answer, at = asked(cloud, tmp_path, asks("rollback", "back"))
    assert not answer.came_true
    assert "v1 cannot serve: its image is gone; stable v2 serves 100 %" in answer.reason
    assert (at.stable, cloud.lost(ENDPOINT)) == ("v2", 0)


def test_a_rollout_of_the_stable_version_has_nothing_to_do_whatever_failed_before(tmp_path):
    cloud = begin(BAD_CANARY, tmp_path)
    answer, _ = asked(cloud, tmp_path, asks("rollout", "bad", version="v2"))
    assert not answer.came_true
    answer, at = asked(cloud, tmp_path, asks("rollout", "same", version="v1"))
    assert answer.came_true
    assert answer.reason == "v1 serves production already"
    assert (at.rollout.version, at.promoted) == ("v2", ("v1",))


@pytest.mark.parametrize(
    ("served", "then", "before"),
    [(("v1", "v2"), "v1", "v2"), (("v1", "v2", "v3", "v4"), "v2", "v4")],
    ids=["A B, then A: back to B", "A B C D, then B: back to D"],
)
def test_a_rollback_goes_to_what_served_before(tmp_path, served, then, before):
    cloud = cloud_after(*served, scratch=tmp_path)
    promote(cloud.place(tmp_path), then)
    answer, at = asked(cloud, tmp_path, asks("rollback", "back"))
    assert (answer.came_true, at.promoted) == (True, served)
    assert at.stable == before


def test_a_rollback_without_a_version_before_is_refused(tmp_path):
    cloud = cloud_after("v1", scratch=tmp_path)
    with pytest.raises(Refused, match="production has no version before v1"):
        tell(cloud.place(tmp_path), (asks("rollback", "back"),))


@pytest.mark.parametrize("scratch", ["same", "another"])
@pytest.mark.parametrize(("bad", "ends"), [(False, "v2"), (True, "v1")])
@pytest.mark.parametrize("hours", [1, 7, 100])
def test_a_controller_away_for_hours_at_10_percent(tmp_path, hours, bad, ends, scratch):
    """It comes back to this machine or to another one, past the deadline of the step."""
    cloud = cloud_after("v1", scratch=tmp_path)
    cloud.behaviours |= {"v2": BAD} if bad else {}
    go = asks("rollout", "go", version="v2")
    die_at_10_percent(cloud, tmp_path / "same", go)
    cloud.pass_time(hours * 3600)
    answer, at = asked(cloud, tmp_path / scratch, go)
    assert (answer.came_true, at.stable) == (not bad, ends)
    assert cloud.lost(ENDPOINT) == 0


def die_at_10_percent(cloud, scratch, go):
    """A process makes the request, and dies once its version is to get its first traffic."""

    def moment(rollout):
        if in_phase(Phase.STEP)(rollout):
            raise KeyboardInterrupt
        return False

    with pytest.raises(KeyboardInterrupt):
        tell(cloud.place(scratch), (go, asks("abort", "never made", moment)))


def test_no_weight_goes_to_servers_that_are_not_ready_where_ledger_and_endpoint_differ(
    tmp_path,
):
    """The ledger says that v2 serves at 10 %; its server is gone and starts anew."""
    cloud = begin(Story("", ("v1",), (), (), {}), tmp_path, Settings(deploy_s=100))
    go = asks("rollout", "go", version="v2")
    die_at_10_percent(cloud, tmp_path, go)
    cloud.pass_time(100)
    del cloud.endpoints[ENDPOINT].servers["v2"]
    cloud.endpoints[ENDPOINT].weights = {"v1": 100}
    seen = []
    cloud.hook = lambda call, when: seen.append(unready(cloud)) if call == "sleep" else None
    answer, at = asked(cloud, tmp_path, go)
    assert not any(seen)
    assert (cloud.lost(ENDPOINT), at.rollout.phase) == (0, Phase.DONE)
    assert answer.came_true


def unready(cloud):
    at = cloud.endpoints[ENDPOINT]
    return [v for v in at.weights if not at.ready(v, cloud.time)]


def test_a_deploy_that_fails_at_its_end_is_taken_back_with_its_reason(tmp_path):
    cloud = cloud_after("v1", scratch=tmp_path)
    cloud.fail_deploy("v2", "out of memory")
    answer, at = asked(cloud, tmp_path, asks("rollout", "go", version="v2"))
    assert "v2 cannot serve: out of memory" in answer.reason
    assert (answer.came_true, at.stable, cloud.lost(ENDPOINT)) == (False, "v1", 0)


def test_no_quota_for_an_hour_ends_in_the_deadline_and_blames_no_other(tmp_path):
    cloud = cloud_after("v1", scratch=tmp_path)
    cloud.lie("apply", "before", "quota exceeded", times=10_000)
    answer, at = asked(cloud, tmp_path, asks("rollout", "go", version="v2"))
    assert "deploying for" in answer.reason
    assert (answer.came_true, at.stable, cloud.lost(ENDPOINT)) == (False, "v1", 0)


def test_counters_that_dip_for_a_while_take_nothing_back(tmp_path):
    cloud = cloud_after("v1", scratch=tmp_path)
    readings = 0

    def dip(call, when):
        nonlocal readings
        if (call, when) == ("read_counts", "before"):
            readings += 1
            cloud.endpoints[ENDPOINT].dips = readings % 3 == 0

    cloud.hook = dip
    answer, _ = asked(cloud, tmp_path, asks("rollout", "go", version="v2"))
    assert answer.came_true, answer.reason


@pytest.mark.parametrize(
    ("story", "fault"),
    [(OVERLOADED, Fault.LIMIT), (WATCHED, Fault.WATCH)],
    ids=["step", "watch"],
)
def test_a_version_that_breaks_at_100_percent_goes_back_to_the_one_kept_beside_it(
    tmp_path, story, fault
):
    """Within two orders and the metrics' lateness: stable was never undeployed."""
    cloud = begin(story, tmp_path)
    deploys = cloud.endpoints[ENDPOINT].lives
    _, at = asked(cloud, tmp_path, *story.steps)
    assert (at.rollout.fault, at.stable, deploys["v1"]) == (fault, "v1", 1)


def test_a_request_whose_id_was_used_for_something_else_is_refused(tmp_path):
    cloud = cloud_after("v1", scratch=tmp_path)
    place = cloud.place(tmp_path)
    tell(place, (asks("rollout", "one", version="v2"),))
    number = ledger.read(place.store).number
    with pytest.raises(Refused, match="the request one was used for rollout v2 on production"):
        command.make(place, asks("rollout", "one", version="v3").request)
    assert ledger.read(place.store).number == number


@pytest.mark.parametrize(
    ("setting", "capability"), [("smoke_requests", "pin"), ("shadow__percent", "mirror")]
)
def test_a_plan_that_needs_what_the_endpoint_cannot_do_is_refused(
    tmp_path, setting, capability
):
    cloud = cloud_after("v1", scratch=tmp_path)
    place, name = cloud.place(tmp_path), setting.split("__")[0]
    changed = (
        {"smoke_requests": 5}
        if capability == "pin"
        else {"shadow": PLAN.shadow.model_copy(update={"percent": 5})}
    )
    plan = PLAN.model_copy(update=changed)
    with pytest.raises(Refused, match=f"{name}.*needs an endpoint that can {capability}"):
        command.make(place, asks("rollout", "go", version="v2", plan=plan).request)
    assert "go" not in ledger.read(place.store).requests

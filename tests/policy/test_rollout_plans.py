"""The plan in a rollout's record: a copy of the settings of that day, read for ever."""

from pathlib import Path

import pytest

from policy.config import load_config
from policy.rollout.plans import Plan, at_once, plan_of, steps_s
from policy.rollout.record import Rollout
from tests.policy.worlds import ACCURATE, begin, make_plan

LOCAL = Path(__file__).parents[2] / "deployments/local.yaml"


def test_a_plan_is_a_copy_of_the_settings():
    configured = load_config(LOCAL).rollout
    plan = plan_of(configured)
    assert plan.model_dump() == configured.model_dump()
    assert Plan.model_validate_json(plan.model_dump_json()) == plan


LATER = {"bake_requests": 0, "little_traffic": "replay"}


def test_what_came_later_means_in_an_old_record_what_was_meant_then():
    tree = begin().model_dump(mode="json")
    for name in LATER:
        del tree["plan"][name]
    for name in ("quiet_s", "watch_s"):
        del tree["plan"]["deadlines"][name]
    for name in ("rollback", "request", "scarce", "began"):
        del tree[name]
    old = Rollout.model_validate(tree)
    assert {name: getattr(old.plan, name) for name in LATER} == LATER
    assert (old.plan.deadlines.quiet_s, old.plan.deadlines.watch_s) == (600, 600)
    assert (old.rollback, old.request, old.scarce, old.began) == (False, "", False, None)


@pytest.mark.parametrize("section", [None, "limits", "judge", "shadow", "watch", "deadlines"])
def test_a_setting_of_another_day_is_ignored(section):
    tree = make_plan().model_dump()
    (tree[section] if section else tree)["moon_phase"] = "full"
    assert Plan.model_validate(tree) == make_plan()


def test_at_once_is_one_step_without_a_watch_and_with_the_same_limits():
    plan = make_plan(
        approval=True,
        analyses=(ACCURATE.model_dump(),),
        shadow__percent=20,
        judge__promotion="non-inferior",
    )
    immediate = at_once(plan)
    assert (immediate.weights, immediate.watch.s, immediate.shadow.percent) == ((100,), 0, 0)
    assert (immediate.approval, immediate.analyses) == (False, ())
    assert immediate.judge.promotion == "within-limits"
    assert (immediate.limits, immediate.deadlines) == (plan.limits, plan.deadlines)


@pytest.mark.parametrize(
    ("per_s", "changes", "expected_s"),
    [
        (50, {}, 10 + 10 + 10),
        (1, {}, 200 + 40 + 20),
        (1, {"bake_requests": 100}, 1000 + 200 + 100),
        (1, {"bake_requests": 1}, 200 + 40 + 20),
        (1, {"strategy": "blue-green", "weights": (0, 100)}, 20),
    ],
)
def test_steps_take_as_long_as_their_requests_do(per_s, changes, expected_s):
    assert steps_s(make_plan(**changes), per_s) == pytest.approx(expected_s)

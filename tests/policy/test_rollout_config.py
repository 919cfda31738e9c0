"""A rollout section that cannot work is refused when the file is read."""

import pytest
from pydantic import ValidationError

from policy.rollout.machine import LATENCY_EDGES_S
from tests.policy.worlds import ACCURATE, make_plan


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"weights": (30, 10, 100)}, r"weights \(=\[30, 10, 100\]\) must rise and end at 100"),
        ({"weights": (10, 50)}, "must rise and end at 100"),
        ({"weights": ()}, "must rise and end at 100"),
        ({"strategy": "blue-green"}, r"must be \[0, 100\] for blue-green"),
        ({"strategy": "immediate"}, r"must be \[100\] for immediate"),
        ({"limits__latency_p95_s_max": 0.3}, r"\(=0.3\) must be an edge of the latency"),
        ({"watch__latency_p95_s_max": 11}, r"\(=11.0\) must be an edge of the latency"),
        ({"deadlines__step_s": 10}, r"deadlines.step_s \(=10.0\) leaves no time for a window"),
        (
            {"shadow__percent": 20, "deadlines__shadow_s": 5},
            r"deadlines.shadow_s \(=5.0\) is shorter than shadow.bake_s",
        ),
        (
            {"strategy": "immediate", "weights": (100,), "judge__promotion": "non-inferior"},
            r"judge.promotion \(=non-inferior\) needs a weight between 0 and 100",
        ),
        ({"judge__alpha": 0.5}, "less than 0.5"),
        ({"judge__non_inferiority_margin": 0}, "greater than 0"),
        ({"look_s": 0}, "greater than 0"),
        ({"watch__minutes": 5}, "Extra inputs are not permitted"),
        (
            {"analyses": (ACCURATE.model_dump(), ACCURATE.model_dump())},
            r"analyses must have different names \(=\['accurate', 'accurate'\]\)",
        ),
        (
            {"analyses": ({**ACCURATE.model_dump(), "success_condition": "accuracy > 1"},)},
            "'accuracy' in 'accuracy > 1' is not a number",
        ),
    ],
)
def test_a_plan_that_cannot_work_names_the_setting(changes, said):
    with pytest.raises(ValidationError, match=said):
        make_plan(**changes)


@pytest.mark.parametrize("key", ["look_s", "judge", "analyses", "shadow", "watch"])
def test_nothing_is_filled_in(key):
    tree = make_plan().model_dump()
    del tree[key]
    with pytest.raises(ValidationError, match="Field required"):
        type(make_plan()).model_validate(tree)


def test_an_unshadowed_plan_needs_no_time_for_a_shadow():
    assert make_plan(deadlines__shadow_s=1).shadow.percent == 0


@pytest.mark.parametrize("edge_s", LATENCY_EDGES_S)
def test_every_edge_is_a_limit(edge_s):
    assert make_plan(limits__latency_p95_s_max=edge_s)

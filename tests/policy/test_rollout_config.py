"""A rollout section that cannot work is refused when the file is read, and is told why."""

from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from policy.config import Rollout
from policy.counts import LATENCY_EDGES_S

LOCAL = Path(__file__).parents[2] / "deployments/local.yaml"
SHIPPED = yaml.safe_load(LOCAL.read_text())["rollout"]
ACCURATE = {
    "name": "accurate",
    "success_condition": "result.accuracy >= 0.9",
    "failure_condition": "",
    "failure_limit": 0,
    "inconclusive_limit": 0,
    "consecutive_error_limit": 0,
    "interval_s": 7,
    "count": 0,
    "dry_run": False,
}
WAITING = {"little_traffic": "wait", "replay_per_s": 0}


def plan(**changes):
    """The plan of local.yaml; `section__key` changes a section."""
    tree = yaml.safe_load(yaml.safe_dump(SHIPPED))
    for name, value in changes.items():
        section, _, key = name.partition("__")
        if key:
            tree[section][key] = value
        else:
            tree[section] = value
    return Rollout.model_validate(tree)


def analysed(**changes):
    return {"analyses": [ACCURATE | changes]}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"weights": [30, 10, 100]}, r"weights \(=\[30, 10, 100\]\) must rise and end at 100"),
        ({"weights": [10, 50]}, "must rise and end at 100"),
        ({"weights": []}, "must rise and end at 100"),
        ({"strategy": "blue-green"}, r"must be \[0, 100\] for blue-green"),
        ({"strategy": "immediate"}, r"must be \[100\] for immediate"),
        ({"limits__latency_p95_s_max": 0.3}, r"\(=0.3\) must be an edge of the latency"),
        ({"watch__latency_p95_s_max": 11}, r"\(=11.0\) must be an edge of the latency"),
        ({"judge__alpha": 0.5}, "less than 0.5"),
        ({"judge__alpha": 1e-320}, "greater than or equal to 0.000000001"),
        ({"judge__non_inferiority_margin": 0}, "greater than 0"),
        ({"look_s": 0}, "greater than or equal to 0.001"),
        ({"bake_requests": 1.5}, "valid integer"),
        ({"little_traffic": "hope"}, "'wait', 'ask' or 'replay'"),
        ({"watch__minutes": 5}, "Extra inputs are not permitted"),
    ],
)
def test_a_plan_of_wrong_values_names_the_setting(changes, said):
    with pytest.raises(ValidationError, match=said):
        plan(**changes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"deadlines__step_s": 7},
            r"deadlines.step_s \(=7\) leaves no time for a window .* end in its deadline",
        ),
        (
            {"shadow__percent": 50, "shadow__bake_s": 9, "deadlines__shadow_s": 5},
            r"deadlines.shadow_s \(=5\) is shorter than shadow.bake_s",
        ),
        ({"bake_s": 0}, r"bake_s \(=0\) ends each window before its first request"),
        ({"shadow__percent": 20}, r"bake_s \(=0\) leaves no time for a mirrored request"),
        (
            WAITING | {"deadlines__quiet_s": 100},
            r"deadlines.quiet_s \(=100\) is below deadlines.step_s \(=240\)",
        ),
        ({"replay_per_s": 0}, r"\(=replay\) needs replay_per_s above 0"),
        ({"little_traffic": "ask"}, r"replay_per_s \(=20\) is not used with little_traffic"),
        (  # 0.1 a second at 10 %, and five windows of 7 s before it is given up
            {"replay_per_s": 1},
            r"gives 3.5 requests at weight 10 in the 35 s there are, and 5 are needed",
        ),
        ({"limits__labels_min": 80}, "gives 70 requests at weight 10 .*80 are needed"),
        ({"bake_requests": 71}, "gives 70 requests at weight 10 .*71 are needed"),
        (
            {"shadow__percent": 10, "shadow__bake_s": 7, "shadow__compared_min": 99},
            "gives 70 requests at the shadow in the 35 s there are, and 99 are needed",
        ),
        ({"watch__requests_min": 101}, "gives 100 requests at the watch in the 5 s"),
        ({"watch__s": 0}, r"requests_min \(=5\) is never looked at, since s is 0"),
        ({"shadow__compared_min": 5}, r"compared_min \(=5\) is never looked at"),
        (
            {
                "shadow__percent": 10,
                "shadow__bake_s": 7,
                "shadow__compared_min": 9,
                "shadow__disagreement_max": 1,
            },
            r"disagreement_max \(=1\) can never be exceeded",
        ),
        ({"judge__slow_margin": 0.95}, r"slow_margin \(=0.95\) can never be exceeded"),
        (
            {"strategy": "immediate", "weights": [100], "judge__promotion": "non-inferior"},
            r"judge.promotion \(=non-inferior\) needs a weight between 0 and 100",
        ),
        (
            {"judge__promotion": "non-inferior", "limits__labels_min": 0},
            "a version that answers wrongly would count as proven",
        ),
        (
            {"judge__promotion": "non-inferior", "judge__non_inferiority_margin": 0.001},
            "takes at least 4603 canary requests to prove, .*gives 4320 .* no version would be",
        ),
    ],
)
def test_a_plan_that_cannot_work_is_told_what_would_happen(changes, said):
    with pytest.raises(ValidationError, match=said):
        plan(**changes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"analyses": [ACCURATE, ACCURATE]},
            r"analyses must have different names \(=\['accurate', 'accurate'\]\)",
        ),
        (
            analysed(success_condition="accuracy > 1"),
            "'accuracy' in 'accuracy > 1' is not a number",
        ),
        (analysed(success_condition=f"result.errors < {'9' * 400}"), "is not a number"),
        (analysed(success_condition=""), "every measurement would succeed, and no version"),
        (analysed(success_condition="1 < 2"), "every measurement would end alike"),
        (
            analysed(interval_s=7.5),
            r"interval_s \(=7.5\) is above bake_s \(=7\) and count is 0: .* before the first",
        ),
        (analysed(interval_s=7.5, dry_run=True), "before the first measurement"),
        (
            analysed(failure_limit=1),
            r"analyses.0.failure_limit \(=1\).* not below the 1 measurement",
        ),
        (analysed(interval_s=2, inconclusive_limit=3), "not below the 3 measurement"),
        (analysed(consecutive_error_limit=4), "would get on without a successful one"),
        (
            analysed(count=3, failure_limit=3),
            r"count \(=3\) is not above failure_limit \(=3\) .* without one successful",
        ),
        (analysed(count=3, failure_limit=1, inconclusive_limit=2), "without one successful"),
        (
            analysed(count=40, interval_s=6),
            r"count \(=40\) measurements at interval_s \(=6\) take 240 s .*in its deadline",
        ),
    ],
)
def test_an_analysis_that_cannot_fail_or_cannot_pass_is_told_what_would_happen(changes, said):
    with pytest.raises(ValidationError, match=said):
        plan(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        analysed(),
        analysed(
            interval_s=1, failure_limit=1, inconclusive_limit=1, consecutive_error_limit=4
        ),
        analysed(count=3, failure_limit=1, inconclusive_limit=1, consecutive_error_limit=9),
        analysed(count=39, interval_s=6),
        analysed(count=400, interval_s=6, dry_run=True),
        analysed(success_condition="", dry_run=True),
        WAITING,
        WAITING | {"bake_s": 0, "bake_requests": 50, "analyses": []},
        {"little_traffic": "ask", "replay_per_s": 0},
        {"judge__promotion": "non-inferior"},
        {"judge__slow_margin": 1, "judge__error_rate_margin": 1, "limits__error_rate_max": 1},
        {"watch__s": 0, "watch__requests_min": 0},
        {"deadlines__shadow_s": 1},  # no shadow needs no time
        {"strategy": "blue-green", "weights": [0, 100]},
    ],
)
def test_a_plan_that_can_work_is_accepted(changes):
    assert plan(**changes)


@pytest.mark.parametrize("key", sorted(SHIPPED))
def test_nothing_is_filled_in(key):
    tree = {name: value for name, value in SHIPPED.items() if name != key}
    with pytest.raises(ValidationError, match="Field required"):
        Rollout.model_validate(tree)


@pytest.mark.parametrize("edge_s", LATENCY_EDGES_S)
def test_every_edge_is_a_limit(edge_s):
    assert plan(limits__latency_p95_s_max=edge_s)

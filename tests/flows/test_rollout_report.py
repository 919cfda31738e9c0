"""The rollout's report: every kind of rollout can be drawn, and says how it ended."""

import base64
import re

import pytest

from policy.evidence.comparison import decides_at, found_worse
from policy.rollout.machine import advance, finished
from tasks.reports.rollout import report
from tests.policy.worlds import Behaviour, begin, make_plan, seconds, world


def driven(canary, stable="v1", **plan):
    """The records of a rollout with their times."""
    a_world, rollout = world(canary, stable), begin(make_plan(**plan), stable)
    records = [(seconds(0), rollout)]
    while not finished(rollout):
        a_world.obey(rollout)
        a_world.pass_time(1)
        after = advance(rollout, a_world.look(rollout))
        if after is not rollout:
            records.append((seconds(a_world.at_s), after))
        rollout = after
    return records


@pytest.mark.parametrize(
    ("canary", "stable", "end"),
    [
        pytest.param(Behaviour(), "v1", ": promoted", id="good"),
        pytest.param(Behaviour(errors=0.3), "v1", "**rolled back**", id="errors"),
        pytest.param(
            Behaviour(latency_s=20.0), "v1", "**rolled back**", id="past the last bucket"
        ),
        pytest.param(Behaviour(), None, ": promoted", id="a first version"),
    ],
)
def test_a_report_has_its_picture_and_its_end(canary, stable, end):
    text = report(driven(canary, stable))
    assert end in text.splitlines()[0]
    picture = base64.b64decode(re.search(r"data:image/png;base64,([^)]*)\)", text)[1])
    assert picture.startswith(b"\x89PNG")
    assert len(picture) < 150_000, "an artifact is part of every listing"


def test_a_rollout_that_met_no_traffic_has_no_picture():
    records = driven(Behaviour())[:2]
    assert "No window of live traffic was judged" in report(records)
    assert "data:image" not in report(records)


def test_evidence_past_its_line_is_what_rolls_a_version_back():
    records = driven(
        Behaviour(errors=0.1), limits__error_rate_max=1.0, judge__promotion="within-limits"
    )
    plan = records[0][1].plan
    lines = decides_at(plan)
    for _, rollout in records:
        past = [n for n, line in lines.items() if getattr(rollout.evidence, n).worse >= line]
        assert bool(past) == bool(found_worse(rollout.evidence, plan))
    assert past == ["error_rate"]

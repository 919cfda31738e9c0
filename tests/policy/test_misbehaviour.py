"""What clients do to both versions alike condemns neither of them.

Whatever share of the requests a client makes fail, wrong or slow: as long as it is the same on
both sides, no comparison and no limit takes the canary back. Only the deadline of a step that
could not be judged does, and it says so.
"""

import pytest

from policy.evidence.limits import Fault
from policy.rollout.record import Phase
from tests.policy.worlds import Behaviour, begin, make_plan, run, world

ROLLOUTS = 20
CONDEMNED_MAX = 2  # judge.alpha is 1 %: of 20 rollouts seldom one
PLAN = make_plan(look_s=5, deadlines__step_s=80)
UNDECIDED = (None, Fault.DEADLINE, Fault.INCONCLUSIVE)


@pytest.mark.parametrize(
    "both",
    [
        {},
        {"errors": 0.02},
        {"errors": 0.049},
        {"errors": 0.06},
        {"errors": 0.5},
        {"errors": 1.0},
        {"wrong": 0.24},
        {"wrong": 0.6},
        {"latency_s": 0.9},
        {"latency_s": 8.0},
        {"errors": 0.1, "wrong": 0.3, "latency_s": 1.1},
    ],
    ids=str,
)
def test_equal_misbehaviour_condemns_neither_version(both):
    faults = []
    for seed in range(ROLLOUTS):
        a_world = world(Behaviour(**both), per_s=50, seed=seed)
        a_world.behaviours["v1"] = Behaviour(**both)
        last = run(a_world, begin(PLAN), look_s=5, stop=Phase.PROMOTING)[-1]
        faults.append((last.fault, last.reason))
    condemned = [fault for fault in faults if fault[0] not in UNDECIDED]
    assert len(condemned) <= CONDEMNED_MAX, condemned


@pytest.mark.parametrize(
    "alone", [{"errors": 0.3}, {"wrong": 0.5}, {"latency_s": 8.0}], ids=str
)
def test_a_version_that_misbehaves_alone_is_found(alone):
    for seed in range(5):
        a_world = world(Behaviour(**alone), per_s=50, seed=seed)
        last = run(a_world, begin(PLAN), look_s=5, stop=Phase.PROMOTING)[-1]
        assert last.fault in (Fault.LIMIT, Fault.COMPARISON)

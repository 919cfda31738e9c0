"""What Prometheus is told of the rollouts: the state's own totals, and no walk over records."""

import pytest

from deployments import ledger
from deployments.metrics.rollout import rollout_metrics
from deployments.store import open_store
from policy.records import Registered, RolloutChanged
from policy.rollout.record import Phase
from tests.policy.worlds import NOW, Behaviour, begin, make_plan, run, until, world


@pytest.fixture
def store(tmp_path):
    """v1 was promoted, a broken one rolled back, and one waits for approval."""
    store = open_store(str(tmp_path))
    for version in ("v1", "v2"):
        digest = version[-1] * 64
        event = Registered(
            version=version, digest=digest, accuracy=0.9, families={}, reasons=(), lineage={}
        )
        ledger.append(store, lambda _state, event=event: event, by="a test")
    waiting = until(Phase.AWAITING_APPROVAL, world(), make_plan(approval=True))
    stories = (run(world(), begin()), run(world(Behaviour(errors=0.5)), begin()), [waiting])
    for number, story in enumerate(stories):
        for rollout in story:
            own = rollout.model_copy(update={"id": f"r{number}"})
            event = RolloutChanged(rollout=own)
            ledger.append(store, lambda _state, event=event: event, by="a test")
    return store


def test_totals_are_those_of_the_records(store):
    state = ledger.read(store)
    samples = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in rollout_metrics(state, ["staging", "production"], NOW)
        for sample in family.samples
    }
    rollouts = [r.event for r in ledger.records(store) if r.event.kind == "rollout"]
    assert samples["arr_coc_rollout_records_total", "production"] == len(rollouts)
    assert samples["arr_coc_rollout_records_total", "staging"] == 0
    assert samples["arr_coc_rollouts_total", "production", "promoted"] == 1
    assert samples["arr_coc_rollouts_total", "production", "rolled-back"] == 1
    assert samples["arr_coc_rollouts_total", "promoted", "staging"] == 0
    rolled_back = [
        value for key, value in samples.items() if key[0] == "arr_coc_rollout_rollbacks_total"
    ]
    assert sum(rolled_back) == 1
    assert samples["arr_coc_rollout_verdicts_total", "pass", "production"] >= 4
    assert samples["arr_coc_rollout_verdicts_total", "fail", "production"] >= 1
    waits = ("production", "v2", Phase.AWAITING_APPROVAL)
    assert samples["arr_coc_rollout_phase", *sorted(waits)] == 1

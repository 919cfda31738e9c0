"""Whole Prefect runs over a place of fakes: the order of events and who is told."""

import shutil

import pytest

from flows.ablate import ablate
from flows.reproduce import reproduce
from flows.retrain import retrain
from flows.rollback import rollback
from flows.rollout import rollout
from policy.errors import (
    Busy,
    GateFailed,
    JobFailed,
    NotFound,
    Refused,
    ReleaseError,
    RolledBack,
)
from policy.ledger import RolloutChanged
from policy.rollout.record import Phase
from tasks.training import checkpointing_of, run_of


def run(world, **parameters):
    return retrain(config=str(world.path), **parameters)


def roll_out(world, version):
    return rollout(version, "production", str(world.path))


def shares(world, version):
    """The weights that `version` had in production, one after another."""
    return [split.get(version, 0) for split in world.production.seen]


def killed_at(world, share, version):
    """A controller drives `version` and dies when it sets this share."""
    world.production.die_at = share
    with pytest.raises(BaseException, match="killed here"):
        roll_out(world, version)


def test_two_retrainings_walk_the_second_version_through_the_weights(world):
    first = run(world, seed=1)
    assert world.production.weights() == {first: 100}
    second = run(world, seed=2)
    assert shares(world, second)[1:] == [10, 30, 50, 100]
    assert world.ledger.endpoint("production").promoted == (first, second)
    assert world.production.deployed() == [second]
    assert world.endpoints["staging"].weights() == {second: 100}

    number = world.ledger.number
    assert run(world, seed=2) == second, "the same inputs are the same version"
    assert world.ledger.number == number, "and no second rollout"
    with pytest.raises(Refused, match="cooldown_s"):
        run(world, seed=3, cause="schedule")


def test_checkpoints_of_two_runs_never_share_a_folder(world):
    config = world.config.model_copy(
        update={
            "checkpointing": world.config.checkpointing.model_copy(update={"uri": "s3://b/c/"})
        }
    )
    uris = {
        checkpointing_of(config, run_of(config, seed, "runs", "hand", "")).uri
        for seed in (1, 2)
    }
    assert len(uris) == 2
    assert all(uri.startswith("s3://b/c/") for uri in uris)


def test_a_refused_version_is_not_registered_and_the_run_is_red(world):
    world.jobs.accuracy = 0.7
    with pytest.raises(GateFailed, match=r"accuracy 0.7 < .*production is as it was"):
        run(world, seed=2)
    assert not world.ledger.versions
    assert world.ledger.number == 1  # only that a retraining started
    assert world.production.seen == []


def test_a_failing_program_ends_the_run_with_nothing_changed(world):
    world.jobs.fail = "model.train"
    with pytest.raises(JobFailed):
        run(world, seed=1)
    assert not world.ledger.versions
    assert world.jobs.ran.count("model.train") == 1  # the place retries, not Prefect


def test_a_bad_canary_is_taken_back_and_the_run_is_red(world):
    world.serve("v1")
    world.production.broken.add(world.register("v2"))
    with pytest.raises(RolledBack, match="stable v1 serves 100 %"):
        roll_out(world, "v2")
    assert world.production.weights() == {"v1": 100}
    assert world.production.deployed() == ["v1"]
    assert world.ledger.endpoint("production").promoted == ("v1",)


def test_a_first_version_that_is_taken_back_leaves_nothing_serving(world):
    world.production.broken.add(world.register("v1"))
    with pytest.raises(RolledBack, match="nothing serves: there was no version before"):
        roll_out(world, "v1")
    assert world.production.weights() == {}
    assert world.production.deployed() == []


def test_a_version_that_never_gets_ready_leaves_production_as_it_was(world):
    world.serve("v1")
    world.production.broken.add("v2 never ready")
    with pytest.raises(RolledBack, match="gave up"):
        roll_out(world, world.register("v2"))
    assert world.production.weights() == {"v1": 100}


@pytest.mark.parametrize("share", [10, 100])
def test_a_controller_killed_on_the_way_is_resumed(world, share):
    world.serve("v1")
    killed_at(world, share, world.register("v2"))
    assert world.ledger.endpoint("production").unfinished
    roll_out(world, "v2")
    assert world.production.weights() == {"v2": 100}
    assert shares(world, "v2") == [10, 30, 50, 100]


def test_a_second_rollout_finds_the_endpoint_busy_and_a_rollback_aborts_the_first(world):
    world.serve("v1")
    world.register("v3")
    killed_at(world, 30, world.register("v2"))
    number, split = world.ledger.number, world.production.weights()
    with pytest.raises(Busy, match="production is in the rollout of v2"):
        roll_out(world, "v3")
    assert world.ledger.number == number
    assert world.production.weights() == split

    assert rollback("it looks odd", config=str(world.path)) == "v1"
    assert world.production.weights() == {"v1": 100}
    last = world.ledger.endpoint("production").rollout
    assert last.phase is Phase.ROLLED_BACK
    assert "it looks odd" in last.reason


def test_the_next_retraining_first_finishes_what_a_dead_controller_left(world):
    world.serve("v1")
    killed_at(world, 50, world.register("v2"))
    world.endpoints["production"].broken.clear()
    world.jobs.fail = ""
    from flows.rollout import finish_rollout

    finish_rollout(str(world.path), "production")
    assert world.ledger.endpoint("production").promoted == ("v1", "v2")
    finish_rollout(str(world.path), "production")  # nothing is left to do


def test_an_unknown_version_changes_nothing(world):
    world.serve("v1")
    number = world.ledger.number
    with pytest.raises(NotFound, match="no version 'v9'"):
        roll_out(world, "v9")
    assert world.ledger.number == number
    assert world.production.seen == []


def test_a_rollback_brings_the_version_before_back(world):
    world.serve("v1")
    world.serve("v2")
    assert rollback("wrong answers", config=str(world.path)) == "v1"
    assert world.production.weights() == {"v1": 100}
    assert world.ledger.endpoint("production").promoted == ("v1",)
    reasons = [
        record.event.rollout.reason
        for record in world.ledger.records
        if isinstance(record.event, RolloutChanged)
    ]
    assert any("wrong answers" in reason for reason in reasons)
    with pytest.raises(Refused, match="production has no version before v1"):
        rollback("once more", config=str(world.path))
    assert world.production.weights() == {"v1": 100}


def test_an_ablation_that_fails_does_not_take_the_others_down(world):
    world.jobs.fail_for = "no-participatory"
    measured = ablate(str(world.path), ("none", "no-participatory"), (1, 2))
    told = {(one.ablation, one.seed): one.failure for one in measured}
    assert told["none", 1] == told["none", 2] == ""
    assert "no-participatory" in told["no-participatory", 1]
    assert world.ledger.number == 0, "an ablation is never registered"


def test_a_version_is_reproduced_from_its_lineage(world):
    version = run(world, seed=1)
    reproduce(version, str(world.path))
    world.jobs.accuracy = 0.5  # the programs of model/ give other weights now
    shutil.rmtree(next((world.root / "reproductions").glob("*")))
    with pytest.raises(ReleaseError, match="has weights"):
        reproduce(version, str(world.path))

"""Whole Prefect runs over the place `memory`: the order of events and who is told."""

import pytest

from flows.ablate import ablate
from flows.reproduce import reproduce
from flows.retrain import retrain
from flows.rollback import rollback
from flows.rollout import rollout
from policy.errors import GateFailed, JobFailed, NotFound, Refused, ReleaseError, RolledBack
from policy.rollout.record import Phase, desired_weights
from tasks.rollout.steps import follow, request_rollout, require_came_true
from tasks.training import checkpointing_of, run_of
from tests.flows.conftest import World
from tests.places.memory import silence


def run(world, **parameters):
    return retrain(config=str(world.path), **parameters)


def roll_out(world, version, **parameters):
    return rollout(version, "production", str(world.path), **parameters)


def shares(world, version):
    """The weights that the ledger wanted for `version` in production, one after another."""
    found = [
        desired_weights(rollout).get(version, 0)
        for rollout in world.rollouts(version)
        if rollout.endpoint == "production"
    ]
    return [share for i, share in enumerate(found) if i == 0 or share != found[i - 1]]


def promoted(world):
    return world.ledger.endpoint("production").promoted


def last(world):
    return world.ledger.endpoint("production").rollout


@pytest.mark.parametrize("store", ["disk", pytest.param("bucket", marks=pytest.mark.slow)])
def test_two_retrainings_walk_the_second_version_through_the_weights(
    tmp_path, monkeypatch, store, request
):
    root = request.getfixturevalue("bucket_root") if store == "bucket" else None
    world = World(tmp_path, monkeypatch, root)
    first = run(world, seed=1)
    assert world.production.weights == {first: 100}
    second = run(world, seed=2)
    assert shares(world, second) == [0, 10, 30, 50, 100]
    assert promoted(world) == (first, second)
    assert list(world.production.servers) == [second]
    assert world.cloud.endpoints["staging"].weights == {second: 100}
    assert world.cloud.lost("production") == 0

    number = world.ledger.number
    assert run(world, seed=2) == second, "the same inputs are the same version"
    assert not [e for e in world.events()[number:] if e.kind == "rollout"], "no second rollout"
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
    with pytest.raises(GateFailed, match=r"accuracy 70 %, .*production is as it was"):
        run(world, seed=2)
    assert not world.ledger.versions
    assert world.ledger.number == 1  # only that a retraining started
    assert world.production.weights == {}


def test_a_failing_program_ends_the_run_with_nothing_changed(world):
    world.jobs.fail = "model.train"
    with pytest.raises(JobFailed):
        run(world, seed=1)
    assert not world.ledger.versions
    assert world.jobs.ran.count("model.train") == 1  # the place retries, not Prefect


def test_a_bad_canary_is_rolled_back_and_the_run_is_red(world):
    world.serve("v1")
    world.break_version(world.register("v2"))
    with pytest.raises(RolledBack, match="stable v1 serves 100 %"):
        roll_out(world, "v2")
    assert world.production.weights == {"v1": 100}
    assert list(world.production.servers) == ["v1"]
    assert promoted(world) == ("v1",)


def test_a_first_version_that_is_rolled_back_leaves_nothing_serving(world):
    world.break_version(world.register("v1"))
    with pytest.raises(RolledBack, match="nothing serves: there was no version before"):
        roll_out(world, "v1")
    assert world.production.weights == {}
    assert list(world.production.servers) == []


def test_a_version_that_never_gets_ready_leaves_production_as_it_was(world):
    world.serve("v1")
    world.cloud.fail_deploy("v2", "its server gave up")
    with pytest.raises(RolledBack, match="its server gave up"):
        roll_out(world, world.register("v2"))
    assert world.production.weights == {"v1": 100}


def test_a_rollout_that_somebody_left_goes_on_with_the_same_version(world):
    world.serve("v1")
    world.register("v2")
    world.roll("v2", until=Phase.STEP)  # whoever drove it is gone
    roll_out(world, "v2")
    assert world.production.weights == {"v2": 100}
    assert shares(world, "v2") == [0, 10, 30, 50, 100]


def test_a_rollout_waits_for_the_one_that_has_the_endpoint(world):
    world.serve("v1")
    world.register("v3")
    world.register("v2")
    world.roll("v2", until=Phase.STEP)
    roll_out(world, "v3")
    assert promoted(world) == ("v1", "v2", "v3")


def test_a_rollback_aborts_the_rollout_under_way(world):
    world.serve("v1")
    world.register("v2")
    world.roll("v2", until=Phase.STEP)
    rollback("it looks odd", config=str(world.path))
    assert world.production.weights == {"v1": 100}
    assert last(world).phase is Phase.ROLLED_BACK
    assert "it looks odd" in last(world).reason


def test_rolling_out_what_serves_is_nothing_to_do_whatever_was_rolled_back_before(world):
    world.serve("v1")
    world.break_version(world.register("v2"))
    with pytest.raises(RolledBack):
        roll_out(world, "v2")
    assert roll_out(world, "v1") == "v1"
    assert last(world).version == "v2", "and no rollout was begun"


def test_an_unknown_version_or_endpoint_changes_nothing(world):
    world.serve("v1")
    number = world.ledger.number
    with pytest.raises(NotFound, match="no version 'v9'"):
        roll_out(world, "v9")
    with pytest.raises(Exception, match="no endpoint 'prod'.*production"):
        rollout("v1", "prod", str(world.path))
    assert world.ledger.number == number


def test_a_plan_that_needs_what_the_endpoint_cannot_do_is_refused_before_anything_starts(
    tmp_path, monkeypatch
):
    world = World(tmp_path, monkeypatch, can=frozenset())
    world.register("v1")
    number = world.ledger.number
    with pytest.raises(Refused, match=r"smoke_requests \(=10\) needs .* can pin"):
        roll_out(world, "v1")
    assert world.ledger.number == number


def test_an_endpoint_that_is_away_during_the_smoke_test_blames_no_version(world):
    world.serve("v1")
    away = iter(range(3))

    def hook(call, when):
        if (call, when) == ("ask", "before") and next(away, None) is not None:
            raise silence("ask", "the connection was refused")

    world.register("v2")
    world.cloud.hook = hook
    roll_out(world, "v2")
    assert next(away, None) is None
    assert world.production.weights == {"v2": 100}


def test_a_rollback_brings_the_version_before_back(world):
    world.serve("v1")
    world.serve("v2")
    rollback("wrong answers", config=str(world.path))
    assert world.production.weights == {"v1": 100}
    assert promoted(world) == ("v1",)
    assert any("wrong answers" in rollout.reason for rollout in world.rollouts("v1"))
    with pytest.raises(Refused, match="production has no version before v1"):
        rollback("once more", config=str(world.path))
    assert world.production.weights == {"v1": 100}


def test_a_rollback_to_a_version_that_cannot_serve_is_red(world):
    world.serve("v1")
    world.serve("v2")
    world.cloud.fail_deploy("v1", "no room on the machine")
    with pytest.raises(RolledBack, match="no room on the machine"):
        rollback("wrong answers", config=str(world.path))
    assert world.production.weights == {"v2": 100}


def test_a_version_is_not_rolled_out_if_another_serves_than_it_was_compared_with(
    world, monkeypatch
):
    first = run(world, seed=1)
    other = world.register("v9")
    plain = world.jobs.run

    def meanwhile(job, on_progress):
        plain(job, on_progress)
        if job.program == "model.evaluate":
            monkeypatch.setattr(world.jobs, "run", plain)
            world.roll(other, until=Phase.STEP)

    monkeypatch.setattr(world.jobs, "run", meanwhile)
    second = run(world, seed=2)  # the other one is waited for before the gate
    assert promoted(world) == (first, other, second)
    reasons = [e.reasons for e in world.events() if e.kind == "registered"][-1]
    assert any(f"worse than {other}" in reason for reason in reasons)


def test_a_version_that_changed_after_the_gate_is_not_overtaken(world):
    world.serve("v1")
    world.register("v2")
    stale = request_rollout.fn(world.config, "production", "v2", "a test", against="v0")
    answer = follow.fn(world.config, stale, str(world.path))
    with pytest.raises(Refused, match="v2 was compared with v0, but v1 serves now"):
        require_came_true.fn(answer)
    assert promoted(world) == ("v1",)


def test_an_ablation_that_fails_does_not_take_the_others_down(world):
    world.jobs.fail_for = "no-participatory"
    measured = ablate(str(world.path), ("none", "no-participatory"), (1, 2))
    told = {(one.ablation, one.seed): one.failure for one in measured}
    assert told["none", 1] == told["none", 2] == ""
    assert "no-participatory" in told["no-participatory", 1]
    assert world.ledger.number == 0, "an ablation is never registered"


def test_a_version_is_reproduced_from_its_lineage(world, monkeypatch):
    version = run(world, seed=1)
    reproduce(version, str(world.path))
    world.jobs.accuracy = 0.5  # the programs of model/ give other weights now
    monkeypatch.setattr(world.store, "upload", lambda folder, uri: replaced(world, folder, uri))
    with pytest.raises(ReleaseError, match="has weights"):
        reproduce(version, str(world.path))


def replaced(world, folder, uri):
    """The job's output is written anew, as by a program that was started anew."""
    world.store.withdraw(uri)
    type(world.store).upload(world.store, folder, uri)

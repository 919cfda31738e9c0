"""The whole loop with real servers: Prefect, its worker, Envoy, model servers, training.

The tests stand in the order of a story and share one stack: each finds production as the one
before left it, and leaves it serving.
"""

import json

import pytest
from stack import until

from deployments.releases.keys import signing_key

pytestmark = pytest.mark.timeout(600)


def test_the_stack_is_healthy_and_says_so(stack):
    done = stack.run("flows", "status", "--json", str(stack.path))
    found = json.loads(done.stdout)
    assert found["healthy"]
    assert {e["name"] for e in found["endpoints"]} == {"staging", "production"}


def test_the_worker_writes_where_no_other_user_can_be_first(stack):
    (worker,) = stack.root.glob("**/worker/runner_storage")
    assert worker.parent.stat().st_mode & 0o777 == 0o700


def test_up_again_repairs_and_harms_nothing(stack):
    before = {p.pid for p in stack.processes("envoy")}
    stack.up()
    assert {p.pid for p in stack.processes("envoy")} == before


def test_the_schedule_really_makes_runs_of_the_one_retraining_deployment(stack):
    """A known clash of versions makes them vanish silently; this is the only sign of it."""
    until(lambda: stack.runs("SCHEDULED"), "scheduled runs of retrain/on-demand", 90)
    deployment = stack.get("/deployments/name/retrain/on-demand")
    ours = [r for r in stack.runs("SCHEDULED") if r["deployment_id"] == deployment["id"]]
    schedule = deployment["schedules"][0]["schedule"]
    assert ours
    assert (schedule["cron"], schedule["timezone"]) == ("0 2 * * 0", "America/Los_Angeles")
    assert all(run["parameters"]["cause"] == "schedule" for run in ours)
    assert deployment["parameters"]["cause"] == "hand"
    limit = deployment["global_concurrency_limit"]
    assert limit is None, (
        "Prefect would end a run that waits for approval; a lock lets one train"
    )


def test_no_rollback_ever_waits_for_a_slot(stack):
    deployment = stack.get("/deployments/name/rollback/production")
    assert deployment["global_concurrency_limit"] is None


def test_a_retraining_from_another_shell_reaches_production(stack):
    done = stack.deploy("retrain/on-demand", seed=1)
    assert done.returncode == 0, done.stdout + done.stderr
    version = stack.production().stable
    assert stack.weights() == {version: 100}
    assert stack.ask() == 200
    told = json.loads(stack.run("flows", "status", "--json", str(stack.path)).stdout)
    key = signing_key(stack.config).public.fingerprint
    served = [v for endpoint in told["endpoints"] for v in endpoint["versions"]]
    assert [v["version"] for v in served] == [version, version]
    assert all(v["state"] == "ready" and key.startswith(v["signed_by"]) for v in served), told


def test_a_refused_gate_turns_the_run_and_the_shell_red(stack, serving):
    number = stack.ledger().number
    strict = stack.write("strict.yaml", gates__questions_min=100_000)
    done = stack.deploy("retrain/on-demand", seed=2, config=str(strict))
    assert done.returncode != 0
    assert stack.production().stable == serving
    assert stack.ledger().number <= number + 1
    assert stack.ask() == 200


@pytest.mark.slow
def test_a_training_killed_with_9_goes_on_from_its_checkpoint(stack, serving):
    known, promoted = set(stack.root.glob("r/runs/*")), len(stack.production().promoted)
    stack.deploy("retrain/on-demand", watch=False, seed=3, steps_max=60)

    def run():
        return next(iter(set(stack.root.glob("r/runs/*")) - known), None)

    def checkpoint():
        return run() and list(run().glob("train/checkpoints/*"))

    until(checkpoint, "a checkpoint of the training", 90)
    assert stack.kill("-m model.train")
    until(lambda: len(stack.production().promoted) > promoted, "the version is promoted", 240)
    trained = run() / "train/training.json"
    assert json.loads(trained.read_text())["resumed_from_steps"]


@pytest.mark.parametrize(
    "victim",
    [
        pytest.param(("prefect.engine",), id="the flow's process"),
        pytest.param(("worker", "start"), id="the worker", marks=pytest.mark.slow),
        pytest.param(("envoy", "production"), id="Envoy", marks=pytest.mark.slow),
        pytest.param(("model.serve",), id="every model server", marks=pytest.mark.slow),
        pytest.param(("tasks.reconciler",), id="the reconciler", marks=pytest.mark.slow),
    ],
)
def test_whatever_is_killed_with_9_during_a_rollout_it_ends_and_nobody_starts_it_again(
    stack, serving, victim
):
    version = stack.copy_of(serving, f"copy-{'-'.join(victim)[:12].replace(' ', '')}")
    stack.deploy("rollout/production", watch=False, version=version)
    stack.reaches(30, version)
    assert stack.kill(*victim)
    until(lambda: stack.ask() == 200, "production answers", 30)
    ended = stack.ends(version)
    # Taken back with a reason is as good an end where its own servers were killed.
    assert ended.stable == version or "model.serve" in victim, ended.rollout.reason
    until(lambda: stack.weights() == {ended.stable: 100}, "all traffic", 60)
    assert stack.answer(version).decided
    assert stack.ask() == 200


def test_cancelling_a_rollout_aborts_it_within_seconds(stack, serving):
    slowly = stack.write("slowly.yaml", rollout__bake_s=60)
    version = stack.copy_of(serving, "cancelled")
    stack.deploy("rollout/production", watch=False, version=version, config=str(slowly))
    stack.reaches(10, version)
    run = stack.newest("rollout")
    stack.run("prefect", "flow-run", "cancel", run)
    until(lambda: stack.weights() == {serving: 100}, "stable has all traffic", 20)
    until(lambda: stack.state(run) == "Cancelled", "the run is Cancelled", 60)
    until(lambda: stack.answer(version).decided, "the request is decided", 20)
    assert not stack.answer(version).came_true
    assert f"aborted by whoever cancelled flow run {run}" in stack.production().rollout.reason
    assert stack.ask() == 200


def test_a_rollback_by_hand_brings_the_version_before(stack, serving):
    before = stack.production().before
    done = stack.deploy("rollback/production", why="a test of the way back")
    assert done.returncode == 0, done.stdout
    assert stack.production().stable == before
    assert stack.weights() == {before: 100}
    assert stack.ask() == 200
    history = stack.run("flows", "history", str(stack.path)).stdout
    assert "a test of the way back" in history


def test_a_release_with_one_changed_byte_never_serves(stack, serving):
    version = stack.copy_of(serving, "damaged")
    digest = stack.ledger().version(version).digest
    weights = stack.root / "r/releases" / digest / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(bytes(data))
    done = stack.deploy("rollout/production", version=version)
    assert done.returncode != 0
    assert "weights.safetensors" in stack.production().rollout.reason
    assert stack.production().stable == serving
    assert stack.ask() == 200


def test_a_broken_chain_stops_every_writer_and_changes_no_traffic(stack, serving):
    last = sorted(stack.root.glob("r/ledger/*.json"))[-1]
    good = last.read_bytes()
    last.write_bytes(good.replace(b'"by"', b'"By"'))
    try:
        assert stack.deploy("rollback/production", why="a test").returncode != 0
        assert stack.run("flows", "status", str(stack.path), check=False).returncode == 1
        assert stack.ask() == 200
    finally:
        last.write_bytes(good)
    assert stack.weights() == {serving: 100}
    until(lambda: _healthy(stack), "the stack is healthy again", 60)


def test_down_leaves_nothing_behind(stack):
    stack.down()
    assert stack.processes() == []


def _healthy(stack) -> bool:
    return stack.run("flows", "status", str(stack.path), check=False).returncode == 0

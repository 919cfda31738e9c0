"""The whole loop with real servers: Prefect, its worker, Envoy, model servers, training.

The tests stand in the order of a story and share one stack: each finds production as the one
before left it, and leaves it serving.
"""

import json
import time

import httpx
import pytest
from stack import until

from deployments.releases.keys import signing_key

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def serving(stack) -> str:
    """The version in production; one is made where the story begins here (`-m slow`)."""
    if stack.production().stable is None:
        done = stack.deploy("retrain/on-demand", seed=1)
        assert done.returncode == 0, done.stdout + done.stderr
    return stack.production().stable


def test_the_stack_is_healthy_and_says_so(stack):
    done = stack.run("flows", "status", "--json", str(stack.path))
    found = json.loads(done.stdout)
    assert found["healthy"]
    assert {e["name"] for e in found["endpoints"]} == {"staging", "production"}


def test_up_again_repairs_and_harms_nothing(stack):
    before = {p.pid for p in stack.processes("envoy")}
    stack.run("deployments.local", "up", str(stack.path), "--no-deploy")
    assert {p.pid for p in stack.processes("envoy")} == before


def test_the_weekly_schedule_really_makes_runs(stack):
    """A known clash of versions makes them vanish silently; this is the only sign of it."""
    api = stack.env["PREFECT_API_URL"]

    def scheduled():
        wanted = {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}}
        return httpx.post(f"{api}/flow_runs/filter", json=wanted).json()

    until(scheduled, "scheduled runs of retrain/weekly", 90)
    deployment = httpx.get(f"{api}/deployments/name/retrain/weekly").json()
    ours = [run for run in scheduled() if run["deployment_id"] == deployment["id"]]
    schedule = deployment["schedules"][0]["schedule"]
    assert ours
    assert (schedule["cron"], schedule["timezone"]) == ("0 2 * * 0", "America/Los_Angeles")
    assert all(run["parameters"]["cause"] == "schedule" for run in ours)


def test_a_retraining_from_another_shell_reaches_production(stack):
    done = stack.deploy("retrain/on-demand", seed=1)
    assert done.returncode == 0, done.stdout + done.stderr
    version = stack.production().stable
    assert stack.ledger().stage(version) == "production"
    assert stack.place.endpoint("production").weights() == {version: 100}
    assert stack.ask() == 200
    told = stack.run("flows", "status", str(stack.path)).stdout
    key = signing_key(stack.config).public.fingerprint
    assert told.count(f"{version}  ready  signed by {key[:12]}\n") == 2, told


def test_a_refused_gate_turns_the_run_and_the_shell_red(stack):
    before, number = stack.production().stable, stack.ledger().number
    strict = stack.write("strict.yaml", **{"questions_min: 500": "questions_min: 100000"})
    done = stack.deploy("retrain/on-demand", seed=2, config=str(strict))
    assert done.returncode != 0
    assert stack.production().stable == before
    assert stack.ledger().number <= number + 1
    assert stack.ask() == 200


def test_a_training_killed_with_9_goes_on_from_its_checkpoint(stack):
    known = set(stack.root.glob("r/runs/*"))
    stack.deploy("retrain/on-demand", watch=False, seed=3, steps_max=60)

    def run():
        return next(iter(set(stack.root.glob("r/runs/*")) - known), None)

    def checkpoint():
        return run() and list(run().glob("train/checkpoints/*"))

    until(checkpoint, "a checkpoint of the training", 90)
    assert stack.kill("-m model.train")
    until(lambda: len(stack.ledger().versions) == 2, "the version is registered", 120)
    trained = run() / "train/training.json"
    assert json.loads(trained.read_text())["resumed_from_steps"]
    until(lambda: not stack.production().unfinished and len(stack.production().promoted) == 2,
          "the version is promoted", 120)  # fmt: skip


@pytest.mark.parametrize(
    "victim",
    [
        pytest.param(("prefect.engine",), id="the flow's process"),
        pytest.param(("prefect", "worker", "start"), id="the worker", marks=pytest.mark.slow),
        pytest.param(("envoy", "production"), id="Envoy", marks=pytest.mark.slow),
        pytest.param(("model.serve",), id="every model server", marks=pytest.mark.slow),
    ],
)
def test_whatever_is_killed_with_9_during_a_rollout_the_next_run_finishes_it(
    stack, serving, victim
):
    before = serving
    version = stack.copy_of(before, f"copy-{'-'.join(victim)[:12].replace(' ', '')}")
    stack.deploy("rollout/production", watch=False, version=version)

    def on_the_way():
        rollout = stack.production().unfinished
        return rollout and rollout.phase == "step" and rollout.plan.weights[rollout.step] > 10

    until(on_the_way, "the rollout is at 30 %", 90)
    assert stack.kill(*victim)
    time.sleep(1)
    weights = stack.place.endpoint("production").weights if "envoy" not in victim else None
    if weights is not None:
        assert sum(weights().values()) == 100
    stack.ledger()  # raises if the chain is broken
    until(lambda: stack.ask() == 200, "production answers", 30)

    done = stack.deploy("rollout/production", version=version)
    ended = stack.production()
    assert ended.unfinished is None
    if done.returncode == 0:
        assert ended.stable == version
    else:  # taken back, with a reason: as good an end
        assert ended.stable == before, done.stdout
    assert stack.place.endpoint("production").weights() == {ended.stable: 100}
    assert stack.ask() == 200


def test_a_rollback_by_hand_brings_the_version_before(stack):
    before = stack.production().before
    done = stack.deploy("rollback/production", why="a test of the way back")
    assert done.returncode == 0, done.stdout
    assert stack.production().stable == before
    assert stack.place.endpoint("production").weights() == {before: 100}
    assert stack.ask() == 200
    history = stack.run("flows", "history", str(stack.path)).stdout
    assert "a test of the way back" in history


def test_a_release_with_one_changed_byte_never_serves(stack):
    before = stack.production().stable
    version = stack.copy_of(before, "damaged")
    digest = stack.ledger().version(version).registered.digest
    weights = stack.root / "r/releases" / digest / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(bytes(data))
    done = stack.deploy("rollout/production", version=version)
    assert done.returncode != 0
    assert "weights.safetensors" in stack.production().rollout.reason
    assert stack.production().stable == before
    assert stack.ask() == 200


def test_a_broken_chain_stops_every_writer_and_changes_no_traffic(stack):
    last = sorted(stack.root.glob("r/ledger/*.json"))[-2]
    good = last.read_bytes()
    last.write_bytes(good.replace(b'"by"', b'"By"'))
    try:
        assert stack.deploy("rollback/production", why="a test").returncode != 0
        assert stack.run("flows", "status", str(stack.path), check=False).returncode == 1
        assert stack.ask() == 200
    finally:
        last.write_bytes(good)
    assert stack.run("flows", "status", str(stack.path), check=False).returncode == 0


def test_down_leaves_nothing_behind(stack):
    stack.run("deployments.local", "down", str(stack.path))
    assert stack.processes() == []

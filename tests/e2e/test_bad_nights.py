"""What happens when somebody dies, leaves or is switched off, and nobody starts anything.

Each test brings the stack up as it needs it and leaves it up.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime

import httpx
import pytest
from stack import REPOSITORY, until

from deployments.local.supervisor import launch
from tests.local.load import load

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(autouse=True)
def is_up(stack):
    if not stack.processes("tasks.reconciler"):
        stack.up()


@pytest.fixture
def at_10_percent(stack, serving):
    """A rollout that stays at 10 % for a while; its version."""
    slowly = stack.write("slowly.yaml", rollout__bake_s=15)
    version = stack.copy_of(serving, f"copy-{time.monotonic_ns()}")
    stack.deploy("rollout/production", watch=False, version=version, config=str(slowly))
    stack.reaches(10, version)
    return version


def test_a_controller_killed_at_10_percent_is_replaced_within_90_s(stack, at_10_percent):
    assert stack.kill("tasks.reconciler")
    assert stack.kill("prefect.engine")
    killed = datetime.now(UTC)
    run = stack.newest("rollout")

    def in_hand():
        looked = stack.root / "s/driving/production.lock"
        return datetime.fromisoformat(looked.read_text().strip()) > killed

    until(in_hand, "somebody looks again", 90)
    assert stack.ends(at_10_percent, 400).stable == at_10_percent
    until(lambda: stack.state(run) == "Crashed", "Prefect knows of the dead run", 60)
    assert stack.ask() == 200


def test_a_rollout_goes_on_after_down_and_up(stack, serving, at_10_percent):
    run = stack.newest("rollout")
    stack.down()
    assert stack.processes() == []
    assert stack.production().unfinished is not None  # stopping is not a cancellation
    stack.up()
    assert sum(stack.weights().values()) == 100
    assert stack.state(run) == "Crashed"
    assert stack.ends(at_10_percent, 400).stable == at_10_percent
    until(lambda: stack.weights() == {at_10_percent: 100}, "all traffic", 60)
    assert stack.answer(at_10_percent).came_true


def test_nothing_that_was_kept_is_open_to_other_users(stack, serving):
    """Records, logs, releases, keys, predictions, Prefect's files, sockets: all of it."""
    kept = [path for folder in ("r", "s") for path in (stack.root / folder).rglob("*")]
    kept += [stack.root / "r", stack.root / "s"]
    assert {path.name for path in kept} >= {"MANIFEST", "release.pem", "prefect.db", "sock"}
    found = [path for path in kept if not path.is_symlink() and path.exists()]
    assert [path for path in found if path.stat().st_mode & 0o077] == []


def test_supervisord_killed_costs_no_request_and_down_leaves_nothing(stack, serving):
    """What serves goes on as it is; Prefect, its worker and the reconciler begin anew."""
    production = stack.place.endpoint("production")
    served = pids(stack, "model.serve") | pids(stack, "envoy", "--disable-hot-restart")
    with load(production.url, threads=2, pause_s=0.05, body=stack.question()) as seen:
        os.kill(int((stack.root / "s/supervisor/supervisord.pid").read_text()), signal.SIGKILL)
        told = stack.run("flows", "status", str(stack.path), check=False)
        assert told.returncode == 1
        assert "supervisord" in told.stdout
        assert "make up" in told.stdout
        stack.up()
        sent = seen.sent
        until(lambda: seen.sent > sent + 50, "clients go on")
    assert seen.failed == 0, seen.answers
    now = pids(stack, "model.serve") | pids(stack, "envoy", "--disable-hot-restart")
    assert served <= now
    assert stack.run("flows", "status", str(stack.path)).returncode == 0
    stack.down()
    assert stack.processes() == []


def test_an_up_that_is_killed_or_doubled_is_made_good_by_the_next(stack, serving):
    stack.down()
    line = [sys.executable, "-m", "deployments.local", "up", str(stack.path), "--no-deploy"]
    for after_s in (1.0, 6.0):
        with subprocess.Popen(line, cwd=REPOSITORY, env=stack.env, stdout=-1) as killed:
            time.sleep(after_s)
            killed.kill()
    with subprocess.Popen(line, cwd=REPOSITORY, env=stack.env, stdout=-1, text=True) as first:
        time.sleep(0.5)
        second = stack.up()
        first.wait(300)
    assert (first.returncode, second.returncode) == (0, 0)
    assert "is starting or stopping this stack: waiting" in second.stdout
    assert stack.ask() == 200


def pids(stack, *words):
    found = stack.processes(*words)
    return {process.pid for process in found if launch.__file__ not in process.cmdline()}


def test_what_serves_is_what_the_ledger_says_when_the_scratch_is_lost(stack, serving):
    stack.down()
    for lost in ("serving", "endpoints", "supervisor/conf.d"):
        shutil.rmtree(stack.root / "s" / lost)
    stack.up()
    assert stack.weights() == {serving: 100}
    staging = stack.ledger().endpoint("staging").stable
    assert dict(stack.place.endpoint("staging").observe().weights) == {staging: 100}
    assert stack.ask() == 200


def test_a_retraining_that_was_switched_off_does_not_hold_up_the_next(stack, serving):
    stack.deploy("retrain/on-demand", watch=False, seed=11, steps_max=2000)
    until(lambda: stack.processes("-m model.train"), "the training runs", 120)
    dead = stack.newest("retrain")
    stack.down()
    stack.up()
    assert stack.state(dead) == "Crashed"
    stack.deploy("retrain/on-demand", watch=False, seed=12, steps_max=2000)
    after = stack.newest("retrain")
    until(lambda: stack.state(after) == "Running", "the next one runs", 40)
    cancel(stack, after)


def test_cancelling_a_training_ends_it_and_keeps_its_checkpoint(stack, serving):
    known = set(stack.root.glob("r/runs/*"))
    stack.deploy("retrain/on-demand", watch=False, seed=13, steps_max=2000)

    def checkpoints():
        return [path for run in set(stack.root.glob("r/runs/*")) - known
                for path in run.glob("train/checkpoints/*")]  # fmt: skip

    until(checkpoints, "a checkpoint of the training", 180)
    cancel(stack, stack.newest("retrain"))
    assert checkpoints()
    assert stack.production().stable == serving


def test_a_cancelled_run_whose_worker_died_ends_too(stack, serving):
    slowly = stack.write("slowly.yaml", rollout__bake_s=60)
    version = stack.copy_of(serving, f"copy-{time.monotonic_ns()}")
    stack.deploy("rollout/production", watch=False, version=version, config=str(slowly))
    stack.reaches(10, version)
    run = stack.newest("rollout")
    assert stack.kill("worker", "start")
    stack.run("prefect", "flow-run", "cancel", run)
    until(lambda: stack.weights() == {serving: 100}, "stable has all traffic", 20)
    until(lambda: stack.state(run) == "Cancelled", "the run is Cancelled", 60)
    until(lambda: not stack.processes("prefect.engine"), "its process is gone", 60)


def test_a_rollout_in_a_terminal_is_cancelled_like_any_other(stack, serving):
    """Nobody but Prefect's server knows of it: no worker, no deployment."""
    slowly = stack.write("slowly.yaml", rollout__bake_s=60)
    version = stack.copy_of(serving, f"copy-{time.monotonic_ns()}")
    code = f"from flows.rollout import rollout; rollout({version!r}, config={str(slowly)!r})"
    with subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY, env=stack.env) as shell:
        stack.reaches(10, version)
        run = stack.newest("rollout")
        stack.run("prefect", "flow-run", "cancel", run)
        until(lambda: stack.weights() == {serving: 100}, "stable has all traffic", 20)
        assert shell.wait(60) != 0
    until(lambda: stack.state(run) == "Cancelled", "the run is Cancelled", 150)


def test_a_training_does_not_need_prefects_server(stack, serving):
    promoted = len(stack.production().promoted)
    stack.deploy("retrain/on-demand", watch=False, seed=14, steps_max=300)
    until(lambda: stack.processes("-m model.train"), "the training runs", 120)
    [training] = stack.processes("-m model.train", "--config")[-1:]
    assert stack.kill("server", "start")
    until(lambda: _answers(stack), "supervisord brings the server back", 120)
    assert training.is_running() or list(stack.root.glob("r/runs/*/train/done"))
    until(lambda: len(stack.production().promoted) > promoted, "it is promoted", 400)


def cancel(stack, run):
    """Cancel a training: its program ends and the run says so."""
    stack.run("prefect", "flow-run", "cancel", run)
    until(lambda: not stack.processes("-m model.train"), "the training has ended", 60)
    until(lambda: stack.state(run) == "Cancelled", "the run is Cancelled", 60)


def _answers(stack) -> bool:
    try:
        return httpx.get(f"{stack.api}/health", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False

"""How much longer the retrain flow takes than the same work done by hand.

    .venv/bin/python -m tests.benchmarks.overhead

Both train the model of deployments/local.yaml in full and bring it to staging and production
of a stack of their own, whose server and worker are already up. By hand means: the programs
of model/ called one after another, then for each endpoint the calls that bring the version
up, and one window of the configured length. The flow's time is Prefect's own: from the run's
creation to its end, so the worker's picking up and the start of its process count, the start
of a terminal's `prefect` does not. Processor seconds are those of the whole tree: every process
of the stack and all that they started, the replayed questions and their answers included. The
programs run once before, so that neither finds the caches cold. Bar: at most 1.10 of both on a
quiet machine.
"""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "e2e"))
import psutil
import stack as e2e

from deployments import Desired, Release
from deployments.local.layout import layout_of
from deployments.local.stack import login
from deployments.local.stack.serving import RECONCILER
from deployments.local.supervisor.processes import descendants
from deployments.local.supervisor.programs import Supervisor
from deployments.releases import folder as releases
from deployments.releases.keys import signing_key, trusted

FULL_SIZE = {}


def main() -> None:
    root = Path(tempfile.mkdtemp(prefix="arr-"))
    e2e.SMALL, e2e.FINGERPRINT = FULL_SIZE, pinned()
    stack = e2e.Stack(root)
    try:
        stack.run("deployments.local", "up", str(stack.path), timeout=300)
        programs(stack, root / "before", steps=10)
        flow_s, flow_cpu_s = measured(stack, lambda: by_flow(stack))
        idle_s = measured(stack, lambda: timed(lambda: time.sleep(20)))[1] / 20
        # It would bring back what the ledger says, against the hand.
        Supervisor(layout_of(stack.config)).remove(RECONCILER)
        hand_s, hand_cpu_s = measured(stack, lambda: timed(lambda: by_hand(stack)))
        for what, flow, hand in (
            ("time", flow_s, hand_s),
            ("processor time", flow_cpu_s, hand_cpu_s),
        ):
            print(f"{what}: flow {flow:.1f} s, by hand {hand:.1f} s, ratio {flow / hand:.3f}")
        print(f"the idle stack meanwhile: {100 * idle_s:.1f} % of a core")
    finally:
        stack.run("deployments.local", "down", str(stack.path), check=False)
        shutil.rmtree(root, ignore_errors=True)


def measured(stack: e2e.Stack, work: Callable[[], float]) -> tuple[float, float]:
    """What `work` returns, and the processor seconds of everything while it ran."""
    before = processor_s(stack)
    result = work()
    return result, processor_s(stack) - before


def processor_s(stack: e2e.Stack) -> float:
    """Of all living processes of the stack and of this one, with their ended children."""
    url = Supervisor(layout_of(stack.config)).url
    times = [process.cpu_times() for process in (*descendants(url), psutil.Process())]
    return sum(t.user + t.system + t.children_user + t.children_system for t in times)


def by_flow(stack: e2e.Stack) -> float:
    """Seconds from the run's creation to its end."""
    stack.deploy("retrain/on-demand", seed=1, check=True, timeout=900)
    ended = {"state": {"type": {"any_": ["COMPLETED"]}}}  # scheduled ones wait beside it
    body = {"flows": {"name": {"any_": ["retrain"]}}, "flow_runs": ended}
    with login.client(stack.config) as client:
        [run] = client.post("/flow_runs/filter", json=body).json()
    created, end = (datetime.fromisoformat(run[name]) for name in ("created", "end_time"))
    return (end - created).total_seconds()


def by_hand(stack: e2e.Stack) -> None:
    """Data, check, training, evaluation, release, staging, production: no orchestration."""
    config, folder = stack.config, stack.root / "hand"
    programs(stack, folder, config.model.steps_max)
    release = folder / "release"
    left_out = shutil.ignore_patterns(".*", "checkpoints", "wandb")
    for part in ("train", "scores"):
        shutil.copytree(folder / part, release, dirs_exist_ok=True, ignore=left_out)
    digest = releases.seal(release, signing_key(config))
    releases.publish(stack.place.store, release, digest, trusted(config))
    for name in ("staging", "production"):
        serve(stack, name, Release("by-hand", digest))


def programs(stack: e2e.Stack, folder: Path, steps: int) -> None:
    config = stack.config
    folder.mkdir()
    sections = config.model_dump(mode="json")
    wanted = ("model", "compute", "checkpointing", "tracking")
    sections["model"]["steps_max"] = steps
    train = {"seed": 2, **{name: sections[name] for name in wanted}}
    data = {"dataset": sections["dataset"]}
    program(folder, "data", data, "model.data")
    program(folder, "check", data, "model.data", "--check", folder / "data")
    program(folder, "train", train, "model.train", "--data", folder / "data")
    program(folder, "scores", {"compute": sections["compute"]}, "model.evaluate",
            "--data", folder / "data", "--model", folder / "train")  # fmt: skip


def serve(stack: e2e.Stack, name: str, release: Release) -> None:
    endpoint, plan = stack.place.endpoint(name), stack.config.rollout
    wanted = Desired((release,), {release.version: 100})
    while dict(endpoint.observe().weights) != dict(wanted.weights):
        endpoint.apply(wanted)
        time.sleep(plan.look_s)
    time.sleep(plan.bake_s)
    endpoint.apply(wanted)


def program(folder: Path, output: str, config: object, *command: object) -> None:
    file = folder / f"{output}.json"
    file.write_text(json.dumps(config))
    words = [*map(str, command), "--config", str(file), "--output", str(folder / output)]
    subprocess.run([sys.executable, "-m", *words], cwd=e2e.REPOSITORY, check=True,
                   stdout=subprocess.DEVNULL)  # fmt: skip


def pinned() -> str:
    from policy.config import load_config

    return load_config(e2e.REPOSITORY / "deployments/local.yaml").dataset.version


def timed(work) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


if __name__ == "__main__":
    main()

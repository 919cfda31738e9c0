"""The whole loop in minutes, on this machine, with real processes and real HTTP traffic.

    make demo

Trains a first version briefly and puts it into production; trains again and walks the second
version through the configured weights while questions are asked; then lets a deliberately
broken copy try, and be taken back. Run again, it goes on from what serves.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from deployments import Place, Release, connect, ledger
from deployments.releases import folder as releases
from deployments.releases.keys import trusted
from policy.config import Config, load_config
from policy.ledger import Ledger, RolloutChanged
from policy.rollout.record import Phase, desired_weights

BRIEF_STEPS = 250
SLIP = slice(0, 3), slice(3, 7), slice(7, None)


def main(config_path: str) -> int:
    began = time.monotonic()
    config = load_config(Path(config_path))
    heading("1 of 4  The stack: Prefect server and worker, staging, production")
    subprocess.run([sys.executable, "-m", "deployments.local", "up", config_path], check=True)
    os.environ["PREFECT_API_URL"] = api_url(config)
    place = connect(config)
    first = state_of(place).number + 1

    if state_of(place).endpoint("production").stable is None:
        heading("2 of 4  A first version, trained briefly, straight into production")
        ensure(retrain(steps_max=BRIEF_STEPS, why="demo: a first, brief training"))
    else:
        heading("2 of 4  Skipped: production already serves a version")

    heading("3 of 4  Trained in full, and walked into production while questions are asked")
    ensure(retrain(why="demo: the configured training"))
    good = state_of(place).endpoint("production").stable or ""

    heading("4 of 4  A broken copy tries: its answers are mixed up")
    bad = register_broken_copy(config, place, good)
    taken_back = not roll_out(bad)
    return summary(config, place, first, good, bad, taken_back, time.monotonic() - began)


def retrain(**parameters: object) -> bool:
    return follow("retrain/on-demand", parameters)


def roll_out(version: str) -> bool:
    return follow("rollout/production", {"version": version})


def follow(deployment: str, parameters: dict[str, object]) -> bool:
    """Run a deployment on the worker and read along; whether it completed."""
    from flows.terminal.watch import (
        run_and_follow,  # prefect reads PREFECT_API_URL when imported
    )

    run = run_and_follow(deployment, parameters)
    print(f"    -> {run.state.name if run.state else 'unknown'}", flush=True)
    return bool(run.state and run.state.is_completed())


def ensure(completed: bool) -> None:
    if not completed:
        sys.exit(
            "error: the run failed, see above; production is as it was. make down stops all"
        )


def register_broken_copy(config: Config, place: Place, version: str) -> str:
    """Enter a copy of `version` that answers with wrong colours, past the gate on purpose."""
    from tasks.release import enter, publish, read_scores

    digest = state_of(place).version(version).registered.digest
    folder = Path(config.root).absolute() / "runs" / "broken-copy"
    shutil.rmtree(folder, ignore_errors=True)
    good = Release(version, digest)
    copy = releases.fetch(place.store, good, folder, trusted(config))
    break_answers(copy / "architecture.json")
    published = publish(config, copy)
    why = ("demo: broken on purpose and entered past the gate",)
    lineage = {"copy_of": version, "broken": "answers mixed up"}
    return enter(config, published, read_scores(copy), why, lineage, "make demo")


def break_answers(path: Path) -> None:
    """Shift four of the answers by one place, as a label list with a slip in it would.

    About half of the answers are wrong then, few enough to pass a handful of smoke requests.
    """
    architecture = json.loads(path.read_text())
    before, shifted, after = (architecture["answers"][part] for part in SLIP)
    architecture["answers"] = [*before, *shifted[1:], shifted[0], *after]
    path.write_text(json.dumps(architecture))


@dataclass(frozen=True)
class Walk:
    """One rollout as it went: the canary's weights in their order, and its end."""

    endpoint: str
    version: str
    weights: tuple[int, ...]
    phase: Phase
    reason: str


def walks(state: Ledger, first: int) -> list[Walk]:
    """The rollouts on production entered from record `first` on."""
    found: dict[str, Walk] = {}
    for record in state.records[first - 1 :]:
        if not isinstance(record.event, RolloutChanged):
            continue
        rollout = record.event.rollout
        if rollout.endpoint != "production":
            continue
        share = desired_weights(rollout).get(rollout.version, 0)
        weights = found[rollout.id].weights if rollout.id in found else ()
        if not weights or weights[-1] != share:
            weights = (*weights, share)
        found[rollout.id] = Walk(
            rollout.endpoint, rollout.version, weights, rollout.phase, rollout.reason
        )
    return list(found.values())


def requests(config: Config) -> tuple[int, int]:
    """Requests replayed to production and how many failed, over all tallies."""
    folder = Path(config.root) / "endpoints" / "production" / "tallies"
    tallies = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    total = [tally["total"] for tally in tallies]
    return sum(t["sent"] for t in total), sum(t["failed"] for t in total)


def summary(
    config: Config,
    place: Place,
    first: int,
    good: str,
    bad: str,
    taken_back: bool,
    seconds: float,
) -> int:
    """Print what happened and where to look; 0 if all of it went as it should."""
    state = state_of(place)
    sent, failed = requests(config)
    serves = state.endpoint("production").stable
    heading("Done")
    for walk in walks(state, first):
        accuracy = state.version(walk.version).registered.accuracy
        path = " -> ".join(f"{weight} %" for weight in walk.weights)
        name = "broken copy" if walk.version == bad else f"accuracy {accuracy:.3f}"
        print(f"  {walk.version}  {name}\n    weights  {path}\n    {walk.phase}: {walk.reason}")
    print(
        f"\n  production serves  {serves} with {dict(place.endpoint('production').weights())}"
    )
    print(f"  requests           {sent} sent while versions changed, {failed} failed")
    print(f"  time               {seconds:.0f} s")
    print(f"  ledger             {state.number} records; make history tells them")
    print(f"  Prefect UI         {api_url(config).removesuffix('/api')}")
    print(f"  ask it yourself    http://127.0.0.1:{_port(config)}/predict (README, Use)")
    print("  stop               make down")
    if serves != good or not taken_back or failed:
        print(f"error: expected {good} to serve, the broken copy taken back, no failed request")
        return 1
    return 0


def state_of(place: Place) -> Ledger:
    return ledger.read(place.store)


def heading(text: str) -> None:
    print(f"\n== {text}", flush=True)


def api_url(config: Config) -> str:
    if config.local is None:
        sys.exit("error: the demo runs at the place 'local' only")
    return f"http://127.0.0.1:{config.local.prefect_port}/api"


def _port(config: Config) -> int:
    return config.local.production_port if config.local else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2] or ["deployments/local.yaml"]))

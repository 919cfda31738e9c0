"""The whole loop in minutes, on this machine, with real processes and real HTTP traffic.

    make demo

Trains a first version briefly and puts it into production; trains again and walks the second
version through the configured weights while questions are asked; then lets a deliberately
broken copy try, and be rolled back. Run again, it goes on from what serves.
"""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from deployments import Place, Release, connect, console, ledger
from deployments.console import say
from deployments.releases import folder as releases
from deployments.releases.keys import trusted
from deployments.replay import Sent, replayed
from flows.terminal.runs import api_url
from flows.terminal.walks import path, walks
from policy.config import Config, load_config
from policy.errors import ArrCocError, EndpointSilent, Unsupported
from policy.ledger import Ledger
from policy.rollout.record import shown

BRIEF_STEPS = 250
SLIP = slice(0, 3), slice(3, 7), slice(7, None)


def main(config_path: str) -> int:
    began = time.monotonic()
    config = load_config(Path(config_path))
    if config.place != "local":
        raise Unsupported(
            "the demo runs at the place 'local' only", holds="nothing was started"
        )
    heading("1 of 4  The stack: Prefect server and worker, staging, production")
    start_stack(config_path)
    place = connect(config)
    before = state_of(place)

    if before.endpoint(config.production).stable is None:
        heading("2 of 4  A first version, trained briefly, straight into production")
        ensure(retrain(config, steps_max=BRIEF_STEPS, why="demo: a first, brief training"))
    else:
        heading("2 of 4  Skipped: production already serves a version")

    heading("3 of 4  Trained in full, and walked into production while questions are asked")
    ensure(retrain(config, why="demo: the configured training"))
    good = state_of(place).endpoint(config.production).stable or ""

    heading("4 of 4  A broken copy tries: its answers are mixed up")
    bad = register_broken_copy(config, place, good)
    rolled_back = not roll_out(config, bad)
    seconds = time.monotonic() - began
    tell(config, place, before.number + 1, bad, seconds)
    return verdict(config, place, good, rolled_back)


def start_stack(config_path: str) -> None:
    command = [sys.executable, "-m", "deployments.local", "up", config_path]
    if subprocess.run(command).returncode:
        raise ArrCocError(
            "the stack did not come up, see above", do="make down, then make demo"
        )


def retrain(config: Config, **parameters: object) -> bool:
    return follow(config, "retrain/on-demand", parameters)


def roll_out(config: Config, version: str) -> bool:
    wanted = {"version": version, "endpoint": config.production, "by": "make demo"}
    return follow(config, "rollout/production", wanted)


def follow(config: Config, deployment: str, parameters: Mapping[str, object]) -> bool:
    """Run a deployment on the worker and read along; whether it completed."""
    from flows.terminal.watch import run_and_follow  # Prefect takes seconds to load

    run = run_and_follow(config, deployment, parameters)
    say(f"    -> {run.state.name if run.state else 'unknown'}")
    return bool(run.state and run.state.is_completed())


def ensure(completed: bool) -> None:
    if not completed:
        raise ArrCocError(
            "the run failed, see above",
            holds="production is as it was",
            do="make status tells how it is; make down stops everything",
        )


def register_broken_copy(config: Config, place: Place, version: str) -> str:
    """Enter a copy of `version` that answers with wrong colours, past the gate on purpose."""
    from tasks.release import enter, publish, read_scores

    folder = place.scratch / "broken-copy"
    shutil.rmtree(folder, ignore_errors=True)
    good = Release(version, state_of(place).version(version).digest)
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


def tell(config: Config, place: Place, first: int, bad: str, seconds: float) -> None:
    """Print what happened since record `first`, and where to look."""
    state, sent = state_of(place), replayed(place, config.production)
    heading("Done")
    for walk in walks(ledger.records(place.store, first)):
        if walk.endpoint != config.production:
            continue
        accuracy = f"accuracy {state.version(walk.version).accuracy:.3f}"
        say(f"  {walk.version}  {'broken copy' if walk.version == bad else accuracy}")
        say(f"    weights  {path(walk)}\n    {walk.phase}: {walk.reason}")
    say(f"\n  {config.production} serves  {real_split(config, place)}")
    say(f"  requests           {sent.sent} sent while versions changed, {sent.failed} failed")
    say(f"  time               {seconds:.0f} s")
    say(f"  ledger             {state.number} records; make history tells them")
    say(f"  Prefect UI         {api_url(config).removesuffix('/api')} (make login)")
    say(f"  ask it yourself    http://127.0.0.1:{_port(config)}/predict (README, Use)")
    say("  stop               make down")


def verdict(config: Config, place: Place, good: str, rolled_back: bool) -> int:
    """0 if all of it went as it should."""
    serves = state_of(place).endpoint(config.production).stable
    sent = replayed(place, config.production)
    wrong = list(wrongs(serves, good, sent, rolled_back=rolled_back))
    if wrong:
        console.complain("error: " + "; ".join(wrong))
    return 1 if wrong else 0


def wrongs(serves: str | None, good: str, sent: Sent, *, rolled_back: bool) -> list[str]:
    """What did not go as it should."""
    found = {
        f"{serves} serves, expected {good}": serves != good,
        "the broken copy was promoted, expected that it is rolled back": not rolled_back,
        f"{sent.failed} of {sent.sent} requests failed, expected none": sent.failed > 0,
        "no request was sent, expected some to every new version": sent.sent == 0,
    }
    return [text for text, is_so in found.items() if is_so]


def real_split(config: Config, place: Place) -> str:
    try:
        return shown(place.endpoint(config.production).observe().weights)
    except EndpointSilent as error:
        return f"no answer: {error}"


def state_of(place: Place) -> Ledger:
    return ledger.read(place.store)


def heading(text: str) -> None:
    say(f"\n== {text}")


def _port(config: Config) -> int:
    return config.local.endpoints[config.production].port if config.local else 0


if __name__ == "__main__":
    local = "deployments/local.yaml"
    file = console.arguments("flows.terminal.demo", str(__doc__), config=local)[0]
    sys.exit(console.exit_code_of(partial(main, file)))

"""From data to scores: each step runs one program of model/ where the place runs programs.

Outputs are artifacts at `<root>/data/<fingerprint>` and `<root>/runs/<key>/…`, where the key
stands for everything that went in. A job that ended well does not start again, and one that
was cut short goes on from what it wrote, so a killed run that is started again loses little.
"""

import fcntl
import hashlib
import json
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from prefect.runtime import flow_run
from pydantic import BaseModel

from deployments import Job, ledger
from policy.config import Benchmark, Checkpointing, Config
from policy.ledger import Ledger
from policy.monitoring.governor import Cause, permit
from policy.records import RetrainingStarted
from tasks.cancelled import ends_with_its_run
from tasks.logs import logger
from tasks.places import place_of
from tasks.progress import reporter
from tasks.retries import once, remote

_TURNS: dict[Path, IO[str]] = {}
_TURN_S = 2.0


class Run(BaseModel, frozen=True):
    """One retraining: what goes in, and the URI below which its results lie."""

    key: str
    base: str
    seed: int
    cause: Cause
    why: str
    code: str
    commit: str
    dirty: bool

    def uri(self, name: str) -> str:
        return f"{self.base}/{name}"


@once
def wait_for_turn(config: Config) -> None:
    """Return once no other retraining of this place runs on this machine.

    The lock lasts as long as this process: the system frees it however the process dies. A
    limit of Prefect's would end a run that waits for approval, and outlives a dead one.
    """
    path, told = place_of(config).scratch / "retraining.lock", False
    while path not in _TURNS:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _TURNS[path] = file
        except BlockingIOError:
            file.close()
            if not told:
                logger().info("another retraining is under way: waiting for its end")
            told = True
            time.sleep(_TURN_S)


@remote
def plan(config: Config, seed: int | None, cause: Cause, why: str) -> Run:
    """Name the run by its inputs and enter it in the ledger. Raises Refused.

    Without a seed the run draws one from its own id, so that a retry draws the same.
    """
    run_id = str(flow_run.id)
    drawn = int(_digest(run_id), 16) % 2**31
    run = run_of(config, drawn if seed is None else seed, "runs", cause, why)
    place = place_of(config)

    def decide(state: Ledger) -> RetrainingStarted | None:
        if run.key in state.retrainings:
            return None  # this very run goes on after a crash
        starts = [*state.retrainings.values()]
        permit(cause, starts, config.retraining, place.clock.now())
        return RetrainingStarted(key=run.key, cause=cause, why=why)

    by = f"retrain ({cause})"
    ledger.append(place.store, decide, by=by, run=run_id, now=place.clock.now)
    return run


def run_of(config: Config, seed: int, folder: str, cause: Cause, why: str) -> Run:
    """The run of these inputs, with its results in `<root>/<folder>/<key>`."""
    code, (commit, dirty) = model_code(), _git()
    inputs = [config.dataset.version, config.model.model_dump(), config.compute.processes]
    key = _digest(json.dumps([*inputs, seed, code]))[:12]
    base = f"{place_of(config).store.root}/{folder}/{key}"
    return Run(
        key=key, base=base, seed=seed, cause=cause, why=why, code=code, commit=commit,
        dirty=dirty,
    )  # fmt: skip


@once
def fetch(config: Config) -> str:
    """Make or bring the pinned data set, and return its URI."""
    short = config.dataset.version.removeprefix("sha256:")[:16]
    uri = f"{place_of(config).store.root}/data/{short}"
    _program(config, f"data-{short}", "model.data", {"dataset": config.dataset}, {}, uri)
    return uri


@once
def check(config: Config, run: Run, data: str) -> None:
    """Read every question and image once. Raises JobFailed naming the first thing wrong."""
    sections, key = {"dataset": config.dataset}, f"check-{run.key}"
    _program(config, key, "model.data", sections, {"check": data}, run.uri("check"))


@once
def train(config: Config, run: Run, data: str) -> str:
    """Train, or go on training, and return the URI of the trained model."""
    sections = {
        "model": config.model,
        "seed": run.seed,
        "compute": config.compute,
        "checkpointing": checkpointing_of(config, run),
        "tracking": config.tracking,
    }
    key, uri = f"train-{run.base.split('/')[-2]}-{run.key}", run.uri("train")
    _program(config, key, "model.train", sections, {"data": data}, uri)
    return uri


def checkpointing_of(config: Config, run: Run) -> Checkpointing:
    """Checkpoints in the run's own folder, or below the configured URI under the run's key.

    Where the run's folder is not on this disk, they go beside it in the store: what a machine
    that is lost had trained would be lost with it otherwise.
    """
    uri = config.checkpointing.uri
    if uri == "run" and "://" not in run.base:
        return config.checkpointing
    below = run.uri("checkpoints") if uri == "run" else f"{uri.rstrip('/')}/{run.key}"
    return config.checkpointing.model_copy(update={"uri": below})


@once
def evaluate(config: Config, data: str, model: str, output: str) -> str:
    """Score a trained model or a release on the held-out questions; return the URI."""
    key = "evaluate-" + _digest(output)[:16]
    inputs = {"data": data, "model": model}
    _program(config, key, "model.evaluate", {"compute": config.compute}, inputs, output)
    return output


@once
def score_benchmarks(config: Config, run: Run, trained: str, scores: str) -> dict[str, str]:
    """Score a trained model on the gate's benchmarks; return the URI of each by its name.

    The data set that the configuration trains on is scored already, in `scores`.
    """
    found = {}
    for benchmark in config.gates.benchmarks:
        if benchmark.dataset.version == config.dataset.version:
            found[benchmark.name] = scores
            continue
        theirs = config.model_copy(update={"dataset": benchmark.dataset})
        output = run.uri(f"benchmarks/{_folder(benchmark)}")
        found[benchmark.name] = evaluate.fn(theirs, fetch.fn(theirs), trained, output)
    return found


def _folder(benchmark: Benchmark) -> str:
    """Other data are another folder: a benchmark that is pinned anew is scored anew."""
    return f"{benchmark.name}-{benchmark.dataset.version.removeprefix('sha256:')[:12]}"


def _program(
    config: Config,
    key: str,
    program: str,
    sections: Mapping[str, BaseModel | int],
    inputs: Mapping[str, str],
    output: str,
) -> None:
    plain: dict[str, Any] = {
        name: section.model_dump(mode="json") if isinstance(section, BaseModel) else section
        for name, section in sections.items()
    }
    place, job = place_of(config), Job(key, program, plain, inputs, output)
    with reporter(program) as on_progress, ends_with_its_run(place, key):
        place.jobs.run(job, on_progress)


def model_code() -> str:
    """The SHA-256 of the programs of model/ as they lie here, committed or not."""
    folder = Path(__file__).parents[1] / "model"
    files = sorted(folder.rglob("*.py"))
    return _digest(
        "".join(f"{f.relative_to(folder)} {_digest(f.read_text())}\n" for f in files)
    )


def _git() -> tuple[str, bool]:
    """The code's commit and whether files differ from it; ('unknown', True) without git."""
    commands = (["git", "rev-parse", "HEAD"], ["git", "status", "--porcelain"])
    try:
        commit, changes = (
            subprocess.run(c, capture_output=True, text=True, check=True).stdout.strip()
            for c in commands
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown", True
    return commit, bool(changes)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()

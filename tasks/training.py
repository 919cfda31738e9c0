"""From data to scores: each step runs one program of model/ where the place runs programs.

Outputs lie in `<root>/data/<fingerprint>` and `<root>/runs/<key>`, where the key stands for
everything that went in. A program that finds its finished output does nothing, and one that
finds a part goes on from there, so a killed run that is started again loses little.
"""

import hashlib
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect.runtime import flow_run
from pydantic import BaseModel

from deployments import connect, ledger
from policy.config import Checkpointing, Config
from policy.ledger import Ledger, RetrainingStarted
from policy.monitoring.governor import Cause, permit
from tasks import once, remote
from tasks.progress import reporter


class Run(BaseModel, frozen=True):
    """One retraining: what goes in, and the folder where its results lie."""

    key: str
    folder: str
    seed: int
    cause: Cause
    why: str
    code: str
    commit: str
    dirty: bool

    def path(self, name: str) -> Path:
        return Path(self.folder) / name


@remote
def plan(config: Config, seed: int | None, cause: Cause, why: str) -> Run:
    """Name the run by its inputs and enter it in the ledger. Raises Refused.

    Without a seed the run draws one from its own id, so that a retry draws the same.
    """
    run_id = str(flow_run.id)
    drawn = int(_digest(run_id), 16) % 2**31
    run = run_of(config, drawn if seed is None else seed, "runs", cause, why)

    def decide(state: Ledger) -> RetrainingStarted | None:
        if run.key in state.retrainings:
            return None  # this very run goes on after a crash
        permit(cause, [*state.retrainings.values()], config.retraining, ledger.now())
        return RetrainingStarted(key=run.key, cause=cause, why=why)

    ledger.append(connect(config).store, decide, by=f"retrain ({cause})", run=run_id)
    return run


def run_of(config: Config, seed: int, folder: str, cause: Cause, why: str) -> Run:
    """The run of these inputs, with its results in `<root>/<folder>/<key>`."""
    code, (commit, dirty) = model_code(), _git()
    inputs = [config.dataset.version, config.model.model_dump(), config.compute.processes]
    key = _digest(json.dumps([*inputs, seed, code]))[:12]
    return Run(
        key=key, folder=str(Path(config.root).absolute() / folder / key), seed=seed,
        cause=cause, why=why, code=code, commit=commit, dirty=dirty,
    )  # fmt: skip


@once
def fetch(config: Config) -> str:
    """Make or bring the pinned data set, and return its folder."""
    fingerprint = config.dataset.version.removeprefix("sha256:")
    folder = Path(config.root).absolute() / "data" / fingerprint[:16]
    _program(config, "model.data", {"dataset": config.dataset}, {}, folder)
    return str(folder)


@once
def check(config: Config, run: Run, data: str) -> None:
    """Read every question and image once. Raises JobFailed naming the first thing wrong."""
    sections = {"dataset": config.dataset}
    _program(config, "model.data", sections, {"check": data}, run.path("check"))


@once
def train(config: Config, run: Run, data: str) -> str:
    """Train, or go on training, and return the folder of the trained model."""
    sections = {
        "model": config.model,
        "seed": run.seed,
        "compute": config.compute,
        "checkpointing": checkpointing_of(config, run),
        "tracking": config.tracking,
    }
    output = run.path("train")
    _program(config, "model.train", sections, {"data": data}, output)
    return str(output)


def checkpointing_of(config: Config, run: Run) -> Checkpointing:
    """Checkpoints in the run's own folder, or below the configured URI under the run's key."""
    if config.checkpointing.uri == "run":
        return config.checkpointing
    uri = f"{config.checkpointing.uri.rstrip('/')}/{run.key}"
    return config.checkpointing.model_copy(update={"uri": uri})


@once
def evaluate(config: Config, data: str, model: str, output: str) -> str:
    """Score a trained model or a release on the held-out questions; return the folder."""
    inputs = {"data": data, "model": model}
    _program(config, "model.evaluate", {"compute": config.compute}, inputs, Path(output))
    return output


@once
def score_benchmarks(config: Config, run: Run, trained: str, scores: str) -> dict[str, str]:
    """Score a trained model on the gate's benchmarks; return the folder of each by its name.

    The data set that the configuration trains on is scored already, in `scores`.
    """
    folders = {}
    for benchmark in config.gates.benchmarks:
        if benchmark.dataset.version == config.dataset.version:
            folders[benchmark.name] = scores
            continue
        theirs = config.model_copy(update={"dataset": benchmark.dataset})
        output = run.path("benchmarks") / benchmark.name
        folders[benchmark.name] = evaluate.fn(theirs, fetch.fn(theirs), trained, str(output))
    return folders


def _program(
    config: Config,
    program: str,
    sections: Mapping[str, BaseModel | int],
    inputs: Mapping[str, str],
    output: Path,
) -> None:
    plain: dict[str, Any] = {
        name: section.model_dump(mode="json") if isinstance(section, BaseModel) else section
        for name, section in sections.items()
    }
    with reporter(program) as on_progress:
        connect(config).jobs.run(program, plain, inputs, output, on_progress=on_progress)


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

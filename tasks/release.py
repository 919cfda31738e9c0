"""From scores to a registered release: compare with production, judge, seal, enter it."""

import json
import shutil
from pathlib import Path
from typing import Any

from prefect.runtime import flow_run

from deployments import Release, connect, ledger
from deployments.releases import folder as releases
from deployments.releases.folder import Published
from deployments.releases.keys import signing_key, trusted
from deployments.releases.signing import PrivateKey
from policy.config import Config
from policy.errors import ConfigError, DataError, GateFailed
from policy.gates.scores import GateReport, Paired, Scores, compare, judge
from policy.ledger import Ledger, Registered
from tasks import once, remote
from tasks.training import Run, evaluate

NOT_RELEASED = shutil.ignore_patterns(
    ".*", "checkpoints", "wandb", "job.json", "*.log", "*.tmp"
)


@remote
def champion(config: Config) -> Release | None:
    """What serves in production now; None before the first version."""
    state = ledger.read(connect(config).store)
    stable = state.endpoint("production").stable
    return Release(stable, state.version(stable).registered.digest) if stable else None


@remote
def champion_scores(config: Config, data: str, release: Release) -> str:
    """Score production on the same questions, once per release and data set."""
    place, root = connect(config), Path(config.root).absolute()
    model = releases.fetch(place.store, release, root / "copies", trusted(config))
    scores = read_scores(model)
    if scores.data_fingerprint == config.dataset.version:
        return str(model)
    output = root / "evaluations" / f"{release.digest[:12]}-{config.dataset.version[7:19]}"
    return evaluate.fn(config, data, str(model), str(output))


@once
def gate(
    config: Config,
    scores: str,
    production: Release | None,
    theirs: str,
    benchmarks: dict[str, str],
) -> GateReport:
    """Judge the scores; `theirs` are production's, empty if nothing serves yet."""
    paired = None
    if production is not None:
        paired = _compare(production.version, Path(scores), Path(theirs), config.gates.alpha)
    also = {name: read_scores(Path(folder)) for name, folder in benchmarks.items()}
    return judge(read_scores(Path(scores)), paired, config.gates, also)


@once
def require(report: GateReport, run: Run) -> None:
    """Go on only with a version that passed. Raises GateFailed with every failed check."""
    if not report.passed:
        raise GateFailed(
            "the gate refused this version: " + "; ".join(report.reasons),
            holds="nothing was registered and production is as it was",
            do=f"read the release card of this run; the trained model stays in runs/{run.key}",
        )


@remote
def register(
    config: Config,
    run: Run,
    trained: str,
    scores: str,
    benchmarks: dict[str, str],
    report: GateReport,
) -> str:
    """Seal and sign the release, store it and enter it in the ledger; return its version.

    A run that was registered before a crash gives the version it has already.
    """
    versions = ledger.read(connect(config).store).versions
    for name, known in versions.items():
        if known.registered.lineage.get("key") == run.key:
            return name
    folder = run.path("release")
    shutil.rmtree(folder, ignore_errors=True)
    for part in (trained, scores):
        shutil.copytree(part, folder, ignore=NOT_RELEASED, dirs_exist_ok=True)
    for name, theirs in benchmarks.items():
        (folder / "benchmarks").mkdir(exist_ok=True)
        shutil.copyfile(Path(theirs) / "scores.json", folder / "benchmarks" / f"{name}.json")
    lineage = lineage_of(config, run, Path(trained))
    (folder / "gate.json").write_text(report.model_dump_json(indent=1))
    (folder / "lineage.json").write_text(json.dumps(lineage, indent=1, sort_keys=True))
    published = publish(config, folder)
    return enter(config, published, read_scores(folder), report.reasons, lineage, "retrain")


def publish(config: Config, folder: Path) -> Published:
    """Seal and sign `folder` with the key of this place, and store it."""
    digest = releases.seal(folder, signer(config))
    return releases.publish(connect(config).store, folder, digest, trusted(config))


def signer(config: Config) -> PrivateKey:
    """The key that signs here. Raises ConfigError if there is none that would be trusted."""
    return signing_key(config, _secret)


def enter(
    config: Config,
    published: Published,
    scores: Scores,
    reasons: tuple[str, ...],
    lineage: dict[str, str],
    by: str,
) -> str:
    """Enter a stored release in the ledger under a version made of the day and its digest."""
    digest = published.digest
    version = f"{ledger.now():%Y.%m.%d}-{digest[:7]}"

    def decide(state: Ledger) -> Registered | None:
        if any(v.registered.digest == digest for v in state.versions.values()):
            return None
        return Registered(
            version=version,
            digest=digest,
            accuracy=scores.accuracy,
            families={name: family.accuracy for name, family in scores.families.items()},
            reasons=reasons,
            lineage=lineage,
            signed_by=published.signed_by,
        )

    state = ledger.append(connect(config).store, decide, by=by, run=_flow_run())
    known = {v.registered.digest: name for name, v in state.versions.items()}
    return known[digest]


def lineage_of(config: Config, run: Run, trained: Path) -> dict[str, str]:
    """What is needed to repeat the training, as flat text."""
    training: dict[str, Any] = json.loads((trained / "training.json").read_text())
    return {
        "key": run.key,
        "model_code": run.code,
        "commit": run.commit,
        "dirty": str(run.dirty).lower(),
        "dataset": config.dataset.uri,
        "data_fingerprint": training["data_fingerprint"],
        "config": config.model_dump_json(),
        "seed": str(run.seed),
        "steps_max": str(config.model.steps_max),
        "wandb_run_id": training.get("wandb_run_id") or "none",
        "packages": json.dumps(training["packages"], sort_keys=True),
    }


def read_scores(folder: Path) -> Scores:
    return Scores.model_validate_json((folder / "scores.json").read_text())


def _compare(champion: str, ours: Path, theirs: Path, alpha: float) -> Paired:
    import pandas as pd

    columns = ["question_id", "correct"]
    frames = [
        pd.read_parquet(p / "predictions.parquet", columns=columns) for p in (ours, theirs)
    ]
    both = frames[0].merge(frames[1], on="question_id", validate="one_to_one")
    if len(both) != len(frames[0]) or len(both) != len(frames[1]):
        raise DataError(
            f"{len(both)} questions in common of {len(frames[0])} and {len(frames[1])}",
            expected=f"the new version and {champion} scored on the same questions",
            holds="nothing was registered",
        )
    return compare(champion, both["correct_x"].tolist(), both["correct_y"].tolist(), alpha)


def _secret(name: str) -> str:
    """The text in a secret block of the Prefect server. Raises ConfigError."""
    from prefect.blocks.system import Secret

    try:
        block: Any = Secret.load(name)
    except ValueError as error:
        raise ConfigError(
            f"no secret block {name!r} (signing.private_key)",
            expected=f"a block secret/{name} with a private key in PEM",
            holds="nothing was signed",
        ) from error
    return str(block.get())


def _flow_run() -> str:
    return str(flow_run.id or "")

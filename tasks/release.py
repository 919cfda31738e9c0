"""From scores to a registered release: compare with production, judge, seal, enter it."""

import json
import shutil
from pathlib import Path
from typing import Any

from prefect.runtime import flow_run

from deployments import Place, Release, ledger
from deployments.releases import folder as releases
from deployments.releases.folder import Published
from deployments.releases.keys import signing_key, trusted
from deployments.releases.signing import PrivateKey
from policy.config import Config
from policy.errors import ConfigError, DataError, GateFailed
from policy.gates.decision import Champion, GateReport, decide_gate
from policy.gates.scores import Scores, parse_scores
from policy.gates.significance import Paired, compare
from policy.ledger import Ledger
from policy.records import Registered
from tasks.places import place_of
from tasks.retries import once, remote
from tasks.training import Run, evaluate

_NOT_RELEASED = shutil.ignore_patterns(
    ".*", "checkpoints", "wandb", "job.json", "*.log", "*.tmp"
)
_DIGITS = 7  # of the digest in a version's name; more where two would be called the same


@remote
def champion(config: Config, version: str) -> Release | None:
    """The release of what serves in production, as `wait_until_free` told; None for "none"."""
    if version == "none":
        return None
    state = ledger.read(place_of(config).store)
    return Release(version, state.version(version).digest)


@remote
def champion_scores(config: Config, data: str, release: Release) -> str:
    """The URI of production's scores on the same questions; its own if of the same data."""
    place = place_of(config)
    model = releases.fetch(place.store, release, place.scratch / "copies", trusted(config))
    uri = f"{place.store.root}/copies/{release.digest}"
    place.store.upload(model, uri)
    if read_scores(model).data_fingerprint == config.dataset.version:
        return uri
    name = f"{release.digest[:12]}-{config.dataset.version[7:19]}"
    return evaluate.fn(config, data, uri, f"{place.store.root}/evaluations/{name}")


@once
def gate(
    config: Config,
    scores: str,
    production: Release | None,
    theirs: str,
    benchmarks: dict[str, str],
) -> GateReport:
    """Judge the scores; `theirs` are production's, empty if nothing serves yet."""
    store = place_of(config).store
    ours = store.download(scores)
    serving = None
    if production is not None:
        folder = store.download(theirs)
        paired = _compare(production.version, ours, folder, config.gates.alpha)
        serving = Champion(scores=read_scores(folder), paired=paired)
    also = {name: read_scores(store.download(uri)) for name, uri in benchmarks.items()}
    return decide_gate(read_scores(ours), serving, config.gates, also, config.dataset.version)


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
    place = place_of(config)
    for known in ledger.read(place.store).versions.values():
        if known.key == run.key:
            return known.version
    folder = place.scratch / "releases" / run.key
    shutil.rmtree(folder, ignore_errors=True)
    for part in (trained, scores):
        source = place.store.download(part)
        shutil.copytree(source, folder, ignore=_not_released, dirs_exist_ok=True)
    for name, theirs in benchmarks.items():
        (folder / "benchmarks").mkdir(exist_ok=True)
        source = place.store.download(theirs) / "scores.json"
        shutil.copyfile(source, folder / "benchmarks" / f"{name}.json")
    lineage = lineage_of(config, run, place.store.download(trained))
    (folder / "gate.json").write_text(report.model_dump_json(indent=1))
    (folder / "lineage.json").write_text(json.dumps(lineage, indent=1, sort_keys=True))
    published = publish(config, folder)
    scored = read_scores(folder)
    shutil.rmtree(folder)
    return enter(config, published, scored, report.reasons, lineage, "retrain")


def _not_released(folder: str, names: list[str]) -> set[str]:
    """Neither what only the training needs, nor what a link leads to."""
    links = {name for name in names if (Path(folder) / name).is_symlink()}
    return {*_NOT_RELEASED(folder, names), *links}


def publish(config: Config, folder: Path) -> Published:
    """Seal and sign `folder` with the key of this place, and store it."""
    digest = releases.seal(folder, signer(config))
    return releases.publish(place_of(config).store, folder, digest, trusted(config))


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
    place, digest = place_of(config), published.digest

    def decide(state: Ledger) -> Registered | None:
        if any(known.digest == digest for known in state.versions.values()):
            return None
        return Registered(
            version=_name(state, place, digest),
            digest=digest,
            accuracy=scores.accuracy,
            families={name: family.accuracy for name, family in scores.families.items()},
            reasons=reasons,
            lineage=lineage,
            signed_by=published.signed_by,
        )

    state = ledger.append(
        place.store, decide, by=by, run=str(flow_run.id or ""), now=place.clock.now
    )
    known = {known.digest: name for name, known in state.versions.items()}
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
    """Raises DataError if there are none that can be read."""
    path = folder / "scores.json"
    if not path.is_file():
        raise DataError(
            f"there is no {path.name} in {folder}",
            expected="what model.evaluate writes (model/README.md)",
            holds="nothing was registered",
        )
    return parse_scores(path.read_text(), str(path))


def _name(state: Ledger, place: Place, digest: str) -> str:
    """The day and so many digits of the digest that no other version is called the same."""
    day = f"{place.clock.now():%Y.%m.%d}"
    names = (f"{day}-{digest[:digits]}" for digits in range(_DIGITS, len(digest) + 1))
    return next(name for name in names if name not in state.versions)


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

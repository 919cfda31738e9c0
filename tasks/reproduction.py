"""Repeating a training from its lineage."""

import hashlib
import json
from pathlib import Path
from typing import Any

from deployments import Release, ledger
from deployments.releases import folder as releases
from deployments.releases.keys import trusted
from policy.config import Config, parse_config
from policy.errors import NotFound, ReleaseError
from tasks.logs import logger
from tasks.places import place_of
from tasks.retries import once, remote
from tasks.training import Run, model_code, run_of

WEIGHTS = "weights.safetensors"


@remote
def recorded(config: Config, version: str) -> tuple[Config, Run]:
    """The configuration and the run that made `version`, in a folder of its own here."""
    store = place_of(config).store
    lineage = ledger.registered(store, ledger.read(store), version).lineage
    if "config" not in lineage:
        raise NotFound(f"{version} has no training in its lineage: {dict(lineage)}")
    if lineage["model_code"] != model_code():
        raise ReleaseError(
            f"the programs of model/ are {model_code()[:12]} here",
            expected=f"{lineage['model_code'][:12]}, as when {version} was trained",
            do=f"check out commit {lineage['commit']} and run this again",
        )
    here, seed = _as_then(config, json.loads(lineage["config"]), version), int(lineage["seed"])
    return here, run_of(here, seed, f"reproductions/{version}", "hand", "a reproduction")


@once
def compare_weights(config: Config, version: str, trained: str) -> str:
    """Compare the new weights with the released ones, byte by byte. Raises ReleaseError."""
    place = place_of(config)
    registered = ledger.registered(place.store, ledger.read(place.store), version)
    release = Release(version, registered.digest)
    copies, folder = place.scratch / "copies", place.store.download(trained)
    released = releases.fetch(place.store, release, copies, trusted(config))
    expected, found = _sha256(released / WEIGHTS), _sha256(folder / WEIGHTS)
    packages = json.loads((folder / "training.json").read_text())["packages"]
    if found != expected:
        raise ReleaseError(
            f"the repeated training of {version} has weights {found[:12]}",
            expected=f"{expected[:12]}, as released",
            holds="the release is as it was",
            do=f"compare packages: then {registered.lineage['packages']}, now {packages}",
        )
    logger().info("%s is reproduced bit for bit: %s", version, found)
    return found


def _as_then(config: Config, then: dict[str, Any], version: str) -> Config:
    """Today's configuration with the sections that a training reads as they were then.

    Records are kept longer than the shape of the configuration: nothing else of it is read.
    """
    sections = {name: then[name] for name in ("dataset", "model", "compute", "checkpointing")}
    record = {**config.model_dump(mode="json"), **sections}
    return parse_config(json.dumps(record), f"the configuration that trained {version}")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

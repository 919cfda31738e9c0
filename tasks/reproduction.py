"""Repeating a training from its lineage."""

import hashlib
import json
from pathlib import Path

from prefect import get_run_logger

from deployments import Release, connect, ledger
from deployments.releases import folder as releases
from deployments.releases.keys import trusted
from policy.config import Config, parse_config
from policy.errors import NotFound, ReleaseError
from tasks import once, remote
from tasks.training import Run, model_code, run_of

WEIGHTS = "weights.safetensors"


@remote
def recorded(config: Config, version: str) -> tuple[Config, Run]:
    """The configuration and the run that made `version`, in a folder of its own here."""
    registered = ledger.read(connect(config).store).version(version).registered
    lineage = registered.lineage
    if "config" not in lineage:
        raise NotFound(f"{version} has no training in its lineage: {dict(lineage)}")
    if lineage["model_code"] != model_code():
        raise ReleaseError(
            f"the programs of model/ are {model_code()[:12]} here",
            expected=f"{lineage['model_code'][:12]}, as when {version} was trained",
            do=f"check out commit {lineage['commit']} and run this again",
        )
    theirs = parse_config(lineage["config"], f"the configuration of {version}")
    here = theirs.model_copy(update={"root": config.root, "local": config.local})
    seed = int(lineage["seed"])
    return here, run_of(here, seed, f"reproductions/{version}", "hand", "a reproduction")


@once
def compare_weights(config: Config, version: str, trained: str) -> str:
    """Compare the new weights with the released ones, byte by byte. Raises ReleaseError."""
    place = connect(config)
    registered = ledger.read(place.store).version(version).registered
    release = Release(version, registered.digest)
    copies = Path(config.root).absolute() / "copies"
    released = releases.fetch(place.store, release, copies, trusted(config))
    expected, found = (
        hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
        for folder in (released, Path(trained))
    )
    packages = json.loads((Path(trained) / "training.json").read_text())["packages"]
    if found != expected:
        raise ReleaseError(
            f"the repeated training of {version} has weights {found[:12]}",
            expected=f"{expected[:12]}, as released",
            holds="the release is as it was",
            do=f"compare packages: then {registered.lineage['packages']}, now {packages}",
        )
    get_run_logger().info("%s is reproduced bit for bit: %s", version, found)
    return found

"""A real stack below a temporary folder: supervisord, Envoy and stand-in model servers."""

import json
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deployments import Endpoint, Place, Release, local
from deployments.local.layout import layout_of
from deployments.local.servers import local_of
from deployments.local.stack import life as stack
from deployments.local.stack.ports import is_free
from deployments.local.supervisor.programs import Supervisor
from deployments.releases import folder as releases
from deployments.releases.keys import signing_key, trusted
from deployments.store import open_store
from policy.config import Config, load_config

PROJECT = Path(__file__).parents[2]
SERVER = "tests.local.answers"


def free_row(length: int) -> int:
    """The first of `length` ports in a row, below those that the system hands out."""
    while True:
        first = 20000 + secrets.randbelow(12000)
        if all(is_free(port) for port in range(first, first + length)):
            return first


def configured(root: Path) -> Config:
    """deployments/local.yaml with its own root and free ports."""
    config = load_config(PROJECT / "deployments/local.yaml")
    names = (
        "prefect_port",
        "staging_port",
        "staging_admin_port",
        "production_port",
        "production_admin_port",
        "metrics_port",
    )
    first = free_row(len(names) + 20)
    ports = {name: first + index for index, name in enumerate(names)}
    models = (first + len(names), first + len(names) + 19)
    local = local_of(config).model_copy(update={**ports, "model_ports": models})
    return config.model_copy(update={"root": str(root), "local": local})


@pytest.fixture(scope="session")
def root() -> Iterator[Path]:
    """A short path, because a unix socket lies in it."""
    folder = Path(tempfile.mkdtemp(prefix="arr"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def config(root) -> Config:
    return configured(root)


@pytest.fixture(scope="session")
def endpoints(config) -> Iterator[Config]:
    """Both Envoys under supervisord; no Prefect."""
    layout = layout_of(config.root)
    try:
        stack.start_programs(config, stack.endpoint_programs(config, layout))
        stack.wait_for_endpoints(config, lambda line: None)
        yield config
    finally:
        Supervisor(layout).shutdown()


@pytest.fixture(scope="session")
def make_release(root) -> Callable[..., Release]:
    return maker(root)


def maker(root: Path) -> Callable[..., Release]:
    """Publishes releases whose server behaves as told (tests/local/answers.py), each once."""
    made: dict[str, Release] = {}
    config = load_config(PROJECT / "deployments/local.yaml")
    config = config.model_copy(update={"root": str(root)})

    def make(version: str, **behaviour) -> Release:
        if version not in made:
            folder = root / "made" / version
            folder.mkdir(parents=True)
            text = json.dumps({"version": version, **behaviour})
            (folder / "behaviour.json").write_text(text)
            digest = releases.seal(folder, signing_key(config))
            releases.publish(open_store(str(root)), folder, digest, trusted(config))
            made[version] = Release(version, digest)
        return made[version]

    return make


@pytest.fixture(scope="session")
def place(endpoints) -> Place:
    return local.connect(endpoints, server=SERVER)


@pytest.fixture(scope="session")
def production(place) -> Endpoint:
    return place.endpoint("production")


def wait_ready(endpoint: Endpoint, *versions: str, limit_s: float = 20) -> None:
    start = time.monotonic()
    while not all(endpoint.ready(version) for version in versions):
        assert time.monotonic() - start < limit_s, f"{versions} did not get ready"
        time.sleep(0.02)


def serve(endpoint: Endpoint, *releases: Release) -> None:
    """Deploy exactly these, ready, with all traffic on the first."""
    for release in releases:
        endpoint.deploy(release)
    versions = [release.version for release in releases]
    wait_ready(endpoint, *versions)
    endpoint.set_weights({versions[0]: 100})
    for version in set(endpoint.deployed()) - set(versions):
        endpoint.undeploy(version)

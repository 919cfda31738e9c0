"""A real stack below a temporary folder: supervisord, Envoy and stand-in model servers."""

import itertools
import json
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deployments import Desired, Endpoint, Observed, Place, Release, Server, local
from deployments.local.envoy.configuration import Guard
from deployments.local.envoy.program import endpoint_programs
from deployments.local.layout import layout_of
from deployments.local.servers import local_of
from deployments.local.stack.life import start_programs
from deployments.local.stack.ports import is_free
from deployments.local.stack.serving import wait_for_endpoints
from deployments.local.supervisor.programs import Supervisor
from deployments.releases import folder as releases
from deployments.releases.keys import signing_key, trusted
from deployments.store import open_store
from policy.config import Config, LocalEndpoint, load_config

PROJECT = Path(__file__).parents[2]
SERVER = "tests.local.answers"
QUESTIONS = "".join(
    json.dumps({"instance": {"question": f"q{n}"}, "answer": f"q{n}", "family": "echo"}) + "\n"
    for n in range(10)
)


def free_row(length: int) -> int:
    """The first of `length` ports in a row, below those that the system hands out."""
    while True:
        first = 20000 + secrets.randbelow(12000)
        if all(is_free(port) for port in range(first, first + length)):
            return first


def configured(root: Path) -> Config:
    """deployments/local.yaml with its own root, scratch and free ports."""
    config = load_config(PROJECT / "deployments/local.yaml")
    ports = itertools.count(free_row(len(config.endpoints) + 2))
    local = local_of(config).model_copy(
        update={
            "prefect_port": next(ports),
            "metrics_port": next(ports),
            "endpoints": {name: LocalEndpoint(port=next(ports)) for name in config.endpoints},
        }
    )
    return config.model_copy(
        update={"root": str(root), "scratch": str(root / "scratch"), "local": local}
    )


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
    try:
        start_endpoints(config)
        yield config
    finally:
        Supervisor(layout_of(config)).shutdown()


def start_endpoints(config: Config, guard: Guard | None = None) -> None:
    """Envoy of every endpoint, under supervisord, serving nothing yet."""
    start_programs(config, endpoint_programs(config, layout_of(config), guard))
    wait_for_endpoints(config, lambda line: None)


@pytest.fixture(scope="session")
def make_release(root) -> Callable[..., Release]:
    return maker(root)


def maker(root: Path) -> Callable[..., Release]:
    """Publishes releases whose server behaves as told (tests/local/answers.py), each once."""
    made: dict[str, Release] = {}
    config = load_config(PROJECT / "deployments/local.yaml")
    config = config.model_copy(update={"root": str(root), "scratch": str(root / "scratch")})

    def make(version: str, **behaviour) -> Release:
        if version not in made:
            folder = root / "made" / version
            folder.mkdir(parents=True)
            text = json.dumps({"version": version, **behaviour})
            (folder / "behaviour.json").write_text(text)
            (folder / "requests.jsonl").write_text(QUESTIONS)
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


def until(true: Callable[[], bool], limit_s: float = 20) -> None:
    """Wait until it is true; an assertion that names it after `limit_s`."""
    start = time.monotonic()
    while not true():
        assert time.monotonic() - start < limit_s, "it did not come true"
        time.sleep(0.02)


def bring(endpoint: Endpoint, desired: Desired, limit_s: float = 20) -> Observed:
    """Order it again and again, as a controller does, until the endpoint is so."""
    start = time.monotonic()
    while True:
        endpoint.apply(desired)
        seen = endpoint.observe()
        if _is(seen, desired):
            return seen
        assert time.monotonic() - start < limit_s, (seen, desired)
        time.sleep(0.02)


def _is(seen: Observed, desired: Desired) -> bool:
    ready = {r.version: Server("ready", r.digest) for r in desired.releases}
    return (
        dict(seen.servers) == ready
        and dict(seen.weights) == {v: share for v, share in desired.weights.items() if share}
        and dict(seen.mirror) == dict(desired.mirror)
    )


def serve(endpoint: Endpoint, *releases: Release) -> Desired:
    """Exactly these, ready; all traffic to the first, which is the fallback."""
    desired = Desired(releases, {releases[0].version: 100}, releases[0].version)
    bring(endpoint, desired)
    return desired

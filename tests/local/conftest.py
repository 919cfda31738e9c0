"""A real stack below a temporary folder: supervisord, Envoy and stand-in model servers."""

import json
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from deployments import Release, releases
from deployments.local import stack
from deployments.local.endpoint import EnvoyEndpoint
from deployments.local.layout import layout_of
from deployments.local.programs import Supervisor
from deployments.store import open_store
from policy.config import Config, load_config

PROJECT = Path(__file__).parents[2]
SERVER = "tests.local.answers"


def free_ports(count: int) -> list[int]:
    with ExitStack() as open_:
        sockets = [open_.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def free_row(length: int) -> int:
    """The first of `length` ports in a row, below those that the system hands out."""
    import random

    from deployments.local.ports import is_free

    while True:
        first = random.randrange(20000, 32000)  # noqa: S311 - not a secret
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
    )
    first = free_row(len(names) + 20)
    ports = {name: first + index for index, name in enumerate(names)}
    models = (first + len(names), first + len(names) + 19)
    local = config.local.model_copy(update={**ports, "model_ports": models})
    return config.model_copy(update={"root": str(root), "local": local})


@pytest.fixture(scope="module")
def root() -> Iterator[Path]:
    """A short path, because a unix socket lies in it."""
    folder = Path(tempfile.mkdtemp(prefix="arr"))
    yield folder
    print(*(p.read_text() for p in folder.glob("logs/*.log"))); shutil.rmtree(folder)


@pytest.fixture(scope="module")
def config(root) -> Config:
    return configured(root)


@pytest.fixture(scope="module")
def endpoints(config) -> Iterator[Config]:
    """Both Envoys under supervisord; no Prefect."""
    layout = layout_of(config.root)
    try:
        stack.start_programs(config, stack.endpoint_programs(config, layout))
        stack.wait_for_endpoints(config, lambda line: None)
        yield config
    finally:
        Supervisor(layout).shutdown()


@pytest.fixture(scope="module")
def make_release(root) -> Callable[..., Release]:
    """Publish a release whose server behaves as told; see tests/local/answers.py."""

    def make(version: str, **behaviour) -> Release:
        store = open_store(str(root))
        folder = root / "made" / version
        folder.mkdir(parents=True)
        (folder / "behaviour.json").write_text(json.dumps({"version": version, **behaviour}))
        digest = releases.seal(folder)
        releases.publish(store, folder, digest)
        return Release(version, digest)

    return make


@pytest.fixture(scope="module")
def production(endpoints) -> EnvoyEndpoint:
    return endpoint(endpoints, "production", replicas=2)


def endpoint(config: Config, name: str, replicas: int) -> EnvoyEndpoint:
    return EnvoyEndpoint(
        layout_of(config.root),
        name,
        config.local,
        open_store(config.root),
        server=SERVER,
        replicas=replicas,
    )

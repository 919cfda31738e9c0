"""Each place under the same tests, by a harness of its own (harness.py).

A place joins with one line in PLACES: a context manager that yields its harness.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager

import pytest

from tests.contract.harness import Harness
from tests.contract.memory import memory_harness
from tests.local.fixtures import config as config
from tests.local.fixtures import root as root
from tests.local.harness import local_harness

PLACES: Mapping[str, Callable[[], AbstractContextManager[Harness]]] = {
    "local": local_harness,
    "memory": memory_harness,
}


@pytest.fixture(scope="session", params=[*PLACES])
def harness(request) -> Iterator[Harness]:
    with PLACES[request.param]() as made:
        yield made

"""What every test shares."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A short path, because a unix socket may have to lie in it.

    pytest's own holds the test's name and how often pytest has run on this machine: tests
    once passed on one machine and not on another for three digits instead of one.
    """
    folder = Path(tempfile.mkdtemp(prefix="arr"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)

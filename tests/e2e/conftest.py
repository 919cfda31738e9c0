import shutil
import sys
import tempfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from stack import Stack


@pytest.fixture(scope="session")
def stack():
    """The stack, up for the whole session; a short path, for a socket lies in it."""
    root = Path(tempfile.mkdtemp(prefix="arr-"))
    stack = Stack(root)
    try:
        stack.run("deployments.local", "up", str(stack.path), timeout=300)
        yield stack
    finally:
        stack.run("deployments.local", "down", str(stack.path), check=False)
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def serving(stack) -> str:
    """The version in production; one is made where the story begins here."""
    if stack.production().stable is None:
        done = stack.deploy("retrain/on-demand", seed=1)
        assert done.returncode == 0, done.stdout + done.stderr
    return stack.production().stable

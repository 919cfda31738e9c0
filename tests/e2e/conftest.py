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

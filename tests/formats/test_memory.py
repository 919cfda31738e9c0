"""A conversion's memory does not grow with the official files."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MIB = 1 << 20

# Converts argv[1] to argv[2] in no more than argv[3] bytes of memory of its own.
CONVERT = """
import resource, sys
from pathlib import Path
from model.formats.convert import convert
limit = int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
convert("vqav2", Path(sys.argv[1]), Path(sys.argv[2]), lambda *told: None)
"""

# Reads the annotations whole, in as much memory.
LOAD = """
import json, resource, sys
limit = int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
with open(sys.argv[1] + "/v2_mscoco_train2014_annotations.json") as file:
    json.load(file)
"""


# Allocators that ask for what they need and no more, so that the limit measures just that.
FRUGAL = {
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "MALLOC_ARENA_MAX": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}


def run(program, *arguments):
    command = [sys.executable, "-c", program, *map(str, arguments)]
    environment = os.environ | FRUGAL
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


def grow(root: Path, times: int) -> int:
    """Ask each question of train `times` times more, under ids of their own; bytes written."""
    written = 0
    for name, key in (
        ("Questions/v2_OpenEnded_mscoco_train2014_questions.json", "questions"),
        ("v2_mscoco_train2014_annotations.json", "annotations"),
    ):
        path = root / name
        records = json.loads(path.read_text())[key]
        with path.open("w") as file:
            file.write(f'{{"{key}": [')
            for n in range(times):
                for record in records:
                    record["question_id"] += 10_000_000
                    file.write(", " if n or record is not records[0] else "")
                    file.write(json.dumps(record))
            file.write("]}")
        written += path.stat().st_size
    return written


@pytest.mark.slow
def test_converts_more_than_fits_into_memory(official, tmp_path):
    """96,000 questions in a limit in which their annotations alone cannot be loaded."""
    root = official("vqav2")
    assert grow(root, 8000) > 75 * MIB
    limit = 256 * MIB
    loaded = run(LOAD, root, "-", limit)
    assert "MemoryError" in loaded.stderr
    done = run(CONVERT, root, tmp_path / "out", limit)
    assert done.returncode == 0, done.stderr
    splits = json.loads((tmp_path / "out/dataset.json").read_text())["splits"]
    assert sum(splits.values()) == 96_000 + 12

"""Reading for a training needs memory for a batch, not for the data set."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from model.generated import generator

ROOT = Path(__file__).parents[2]
MIB = 1 << 20
ROOM = 8 * MIB

# Reads argv[3] epochs of the data set argv[1] in batches of 16, in no more than argv[2] bytes
# beyond what there is after the first batch; keeps the batches where argv[4] says so.
READ = """
import re, resource, sys
from itertools import islice
from pathlib import Path
from model.dataset import manifest
from model.dataset import vocabulary
from model.dataset.batches import Batches, split_reader
from model.dataset.preprocessing import PlainPreprocessor

whole = manifest.read(Path(sys.argv[1]))
split = manifest.read_split(whole, "train")
preprocessor = PlainPreprocessor(tuple(vocabulary.build(split.questions)))
source = split_reader(whole.folder, split, preprocessor, whole.answers)
batches = iter(Batches(source, 1, 16, 0, 0, 1))
next(batches)
used = int(re.search(r"VmData:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) << 10
resource.setrlimit(resource.RLIMIT_DATA, (used + int(sys.argv[2]),) * 2)
kept, seen = [], 0
for batch in islice(batches, int(sys.argv[3]) * source.images // 16):
    seen += batch.image_BPP3.nbytes
    if sys.argv[4] == "keep":
        kept.append(batch)
print(seen)
"""


def read(*arguments):
    frugal = {"MALLOC_ARENA_MAX": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", READ, *map(str, arguments)],
        cwd=ROOT, env=os.environ | frugal, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks Linux what is used")
def test_epochs_are_read_of_more_than_fits_into_memory(tmp_path):
    """Twice 59 MiB of pixels in 8 MiB, in which they cannot be kept."""
    generator.generate("generate://detail?images=4000&questions=1&seed=11", tmp_path)
    done = read(tmp_path, ROOM, 2, "drop")
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 14 * ROOM
    kept = read(tmp_path, ROOM, 2, "keep")
    assert kept.returncode != 0
    assert "MemoryError" in kept.stderr or "can't allocate memory" in kept.stderr

"""Nothing of a training outlives it, whoever is killed with -9, with a leash or by hand.

Processes are counted by a mark in their environment, which whatever they start inherits.
"""

import json
import os
import subprocess
import sys
import time
from uuid import uuid4

import psutil
import pytest

MARK = "ARR_COC_TEST_OF_ORPHANS"
READER = """
import multiprocessing
import sys
import torch
from torch.utils.data import DataLoader, IterableDataset
from model.program.orphans import end_with_parent

class Endless(IterableDataset):
    def __iter__(self):
        while True:
            yield torch.zeros(100_000)

if __name__ == "__main__":
    loader = DataLoader(
        Endless(), batch_size=None, num_workers=2, worker_init_fn=end_with_parent,
        multiprocessing_context=sys.argv[1],
    )
    for _ in loader:
        print("a batch", flush=True)
"""


@pytest.fixture
def marked():
    """Starts a command by hand, as in a terminal; whatever is left of it goes at the end."""
    mark, started = uuid4().hex, []

    def start(*command: str) -> subprocess.Popen:
        started.append(
            subprocess.Popen(
                [sys.executable, *command],
                env={**os.environ, MARK: mark},
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        return started[-1]

    start.alive = lambda: [p for p in psutil.process_iter() if has(p, mark)]
    yield start
    for process in start.alive():
        process.kill()
    for process in started:
        process.wait()


def has(process, mark):
    try:
        alive = process.status() != psutil.STATUS_ZOMBIE
        return alive and process.environ().get(MARK) == mark
    except (psutil.Error, OSError):
        return False


def must_all_end(marked, but=()):
    deadline = time.monotonic() + 60
    while left := [p for p in marked.alive() if p.pid not in but]:
        assert time.monotonic() < deadline, [p.cmdline()[:4] for p in left]
        time.sleep(0.2)


@pytest.mark.parametrize("method", ["fork", pytest.param("forkserver", marks=pytest.mark.slow)])
def test_data_workers_end_when_the_process_that_they_read_for_is_killed(
    marked, tmp_path, method
):
    """They keep a fork server alive that keeps them alive, if nobody looks at who asked."""
    script = tmp_path / "reader.py"
    script.write_text(READER)
    reader = marked(str(script), method)
    for _ in range(5):
        assert reader.stdout.readline()
    assert len(marked.alive()) >= 3
    reader.kill()
    must_all_end(marked)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("processes", "victim"),
    [(1, "launcher"), (2, "launcher"), (2, "rank 0"), (2, "rank 1"), (2, "a data worker")],
)
def test_a_training_by_hand_leaves_nothing_behind(
    marked, small_data, train_config, tmp_path, processes, victim
):
    config = tmp_path / "config.json"
    chosen = train_config(
        compute__processes=processes, model__steps_max=100_000, model__batch_images=8,
        model__hyperparameters__workers=2,
    )  # fmt: skip
    config.write_text(json.dumps(chosen))
    training = marked(
        "-m", "model.train", f"--config={config}", f"--data={small_data}",
        f"--output={tmp_path / 'out'}",
    )  # fmt: skip
    for line in training.stdout:
        if '"train"' in line and '"done": 2' in line:
            break
    found = marked.alive()
    assert len(found) >= processes * 3 + (processes > 1)
    if victim == "launcher":
        training.kill()
    else:
        ranks = sorted(
            (p for p in found if p.ppid() == training.pid and "RANK" in p.environ()),
            key=lambda p: p.environ()["RANK"],
        )
        chosen = ranks[1] if victim == "rank 1" else ranks[0]
        (chosen if victim.startswith("rank") else chosen.children()[0]).kill()
    must_all_end(marked)
    training.stdout.close()

"""Train a model, or resume a training.

    python -m model.train --config FILE --data DIR --output DIR

With compute.processes above 1 it starts that many of itself (model/training/launch.py), unless
torchrun started it. Killed at any point, the same command resumes from the last checkpoint.
"""

import os
import signal
import sys
from pathlib import Path

from model.program import console, settings
from model.program.errors import Stopped


def main(config: Path, data: Path, output: Path) -> None:
    """Train the network that the configuration names on a data set."""
    signal.signal(signal.SIGTERM, _stop_at_once)
    chosen = settings.load(settings.TrainSettings, config)
    if (output / "training.json").is_file():
        console.log(f"{output} already holds a trained model; nothing to do")
        return
    # Set before torch is loaded: threads that wait by spinning slow down all the others.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ["OMP_NUM_THREADS"] = str(chosen.compute.threads)
    # Without it CUDA has no deterministic matrix products.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if chosen.compute.processes > 1 and "TORCHELASTIC_RUN_ID" not in os.environ:
        from model.training.launch import launch

        launch(chosen.compute.processes, ["-m", "model.train", *sys.argv[1:]])
        return
    if "TORCHELASTIC_RUN_ID" in os.environ:
        from model.program.orphans import end_with_parent

        end_with_parent()
    from model.training.callbacks import CheckpointSaver
    from model.training.run import train

    saver = CheckpointSaver(chosen.checkpointing.every_s)
    saver.catch_sigterm()
    train(chosen, data, output, saver)


def _stop_at_once(_number: int, _frame: object) -> None:
    """Until training begins there is nothing to save."""
    raise Stopped("stopped by SIGTERM before training", do="run the same command again")


if __name__ == "__main__":
    sys.exit(console.run(main, ["config", "data", "output"]))

"""One training, from a data set to a trained model; each of its processes runs this."""

import fcntl
import json
import logging
import os
import platform
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.strategies import DDPStrategy
from torch.utils.data import DataLoader

from model.dataset import manifest
from model.dataset.batches import Batches, SplitReader, split_reader
from model.network import saved_model
from model.network.network import Network
from model.network.saved_model import TrainedModel, untrained
from model.pretrained.answers import soft_targets
from model.pretrained.network import PretrainedNetwork
from model.program.console import Progress, explain, log
from model.program.errors import BadInput, Diverged
from model.program.files import sha256_hex, write_json, write_whole
from model.program.orphans import end_with_parent
from model.program.settings import Hyperparameters, Tracking, TrainSettings
from model.training.callbacks import CheckpointSaver, Curves
from model.training.checkpoints import (
    BackgroundWriter,
    CheckpointFiles,
    newest_valid,
    open_storage,
)
from model.training.launch import meet
from model.training.learner import Learner
from model.training.step_log import Resume, StepLog

PACKAGES = ("torch", "lightning", "numpy", "pyarrow", "pillow", "safetensors", "wandb")
LOCK_WAIT_S = 20
ADDED_LATER = ("glance", "profile", "encoder_version", "answers_max")  # hyperparameters


def train(
    settings: TrainSettings, data_folder: Path, output: Path, saver: CheckpointSaver
) -> None:
    """Train, or resume a training, and write the trained model. Raises ModelError."""
    rank = int(os.environ.get("RANK", "0"))
    silence_lightning()
    torch.set_num_threads(settings.compute.threads)
    torch.use_deterministic_algorithms(True)
    # It also fills uninitialised memory, for debugging; that costs 5 % and more of each step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # pyright: ignore
    with Progress("start", settings.model.steps_max, silent=rank > 0) as progress:
        _train(settings, manifest.read(data_folder), output, saver, progress)


def _train(
    settings: TrainSettings,
    data: manifest.DataSet,
    output: Path,
    saver: CheckpointSaver,
    progress: Progress,
) -> None:
    splits = {name: manifest.read_split(data, name) for name in ("train", "val")}
    torch.manual_seed(settings.seed)
    subject = untrained(settings.model.hyperparameters, data, splits["train"])
    readers = {name: _reader(data, name, split, subject) for name, split in splits.items()}
    learner = _learner(settings, subject.network, identity(settings, data.fingerprint))
    progress.phase("train")
    model = settings.model
    step_log = StepLog(output)
    curves = Curves(readers["val"], model.early_stopping, model.steps_max, progress, step_log)
    with _locked(output, learner.rank):
        weights = _fit(settings, output, learner, readers["train"], curves, saver)
        if learner.rank == 0:
            _write(settings, output, weights, subject, curves, step_log.resumes)


def _reader(
    data: manifest.DataSet, name: str, split: manifest.Split, subject: TrainedModel
) -> SplitReader:
    """A split as this network reads it; one over an encoder learns from all human answers."""
    targets = None
    if isinstance(subject.network, PretrainedNetwork):
        targets = soft_targets(data.folder, name, split.ids, subject.answers)
    return split_reader(data.folder, split, subject.preprocessor, subject.answers, targets)


def identity(settings: TrainSettings, fingerprint: str) -> str:
    """What must be equal to resume from a checkpoint; places and speed may differ."""
    model = settings.model.model_dump()
    chosen = model["hyperparameters"]
    del chosen["workers"], chosen["encoder"]  # its version says which encoder it is
    for name in ADDED_LATER:  # without them it is as it was before there were any
        if chosen[name] == Hyperparameters.model_fields[name].default:
            del chosen[name]
    return sha256_hex(json.dumps([model, settings.seed, fingerprint], sort_keys=True).encode())


def silence_lightning() -> None:
    """Keep Lightning's hints out of our log."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning.*")


def _learner(
    settings: TrainSettings, network: Network | PretrainedNetwork, identity: str
) -> Learner:
    model = settings.model
    return Learner(
        network,
        rank=int(os.environ.get("RANK", "0")),
        world=int(os.environ.get("WORLD_SIZE", "1")),
        seed=settings.seed,
        rate=model.learning_rate,
        steps=model.steps_max,
        identity=identity,
        # A fused optimizer unscales gradients itself, so they could not be clipped before.
        fused=model.precision == "32",
    )


def _fit(
    settings: TrainSettings,
    output: Path,
    learner: Learner,
    source: SplitReader,
    curves: Curves,
    saver: CheckpointSaver,
) -> dict[str, torch.Tensor]:
    model, workers = settings.model, settings.model.hyperparameters.workers
    place = open_storage(settings.checkpointing.uri, output)
    newest = newest_valid(place)
    name, step = newest or (None, 0)
    log(f"resuming from the checkpoint of step {step}" if newest else "no checkpoint found")
    batches = Batches(
        source,
        settings.seed,
        model.batch_images,
        step * model.accumulate,
        learner.rank,
        learner.world,
    )
    loader = DataLoader(
        batches, batch_size=None, num_workers=workers, worker_init_fn=end_with_parent
    )
    writer = BackgroundWriter(CheckpointFiles(place, settings.checkpointing.keep))
    meet(settings.compute.accelerators)
    trainer = _trainer(settings, output, writer, [curves, saver])
    try:
        trainer.fit(learner, loader, ckpt_path=name, weights_only=True)
    except Exception as error:
        raise explain(error) or error from error
    weights = trainer.strategy.lightning_module_state_dict()
    if not all(torch.isfinite(x).all() for x in weights.values()):
        raise Diverged("the trained weights contain a value that is not a finite number")
    return {key.removeprefix("network."): value for key, value in weights.items()}


def _trainer(
    settings: TrainSettings,
    output: Path,
    writer: BackgroundWriter,
    callbacks: list[pl.Callback],
) -> pl.Trainer:
    model, compute = settings.model, settings.compute
    world = int(os.environ.get("WORLD_SIZE", "1"))
    precision: dict[str, Literal["32-true", "bf16-mixed", "16-mixed"]] = {
        "32": "32-true", "bf16-mixed": "bf16-mixed", "16-mixed": "16-mixed",
    }  # fmt: skip
    return pl.Trainer(
        accelerator="gpu" if compute.accelerators else "cpu",
        devices=int(os.environ.get("LOCAL_WORLD_SIZE", "1")),
        num_nodes=world // int(os.environ.get("LOCAL_WORLD_SIZE", "1")),
        strategy=_strategy(model.strategy, world),
        precision=precision[model.precision],
        max_steps=model.steps_max,
        accumulate_grad_batches=model.accumulate,
        gradient_clip_val=model.gradient_clip,
        callbacks=callbacks,
        plugins=[writer],
        logger=_logger(settings.tracking, output),
        default_root_dir=output,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        limit_val_batches=0,
    )


def _strategy(name: str, world: int) -> str | DDPStrategy:
    """DDP without what this network has no use for: it has no buffers that training changes."""
    if world == 1 or name != "ddp":
        return "auto" if world == 1 else name
    return DDPStrategy(broadcast_buffers=False, gradient_as_bucket_view=True)


def _logger(tracking: Tracking, output: Path) -> Any:
    """Weights & Biases below the output folder; the run's id survives restarts."""
    if tracking.mode == "disabled":
        return False
    folder = output / "wandb"
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        os.environ[name] = str(folder.resolve())
    os.environ |= {"WANDB_SILENT": "true", "WANDB_CONSOLE": "off", "WANDB_MODE": tracking.mode}
    return WandbLogger(
        project=tracking.project, entity=tracking.entity, save_dir=str(output),
        id=wandb_run_id(output), offline=tracking.mode == "offline", resume="allow",
    )  # fmt: skip


def wandb_run_id(output: Path) -> str:
    return sha256_hex(str(output.resolve()).encode())[:12]


@contextmanager
def _locked(output: Path, rank: int) -> Iterator[None]:
    """One training at a time in a folder; the system frees the lock of a dead one."""
    output.mkdir(parents=True, exist_ok=True)
    if rank > 0:
        yield
        return
    with (output / ".lock").open("w") as file:
        deadline = time.monotonic() + LOCK_WAIT_S
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise BadInput(
                        f"another training is running in {output}", do="wait for it or stop it"
                    ) from error
                time.sleep(0.2)
        yield


def _write(
    settings: TrainSettings, output: Path, weights: dict[str, torch.Tensor],
    subject: TrainedModel, curves: Curves, resumes: Sequence[Resume],
) -> None:  # fmt: skip
    saved_model.save(output, subject, weights)
    over_encoder = isinstance(subject.network, PretrainedNetwork)
    packages = (*PACKAGES, "tokenizers") if over_encoder else PACKAGES
    write_whole(output / "curves.csv", curves.csv().encode())
    wall, processor = curves.seconds()
    tracked = settings.tracking.mode != "disabled"
    write_json(
        output / "training.json",
        {
            "seed": settings.seed,
            "steps": int(curves.rows[-1][1]) if curves.rows else 0,
            "seconds": round(wall, 3),
            "processor_seconds": round(processor, 3),
            "parameters": sum(x.numel() for x in weights.values()),
            "data_fingerprint": subject.data_fingerprint,
            "validation_accuracy": curves.validation_accuracy,
            "resumed_from_steps": [one.step for one in resumes],
            "lost_steps": [one.lost for one in resumes],
            "wandb_run_id": wandb_run_id(output) if tracked else "",
            "packages": {"python": platform.python_version()}
            | {n: version(n) for n in packages},
        },
    )

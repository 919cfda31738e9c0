"""One training from data to a trained model; every process of it runs this."""

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

from model import manifest, trained
from model.batches import Batches, Pool, pool
from model.checkpoints import Background, WholeCheckpoints, newest_whole, shelf
from model.console import Progress, explain, log
from model.errors import BadInput, Diverged
from model.files import sha256_hex, write_json, write_whole
from model.learner import Learner
from model.network.network import Network
from model.pretrained.network import PretrainedNetwork
from model.pretrained.truth import agreement
from model.settings import Hyperparameters, Tracking, TrainSettings
from model.steps import Resume, Steps
from model.trained import begin
from model.watch import Curves, Saving

PACKAGES = ("torch", "lightning", "numpy", "pyarrow", "pillow", "safetensors", "wandb")
LOCK_WAIT_S = 20
LATER = ("glance", "profile", "encoder_version", "answers_max")  # hyperparameters


def train(settings: TrainSettings, data_folder: Path, output: Path, saving: Saving) -> None:
    """Train, or go on training, and write the trained model. Raises ModelError."""
    rank = int(os.environ.get("RANK", "0"))
    quiet()
    torch.set_num_threads(settings.compute.threads)
    torch.use_deterministic_algorithms(True)
    # Comes with it, to show reads of memory that nobody wrote; 5 % and more of each step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # pyright: ignore
    with Progress("start", settings.model.steps_max, silent=rank > 0) as progress:
        _train(settings, manifest.read(data_folder), output, saving, progress)


def _train(
    settings: TrainSettings,
    data: manifest.DataSet,
    output: Path,
    saving: Saving,
    progress: Progress,
) -> None:
    splits = {name: manifest.read_split(data, name) for name in ("train", "val")}
    torch.manual_seed(settings.seed)
    subject = begin(settings.model.hyperparameters, data, splits["train"])
    pools = {name: _pool(data, name, split, subject) for name, split in splits.items()}
    learner = _learner(settings, subject.network, identity(settings, data.fingerprint))
    progress.phase("train")
    model = settings.model
    done = Steps(output)
    curves = Curves(pools["val"], model.early_stopping, model.steps_max, progress, done)
    with _alone(output, learner.rank):
        weights = _fit(settings, output, learner, pools["train"], curves, saving)
        if learner.rank == 0:
            _write(settings, output, weights, subject, curves, done.resumes)


def _pool(
    data: manifest.DataSet, name: str, split: manifest.Split, subject: trained.Trained
) -> Pool:
    """A split as this network reads it; one over an encoder learns from all who answered."""
    agreed = None
    if isinstance(subject.network, PretrainedNetwork):
        agreed = agreement(data.folder, name, split.ids, subject.answers)
    return pool(data.folder, split, subject.senses, subject.answers, agreed)


def identity(settings: TrainSettings, fingerprint: str) -> str:
    """What must be equal for a checkpoint to be gone on from; places and speed may differ."""
    model = settings.model.model_dump()
    chosen = model["hyperparameters"]
    del chosen["workers"], chosen["encoder"]  # its version says which encoder it is
    for name in LATER:  # without them it is as it was before there were any
        if chosen[name] == Hyperparameters.model_fields[name].default:
            del chosen[name]
    return sha256_hex(json.dumps([model, settings.seed, fingerprint], sort_keys=True).encode())


def quiet() -> None:
    """Lightning's hints do not belong into our log."""
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
        # A fused one unscales gradients by itself, so they could not be clipped before.
        fused=model.precision == "32",
    )


def _fit(
    settings: TrainSettings,
    output: Path,
    learner: Learner,
    source: Pool,
    curves: Curves,
    saving: Saving,
) -> dict[str, torch.Tensor]:
    model, workers = settings.model, settings.model.hyperparameters.workers
    place = shelf(settings.checkpointing.uri, output)
    newest = newest_whole(place)
    name, step = newest or (None, 0)
    log(f"the newest checkpoint is of step {step}" if newest else "no checkpoint; from step 0")
    batches = Batches(
        source,
        settings.seed,
        model.batch_images,
        step * model.accumulate,
        learner.rank,
        learner.world,
    )
    loader = DataLoader(batches, batch_size=None, num_workers=workers)
    writer = Background(WholeCheckpoints(place, settings.checkpointing.keep))
    trainer = _trainer(settings, output, writer, [curves, saving])
    try:
        trainer.fit(learner, loader, ckpt_path=name, weights_only=True)
    except Exception as error:
        raise explain(error) or error from error
    weights = trainer.strategy.lightning_module_state_dict()
    if not all(torch.isfinite(x).all() for x in weights.values()):
        raise Diverged("the trained weights hold a value that is not a number")
    return {key.removeprefix("network."): value for key, value in weights.items()}


def _trainer(
    settings: TrainSettings,
    output: Path,
    writer: Background,
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
def _alone(output: Path, rank: int) -> Iterator[None]:
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
                        f"another training runs in {output}", do="wait for it, or end it"
                    ) from error
                time.sleep(0.2)
        yield


def _write(
    settings: TrainSettings, output: Path, weights: dict[str, torch.Tensor],
    subject: trained.Trained, curves: Curves, resumes: Sequence[Resume],
) -> None:  # fmt: skip
    trained.keep(output, subject, weights)
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

"""Lightning callbacks: progress, curves, validation, early stopping, checkpoints."""

import signal
import time
from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
import torch
import torch.distributed as dist
from torch import Tensor
from typing_extensions import override

from model.dataset.batches import Batch, SplitReader
from model.program.console import Progress, log
from model.program.errors import Stopped
from model.program.settings import EarlyStopping
from model.training.checkpoints import BackgroundWriter
from model.training.learner import Learner
from model.training.loss import count_right
from model.training.step_log import Resume, StepLog

CURVE_EVERY_STEPS = 10
VALIDATION_IMAGES = 128
VALIDATION_BATCH = 32


class Curves(pl.Callback):
    """Learning curves, early stopping and progress. Its state is saved in every checkpoint."""

    def __init__(
        self,
        validation: SplitReader,
        stopping: EarlyStopping,
        steps: int,
        progress: Progress,
        step_log: StepLog,
    ) -> None:
        self._step_log = step_log
        self._validation, self._stopping, self._steps = validation, stopping, steps
        self._progress = progress
        self._started = time.monotonic(), time.process_time()
        self._spent = (0.0, 0.0)
        self.rows: list[list[float | int | str]] = []
        self.best, self.stale = -1.0, 0
        self._resumes: list[Resume] = []
        self._start_logged = False

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._log_start(trainer)
        if self.stopped_early:  # decided before the checkpoint was written
            trainer.should_stop = True

    @override
    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._log_start(trainer)  # resumed after the last step: on_train_start is not called

    def _log_start(self, trainer: pl.Trainer) -> None:
        if self._start_logged:
            return
        self._start_logged = True
        self._started = time.monotonic(), time.process_time()
        if trainer.is_global_zero:
            resume = self._step_log.start(trainer.global_step, self._resumes)
            self._resumes = self._step_log.resumes
            if resume:
                log(resume.message)

    @property
    def stopped_early(self) -> bool:
        """Decided by what the checkpoints hold, so that a resumed training decides the same."""
        return self.stale >= self._stopping.patience

    @override
    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        learner, step = _learner(pl_module), trainer.global_step
        if (batch.number + 1) % trainer.accumulate_grad_batches:
            return
        if trainer.is_global_zero:
            self._step_log.done(step)
        self._progress.update(
            step, loss=round(float(learner.seen_3[0]), 4), best=max(self.best, 0.0)
        )
        if step % CURVE_EVERY_STEPS == 0:
            loss, right, asked = summed(learner.seen_3).tolist()
            self._write(trainer, "train", step, loss / learner.world, right / asked)
        if step % self._stopping.every_steps == 0 or step == self._steps:
            self._validate(trainer, learner, step)

    def seconds(self) -> tuple[float, float]:
        """Wall-clock and processor seconds spent training, over all restarts."""
        now = time.monotonic(), time.process_time()
        wall, processor = (n - b for n, b in zip(now, self._started, strict=True))
        return self._spent[0] + wall, self._spent[1] + processor

    @override
    def state_dict(self) -> dict[str, Any]:
        return {
            "rows": self.rows, "best": self.best, "stale": self.stale,
            "resumes": [[one.step, one.lost] for one in self._resumes],
            "spent": list(self.seconds()),
        }  # fmt: skip

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows, self.best = list(state_dict["rows"]), state_dict["best"]
        self.stale = state_dict["stale"]
        self._resumes = [Resume(step, lost) for step, lost in state_dict["resumes"]]
        wall, processor = state_dict["spent"]
        self._spent = (wall, processor)

    @property
    def validation_accuracy(self) -> float:
        found = [row[3] for row in self.rows if row[0] == "val"]
        return float(found[-1]) if found else 0.0

    def csv(self) -> str:
        lines = [",".join(map(str, row)) for row in self.rows]
        return "\n".join(["split,step,loss,accuracy", *lines]) + "\n"

    def _validate(self, trainer: pl.Trainer, learner: Learner, step: int) -> None:
        accuracy = validate(learner, self._validation)
        self._write(trainer, "val", step, "", accuracy)
        grown = accuracy > self.best + self._stopping.min_delta
        self.best, self.stale = max(self.best, accuracy), 0 if grown else self.stale + 1
        if self.stopped_early:
            log(f"stopping early at step {step}: no better in {self.stale} validations")
            trainer.should_stop = True

    def _write(
        self, trainer: pl.Trainer, split: str, step: int, loss: float | str, accuracy: float
    ) -> None:
        loss = round(loss, 6) if isinstance(loss, float) else loss
        self.rows.append([split, step, loss, round(accuracy, 4)])
        if trainer.logger and trainer.is_global_zero:
            numbers = {"loss": loss, "accuracy": accuracy}
            kept = {f"{split}/{k}": v for k, v in numbers.items() if isinstance(v, float)}
            try:
                trainer.logger.log_metrics(kept, step)
            except Exception as error:  # what only shows must not end a training
                log(f"Weights & Biases lost the {split} metrics of step {step}: {error}")


class CheckpointSaver(pl.Callback):
    """A checkpoint every `every_s` seconds, and one before leaving on SIGTERM."""

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._saved = time.monotonic()
        self._stop_requested = False

    def catch_sigterm(self) -> None:
        """From now on SIGTERM only sets a flag, which the next step checks."""
        signal.signal(signal.SIGTERM, self._on_sigterm)

    def _on_sigterm(self, _number: int, _frame: Any) -> None:
        self._stop_requested = True

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.catch_sigterm()  # Lightning has put its own handler in between
        self._saved = time.monotonic()

    @override
    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        if (batch.number + 1) % trainer.accumulate_grad_batches:
            return
        due = time.monotonic() - self._saved >= self._every_s and not _writing(trainer)
        due, asked = self._on_any_process(due, pl_module.device)
        if due or asked:
            trainer.save_checkpoint(f"step-{trainer.global_step:08d}")
            self._saved = time.monotonic()
        if asked:
            trainer.strategy.checkpoint_io.teardown()
            raise Stopped(
                f"stopped by SIGTERM at step {trainer.global_step}; a checkpoint is saved",
                do="run the same command again; it resumes from there",
            )

    def _on_any_process(self, due: bool, device: torch.device) -> tuple[bool, bool]:
        """What any process wants, all do: saving is a collective operation."""
        if not dist.is_initialized():
            return due, self._stop_requested
        wish = torch.tensor(
            [due and dist.get_rank() == 0, self._stop_requested],
            dtype=torch.uint8,
            device=device,
        )
        dist.all_reduce(wish, dist.ReduceOp.MAX)
        return bool(wish[0]), bool(wish[1])


def _writing(trainer: pl.Trainer) -> bool:
    """Whether the last checkpoint is still being written."""
    writer = trainer.strategy.checkpoint_io
    return isinstance(writer, BackgroundWriter) and writer.busy


@torch.no_grad()
def validate(learner: Learner, reader: SplitReader) -> float:
    """Accuracy on a fixed choice of validation images, shared out over the processes."""
    stride = max(1, reader.images // VALIDATION_IMAGES)
    chosen = range(0, reader.images, stride)[:VALIDATION_IMAGES]
    counts_2 = torch.zeros(2, device=learner.device)
    learner.network.eval()
    for batch in _parts(reader, chosen, learner.rank, learner.world):
        here = batch.to(learner.device)
        reply = learner.network(here.image_BPP3, here.word_BQL)
        counts_2 += torch.stack(count_right(reply, here))
    learner.network.train()
    right, asked = summed(counts_2).tolist()
    return right / asked


def summed(x: Tensor) -> Tensor:
    """The sum over all processes."""
    x = x.clone()
    if dist.is_initialized():
        dist.all_reduce(x)
    return x


def _parts(reader: SplitReader, images: Sequence[int], rank: int, world: int) -> list[Batch]:
    mine = list(images)[rank::world]
    starts = range(0, len(mine), VALIDATION_BATCH)
    return [reader.read(mine[start : start + VALIDATION_BATCH], 0) for start in starts]


def _learner(module: pl.LightningModule) -> Learner:
    if not isinstance(module, Learner):
        raise TypeError(f"expected a Learner, got {type(module).__name__}")
    return module

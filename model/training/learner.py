"""One training step: the loss and the optimizer. Shape legend: model/network/__init__.py."""

import math
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from typing_extensions import override

from model.dataset.batches import Batch, batch_generator
from model.network.network import Network
from model.pretrained.network import PretrainedNetwork
from model.program.errors import BadInput, Diverged
from model.training.loss import count_right, loss_sum

WARM_UP_STEPS = 20
FINAL_RATE = 0.02  # of the learning rate, after the cosine
DECAY = 0.01


class Learner(pl.LightningModule):
    """The network with its loss. Losses are sums over this process's questions, scaled so
    that the mean over the processes is the mean over all questions of the batch."""

    def __init__(
        self,
        network: Network | PretrainedNetwork,
        *,
        seed: int,
        rate: float,
        steps: int,
        rank: int,
        world: int,
        identity: str,
        fused: bool = True,
    ) -> None:
        super().__init__()
        self.network = network
        self._seed, self._rate, self._steps = seed, rate, steps
        self._identity, self._fused = identity, fused
        self.rank, self.world = rank, world
        self.seen_3 = torch.zeros(3)  # loss, right answers, questions of this process's part

    @override
    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        Q = batch.word_BQL.shape[1]
        drawn = self.network.explore(
            batch.whole_images, Q, batch_generator(self._seed, batch.number)
        )
        mine = drawn.part(self.rank, self.world).to(self.device) if drawn else None
        reply = self.network(batch.image_BPP3, batch.word_BQL, mine)
        total = loss_sum(reply, batch) * (self.world / batch.whole_questions)
        if not torch.isfinite(total.detach()):
            raise Diverged(
                f"the loss of batch {batch.number} is {total.item()}",
                expected="a finite number",
                now="nothing of this step was kept",
                do="lower model.learning_rate or model.gradient_clip",
            )
        self.seen_3 = torch.stack([total.detach(), *count_right(reply, batch)]).float()
        return total

    @override
    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(
            self.parameters(), lr=self._rate, weight_decay=DECAY, fused=self._fused
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self._rate_at)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def _rate_at(self, step: int) -> float:
        """A short warm-up, then a cosine down to `FINAL_RATE`."""
        way = min(1.0, step / self._steps)
        cosine = 0.5 * (1 + math.cos(math.pi * way))
        return min(1.0, (step + 1) / WARM_UP_STEPS) * (FINAL_RATE + (1 - FINAL_RATE) * cosine)

    @override
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["arr_coc_identity"] = self._identity

    @override
    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if checkpoint.get("arr_coc_identity") != self._identity:
            raise BadInput(
                "the checkpoint belongs to another training (other data, seed or settings)",
                expected="checkpoints of this one",
                do="use another output folder, or remove the checkpoints",
            )

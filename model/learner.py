"""One training step: the loss and the optimizer. Shape legend: model/network/__init__.py."""

import math
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.nn import functional
from typing_extensions import override

from model.batches import UNKNOWN, Batch, dice
from model.errors import BadInput, Diverged
from model.looking import looking
from model.network.network import Network, Reply
from model.pretrained.network import PretrainedNetwork

OPPOSITION = 0.05  # weight of keeping every way of knowing in use
POINTING = 0.3  # weight of pointing at what is asked about, where the data knows it
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
        thrown = self.network.explore(batch.whole_images, Q, dice(self._seed, batch.number))
        mine = thrown.part(self.rank, self.world).to(self.device) if thrown else None
        reply = self.network(batch.image_BPP3, batch.word_BQL, mine)
        total = loss_sum(reply, batch) * (self.world / batch.whole_questions)
        if not torch.isfinite(total.detach()):
            raise Diverged(
                f"the loss of batch {batch.number} is {total.item()}",
                expected="a finite number; nothing was kept of this step",
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


def loss_sum(reply: Reply, batch: Batch) -> Tensor:
    """Sum over the questions: answer, opposition, pointing and what the boxes teach."""
    answer = _answers_loss(reply, batch)
    pointing = functional.nll_loss(
        reply.relevance_BQR.flatten(0, 1),
        batch.region_BQ.flatten(),
        ignore_index=UNKNOWN,
        reduction="sum",
    )
    opposition = OPPOSITION * _one_sidedness(reply, batch)
    return answer + POINTING * pointing + looking(reply, batch) + opposition


def _answers_loss(reply: Reply, batch: Batch) -> Tensor:
    """Sum of cross-entropies; where people gave several answers, each weighed by its score.

    So the answer that comes out most likely is the one of the highest expected score.
    """
    if not batch.score_BQJ.shape[-1]:
        return functional.cross_entropy(
            reply.answer_BQA.flatten(0, 1),
            batch.answer_BQ.flatten(),
            ignore_index=UNKNOWN,
            reduction="sum",
        )
    log_BQA = reply.answer_BQA.log_softmax(dim=-1)
    return -(log_BQA.gather(-1, batch.candidate_BQJ.clamp(min=0)) * batch.score_BQJ).sum()


def count_right(reply: Reply, batch: Batch) -> tuple[Tensor, Tensor]:
    """Right answers (scores of the answers, where people gave several) and questions."""
    best_BQ = reply.answer_BQA.argmax(dim=-1)
    if batch.score_BQJ.shape[-1]:
        said_BQJ = batch.candidate_BQJ == best_BQ[..., None]
        return (batch.score_BQJ * said_BQJ).sum(), batch.asked_BQ.sum()
    return ((best_BQ == batch.answer_BQ) & batch.asked_BQ).sum(), batch.asked_BQ.sum()


def _one_sidedness(reply: Reply, batch: Batch) -> Tensor:
    """Divergence of an image's mean weights from equal ones, once per question.

    Within an image, not over the batch: so it does not depend on how a batch is shared out.
    """
    asked_BQ1 = batch.asked_BQ[..., None].float()
    count_B1 = asked_BQ1.sum(dim=1).clamp(min=1)
    mean_BS = (reply.weight_BQS * asked_BQ1).sum(dim=1) / count_B1
    divergence_B = (mean_BS * (mean_BS * mean_BS.shape[-1]).log()).sum(dim=-1)
    return (divergence_B * count_B1.squeeze(-1)).sum()

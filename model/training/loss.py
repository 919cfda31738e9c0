"""The loss of a batch and its right answers. Shape legend: model/network/__init__.py."""

from torch import Tensor
from torch.nn import functional

from model.dataset.batches import UNKNOWN, Batch
from model.network.network import Reply
from model.training.box_losses import box_losses

OPPOSITION = 0.05  # weight of keeping every way of knowing in use
POINTING = 0.3  # weight of pointing at what is asked about, where the data knows it


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
    return answer + POINTING * pointing + box_losses(reply, batch) + opposition


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

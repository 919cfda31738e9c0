"""Losses from the boxes of a data set, for a network that relates: where to look, what counts.

Four terms, each 0 where the data set has no boxes for it. Every published score that used them
says so. Shape legend: model/network/__init__.py.
"""

from torch import Tensor

from model.dataset.batches import Batch
from model.network.allocator import bought
from model.network.levels import cover, edges, offer_of_token
from model.network.network import Reply

FIRST = 0.1  # weight of the first hop's look at what is asked about,
FOUND = 1.0  # of the point that it finds there,
LAST = 0.3  # of the last hop's look at what the answer is about,
COUNTED = 3.0  # and of how much of what the answer counts lies under each token.
COUNT = 0.1  # of the squared error of a count, to that of the amounts which make it up


def box_losses(reply: Reply, batch: Batch) -> Tensor:
    """Sum of all terms over the questions; nothing for a network that does not relate."""
    if reply.found_BQ2 is None or reply.amount_BQT is None:
        return reply.answer_BQA.new_zeros(())
    first_BQT, last_BQT = reply.looked_BQT
    return (
        FIRST * _missing(first_BQT, batch.box_BQ4)
        + FOUND * _astray(reply.found_BQ2, batch.box_BQ4)
        + LAST * _missing(last_BQT, batch.answer_box_BQ4)
        + COUNTED * _miscounted(reply.amount_BQT, reply.level_BQR, batch.counted_BQK4)
    )


def _missing(looked_BQT: Tensor, box_BQ4: Tensor) -> Tensor:
    """Sum of -log of the attention that falls into each box."""
    known_BQ = _known(box_BQ4)
    if not known_BQ.any():
        return looked_BQT.new_zeros(())
    inside_BQ = (looked_BQT * cover(box_BQ4)).sum(dim=-1).clamp(min=1e-6)
    return -(inside_BQ.log() * known_BQ).sum()


def _astray(found_BQ2: Tensor, box_BQ4: Tensor) -> Tensor:
    """Sum of the distances, |x| + |y|, of the points found from the middles of the boxes."""
    middle_BQ2 = (box_BQ4[..., :2] + box_BQ4[..., 2:]) / 2
    return ((found_BQ2 - middle_BQ2).abs().sum(dim=-1) * _known(box_BQ4)).sum()


def _miscounted(amount_BQT: Tensor, level_BQR: Tensor, counted_BQK4: Tensor) -> Tensor:
    """Sum of squared errors of the amounts and of the counts, over the questions that count."""
    counts_BQ = _known(counted_BQK4).any(dim=-1)
    share_NT = counted_shares(counted_BQK4[counts_BQ], level_BQR[counts_BQ])
    wrong_NT = amount_BQT[counts_BQ] - share_NT
    return wrong_NT.square().sum() + COUNT * wrong_NT.sum(dim=-1).square().sum()


def counted_shares(box_NK4: Tensor, level_NR: Tensor) -> Tensor:
    """What part of the boxes of N questions lies under each token that was bought, (N, T).

    Summed over the boxes, so that over all tokens it adds up to their count. Source:
    Lempitsky & Zisserman 2010, "Learning to count objects in images".
    """
    area_NK1 = (box_NK4[..., 2:] - box_NK4[..., :2]).prod(dim=-1)[..., None].clamp(min=1e-6)
    bought_NT = bought(level_NR).to(box_NK4) @ offer_of_token().to(box_NK4)
    under_NKT = cover(box_NK4) * edges().to(box_NK4).square()
    return (under_NKT / area_NK1).sum(dim=1) * bought_NT


def _known(box_BQ4: Tensor) -> Tensor:
    return (box_BQ4[..., 2:] > box_BQ4[..., :2]).all(dim=-1)

"""Opponent processing: which way of knowing to trust for this question, and how sharply.

Three pairs pull against each other, and the question decides where each settles: the
scorers among themselves, focusing on one region against spreading (sharpness), and
exploiting the best region against exploring others (a share of Gumbel noise, in training
only). Shape legend: __init__.py.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

FLOOR = 0.05  # no way of knowing is ever silenced
SHARPNESS = 8.0
EXPLORE_MAX = 2.0


class Balancer(nn.Module):
    def __init__(self, width: int, scorers: int) -> None:
        super().__init__()
        self.weigh = nn.Linear(width, scorers)
        self.sharpen = nn.Linear(width, 1)
        self.explore = nn.Linear(width, 1)
        nn.init.constant_(self.explore.bias, -2.0)

    def forward(
        self, question_BQW: Tensor, scores_BQRS: Tensor, gumbel_BQR: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Log relevance (B, Q, R) and the scorers' weights (B, Q, S); both sum to 1."""
        S = scores_BQRS.shape[-1]
        weight_BQS = FLOOR + (1 - S * FLOOR) * self.weigh(question_BQW).softmax(dim=-1)
        sharpness_BQ1 = SHARPNESS * functional.softplus(self.sharpen(question_BQW) + 0.54)
        relevance_BQR = sharpness_BQ1 * weighted(scores_BQRS, weight_BQS)
        if gumbel_BQR is not None:
            share_BQ1 = EXPLORE_MAX * self.explore(question_BQW).sigmoid()
            relevance_BQR = relevance_BQR + share_BQ1 * gumbel_BQR
        return relevance_BQR.log_softmax(dim=-1), weight_BQS


class EqualWeights(nn.Module):
    """The ablation of the balancer: nothing learned, nothing explored."""

    def forward(
        self, question_BQW: Tensor, scores_BQRS: Tensor, _gumbel_BQR: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        S = scores_BQRS.shape[-1]
        weight_BQS = scores_BQRS.new_full((*question_BQW.shape[:2], S), 1 / S)
        relevance_BQR = SHARPNESS * weighted(scores_BQRS, weight_BQS)
        return relevance_BQR.log_softmax(dim=-1), weight_BQS


def stretched(raw: Tensor) -> Tensor:
    """Scores moved to 0 … 1 over the regions of each image: never over the batch."""
    low, high = raw.amin(dim=-1, keepdim=True), raw.amax(dim=-1, keepdim=True)
    return (raw - low) / (high - low).clamp(min=1e-6)


def weighted(scores_BQRS: Tensor, weight_BQS: Tensor) -> Tensor:
    return (scores_BQRS @ weight_BQS[..., None]).squeeze(-1)


def gumbel(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    uniform = torch.rand(shape, generator=generator).clamp(1e-6, 1 - 1e-6)
    return -(-uniform.log()).log()

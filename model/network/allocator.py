"""The allocator: spends exactly the budget, whatever the relevance looks like.

16 regions cost 1, 4 or 16 tokens each. With one region fine, 64 tokens are spent by
1 × 16 + 11 × 4 + 4 × 1. Shape legend: __init__.py.
"""

import torch
from torch import Tensor, nn

from model.network.levels import COSTS, REGIONS

COARSE, MID, FINE = range(3)


class Allocator(nn.Module):
    """The most relevant regions in full detail, the least relevant ones coarsely."""

    level_by_rank_R: Tensor

    def __init__(self, budget: int, fine: int) -> None:
        super().__init__()
        self.register_buffer("level_by_rank_R", levels_by_rank(budget, fine), persistent=False)

    def forward(self, relevance_BQR: Tensor) -> Tensor:
        """Level of each region, int64 (B, Q, R). Ties go to the region that comes first."""
        order_BQR = relevance_BQR.argsort(dim=-1, descending=True, stable=True)
        level_BQR = torch.empty_like(order_BQR)
        return level_BQR.scatter(-1, order_BQR, self.level_by_rank_R.expand_as(order_BQR))


def levels_by_rank(budget: int, fine: int) -> Tensor:
    """Levels that cost exactly `budget`, from the most relevant region to the least, (R,).

    Raises ValueError if no mixture of levels with `fine` fine regions costs that much.
    """
    mid, rest = divmod(budget - REGIONS - fine * (COSTS[FINE] - 1), COSTS[MID] - 1)
    coarse = REGIONS - fine - mid
    if rest or mid < 0 or coarse < 0 or fine < 0:
        raise ValueError(f"{fine} fine regions and {budget} tokens do not go together")
    return torch.tensor([FINE] * fine + [MID] * mid + [COARSE] * coarse)


def bought(level_BQR: Tensor) -> Tensor:
    """Which offers were bought, bool (B, Q, O): each region at its level, as `levels` says."""
    each_3 = torch.arange(len(COSTS), device=level_BQR.device)
    return (level_BQR[..., None, :] == each_3[:, None]).flatten(-2)

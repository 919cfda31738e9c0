"""Perspectival knowing: what stands out in the picture, whatever the question.

Shape legend: __init__.py.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.network.levels import GRID, REGIONS


class Perspectival(nn.Module):
    """Strength of edges in each region, with a learned weight per direction and colour.

    The step to the next pixel is used, not a central difference: that one is blind to
    stripes of one pixel.
    """

    def __init__(self) -> None:
        super().__init__()
        self.edge_weight = nn.Parameter(torch.zeros(6))

    def forward(self, image_B3PP: Tensor) -> Tensor:
        """Raw scores (B, R): mean absolute step, in units of brightness."""
        edges_BR6 = _edges(image_B3PP)
        return edges_BR6 @ functional.softplus(self.edge_weight)


@torch.no_grad()
def _edges(image_B3PP: Tensor) -> Tensor:
    """Mean absolute horizontal and vertical step by colour, (B, R, 6)."""
    B, P = len(image_B3PP), image_B3PP.shape[-1]
    across = functional.pad(image_B3PP.diff(dim=3).abs(), (0, 1))
    down = functional.pad(image_B3PP.diff(dim=2).abs(), (0, 0, 0, 1))
    pooled = functional.avg_pool2d(torch.cat([across, down], dim=1), P // GRID)
    return pooled.reshape(B, 6, REGIONS).transpose(1, 2)

"""Levels of detail: what the encoder saw, as tokens of a coarse, a mid and a fine grid.

The encoder's patches are averaged to 4 × 4, 8 × 8 and 16 × 16 tokens over the picture: 1, 4
or 16 for each of the 16 regions, as in model/network/levels.py. With 16 patches along an edge
(CLIP ViT-L/14 at 224 pixels, ViT-B/16 of SigLIP at 256) the fine tokens are the patches; with
more, a fine token is the average of its neighbours; with fewer, neighbours share a patch.
Shape legend: __init__.py.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.network.levels import GRID, REGIONS, SIDES, places


class PatchLevels(nn.Module):
    """Takes the encoder's features over into tokens of our own width."""

    place_T2: Tensor
    level_T: Tensor

    def __init__(self, seen: int, width: int) -> None:
        super().__init__()
        self.take = nn.Sequential(
            nn.LayerNorm(seen),
            nn.Linear(seen, 2 * width),
            nn.GELU(),
            nn.Linear(2 * width, width),
        )
        self.level = nn.Embedding(len(SIDES), width)
        self.place = nn.Linear(2, width)
        self.norm = nn.LayerNorm(width)
        level_T = [level for level, side in enumerate(SIDES) for _ in range(REGIONS * side**2)]
        self.register_buffer("place_T2", places(), persistent=False)
        self.register_buffer("level_T", torch.tensor(level_T), persistent=False)

    def forward(self, patch_BTV: Tensor) -> Tensor:
        """Tokens (B, T, W), in the order of model.network.levels.offer_of_token."""
        known_TW = self.place(self.place_T2) + self.level(self.level_T)
        return self.norm(self.take(patch_BTV) + known_TW)


@torch.no_grad()
def pooled(patch_BNNV: Tensor) -> Tensor:
    """The patches averaged to all tokens on offer, (B, T, V): coarse, then mid, then fine."""
    grid_BVNN = patch_BNNV.permute(0, 3, 1, 2)
    parts = [_by_region(functional.adaptive_avg_pool2d(grid_BVNN, GRID * s), s) for s in SIDES]
    return torch.cat(parts, dim=1)


def _by_region(grid_BVNN: Tensor, side: int) -> Tensor:
    """A grid of tokens in the order of its regions, (B, R · side², V)."""
    tiles = grid_BVNN.unflatten(3, (GRID, side)).unflatten(2, (GRID, side))
    return tiles.permute(0, 2, 4, 3, 5, 1).flatten(1, 4)

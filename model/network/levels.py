"""Levels of detail: the same image as tokens at a quarter, half and full resolution.

Every token is a patch of 5 × 5 pixels at its level. A region of 20 × 20 pixels is 1 token
at a quarter of the resolution, 4 at half and 16 at full. Shape legend: __init__.py.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

GRID, PATCH = 4, 5
REGIONS = GRID * GRID
SIDES = (1, 2, 4)  # tokens along the edge of a region: coarse, mid, fine
PIXELS = GRID * PATCH * SIDES[-1]
COSTS = tuple(side * side for side in SIDES)


class Levels(nn.Module):
    """Embeds every token on offer. Neighbours mix only within their region and level.

    So a region's detail cannot leak into the answer through a neighbour that was bought.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embed = nn.Sequential(
            nn.Linear(2 * 3 * PATCH * PATCH, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        self.cells = nn.ParameterList(torch.randn(cost, width) * 0.1 for cost in COSTS)
        self.place = nn.Linear(2, width)
        self.mixes = nn.ModuleList(NeighbourMix(width, cost) for cost in COSTS)
        self.norm = nn.LayerNorm(width)

    def forward(self, image_B3PP: Tensor) -> Tensor:
        """Tokens (B, T, W), in the order of `region_of_token`."""
        offered = []
        for level, side in enumerate(SIDES):
            x = self.embed(_colour_and_form(_patches(image_B3PP, side))) + self.cells[level]
            offered.append(self.mixes[level](x).flatten(1, 2))
        place_T2 = places().to(image_B3PP)
        return self.norm(torch.cat(offered, dim=1) + self.place(place_T2))


class NeighbourMix(nn.Module):
    """Tokens of one region exchange what they saw, then each thinks about it.

    Source: Tolstikhin et al. 2021, "MLP-Mixer", here within a region.
    """

    def __init__(self, width: int, tokens: int) -> None:
        super().__init__()
        self.across_norm, self.norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.across = nn.Sequential(
            nn.Linear(tokens, 2 * tokens), nn.GELU(), nn.Linear(2 * tokens, tokens)
        )
        self.think = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, x_BRCW: Tensor) -> Tensor:
        x_BRCW = x_BRCW + self.across(self.across_norm(x_BRCW).transpose(2, 3)).transpose(2, 3)
        return x_BRCW + self.think(self.norm(x_BRCW))


def region_of_token() -> Tensor:
    """Region of each token on offer, int64 (T,): all coarse ones, then mid, then fine."""
    return torch.cat([torch.arange(REGIONS).repeat_interleave(cost) for cost in COSTS])


def level_of_token() -> Tensor:
    """Level of each token on offer, int64 (T,): 0 coarse, 1 mid, 2 fine."""
    costs = torch.tensor(COSTS)
    return torch.arange(len(COSTS)).repeat_interleave(REGIONS * costs)


def places() -> Tensor:
    """Centre of each token, (T, 2): x and y from -1 to 1."""
    centres = []
    for side in SIDES:
        line = (2 * torch.arange(GRID * side) + 1) / (GRID * side) - 1
        y, x = torch.meshgrid(line, line, indexing="ij")
        centres.append(_by_region(torch.stack([x, y], dim=-1)[None], side)[0].flatten(0, 1))
    return torch.cat(centres)


def region_places() -> Tensor:
    """Centre of each region, (R, 2): x and y from -1 to 1."""
    return places()[:REGIONS]


def shrink(image_B3PP: Tensor, factor: int) -> Tensor:
    """Average over squares of `factor` pixels."""
    return image_B3PP if factor == 1 else functional.avg_pool2d(image_B3PP, factor)


def _patches(image_B3PP: Tensor, side: int) -> Tensor:
    """Pixels of each token at this level, (B, R, side², 75)."""
    B = len(image_B3PP)
    small = shrink(image_B3PP, SIDES[-1] // side)
    n = GRID * side
    tiles = small.reshape(B, 3, n, PATCH, n, PATCH).permute(0, 2, 4, 1, 3, 5)
    return _by_region(tiles.reshape(B, n, n, 3 * PATCH * PATCH), side)


def _colour_and_form(patch_BRCX: Tensor) -> Tensor:
    """The pixels as they are, and again with brightness and contrast taken out."""
    form_BRCX = functional.layer_norm(patch_BRCX, patch_BRCX.shape[-1:], eps=1e-3)
    return torch.cat([patch_BRCX, form_BRCX], dim=-1)


def _by_region(grid_BNNX: Tensor, side: int) -> Tensor:
    """A grid of tokens, regrouped by region: (B, R, side², X)."""
    B, X = grid_BNNX.shape[0], grid_BNNX.shape[-1]
    split = grid_BNNX.reshape(B, GRID, side, GRID, side, X).permute(0, 1, 3, 2, 4, 5)
    return split.reshape(B, REGIONS, side * side, X)

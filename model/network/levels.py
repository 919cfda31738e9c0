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
    """Embeds the tokens that were bought. Neighbours mix only within their region and level.

    So a region's detail cannot leak into the answer through a neighbour that was bought.
    """

    place_T2: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.colour = nn.Linear(3 * PATCH * PATCH, 2 * width)
        self.form = nn.Linear(3 * PATCH * PATCH, 2 * width, bias=False)
        self.embed = nn.Sequential(nn.GELU(), nn.Linear(2 * width, width))
        self.cells = nn.ParameterList(torch.randn(cost, width) * 0.1 for cost in COSTS)
        self.place = nn.Linear(2, width)
        self.mixes = nn.ModuleList(NeighbourMix(width, cost) for cost in COSTS)
        self.norm = nn.LayerNorm(width)
        self.register_buffer("place_T2", places(), persistent=False)

    def forward(self, image_B3PP: Tensor, wanted_BO: Tensor) -> Tensor:
        """Tokens (B, T, W), in the order of `offer_of_token`.

        Only the offers in `wanted_BO` are looked at, which is what saves the work; the
        tokens of all others are zero.
        """
        place_LRC2 = _by_level(self.place_T2)
        tokens = []
        for level, wanted_BR in enumerate(wanted_BO.chunk(len(SIDES), dim=1)):
            patch_BRCX = _patches(image_B3PP, SIDES[level])
            place_NC2 = place_LRC2[level].expand(len(image_B3PP), -1, -1, -1)[wanted_BR]
            token_NCW = self._look(patch_BRCX[wanted_BR], place_NC2, level)
            token_BRCW = token_NCW.new_zeros((*patch_BRCX.shape[:3], token_NCW.shape[-1]))
            tokens.append(token_BRCW.index_put((wanted_BR,), token_NCW).flatten(1, 2))
        return torch.cat(tokens, dim=1)

    def _look(self, patch_NCX: Tensor, place_NC2: Tensor, level: int) -> Tensor:
        """Tokens (N, C, W) of N regions, all at one level."""
        # the pixels as they are, and with brightness and contrast taken out
        form_NCX = functional.layer_norm(patch_NCX, patch_NCX.shape[-1:], eps=1e-3)
        seen_NCW = self.embed(self.colour(patch_NCX) + self.form(form_NCX))
        mixed_NCW = self.mixes[level](seen_NCW + self.cells[level])
        return self.norm(mixed_NCW + self.place(place_NC2))


class NeighbourMix(nn.Module):
    """Tokens of one region exchange what they saw, then each thinks about it.

    The last bias of `across` has no effect: it is one number for all features of a token, which
    every later norm takes out again. It stays because trained models hold it.

    Source: Tolstikhin et al. 2021, "MLP-Mixer", here within a region.
    """

    def __init__(self, width: int, tokens: int) -> None:
        super().__init__()
        self.across_norm, self.norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.across = nn.Sequential(
            nn.Linear(tokens, 2 * tokens), nn.GELU(), nn.Linear(2 * tokens, tokens)
        )
        self.think = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, x_NCW: Tensor) -> Tensor:
        x_NCW = x_NCW + self.across(self.across_norm(x_NCW).transpose(1, 2)).transpose(1, 2)
        return x_NCW + self.think(self.norm(x_NCW))


def cover(box_BQ4: Tensor) -> Tensor:
    """How much of each token lies in a box, (B, Q, T) from 0 to 1; boxes from -1 to 1."""
    edge_T1, place_T2 = edges()[:, None].to(box_BQ4), places().to(box_BQ4)
    low = torch.maximum(box_BQ4[..., None, :2], place_T2 - edge_T1 / 2)
    high = torch.minimum(box_BQ4[..., None, 2:], place_T2 + edge_T1 / 2)
    return (high - low).clamp(min=0).prod(dim=-1) / edge_T1.squeeze(1).square()


def edges() -> Tensor:
    """Length of the edge of each token, (T,), where the picture goes from -1 to 1."""
    return torch.cat([torch.full((REGIONS * side**2,), 2 / (GRID * side)) for side in SIDES])


def offer_of_token() -> Tensor:
    """Which offer (a region at a level) each token belongs to, (O, T) of 0 and 1.

    Offers and tokens stand in the same order: all regions coarse, then mid, then fine.
    """
    offers = torch.arange(len(COSTS) * REGIONS)
    costs = torch.tensor(COSTS).repeat_interleave(REGIONS)
    return (offers[:, None] == offers.repeat_interleave(costs)).float()


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


def _by_level(place_T2: Tensor) -> list[Tensor]:
    """The same by level: (R, C, 2) each."""
    parts = place_T2.split([REGIONS * cost for cost in COSTS])
    return [part.reshape(REGIONS, cost, 2) for part, cost in zip(parts, COSTS, strict=True)]


def _by_region(grid_BNNX: Tensor, side: int) -> Tensor:
    """A grid of tokens, regrouped by region: (B, R, side², X)."""
    B, X = grid_BNNX.shape[0], grid_BNNX.shape[-1]
    split = grid_BNNX.reshape(B, GRID, side, GRID, side, X).permute(0, 1, 3, 2, 4, 5)
    return split.reshape(B, REGIONS, side * side, X)

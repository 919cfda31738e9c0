"""Propositional knowing: how much information a region holds, whatever the question.

Shape legend: __init__.py.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.network.levels import GRID, REGIONS

BINS = 32
LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R BT.601


class Propositional(nn.Module):
    """Shannon entropy of the brightness in each region, with a learned weight per bin."""

    def __init__(self) -> None:
        super().__init__()
        self.bin_weight = nn.Parameter(torch.zeros(BINS))

    def forward(self, image_B3PP: Tensor) -> Tensor:
        """Raw scores (B, R), in bits where the weights are still 1."""
        share_BRK = _histogram(image_B3PP)
        bits_BRK = -share_BRK * share_BRK.clamp(min=1e-9).log2()
        weight_K = functional.softplus(self.bin_weight) / functional.softplus(torch.zeros(()))
        return bits_BRK.to(weight_K) @ weight_K


@torch.no_grad()
def _histogram(image_B3PP: Tensor) -> Tensor:
    """Share of each brightness bin in each region, (B, R, bins)."""
    B, P = len(image_B3PP), image_B3PP.shape[-1]
    edge = P // GRID
    red, green, blue = image_B3PP.float().unbind(1)
    light = LUMINANCE[0] * red + LUMINANCE[1] * green + LUMINANCE[2] * blue
    bin_BPP = (light * BINS).long().clamp(0, BINS - 1)
    bins = bin_BPP.reshape(B, GRID, edge, GRID, edge).transpose(2, 3).reshape(B * REGIONS, -1)
    first = BINS * torch.arange(B * REGIONS, device=bins.device)
    counts = torch.bincount((bins + first[:, None]).flatten(), minlength=B * REGIONS * BINS)
    return counts.reshape(B, REGIONS, BINS) / edge**2

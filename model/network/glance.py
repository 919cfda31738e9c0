"""The glance: how the whole picture looks at a quarter of its resolution.

Tells each token what lies around it, also beyond its region; what vanishes at a quarter of
the resolution it cannot tell, so that detail is still had only where it was bought. Like
the scorers, it is not counted as tokens. Shape legend: __init__.py.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.network.levels import SIDES, places, shrink

REACHES = (1, 1, 2, 4)  # dilations; the last layer sees two thirds of the picture


class Glance(nn.Module):
    """Depthwise-separable convolutions over colour and place, read at each token's centre."""

    place_T2: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.look = nn.Conv2d(5, width, 3, padding=1)
        self.around = nn.ModuleList(_around(width, reach) for reach in REACHES)
        self.tell = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.register_buffer("place_T2", places(), persistent=False)

    def forward(self, image_B3PP: Tensor, token_BTW: Tensor) -> Tensor:
        """The tokens, each with what is around it (B, T, W)."""
        small = shrink(image_B3PP, SIDES[-1])
        seen = torch.cat([small, _where(small)], dim=1)
        seen = functional.gelu(self.look(seen))
        for around in self.around:
            seen = seen + around(seen)
        at_BT2 = self._cells(small.shape[-1]).expand(len(small), -1)
        told_BTW = (
            seen.flatten(2)
            .transpose(1, 2)
            .gather(1, at_BT2[..., None].expand(-1, -1, seen.shape[1]))
        )
        return self.norm(token_BTW + self.tell(told_BTW))

    def _cells(self, n: int) -> Tensor:
        """The pixel of the small picture over which each token's centre lies, (T,)."""
        cell_T2 = ((self.place_T2 + 1) / 2 * n).long()
        return cell_T2[:, 1] * n + cell_T2[:, 0]


def _around(width: int, reach: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(width, width, 3, padding=reach, dilation=reach, groups=width),
        nn.Conv2d(width, 2 * width, 1),
        nn.GELU(),
        nn.Conv2d(2 * width, width, 1),
    )


def _where(small_B3NN: Tensor) -> Tensor:
    """x and y of each pixel from -1 to 1, (B, 2, N, N)."""
    n = small_B3NN.shape[-1]
    line_N = (2 * torch.arange(n, device=small_B3NN.device) + 1) / n - 1
    y_NN, x_NN = torch.meshgrid(line_N, line_N, indexing="ij")
    return torch.stack([x_NN, y_NN]).expand(len(small_B3NN), -1, -1, -1).to(small_B3NN)

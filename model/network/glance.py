"""The glance: how the whole picture looks at a quarter of its resolution.

Tells each token what lies around it, also beyond its region, and where the middle of what it
shows is; what vanishes at a quarter of the resolution it cannot tell, so that detail is still
had only where it was bought. Like the scorers, it is not counted as tokens. Shape legend:
__init__.py.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.network.levels import SIDES, places, shrink

REACHES = (1, 1, 2, 4, 1)  # dilations; together they see most of the picture
FAR = 0.5  # how far from its centre a token may point; the picture goes from -1 to 1


class Glance(nn.Module):
    """Convolutions over colour and place, read at each token's centre."""

    place_T2: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        self.look = nn.Conv2d(5, half, 3, padding=1)
        self.around = nn.ModuleList(
            nn.Conv2d(half, half, 3, padding=reach, dilation=reach) for reach in REACHES
        )
        self.tell = nn.Linear(half, width)
        self.norm = nn.LayerNorm(width)
        self.point = nn.Linear(width, 2)
        self.register_buffer("place_T2", places(), persistent=False)

    def forward(self, image_B3PP: Tensor, token_BTW: Tensor) -> tuple[Tensor, Tensor]:
        """The tokens with what is around them (B, T, W), and where each points (B, T, 2)."""
        small = shrink(image_B3PP, SIDES[-1])
        seen = functional.gelu(self.look(torch.cat([small, _where(small)], dim=1)))
        for around in self.around:
            seen = seen + functional.gelu(around(seen))
        at_BT1 = self._cells(small.shape[-1]).expand(len(small), -1)[..., None]
        seen_BNX = seen.flatten(2).transpose(1, 2)
        told_BTX = seen_BNX.gather(1, at_BT1.expand(-1, -1, seen_BNX.shape[-1]))
        token_BTW = self.norm(token_BTW + self.tell(told_BTX))
        return token_BTW, self.place_T2 + FAR * self.point(token_BTW).tanh()

    def _cells(self, n: int) -> Tensor:
        """The pixel of the small picture over which each token's centre lies, (T,)."""
        cell_T2 = ((self.place_T2 + 1) / 2 * n).long()
        return cell_T2[:, 1] * n + cell_T2[:, 0]


def _where(small_B3NN: Tensor) -> Tensor:
    """x and y of each pixel from -1 to 1, (B, 2, N, N)."""
    n = small_B3NN.shape[-1]
    line_N = (2 * torch.arange(n, device=small_B3NN.device) + 1) / n - 1
    y_NN, x_NN = torch.meshgrid(line_N, line_N, indexing="ij")
    return torch.stack([x_NN, y_NN]).expand(len(small_B3NN), -1, -1, -1).to(small_B3NN)

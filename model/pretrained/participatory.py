"""Participatory knowing: how what the encoder saw in a region and the question belong together.

Shape legend: __init__.py.
"""

from torch import Tensor, nn
from torch.nn import functional

from model.network.levels import region_places


class PatchParticipatory(nn.Module):
    """Cosine between the question and a region's average patch and position."""

    place_R2: Tensor

    def __init__(self, seen: int, width: int) -> None:
        super().__init__()
        self.look = nn.Sequential(nn.LayerNorm(seen), nn.Linear(seen, width))
        self.place = nn.Linear(2, width)
        self.key = nn.Linear(width, width // 2)
        self.ask = nn.Linear(width, width // 2)
        self.register_buffer("place_R2", region_places(), persistent=False)

    def forward(self, coarse_BRV: Tensor, question_BQW: Tensor) -> Tensor:
        """Raw scores (B, Q, R) from -1 to 1."""
        seen_BRW = functional.gelu(self.look(coarse_BRV) + self.place(self.place_R2))
        key_BRD = functional.normalize(self.key(seen_BRW), dim=-1)
        ask_BQD = functional.normalize(self.ask(question_BQW), dim=-1)
        return ask_BQD @ key_BRD.transpose(1, 2)

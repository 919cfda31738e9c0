"""The count head: how many things are like the one that was found first.

Attention tells what a thing is like, never how many there are: its shares sum to 1. Here each
token that was bought says what amount of it lies under itself, and the amounts are summed.
Shape legend: __init__.py.
"""

import torch
from torch import Tensor, nn

COUNTS = 10  # counts 0 to 9 are told apart
SHARP = 2.0


class CountHead(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.ask = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width))
        self.key = nn.Linear(width, width)
        self.take = nn.Linear(COUNTS + 1, width)
        nn.init.normal_(self.key.weight, std=0.03)  # else the first counts are in the hundreds

    def forward(
        self, state_BQW: Tensor, found_BQW: Tensor, token_BTW: Tensor, bought_BQT: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The new state (B, Q, W), and the amount under each token, (B, Q, T).

        `found_BQW` is what the first hop saw. It and the tokens have one key, so that what is
        alike attracts from the first step on.
        """
        ask_BQW = (self.ask(state_BQW) + self.key(found_BQW)) / state_BQW.shape[-1]
        amount_BQT = ask_BQW @ self.key(token_BTW).transpose(1, 2) * bought_BQT
        each_C = torch.arange(COUNTS, device=amount_BQT.device)
        count_BQ1 = amount_BQT.sum(dim=-1, keepdim=True)
        near_BQC = (-SHARP * (count_BQ1 - each_C).square()).softmax(dim=-1)
        told_BQW = self.take(torch.cat([near_BQC, count_BQ1 / COUNTS], dim=-1))
        return state_BQW + told_BQW, amount_BQT

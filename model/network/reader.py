"""The reader: answers from the tokens that were bought, in three hops of attention.

The question looks at the tokens, takes along what it saw and looks again. Relevance enters
twice, which is how the gradient of the answer reaches the scorers: as a bias towards tokens
of relevant regions, and through the gist (the average of the regions, weighted by
relevance) and the distance to it. Shape legend: __init__.py.
"""

import torch
from torch import Tensor, nn

from model.network.levels import places, region_of_token, region_places

HEADS, HOPS = 4, 3


class Reader(nn.Module):
    """`gist` False leaves out the gist and the distances (ablation no-participatory)."""

    def __init__(self, width: int, answers: int, *, gist: bool) -> None:
        super().__init__()
        self.gist = nn.Linear(width, width) if gist else None
        self.hops = nn.ModuleList(Hop(width, near=gist) for _ in range(HOPS))
        self.answer = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 2 * width),
            nn.GELU(),
            nn.Linear(2 * width, answers),
        )

    def forward(
        self, question_BQW: Tensor, token_BTW: Tensor, bought_BQT: Tensor, relevance_BQR: Tensor
    ) -> Tensor:
        """Logits of the answers (B, Q, A); `relevance_BQR` is in logs.

        A token that was not bought gets a weight of exactly zero.
        """
        state_BQW, distance_BQT = question_BQW, None
        if self.gist is not None:
            share_BQR = relevance_BQR.exp()
            coarse_BRW = token_BTW[:, : share_BQR.shape[-1]]
            state_BQW = state_BQW + self.gist(share_BQR @ coarse_BRW)
            distance_BQT = _distance(share_BQR)
        bias_BQT = relevance_BQR[..., region_of_token().to(relevance_BQR.device)]
        for hop in self.hops:
            state_BQW = hop(state_BQW, token_BTW, bought_BQT, bias_BQT, distance_BQT)
        return self.answer(state_BQW)


class Hop(nn.Module):
    """One look: attention from the question's state to the tokens, then a small network."""

    def __init__(self, width: int, *, near: bool) -> None:
        super().__init__()
        self.ask = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width))
        self.key_value = nn.Linear(width, 2 * width)
        self.take = nn.Linear(width, width)
        self.trust = nn.Parameter(torch.full((HEADS, 1, 1), 0.5))
        self.near = nn.Linear(width, HEADS) if near else None
        self.think = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 2 * width),
            nn.GELU(),
            nn.Linear(2 * width, width),
        )

    def forward(
        self,
        state_BQW: Tensor,
        token_BTW: Tensor,
        bought_BQT: Tensor,
        bias_BQT: Tensor,
        distance_BQT: Tensor | None,
    ) -> Tensor:
        key_BHTD, value_BHTD = (_heads(x) for x in self.key_value(token_BTW).chunk(2, dim=-1))
        ask_BHQD = _heads(self.ask(state_BQW))
        logit_BHQT = ask_BHQD @ key_BHTD.transpose(2, 3) * ask_BHQD.shape[-1] ** -0.5
        logit_BHQT = logit_BHQT + self.trust * bias_BQT[:, None]
        if self.near is not None and distance_BQT is not None:
            near_BHQ1 = self.near(state_BQW).transpose(1, 2)[..., None]
            logit_BHQT = logit_BHQT - near_BHQ1 * distance_BQT[:, None]
        share_BHQT = logit_BHQT.masked_fill(~bought_BQT[:, None], -torch.inf).softmax(dim=-1)
        seen_BQW = (share_BHQT @ value_BHTD).transpose(1, 2).flatten(2)
        state_BQW = state_BQW + self.take(seen_BQW)
        return state_BQW + self.think(state_BQW)


def _heads(x_BNW: Tensor) -> Tensor:
    return x_BNW.unflatten(-1, (HEADS, -1)).transpose(1, 2)


def _distance(share_BQR: Tensor) -> Tensor:
    """Squared distance of each token from where the relevance is centred, (B, Q, T)."""
    centre_BQ2 = share_BQR @ region_places().to(share_BQR)
    return (places().to(share_BQR) - centre_BQ2[..., None, :]).square().sum(dim=-1)

"""The reader: answers from the tokens that were bought, in three hops of attention.

The question looks at the tokens, takes along what it saw and looks again. Relevance enters
twice, which is how the gradient of the answer reaches the scorers: as a bias towards tokens
of relevant regions, and through the gist (the average of the regions, weighted by
relevance) and the distance to it. Shape legend: __init__.py, and

    O  offers: a region at a level (48)       D  features of a head
    F  facts of a token: its offer, x, y and x² + y² (51)
"""

import torch
from torch import Tensor, nn

from model.network.levels import offer_of_token, places, region_places

HEADS, HOPS = 4, 3
NOT_BOUGHT = -1e4  # added to a logit: its share is exactly zero, in half precision too


class Reader(nn.Module):
    """`gist` False leaves out the gist and the distances (ablation no-participatory)."""

    fact_FT: Tensor
    place_R2: Tensor

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
        self.register_buffer("fact_FT", facts(), persistent=False)
        self.register_buffer("place_R2", region_places(), persistent=False)

    def forward(
        self, question_BQW: Tensor, token_BTW: Tensor, bought_BQO: Tensor, relevance_BQR: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """Logits of the answers (B, Q, A), and where each hop looked (B, Q, T each).

        `relevance_BQR` is in logs. A token that was not bought gets a share of exactly zero.
        """
        state_BQW, centre_BQ2 = question_BQW, None
        if self.gist is not None:
            share_BQR = relevance_BQR.exp()
            coarse_BRW = token_BTW[:, : share_BQR.shape[-1]]
            state_BQW = state_BQW + self.gist(share_BQR @ coarse_BRW)
            centre_BQ2 = share_BQR @ self.place_R2.to(share_BQR)
        levels = bought_BQO.shape[-1] // relevance_BQR.shape[-1]
        relevance_BQO = relevance_BQR.repeat(1, 1, levels)
        shares = []
        for hop in self.hops:
            state_BQW, share_BHQT = hop(
                state_BQW, token_BTW, bought_BQO, relevance_BQO, centre_BQ2, self.fact_FT
            )
            shares.append(share_BHQT.mean(dim=1))
        return self.answer(state_BQW), shares


class Hop(nn.Module):
    """One look: attention from the question's state to the tokens, then a small network.

    What is added to the logits depends on a token only through its facts, so it is one
    small matrix product: no array of questions times tokens is made but the logits.
    """

    def __init__(self, width: int, *, near: bool) -> None:
        super().__init__()
        self.ask = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width))
        self.key, self.value = nn.Linear(width, width, bias=False), nn.Linear(width, width)
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
        bought_BQO: Tensor,
        relevance_BQO: Tensor,
        centre_BQ2: Tensor | None,
        fact_FT: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """The new state (B, Q, W), and each token's share (B, H, Q, T)."""
        bias_BHQF = self._bias(state_BQW, bought_BQO, relevance_BQO, centre_BQ2)
        bias_BHQT = bias_BHQF @ fact_FT[: bias_BHQF.shape[-1]].to(bias_BHQF)
        key_BHTD, value_BHTD = _heads(self.key(token_BTW)), _heads(self.value(token_BTW))
        ask_BHQD = _heads(self.ask(state_BQW))
        ask_BHQD = ask_BHQD * ask_BHQD.shape[-1] ** -0.5
        share_BHQT = (ask_BHQD @ key_BHTD.transpose(2, 3) + bias_BHQT).softmax(dim=-1)
        seen_BQW = (share_BHQT @ value_BHTD).transpose(1, 2).flatten(2)
        state_BQW = state_BQW + self.take(seen_BQW)
        return state_BQW + self.think(state_BQW), share_BHQT

    def _bias(
        self,
        state_BQW: Tensor,
        bought_BQO: Tensor,
        relevance_BQO: Tensor,
        centre_BQ2: Tensor | None,
    ) -> Tensor:
        """What each fact adds to the logits, (B, H, Q, F).

        Closeness to the centre c is -|p - c|² = 2 c·p - |p|² less a number that is the same
        for every token and leaves their shares as they are.
        """
        bias_BHQO = self.trust * relevance_BQO[:, None]
        bias_BHQO = bias_BHQO.masked_fill(~bought_BQO[:, None], NOT_BOUGHT)
        if self.near is None or centre_BQ2 is None:
            return bias_BHQO
        near_BHQ1 = self.near(state_BQW).transpose(1, 2)[..., None]
        pull_BHQ2 = 2 * near_BHQ1 * centre_BQ2[:, None]
        return torch.cat([bias_BHQO, pull_BHQ2, -near_BHQ1], dim=-1)


def facts() -> Tensor:
    """What is known of each token before looking, (F, T)."""
    place_2T = places().T
    return torch.cat([offer_of_token(), place_2T, place_2T.square().sum(dim=0, keepdim=True)])


def _heads(x_BNW: Tensor) -> Tensor:
    return x_BNW.unflatten(-1, (HEADS, -1)).transpose(1, 2)

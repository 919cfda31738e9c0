"""The reader: answers from the tokens that were bought, in three hops of attention.

The question looks at the tokens, takes along what it saw and looks again. Relevance enters
twice, which is how the gradient of the answer reaches the scorers: as a bias towards tokens
of relevant regions, and through the gist (the average of the regions, weighted by
relevance) and the distance to it.

Where the tokens tell what point they show (glance.py), the reader relates: each hop also
knows the distance to every point that a hop before it found, and a head counts (count_head.py).
Shape legend: __init__.py, and

    O  offers: a region at a level (48)       D  features of a head
    F  facts of a token: its offer, x, y and x² + y² (51)
    K  points that a hop knows the distance to
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from model.network.count_head import CountHead
from model.network.levels import offer_of_token, places, region_places

HEADS, HOPS = 4, 3
NOT_BOUGHT = -1e4  # added to a logit: its share is exactly zero, in half precision too
STEEP = 8.0  # how fast a hop that relates learns to tell distances apart


@dataclass(frozen=True)
class Reading:
    """`looked_BQT` are the shares of the tokens in the first and the last hop.

    For a reader that relates also where the first hop found what it looked for, and how much
    of what the answer counts lies under each token.
    """

    answer_BQA: Tensor  # logits
    looked_BQT: tuple[Tensor, Tensor]
    found_BQ2: Tensor | None
    amount_BQT: Tensor | None


class Reader(nn.Module):
    """`gist` False leaves out the gist and all distances (ablation no-participatory)."""

    fact_FT: Tensor
    place_R2: Tensor

    def __init__(self, width: int, answers: int, *, gist: bool, relates: bool = False) -> None:
        super().__init__()
        self.gist = nn.Linear(width, width) if gist else None
        self.hops = nn.ModuleList(
            Hop(width, known=gist * (1 + relates * hop), steep=STEEP if relates else 1.0)
            for hop in range(HOPS)
        )
        self.where = nn.Linear(2, width) if relates else None
        self.tally = CountHead(width) if relates else None
        self.answer = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 2 * width),
            nn.GELU(),
            nn.Linear(2 * width, answers),
        )
        self.register_buffer("fact_FT", facts(places()[None])[0], persistent=False)
        self.register_buffer("place_R2", region_places(), persistent=False)

    def forward(
        self,
        question_BQW: Tensor,
        token_BTW: Tensor,
        bought_BQO: Tensor,
        relevance_BQR: Tensor,
        point_BT2: Tensor | None = None,
    ) -> Reading:
        """Answer, and tell where the hops looked.

        `relevance_BQR` is in logs. A token that was not bought gets a share of exactly zero.
        `point_BT2` is for a reader that relates.
        """
        state_BQW, known = question_BQW, []
        if self.gist is not None:
            share_BQR = relevance_BQR.exp()
            coarse_BRW = token_BTW[:, : share_BQR.shape[-1]]
            state_BQW = state_BQW + self.gist(share_BQR @ coarse_BRW)
            known.append(share_BQR @ self.place_R2.to(share_BQR))
        levels = bought_BQO.shape[-1] // relevance_BQR.shape[-1]
        relevance_BQO = relevance_BQR.repeat(1, 1, levels)
        fact_FT = self.fact_FT if point_BT2 is None else facts(point_BT2)[:, None]
        shares, found = [], []
        for hop in self.hops:
            state_BQW, share_BHQT = hop(
                state_BQW, token_BTW, bought_BQO, relevance_BQO, known, fact_FT
            )
            shares.append(share_BHQT.mean(dim=1))
            if self.where is not None and point_BT2 is not None:
                found.append(shares[-1] @ point_BT2)
                known = [*known, found[-1]]
                state_BQW = state_BQW + self.where(found[-1])
        amount_BQT = None
        if self.tally is not None:
            bought_BQT = bought_BQO.to(token_BTW) @ self.fact_FT[: bought_BQO.shape[-1]]
            state_BQW, amount_BQT = self.tally(
                state_BQW, shares[0] @ token_BTW, token_BTW, bought_BQT
            )
        looked = shares[0], shares[-1]
        return Reading(self.answer(state_BQW), looked, found[0] if found else None, amount_BQT)


class Hop(nn.Module):
    """One look: attention from the question's state to the tokens, then a small network.

    What is added to the logits depends on a token only through its facts, so it is one
    small matrix product: no array of questions times tokens is made but the logits.
    """

    def __init__(self, width: int, *, known: int, steep: float) -> None:
        super().__init__()
        self.ask = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width))
        self.key, self.value = nn.Linear(width, width, bias=False), nn.Linear(width, width)
        self.take = nn.Linear(width, width)
        self.trust = nn.Parameter(torch.full((HEADS, 1, 1), 0.5))
        self.near = nn.Linear(width, HEADS * known) if known else None
        self.steep = steep
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
        known: list[Tensor],
        fact_FT: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """The new state (B, Q, W), and each token's share (B, H, Q, T).

        `known` are points (B, Q, 2); `fact_FT` may be (B, 1, F, T).
        """
        bias_BHQF = self._bias(state_BQW, bought_BQO, relevance_BQO, known)
        bias_BHQT = bias_BHQF @ fact_FT[..., : bias_BHQF.shape[-1], :].to(bias_BHQF)
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
        known: list[Tensor],
    ) -> Tensor:
        """What each fact adds to the logits, (B, H, Q, F).

        Closeness to a point c is -|p - c|² = 2 c·p - |p|² less a number that is the same for
        every token and leaves their shares as they are.
        """
        bias_BHQO = self.trust * relevance_BQO[:, None]
        bias_BHQO = bias_BHQO.masked_fill(~bought_BQO[:, None], NOT_BOUGHT)
        if self.near is None:
            return bias_BHQO
        near_BHQK = self.steep * _heads(self.near(state_BQW))
        known_BQK2 = torch.stack(known, dim=2)
        pull_BHQ2 = 2 * (near_BHQK[..., None] * known_BQK2[:, None]).sum(dim=-2)
        return torch.cat([bias_BHQO, pull_BHQ2, -near_BHQK.sum(-1, keepdim=True)], dim=-1)


def facts(point_BT2: Tensor) -> Tensor:
    """What is known of each token before looking, (B, F, T)."""
    offer_BOT = offer_of_token().to(point_BT2).expand(len(point_BT2), -1, -1)
    square_BT1 = point_BT2.square().sum(dim=-1, keepdim=True)
    return torch.cat([offer_BOT, torch.cat([point_BT2, square_BT1], dim=-1).mT], dim=1)


def _heads(x_BNW: Tensor) -> Tensor:
    return x_BNW.unflatten(-1, (HEADS, -1)).transpose(1, 2)

"""The whole network, from pixels and words to answers. Shape legend: __init__.py."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from model.network.allocator import MID, Allocator, bought
from model.network.balancer import Balancer, EqualWeights, gumbel, stretched
from model.network.glance import Glance
from model.network.levels import REGIONS, Levels
from model.network.participatory import Participatory
from model.network.perspectival import Perspectival
from model.network.propositional import Propositional
from model.network.reader import Reader

BUDGET, FINE_REGIONS = 64, 1
ONE_WAY = 0.3  # share of the questions that training allocates by one scorer alone

Ablation = Literal[
    "none",
    "no-propositional",
    "no-perspectival",
    "no-participatory",
    "uniform-lod",
    "no-opponent-processing",
]


@dataclass(frozen=True)
class Sizes:
    """All that is needed to build the network before its weights are loaded."""

    width: int
    words: int
    answers: int
    ablation: Ablation
    glance: bool = False


@dataclass(frozen=True)
class Exploration:
    """The dice of one training step, drawn outside: the network itself is a function.

    `way_BQ` is the scorer that alone allocates a question, or -1.
    """

    gumbel_BQR: Tensor
    way_BQ: Tensor

    def part(self, start: int, step: int) -> "Exploration":
        """Every `step`-th image from `start`: one process's part of the global batch."""
        return Exploration(self.gumbel_BQR[start::step], self.way_BQ[start::step])

    def to(self, device: torch.device) -> "Exploration":
        return Exploration(self.gumbel_BQR.to(device), self.way_BQ.to(device))


@dataclass(frozen=True)
class Reply:
    """What the network says about each question. Both relevance and weights sum to 1."""

    answer_BQA: Tensor  # logits
    relevance_BQR: Tensor  # logs
    weight_BQS: Tensor
    level_BQR: Tensor
    looked_BQT: tuple[Tensor, Tensor]  # shares of the tokens in the first and the last hop
    found_BQ2: Tensor | None = None  # where the first hop found what it looked for
    amount_BQT: Tensor | None = None  # of what the answer counts, under each token


class Network(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        width, ablation = sizes.width, sizes.ablation
        self.words = nn.EmbeddingBag(sizes.words, width, mode="sum", padding_idx=0)
        self.phrase = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU())
        self.levels = Levels(width)
        self.glance = Glance(width) if sizes.glance else None
        self.propositional = None if ablation == "no-propositional" else Propositional()
        self.perspectival = None if ablation == "no-perspectival" else Perspectival()
        self.participatory = None if ablation == "no-participatory" else Participatory(width)
        equal = ablation == "no-opponent-processing"
        self.balancer = EqualWeights() if equal else Balancer(width, self.ways)
        self.allocator = None if ablation == "uniform-lod" else Allocator(BUDGET, FINE_REGIONS)
        gist = ablation != "no-participatory"
        self.reader = Reader(width, sizes.answers, gist=gist, relates=sizes.glance)

    @property
    def ways(self) -> int:
        """How many scorers there are."""
        return 3 - self.sizes.ablation.startswith("no-p")

    def forward(
        self, image_BPP3: Tensor, word_BQL: Tensor, exploration: Exploration | None = None
    ) -> Reply:
        """Answer the questions of each image.

        Args:
            image_BPP3: uint8, 80 × 80 pixels, red green blue.
            word_BQL: int64 word numbers, 0 after the last word.
            exploration: training only.
        """
        image_B3PP = image_BPP3.permute(0, 3, 1, 2).float() / 255
        question_BQW = self._understand(word_BQL)
        scores_BQRS = self._score(image_B3PP, question_BQW)
        noise = exploration.gumbel_BQR if exploration else None
        relevance_BQR, weight_BQS = self.balancer(question_BQW, scores_BQRS, noise)
        level_BQR = allocate(self.allocator, relevance_BQR, scores_BQRS, exploration)
        bought_BQO = bought(level_BQR)
        wanted_BO = bought_BQO.any(dim=1)
        wanted_BO[:, :REGIONS] = True  # the gist is made of the coarse tokens
        token_BTW = self.levels(image_B3PP - 0.5, wanted_BO)
        point_BT2 = None
        if self.glance is not None:
            token_BTW, point_BT2 = self.glance(image_B3PP - 0.5, token_BTW)
        read = self.reader(question_BQW, token_BTW, bought_BQO, relevance_BQR, point_BT2)
        return Reply(
            read.answer_BQA, relevance_BQR, weight_BQS, level_BQR,
            read.looked_BQT, read.found_BQ2, read.amount_BQT,
        )  # fmt: skip

    def explore(
        self, images: int, questions: int, generator: torch.Generator
    ) -> Exploration | None:
        """Throw the dice of one step; None if this network does not explore."""
        if self.sizes.ablation == "no-opponent-processing":
            return None
        return draw_exploration(self.ways, images, questions, generator)

    def _understand(self, word_BQL: Tensor) -> Tensor:
        B, Q, L = word_BQL.shape
        return self.phrase(self.words(word_BQL.reshape(B * Q, L)).reshape(B, Q, -1))

    def _score(self, image_B3PP: Tensor, question_BQW: Tensor) -> Tensor:
        """What each way of knowing says, 0 to 1, (B, Q, R, S)."""
        Q = question_BQW.shape[1]
        scores = []
        for look in (self.propositional, self.perspectival):
            if look is not None:
                scores.append(stretched(look(image_B3PP))[:, None].expand(-1, Q, -1))
        if self.participatory is not None:
            scores.append(stretched(self.participatory(image_B3PP, question_BQW)))
        return torch.stack(scores, dim=-1)


def draw_exploration(
    ways: int, images: int, questions: int, generator: torch.Generator
) -> Exploration:
    """The dice of one step for so many images of so many questions."""
    way = torch.randint(ways, (images, questions), generator=generator)
    alone = torch.rand((images, questions), generator=generator) < ONE_WAY
    noise = gumbel((images, questions, REGIONS), generator)
    return Exploration(noise, way.where(alone, torch.tensor(-1)))


@torch.no_grad()
def allocate(
    allocator: Allocator | None,
    relevance_BQR: Tensor,
    scores_BQRS: Tensor,
    exploration: Exploration | None,
) -> Tensor:
    """The level of each region (B, Q, R). Not differentiable: the reader's bias is."""
    if allocator is None:
        return torch.full_like(relevance_BQR, MID, dtype=torch.int64)
    if exploration is not None:
        way_BQ11 = exploration.way_BQ[..., None, None]
        index = way_BQ11.clamp(min=0).expand(*relevance_BQR.shape, 1)
        alone_BQR = scores_BQRS.gather(-1, index).squeeze(-1)
        relevance_BQR = torch.where(way_BQ11[..., 0] < 0, relevance_BQR, alone_BQR)
    return allocator(relevance_BQR)

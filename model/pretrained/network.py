"""ARR-COC over a frozen encoder, from pixels and tokens to answers. Legend: __init__.py."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from model.network.allocator import Allocator, bought
from model.network.balancer import Balancer, EqualWeights, stretched
from model.network.levels import GRID, REGIONS
from model.network.network import (
    BUDGET,
    FINE_REGIONS,
    Ablation,
    Exploration,
    Reply,
    allocate,
    draw_exploration,
)
from model.network.perspectival import Perspectival
from model.network.propositional import Propositional
from model.network.reader import Reader
from model.pretrained.encoder import Encoder
from model.pretrained.levels import PatchLevels, pooled
from model.pretrained.participatory import PatchParticipatory
from model.pretrained.preprocessing import PretrainedPreprocessor


@dataclass(frozen=True)
class Sizes:
    """All that is needed to build the network over its encoder before weights are loaded."""

    width: int
    answers: int
    ablation: Ablation


class PretrainedNetwork(nn.Module):
    """Parameters and buffers are ARR-COC's alone; the encoder is held, not contained.

    The scorers of information and of edges look at the pixels themselves, the one of
    coupling at what the encoder saw. Everything after the tokens is that of model/network.
    """

    mean_311: Tensor
    std_311: Tensor

    def __init__(
        self, sizes: Sizes, encoder: Encoder, preprocessor: PretrainedPreprocessor
    ) -> None:
        super().__init__()
        self.sizes = sizes
        self.encoder, self._end = encoder, preprocessor.end  # no module: not in our state
        width, ablation, seen = sizes.width, sizes.ablation, encoder.config.image.width
        self.phrase = Phrase(encoder.config.text.width, width)
        self.levels = PatchLevels(seen, width)
        self.propositional = None if ablation == "no-propositional" else Propositional()
        self.perspectival = None if ablation == "no-perspectival" else Perspectival()
        coupled = ablation != "no-participatory"
        self.participatory = PatchParticipatory(seen, width) if coupled else None
        equal = ablation == "no-opponent-processing"
        self.balancer = EqualWeights() if equal else Balancer(width, self.ways)
        self.allocator = None if ablation == "uniform-lod" else Allocator(BUDGET, FINE_REGIONS)
        self.reader = Reader(width, sizes.answers, gist=coupled)
        made = preprocessor.image_transform
        self._factor = made.factor
        for name, values in (("mean_311", made.mean), ("std_311", made.std)):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)

    @property
    def ways(self) -> int:
        """How many scorers there are."""
        return 3 - self.sizes.ablation.startswith("no-p")

    def forward(
        self, image_BPP3: Tensor, word_BQL: Tensor, exploration: Exploration | None = None
    ) -> Reply:
        """Answer the questions of each image.

        Args:
            image_BPP3: uint8 as PretrainedPreprocessor.see gives it.
            word_BQL: int64 token numbers as PretrainedPreprocessor.read gives them.
            exploration: training only.
        """
        image_B3PP = image_BPP3.permute(0, 3, 1, 2).float()
        normal_B3PP = (image_B3PP * self._factor - self.mean_311) / self.std_311
        patch_BTV = pooled(self.encoder.encode_image(normal_B3PP))
        question_BQW = self._understand(word_BQL)
        scores_BQRS = self._score(image_B3PP / 255, patch_BTV[:, :REGIONS], question_BQW)
        noise = exploration.gumbel_BQR if exploration else None
        relevance_BQR, weight_BQS = self.balancer(question_BQW, scores_BQRS, noise)
        level_BQR = allocate(self.allocator, relevance_BQR, scores_BQRS, exploration)
        token_BTW = self.levels(patch_BTV)
        read = self.reader(question_BQW, token_BTW, bought(level_BQR), relevance_BQR)
        return Reply(read.answer_BQA, relevance_BQR, weight_BQS, level_BQR, read.looked_BQT)

    def explore(
        self, images: int, questions: int, generator: torch.Generator
    ) -> Exploration | None:
        """Throw the dice of one step; None if this network does not explore."""
        if self.sizes.ablation == "no-opponent-processing":
            return None
        return draw_exploration(self.ways, images, questions, generator)

    def _understand(self, word_BQL: Tensor) -> Tensor:
        B, Q, _ = word_BQL.shape
        token_ML = word_BQL.flatten(0, 1)
        after_ML = (token_ML == self._end).cumsum(dim=1) - (token_ML == self._end).long()
        heard_MLU = self.encoder.encode_text(token_ML)
        return self.phrase(heard_MLU, after_ML == 0).unflatten(0, (B, Q))

    def _score(self, image_B3PP: Tensor, coarse_BRV: Tensor, question_BQW: Tensor) -> Tensor:
        """What each way of knowing says, 0 to 1, (B, Q, R, S)."""
        edge = image_B3PP.shape[-1] // GRID * GRID  # regions of whole pixels
        whole, Q = image_B3PP[..., :edge, :edge], question_BQW.shape[1]
        scores = []
        for look in (self.propositional, self.perspectival):
            if look is not None:
                scores.append(stretched(look(whole))[:, None].expand(-1, Q, -1))
        if self.participatory is not None:
            scores.append(stretched(self.participatory(coarse_BRV, question_BQW)))
        return torch.stack(scores, dim=-1)


class Phrase(nn.Module):
    """One vector for a question: the encoder's tokens, weighed by what they hold."""

    def __init__(self, read: int, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(read)
        self.weigh = nn.Linear(read, 1, bias=False)
        self.phrase = nn.Sequential(nn.Linear(read, width), nn.GELU(), nn.LayerNorm(width))

    def forward(self, heard_MLU: Tensor, real_ML: Tensor) -> Tensor:
        """(M, W), of the tokens up to the first end, which is one of them."""
        heard_MLU = self.norm(heard_MLU)
        logit_ML = self.weigh(heard_MLU).squeeze(-1).masked_fill(~real_ML, float("-inf"))
        return self.phrase((logit_ML.softmax(dim=-1)[:, None] @ heard_MLU).squeeze(1))

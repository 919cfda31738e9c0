"""Batches as a pure function of the seed and their number.

So a training that goes on at step 300 reads what it would have read, whatever process or
worker reads it, and the parts of N processes add up to the batch of one.

Shape legend: B images of this process's part, Q questions of the image with most, L words.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from model import text
from model.images import decode
from model.manifest import Split, read_image
from model.network.levels import GRID

UNKNOWN = -1


class Batch(NamedTuple):
    """`whole_images` and `whole_questions` count the batch of all processes together."""

    number: int
    image_BPP3: Tensor
    word_BQL: Tensor
    answer_BQ: Tensor  # -1: no question here, or an answer that training never saw
    asked_BQ: Tensor  # bool: whether there is a question
    region_BQ: Tensor  # where what is asked about lies; -1: unknown
    box_BQ4: Tensor  # of what is asked about, and of what the answer is about: from -1 to 1;
    answer_box_BQ4: Tensor  # empty where the data set does not tell what that is
    whole_images: int
    whole_questions: int

    def to(self, device: torch.device) -> "Batch":
        moved = {k: v.to(device) for k, v in self._asdict().items() if isinstance(v, Tensor)}
        return self._replace(**moved)


@dataclass(frozen=True)
class Pool:
    """One split, ready to be read: texts as numbers, boxes as regions, images on the disk."""

    folder: Path
    split: Split
    word_ML: np.ndarray  # by distinct question
    answer_M: np.ndarray  # by distinct answer

    @property
    def images(self) -> int:
        return len(self.split.images)

    def read(self, images: Sequence[int], number: int, rank: int = 0, world: int = 1) -> Batch:
        """One process's part of the batch of `images`; every `world`-th from `rank`."""
        counts = np.diff(self.split.first_I)[np.asarray(images)]
        mine, Q = list(images)[rank::world], int(counts.max())
        row_BQ, asked_BQ = self._rows(mine, Q)
        answer_BQ = np.where(asked_BQ, self.answer_M[self.split.answer_N[row_BQ]], UNKNOWN)
        word_BQL = self.word_ML[self.split.question_N[row_BQ]] * asked_BQ[..., None]
        pictures = [self._image(i) for i in mine]
        size_B2 = np.array([size for _, size in pictures])
        region_BQ = np.where(asked_BQ, _region(self.split.box_N4[row_BQ], size_B2), UNKNOWN)
        answer_box_BQ4 = self.split.answer_box_N4[row_BQ]
        told_BQ1 = asked_BQ[..., None] & (answer_box_BQ4.min(axis=-1, keepdims=True) >= 0)
        boxes = [
            torch.from_numpy(np.where(told_BQ1, _relative(box_BQ4, size_B2), 0.0))
            for box_BQ4 in (self.split.box_N4[row_BQ], answer_box_BQ4)
        ]
        image_BPP3 = np.stack([pixels for pixels, _ in pictures])
        return Batch(
            number, torch.from_numpy(image_BPP3), torch.from_numpy(word_BQL),
            torch.from_numpy(answer_BQ), torch.from_numpy(asked_BQ),
            torch.from_numpy(region_BQ), boxes[0], boxes[1], len(images), int(counts.sum()),
        )  # fmt: skip

    def rows(self, images: Sequence[int], Q: int) -> np.ndarray:
        """Row of each question in the split, (B, Q); only where `asked_BQ`."""
        return self._rows(images, Q)[0]

    def _rows(self, images: Sequence[int], Q: int) -> tuple[np.ndarray, np.ndarray]:
        first_B, end_B = self.split.first_I[:-1][images], self.split.first_I[1:][images]
        row_BQ = first_B[:, None] + np.arange(Q)
        asked_BQ = row_BQ < end_B[:, None]
        return np.where(asked_BQ, row_BQ, first_B[:, None]), asked_BQ

    def _image(self, i: int) -> tuple[np.ndarray, tuple[int, int]]:
        name = self.split.images[i]
        return decode(read_image(self.folder, name, self.split.hashes[i]), f"image {name}")


def pool(folder: Path, split: Split, words: Sequence[str], answers: Sequence[str]) -> Pool:
    """Number the texts of a split by a model's words and answers."""
    number = {answer: n for n, answer in enumerate(answers)}
    answer_M = np.array([number.get(answer, UNKNOWN) for answer in split.answers])
    return Pool(folder, split, text.numbers(split.questions, words), answer_M)


class Batches(IterableDataset[Batch]):
    """Batches `start`, `start + 1`, … without end; one process's part of each."""

    def __init__(
        self, source: Pool, seed: int, images: int, start: int, rank: int, world: int
    ) -> None:
        super().__init__()
        self._source, self._seed, self._images = source, seed, images
        self._start, self._rank, self._world = start, rank, world

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        number, stride = (worker.id, worker.num_workers) if worker else (0, 1)
        number += self._start
        while True:
            chosen = chosen_images(self._seed, number, self._images, self._source.images)
            yield self._source.read(chosen, number, self._rank, self._world)
            number += stride


def chosen_images(seed: int, number: int, batch_images: int, of: int) -> list[int]:
    """Images of batch `number`: every image once, in a new order, then all over again."""
    places = range(number * batch_images, (number + 1) * batch_images)
    return [int(_order(seed, place // of, of)[place % of]) for place in places]


def dice(seed: int, number: int) -> torch.Generator:
    """The dice of batch `number`: the same in every process and after every restart."""
    state = np.random.SeedSequence((seed, number)).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]) >> 1)


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, of: int) -> np.ndarray:
    return torch.randperm(of, generator=dice(seed, 2**32 + epoch)).numpy()


def _relative(box_BQ4: np.ndarray, size_B2: np.ndarray) -> np.ndarray:
    """Boxes from pixels to -1 to 1."""
    size_B14 = np.tile(size_B2, 2)[:, None]
    return (2 * box_BQ4 / size_B14 - 1).astype(np.float32)


def _region(box_BQ4: np.ndarray, size_B2: np.ndarray) -> np.ndarray:
    """Region of the centre of each box x0, y0, x1, y1; -1 where the box is unknown."""
    centre_BQ2 = (box_BQ4[..., :2] + box_BQ4[..., 2:]) / 2
    cell_BQ2 = np.clip(centre_BQ2 * GRID // size_B2[:, None], 0, GRID - 1).astype(np.int64)
    region_BQ = cell_BQ2[..., 1] * GRID + cell_BQ2[..., 0]
    return np.where(box_BQ4.min(axis=-1) < 0, UNKNOWN, region_BQ)

"""Batches: each a pure function of the seed and its number.

So a training that resumes at step 300 reads what it would have read, whichever process or
worker reads it, and the parts of N processes add up to the batch of one process.

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

from model.dataset.manifest import Split, read_image
from model.dataset.preprocessing import Preprocessor, View
from model.dataset.soft_targets import SoftTargets, one_answer_each
from model.network.levels import GRID

UNKNOWN = -1


class Batch(NamedTuple):
    """`whole_images` and `whole_questions` count the batch of all processes together."""

    number: int
    image_BPP3: Tensor
    word_BQL: Tensor
    answer_BQ: Tensor  # -1: no question here, or an answer unknown to the model
    asked_BQ: Tensor  # bool: whether there is a question
    region_BQ: Tensor  # where what is asked about lies; -1: unknown
    box_BQ4: Tensor  # of what is asked about, of what the answer is about, and of all that
    answer_box_BQ4: Tensor  # it counts: from -1 to 1; empty where the data set does not tell
    counted_BQK4: Tensor
    candidate_BQJ: Tensor  # answers that people gave, and how right each is; J is 0 where the
    score_BQJ: Tensor  # data set tells one answer and no more; -1 after the last
    whole_images: int
    whole_questions: int

    def to(self, device: torch.device) -> "Batch":
        moved = {k: v.to(device) for k, v in self._asdict().items() if isinstance(v, Tensor)}
        return self._replace(**moved)


@dataclass(frozen=True)
class SplitReader:
    """Reads one split: texts are numbers already, boxes become regions, images are on disk."""

    folder: Path
    split: Split
    preprocessor: Preprocessor
    word_ML: np.ndarray  # by distinct question
    answer_M: np.ndarray  # by distinct answer
    soft_targets: SoftTargets

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
        view_B4 = np.array([view for _, view in pictures])
        region_BQ = np.where(asked_BQ, _region(self.split.box_N4[row_BQ], view_B4), UNKNOWN)
        box_BQK4 = np.concatenate(
            [
                self.split.box_N4[row_BQ][:, :, None],
                self.split.answer_box_N4[row_BQ][:, :, None],
                self.split.counted_NK4[row_BQ],
            ],
            axis=2,
        )
        told_BQK1 = asked_BQ[..., None, None] & (box_BQK4.min(axis=-1, keepdims=True) >= 0)
        boxes_BQK4 = torch.from_numpy(np.where(told_BQK1, _relative(box_BQK4, view_B4), 0.0))
        image_BPP3 = np.stack([pixels for pixels, _ in pictures])
        score_BQJ = self.soft_targets.score_NJ[row_BQ] * asked_BQ[..., None]
        return Batch(
            number, torch.from_numpy(image_BPP3), torch.from_numpy(word_BQL),
            torch.from_numpy(answer_BQ), torch.from_numpy(asked_BQ),
            torch.from_numpy(region_BQ), boxes_BQK4[:, :, 0], boxes_BQK4[:, :, 1],
            boxes_BQK4[:, :, 2:], torch.from_numpy(self.soft_targets.candidate_NJ[row_BQ]),
            torch.from_numpy(score_BQJ), len(images), int(counts.sum()),
        )  # fmt: skip

    def rows(self, images: Sequence[int], Q: int) -> np.ndarray:
        """Row of each question in the split, (B, Q); only where `asked_BQ`."""
        return self._rows(images, Q)[0]

    def _rows(self, images: Sequence[int], Q: int) -> tuple[np.ndarray, np.ndarray]:
        first_B, end_B = self.split.first_I[:-1][images], self.split.first_I[1:][images]
        row_BQ = first_B[:, None] + np.arange(Q)
        asked_BQ = row_BQ < end_B[:, None]
        return np.where(asked_BQ, row_BQ, first_B[:, None]), asked_BQ

    def _image(self, i: int) -> tuple[np.ndarray, View]:
        name = self.split.images[i]
        data = read_image(self.folder, name, self.split.hashes[i])
        return self.preprocessor.load_image(data, f"image {name}")


def split_reader(
    folder: Path,
    split: Split,
    preprocessor: Preprocessor,
    answers: Sequence[str],
    soft_targets: SoftTargets | None = None,
) -> SplitReader:
    """Number the texts of a split by a model's preprocessor and answers."""
    number = {answer: n for n, answer in enumerate(answers)}
    answer_M = np.array([number.get(answer, UNKNOWN) for answer in split.answers])
    soft_targets = soft_targets or one_answer_each(len(split.ids))
    return SplitReader(
        folder,
        split,
        preprocessor,
        preprocessor.tokenize(split.questions),
        answer_M,
        soft_targets,
    )


class Batches(IterableDataset[Batch]):
    """Batches `start`, `start + 1`, … without end; one process's part of each."""

    def __init__(
        self, source: SplitReader, seed: int, images: int, start: int, rank: int, world: int
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
    """Images of batch `number`: each epoch shows every image once, in an order of its own."""
    places = range(number * batch_images, (number + 1) * batch_images)
    return [int(_order(seed, place // of, of)[place % of]) for place in places]


def batch_generator(seed: int, number: int) -> torch.Generator:
    """The random generator of batch `number`: the same in every process and after a restart."""
    state = np.random.SeedSequence((seed, number)).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]) >> 1)


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, of: int) -> np.ndarray:
    return torch.randperm(of, generator=batch_generator(seed, 2**32 + epoch)).numpy()


def _relative(box_BQK4: np.ndarray, view_B4: np.ndarray) -> np.ndarray:
    """Boxes from pixels to -1 to 1 within what is seen; what lies outside is cut off."""
    corner_B2, size_B2 = view_B4[:, :2], view_B4[:, 2:] - view_B4[:, :2]
    corner_B114, size_B114 = (np.tile(x, 2)[:, None, None] for x in (corner_B2, size_B2))
    return (2 * (box_BQK4 - corner_B114) / size_B114 - 1).clip(-1, 1).astype(np.float32)


def _region(box_BQ4: np.ndarray, view_B4: np.ndarray) -> np.ndarray:
    """Region of the centre of each box x0, y0, x1, y1; -1: unknown box, or centre not seen."""
    corner_B12, end_B12 = view_B4[:, None, :2], view_B4[:, None, 2:]
    centre_BQ2 = (box_BQ4[..., :2] + box_BQ4[..., 2:]) / 2
    seen_BQ = ((corner_B12 <= centre_BQ2) & (centre_BQ2 <= end_B12)).all(axis=-1)
    cell_BQ2 = (centre_BQ2 - corner_B12) * GRID // (end_B12 - corner_B12)
    cell_BQ2 = np.clip(cell_BQ2, 0, GRID - 1).astype(np.int64)
    region_BQ = cell_BQ2[..., 1] * GRID + cell_BQ2[..., 0]
    return np.where(seen_BQ & (box_BQ4.min(axis=-1) >= 0), region_BQ, UNKNOWN)

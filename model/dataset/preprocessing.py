"""Preprocessing: from image files and questions to the arrays that a network takes.

Training, evaluation and serving use the preprocessor of their model, so all three see the same
pixels and the same words.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from model.dataset import images, vocabulary

View = tuple[float, float, float, float]  # the part of a picture that is seen: x0, y0, x1, y1


class Preprocessor(Protocol):
    @property
    def pixels(self) -> int:
        """Edge length of the pictures that `load_image` returns."""
        ...

    def load_image(self, data: bytes, name: str) -> tuple[np.ndarray, View]:
        """Pixels uint8 (P, P, 3) of an image file, red green blue, and what part of the
        picture they show, in its own pixels. Raises BadInput."""
        ...

    def load_opened(self, opened: images.Opened) -> tuple[np.ndarray, View]:
        """The same of a file of which the header was read before."""
        ...

    def tokenize(self, questions: Sequence[str]) -> np.ndarray:
        """Questions as rows of numbers, int64 (questions, length)."""
        ...


@dataclass(frozen=True)
class PlainPreprocessor:
    """Whole pictures at 80 × 80, and the words of the training questions."""

    words: tuple[str, ...]
    pixels: int = images.PIXELS

    def load_image(self, data: bytes, name: str) -> tuple[np.ndarray, View]:
        return self.load_opened(images.open_file(data, name))

    def load_opened(self, opened: images.Opened) -> tuple[np.ndarray, View]:
        pixels_PP3, (width, height) = images.scaled(opened)
        return pixels_PP3, (0, 0, width, height)

    def tokenize(self, questions: Sequence[str]) -> np.ndarray:
        return vocabulary.encode(questions, self._number)

    @cached_property
    def _number(self) -> dict[str, int]:
        """Cached: else a server would number 20,000 words for every request."""
        return {word: n for n, word in enumerate(self.words, start=1)}

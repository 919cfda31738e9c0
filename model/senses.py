"""How a network takes in pictures and questions, on its way from files to arrays.

Training, evaluation and serving ask the senses of their model, so that all three see the
same pixels and the same words.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from model import images, text

View = tuple[float, float, float, float]  # the part of a picture that is seen: x0, y0, x1, y1


class Senses(Protocol):
    @property
    def pixels(self) -> int:
        """Along the edge of a picture as `see` gives it."""
        ...

    def see(self, data: bytes, name: str) -> tuple[np.ndarray, View]:
        """Pixels uint8 (P, P, 3) of an image file, red green blue, and what part of the
        picture they show, in its own pixels. Raises BadInput."""
        ...

    def read(self, questions: Sequence[str]) -> np.ndarray:
        """Questions as rows of numbers, int64 (questions, length)."""
        ...


@dataclass(frozen=True)
class Plain:
    """Whole pictures at 80 × 80, and words that training has met."""

    words: tuple[str, ...]
    pixels: int = images.PIXELS

    def see(self, data: bytes, name: str) -> tuple[np.ndarray, View]:
        pixels_PP3, (width, height) = images.decode(data, name)
        return pixels_PP3, (0, 0, width, height)

    def read(self, questions: Sequence[str]) -> np.ndarray:
        return text.numbers(questions, self._number)

    @cached_property
    def _number(self) -> dict[str, int]:
        """Made once: a server would number 20,000 words for every request."""
        return {word: n for n, word in enumerate(self.words, start=1)}

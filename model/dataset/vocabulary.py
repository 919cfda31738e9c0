"""Words as numbers: lower case, counted from 1; 0 is padding or an unknown word."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

WORD = re.compile(r"[a-z0-9]+")
WORDS_MAX = 20_000
LENGTH_MAX = 32  # words of a question that are read


def build(questions: Iterable[str]) -> list[str]:
    """The words of the questions, sorted; only the most frequent if there are too many."""
    counts = Counter(word for question in questions for word in words_of(question))
    often = sorted(counts, key=lambda word: (-counts[word], word))[:WORDS_MAX]
    return sorted(often)


def words_of(question: str) -> list[str]:
    return WORD.findall(question.lower())


def encode(questions: Sequence[str], number: Mapping[str, int]) -> np.ndarray:
    """Word numbers, int64 (questions, longest question), 0 after the last word."""
    coded = [[number.get(word, 0) for word in words_of(q)[:LENGTH_MAX]] for q in questions]
    table = np.zeros((len(coded), max(1, *map(len, coded))), np.int64)
    for row, codes in zip(table, coded, strict=True):
        row[: len(codes)] = codes
    return table

"""VQA accuracy: how far an answer agrees with what people answered.

Each person in turn is left out; the answer scores min(matches among the others / 3, 1);
the mean over all people is the accuracy of the question. With ten different people 1, 2, 3
and 4 matches give 0.3, 0.6, 0.9 and 1. Three benchmarks share this rule and differ in what
counts as a match (model/metrics/normalise.py).

Shape legend
    N  questions
    A  most people asked about one question (10 in the published sets)
    F  people over all questions, one after the other
    U  different answers among predictions and people

Source: Antol et al. 2015, "VQA: Visual Question Answering", arXiv:1505.00468, in the form
of the evaluators that README.md names. Each question's accuracy equals theirs to the bit:
it is added up in the same order.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from model.metrics import normalise


@dataclass(frozen=True)
class Rule:
    """When a prediction matches a human answer.

    `alike`, where given, is the form in which both are compared on a question on which all
    people agree in that form.
    """

    human: Callable[[str], str]
    predicted: Callable[[str], str]
    alike: Callable[[str], str] | None = None


RULES = {
    "vqav2": Rule(normalise.vqav2, normalise.vqav2, alike=normalise.vqav2_plain),
    "textvqa": Rule(normalise.textvqa, normalise.textvqa),
    "vizwiz": Rule(str, normalise.vizwiz),
}


def accuracy(
    rule: Rule,
    predicted_N: pa.Array,
    human_NA: pa.ListArray,
    twin_NA: pa.ListArray | None = None,
) -> np.ndarray:
    """The accuracy of each question, shape (N,), float64 in [0, 1].

    Args:
        predicted_N: strings.
        human_NA: lists of strings, at least one in each; their number may differ.
        twin_NA: for each person the position of the first whose record is equal but for
            the answer; null where all differ. Twins who answer alike are left out together.
    """
    count_N = human_NA.value_lengths().to_numpy()
    row_F = np.repeat(np.arange(len(count_N)), count_N)
    match_F = _matches(rule, predicted_N, human_NA.flatten(), row_F, count_N)
    place_F = np.arange(len(row_F)) - np.repeat(np.cumsum(count_N) - count_N, count_N)

    shape = (len(count_N), int(count_N.max(initial=1)))
    match_NA = np.zeros(shape, dtype=bool)
    match_NA[row_F, place_F] = match_F
    others_NA = match_NA.sum(axis=1, keepdims=True) - match_NA.astype(np.int64)
    if twin_NA is not None:
        _leave_out_twins(others_NA, match_NA, twin_NA)
    score_NA = np.minimum(others_NA / 3, 1)
    score_NA[np.arange(shape[1]) >= count_N[:, None]] = 0
    return np.cumsum(score_NA, axis=1)[:, -1] / count_N  # cumsum adds from left to right


def _matches(
    rule: Rule, predicted_N: pa.Array, human_F: pa.Array, row_F: np.ndarray, count_N: np.ndarray
) -> np.ndarray:
    """Whether each person's answer is the prediction. Each different text is rewritten once."""
    both = pa.concat_arrays([human_F, predicted_N]).dictionary_encode()
    text_F, text_N = np.split(both.indices.to_numpy(), [len(human_F)])
    texts_U = both.dictionary.to_pylist()
    number_U = _numbers([rule.human, rule.predicted], texts_U)
    match_F = number_U[rule.human][text_F] == number_U[rule.predicted][text_N][row_F]
    if rule.alike:
        alike_U = _numbers([rule.alike], texts_U)[rule.alike]
        alike_F, first_N = alike_U[text_F], np.cumsum(count_N) - count_N
        agreed_N = np.minimum.reduceat(alike_F, first_N) == np.maximum.reduceat(
            alike_F, first_N
        )
        plain_F = alike_F == alike_U[text_N][row_F]
        match_F = np.where(agreed_N[row_F], plain_F, match_F)
    return match_F


def _numbers(
    forms: Sequence[Callable[[str], str]], texts_U: list[str]
) -> dict[Callable[[str], str], np.ndarray]:
    """For each form a number per text; equal numbers, equal texts in whatever form."""
    number: dict[str, int] = {}
    count = number.setdefault
    return {
        form: np.array([count(form(text), len(number)) for text in texts_U], dtype=np.int64)
        for form in dict.fromkeys(forms)
    }


def _leave_out_twins(
    others_NA: np.ndarray, match_NA: np.ndarray, twin_NA: pa.ListArray
) -> None:
    """Take away from a match its other twins that match; only few questions have any."""
    for row in np.flatnonzero(twin_NA.is_valid().to_numpy(zero_copy_only=False)):
        twin_A = np.asarray(twin_NA[int(row)].as_py())
        matched = np.flatnonzero(match_NA[row, : len(twin_A)])
        same = np.bincount(twin_A[matched], minlength=1 + int(twin_A.max()))
        others_NA[row, matched] -= same[twin_A[matched]] - 1

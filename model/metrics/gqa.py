"""GQA's metrics but grounding (which needs attention maps in the evaluator's own grid).

Accuracy is exact equality on the balanced questions; nothing is rewritten. Consistency:
for each question answered rightly, the share of the questions it entails that are answered
rightly too. Validity and plausibility: whether the answer stands in the lists of the choices
file. Distribution: how far the predicted answers' histogram is from the true one, by chi
square over groups of questions; lower is better and 0 is best, it is not a fraction.

Shape legend
    N  questions
    Q  balanced questions
    L  questions entailed by some question, one after the other
    C  cells: an answer within a group
    K  blocks of images for the interval of the distribution

Source: Hudson and Manning 2019, "GQA", arXiv:1902.09506, and the evaluator in README.md.
"""

from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from model.metrics import interval
from model.metrics.interval import Score
from model.program.errors import BadInput

_COMMON = ("color", "material", "shape")  # the answers to "what do both have in common"
_BLOCKS = 50


def consistency(truth: pa.Table, right_N: np.ndarray, image_N: np.ndarray) -> Score | None:
    """The mean over balanced questions answered rightly that entail others.

    None if there is no such question (the official code prints 0).

    Raises:
        BadInput: an entailed question is not in the truth.
    """
    entailed_NL = truth["entailed"].combine_chunks()
    count_N = entailed_NL.value_lengths().to_numpy()
    by_L = np.repeat(np.arange(len(count_N)), count_N)
    asked_L = truth["balanced"].to_numpy()[by_L] & right_N.astype(bool)[by_L]
    at_L = _positions(truth["question_id"], entailed_NL.flatten().filter(pa.array(asked_L)))
    by_L = by_L[asked_L]
    other_L = at_L != by_L  # a question does not entail itself
    by_L, at_L = by_L[other_L], at_L[other_L]
    if not len(by_L):
        return None
    sum_N = np.bincount(by_L, weights=right_N[at_L], minlength=len(count_N))
    number_N = np.bincount(by_L, minlength=len(count_N))
    counts_N = number_N > 0
    return interval.mean(sum_N[counts_N] / number_N[counts_N], image_N[counts_N])


def _positions(ids_N: pa.ChunkedArray, wanted_L: pa.Array) -> np.ndarray:
    place = {name: at for at, name in enumerate(ids_N.to_pylist())}
    wanted = wanted_L.to_pylist()
    missing = [name for name in wanted if name not in place]
    if missing:
        raise BadInput(
            f"{len(missing)} entailed question(s) are not in the questions file,"
            f" the first is {missing[0]!r}",
            expected="all questions, not the balanced ones alone",
            do="give the questions file of all questions, or leave consistency out",
        )
    return np.array([place[name] for name in wanted], dtype=np.int64)


def belongs(
    truth: pa.Table,
    predicted_N: pa.Array,
    choices: Iterable[tuple[str, list[str], list[str]]],
) -> np.ndarray:
    """Whether each prediction is valid and plausible, shape (N, 2); reads the choices once.

    Raises:
        BadInput: a balanced question has no choices.
    """
    wanted_N = truth["balanced"].to_numpy()
    place = {
        name: at for at, name in enumerate(truth["question_id"].to_pylist()) if wanted_N[at]
    }
    common_N = ["Common" in name for name in truth["detailed_type"].to_pylist()]
    answers = predicted_N.to_pylist()
    result_N2 = np.zeros((len(answers), 2))
    for name, *lists in choices:
        at = place.pop(name, None)
        if at is not None:
            groups = (_COMMON, _COMMON) if common_N[at] else lists
            result_N2[at] = [answers[at] in group for group in groups]
    if place:
        raise BadInput(
            f"{len(place)} question(s) have no choices, the first is {next(iter(place))!r}",
            expected="the choices file of the same split",
        )
    return result_N2


def distribution(
    group_Q: pa.Array, gold_Q: pa.Array, predicted_Q: pa.Array, image_Q: np.ndarray
) -> Score | None:
    """Chi square of each group's histograms, averaged over groups by size, over 100.

    None if no question has a group. The interval is a jackknife over blocks of images of
    the value a question (the value itself grows with the number of questions).
    """
    known_Q = group_Q.is_valid().to_numpy(zero_copy_only=False)
    keep = pa.array(known_Q)
    group_Q, gold_Q, predicted_Q = (a.filter(keep) for a in (group_Q, gold_Q, predicted_Q))
    questions = len(group_Q)
    if not questions:
        return None
    cell_Q, seen_Q = _cells(group_Q, gold_Q, predicted_Q)
    block_Q = _blocks(image_Q[known_Q])
    blocks = int(block_Q.max()) + 1
    gold_CK = _count(cell_Q, block_Q, int(cell_Q.max()) + 1, blocks)
    hit = seen_Q >= 0
    predicted_CK = _count(seen_Q[hit], block_Q[hit], len(gold_CK), blocks)
    group_C = np.zeros(len(gold_CK), dtype=np.int64)
    group_C[cell_Q] = _codes(group_Q)

    value = _chi_square(
        gold_CK.sum(1, keepdims=True), predicted_CK.sum(1, keepdims=True), group_C
    )
    without_K = _chi_square(
        gold_CK.sum(1, keepdims=True) - gold_CK,
        predicted_CK.sum(1, keepdims=True) - predicted_CK,
        group_C,
    )
    left_K = questions - np.bincount(block_Q)
    half = _jackknife(value[0] / questions, without_K / np.maximum(left_K, 1)) * questions
    return Score(
        float(value[0]) / 100,
        max(0.0, float(value[0] - half)) / 100,
        float(value[0] + half) / 100,
        questions,
    )


def _chi_square(
    gold_CK: np.ndarray, predicted_CK: np.ndarray, group_C: np.ndarray
) -> np.ndarray:
    """The mean over groups, weighted by their true answers, for each column, shape (K,)."""
    term_CK = (predicted_CK - gold_CK) ** 2 / np.maximum(gold_CK, 1)
    term_CK[gold_CK == 0] = 0  # an answer that is never right in its group is not counted
    groups = int(group_C.max()) + 1
    columns = range(gold_CK.shape[1])
    score_K = [np.bincount(group_C, weights=term_CK[:, k], minlength=groups) for k in columns]
    size_K = [np.bincount(group_C, weights=gold_CK[:, k], minlength=groups) for k in columns]
    return np.array(
        [score @ size / max(size.sum(), 1) for score, size in zip(score_K, size_K, strict=True)]
    )


def _jackknife(value: float, without_K: np.ndarray) -> float:
    """Half of the 95 % interval from the values without each block."""
    blocks = len(without_K)
    if blocks < 2:
        return value
    variance = (blocks - 1) / blocks * float(((without_K - without_K.mean()) ** 2).sum())
    return 1.959963984540054 * variance**0.5


def _cells(
    group_Q: pa.Array, gold_Q: pa.Array, predicted_Q: pa.Array
) -> tuple[np.ndarray, np.ndarray]:
    """A number for each pair of group and true answer; that of each prediction or -1."""
    answers = pa.concat_arrays([gold_Q, predicted_Q]).dictionary_encode()
    gold_code, predicted_code = np.split(answers.indices.to_numpy(), [len(gold_Q)])
    wide = _codes(group_Q).astype(np.int64) * len(answers.dictionary)
    pair_C, cell_Q = np.unique(wide + gold_code, return_inverse=True)
    at_Q = np.minimum(np.searchsorted(pair_C, wide + predicted_code), len(pair_C) - 1)
    return cell_Q, np.where(pair_C[at_Q] == wide + predicted_code, at_Q, -1)


def _codes(array: pa.Array) -> np.ndarray:
    return array.dictionary_encode().indices.to_numpy()


def _blocks(image_Q: np.ndarray) -> np.ndarray:
    """A block for each image, all of about the same size; no block is empty."""
    images, number_Q = np.unique(image_Q, return_inverse=True)
    return number_Q % min(_BLOCKS, len(images))


def _count(cell: np.ndarray, block: np.ndarray, cells: int, blocks: int) -> np.ndarray:
    flat = np.bincount(cell * blocks + block, minlength=cells * blocks)
    return flat.reshape(cells, blocks).astype(float)

"""VizWiz: can the model tell questions that have no answer?

Predicted is how sure the model is that a question can be answered; the positive class is
that it cannot. Intervals are percentiles of a bootstrap over the questions, which are one
an image.

Shape legend
    N  questions
    B  bootstrap samples
    T  different thresholds
"""

import numpy as np

from model.metrics.interval import Score

_SAMPLES = 1000
_AT_ONCE = 50  # samples whose weights are held together
_SEED = 1  # fixed: the same files give the same interval


def answerability(answerable_N: np.ndarray, sure_N: np.ndarray) -> dict[str, Score]:
    """Average precision and F1 of "cannot be answered", as scikit-learn defines them.

    Args:
        answerable_N: the truth, 0 or 1.
        sure_N: finite numbers; above 0.5 means "can be answered" for F1.

    Both are 0 when every question can be answered.
    """
    positive_N, score_N = (1 - answerable_N).astype(float), 1.0 - sure_N
    whole = np.ones((1, len(score_N)))
    resampled = list(_weights(len(score_N)))
    result = {}
    for name, measure in (("average_precision", _average_precision), ("f1_score", _f1)):
        (value,) = measure(positive_N, score_N, whole)
        sample_B = np.concatenate([measure(positive_N, score_N, w) for w in resampled])
        low, high = np.quantile(sample_B, [0.025, 0.975])
        result[name] = Score(
            float(value), float(min(low, value)), float(max(high, value)), len(score_N)
        )
    return result


def _weights(number: int) -> list[np.ndarray]:
    random = np.random.default_rng(_SEED)
    chances = np.full(number, 1 / number)
    return [
        random.multinomial(number, chances, size=_AT_ONCE) for _ in range(_SAMPLES // _AT_ONCE)
    ]


def _average_precision(
    positive_N: np.ndarray, score_N: np.ndarray, weight_BN: np.ndarray
) -> np.ndarray:
    """Precision at each threshold, weighted by the recall that it adds, shape (B,)."""
    order_N = np.argsort(-score_N, kind="stable")
    last_T = np.flatnonzero(np.append(np.diff(score_N[order_N]) != 0, True))
    weight_BN = weight_BN[:, order_N]
    hits_BT = np.cumsum(weight_BN * positive_N[order_N], axis=1)[:, last_T]
    all_BT = np.cumsum(weight_BN, axis=1)[:, last_T]
    precision_BT = hits_BT / np.maximum(all_BT, 1)
    added_BT = np.diff(hits_BT, axis=1, prepend=0)
    return (added_BT * precision_BT).sum(axis=1) / np.maximum(hits_BT[:, -1], 1)


def _f1(positive_N: np.ndarray, score_N: np.ndarray, weight_BN: np.ndarray) -> np.ndarray:
    said_N = score_N > 0.5
    hits_B = weight_BN @ (positive_N * said_N)
    either_B = weight_BN @ positive_N + weight_BN @ said_N.astype(float)
    return 2 * hits_B / np.maximum(either_B, 1)

"""Scores, answers and gates to decide on."""

import numpy as np

from policy.config import Dataset, Gates
from policy.gates.decision import GateReport, decide_gate
from policy.gates.scores import Score, Scores

GATES = Gates(
    accuracy_min=0.9,
    family_accuracy_min=0.8,
    questions_min=500,
    non_inferiority_margin=0.02,
    alpha=0.01,
    benchmarks=(),
)
PINNED = f"sha256:{'1' * 64}"
DATA = Dataset(uri="gqa", format="gqa", version=f"sha256:{'a' * 64}", questions_min=100)


def scores(accuracy=0.95, questions=1000, fingerprint=PINNED, families=None) -> Scores:
    """Scores that add up; `families` are accuracies of equal numbers of questions."""
    families = families or {"query": accuracy}
    each = questions // len(families)
    return Scores(
        data_fingerprint=fingerprint,
        questions=questions,
        accuracy=accuracy,
        families={name: Score(questions=each, accuracy=a) for name, a in families.items()},
    )


def answers(n, accuracy, seed=0):
    return (np.random.default_rng(seed).random(n) < accuracy).astype(float)


def first(seen: Scores) -> GateReport:
    """The decision on a version before which nothing served."""
    return decide_gate(seen, None, GATES, {}, PINNED)

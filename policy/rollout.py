"""Progressive rollout as a pure state machine."""

from pydantic import BaseModel

LATENCY_EDGES_S = (
    0.001, 0.002, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075,
    0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
"""Upper edges of the latency buckets, seconds; one more bucket holds what is slower."""


class Counts(BaseModel, frozen=True):
    """Answers of one version, per attempt, cumulative. `latency` has one number per bucket."""

    requests: int = 0
    errors: int = 0
    latency: tuple[int, ...] = (0,) * (len(LATENCY_EDGES_S) + 1)


class Labelled(BaseModel, frozen=True):
    """Live answers whose truth is known, and how many of them were right; cumulative."""

    labels: int = 0
    correct: int = 0

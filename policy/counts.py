"""What a served version answered: cumulative counters and the difference of two readings."""

from collections.abc import Sequence

from pydantic import BaseModel

LATENCY_EDGES_S = (
    0.001, 0.002, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075,
    0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
"""Upper edges of the latency buckets, seconds; one more bucket holds what is slower."""


class Counts(BaseModel, frozen=True):
    """Requests of one version, each counted once by its first attempt; cumulative.

    `latency` has the number of answered ones in each bucket of time.
    """

    requests: int = 0
    errors: int = 0
    latency: tuple[int, ...] = (0,) * (len(LATENCY_EDGES_S) + 1)


class Labelled(BaseModel, frozen=True):
    """Live answers whose truth is known, and how many of them were right; cumulative."""

    labels: int = 0
    correct: int = 0


class Compared(BaseModel, frozen=True):
    """Mirrored requests whose two answers were compared, and how many differed; cumulative."""

    compared: int = 0
    differed: int = 0


class Sample(BaseModel, frozen=True):
    """All that is counted of one version.

    `epoch` names the life of the counters: another name, and they began again at zero.
    `restarted` marks a difference of two readings between which that happened.
    """

    counts: Counts = Counts()
    labelled: Labelled = Labelled()
    epoch: str = ""
    restarted: bool = False

    @property
    def error_rate(self) -> float:
        return self.counts.errors / max(self.counts.requests, 1)

    @property
    def accuracy(self) -> float:
        return self.labelled.correct / max(self.labelled.labels, 1)

    @property
    def wrong(self) -> int:
        return self.labelled.labels - self.labelled.correct

    @property
    def latency_p95_s(self) -> float | None:
        """Upper edge of the bucket that holds the 95th percentile.

        inf past the last edge; None where no request was answered: then it is unknown.
        """
        answered, below = sum(self.counts.latency), 0
        if not answered:
            return None
        for edge, count in zip(LATENCY_EDGES_S, self.counts.latency, strict=False):
            below += count
            if below >= 0.95 * answered:
                return edge
        return float("inf")

    def slower_than(self, edge_s: float) -> int:
        """Answers slower than `edge_s`, which is one of LATENCY_EDGES_S."""
        return sum(self.counts.latency[LATENCY_EDGES_S.index(edge_s) + 1 :])


def between(before: Sample, now: Sample) -> Sample | None:
    """What was counted since `before`.

    If the place says that the counters began anew, that is `now` alone, marked. None if a
    counter is lower than before without that: the source dipped, and what it tells is not
    known until it has caught up.
    """
    if before.epoch != now.epoch:
        return now.model_copy(update={"restarted": True})
    if any(b > n for b, n in zip(_numbers(before), _numbers(now), strict=True)):
        return None
    was, is_now = before.counts, now.counts
    return Sample(
        counts=Counts(
            requests=is_now.requests - was.requests,
            errors=is_now.errors - was.errors,
            latency=tuple(n - b for b, n in zip(was.latency, is_now.latency, strict=True)),
        ),
        labelled=Labelled(
            labels=now.labelled.labels - before.labelled.labels,
            correct=now.labelled.correct - before.labelled.correct,
        ),
        epoch=now.epoch,
    )


def _numbers(sample: Sample) -> Sequence[int]:
    counts, labelled = sample.counts, sample.labelled
    return (
        counts.requests, counts.errors, *counts.latency, labelled.labels, labelled.correct
    )  # fmt: skip

"""Counters of the place `memory`: exact, as a function of time, and read late."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from deployments import Reading
from policy.counts import LATENCY_EDGES_S, Compared, Counts, Labelled, Sample

if TYPE_CHECKING:
    from tests.places.memory import MemoryCloud

US = 1_000_000
Counter = tuple[str, str]  # the life of a version's server, and what is counted
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Known:
    """What one source said of the answers of a version, last."""

    labelled: Labelled
    compared: Compared


@dataclass(frozen=True)
class Segment:
    """A time in which nothing changed: totals at its begin, and what comes in a second."""

    since: int
    totals: Mapping[Counter, float]
    rates: Mapping[Counter, float]


@dataclass
class Traffic:
    """Requests arrive evenly; so every count is known at every time, at no cost."""

    segments: list[Segment] = field(default_factory=lambda: [Segment(0, {}, {})])

    def change(self, time: int, rates: Mapping[Counter, float], keep_us: int) -> None:
        """Other rates from now on; what nobody can read any more is forgotten."""
        if self.segments[-1].rates == rates:
            return
        totals = self._totals(time)
        self.segments = [s for s in self.segments if s.since < time]
        self.segments.append(Segment(time, totals, dict(rates)))
        while len(self.segments) > 1 and self.segments[1].since <= time - keep_us:
            del self.segments[0]

    def add(self, time: int, counter: Counter, amount: float) -> None:
        """Count something that did not come by itself."""
        last, totals = self.segments[-1], self._totals(time)
        totals[counter] = totals.get(counter, 0.0) + amount
        self.segments = [s for s in self.segments if s.since < time]
        self.segments.append(Segment(time, totals, last.rates))

    def counts(self, time: int) -> Mapping[Counter, int]:
        """Whole numbers of what had come by then; what is not there is 0."""
        return {what: int(total + _ROUNDING) for what, total in self._totals(time).items()}

    def _totals(self, time: int) -> dict[Counter, float]:
        begun = (s for s in reversed(self.segments) if s.since <= time)
        segment = next(begun, self.segments[0])
        elapsed_s, totals = max(0, time - segment.since) / US, dict(segment.totals)
        for counter, rate in segment.rates.items():
            totals[counter] = totals.get(counter, 0.0) + rate * elapsed_s
        return totals


class MemoryTelemetry:
    """`deployments.Telemetry` of the cloud."""

    def __init__(self, cloud: "MemoryCloud") -> None:
        self._cloud = cloud

    def read(self, endpoint: str, versions: Sequence[str]) -> Reading:
        cloud = self._cloud
        with cloud.call("read_counts"):
            late_s = cloud.settings.metrics_late_s
            until, state = cloud.time - round(late_s * US), cloud.endpoints[endpoint]
            samples = {v: self._sample(endpoint, v, until) for v in versions}
            state.dips = max(0, state.dips - 1)
            compared = {v: self._compared(endpoint, v) for v in versions}
            return Reading(samples, cloud.now() - timedelta(seconds=late_s), compared)

    def record(
        self,
        endpoint: str,
        source: str,
        labels: Mapping[str, Labelled],
        compared: Mapping[str, Compared],
    ) -> None:
        with self._cloud.call("record"):
            self._cloud.known.setdefault(endpoint, {}).update(
                {
                    f"{source} {version}": Known(
                        labels.get(version, Labelled()), compared.get(version, Compared())
                    )
                    for version in {*labels, *compared}
                }
            )

    def _sample(self, endpoint: str, version: str, until: int) -> Sample:
        state = self._cloud.endpoints[endpoint]
        life, counts = state.life(version), state.traffic.counts(until)

        def count(what: str) -> int:
            counted = counts.get((life, what), 0)
            return counted // 2 if state.dips else counted

        known = [k.labelled for k in self._known(endpoint, version)]
        labels = count("answered") + sum(k.labels for k in known)
        correct = count("right") + sum(k.correct for k in known)
        return Sample(
            counts=Counts(
                requests=count("requests"),
                errors=count("errors"),
                latency=tuple(count(f"bucket {i}") for i in range(len(LATENCY_EDGES_S) + 1)),
            ),
            labelled=Labelled(labels=labels, correct=min(correct, labels)),
            epoch=life,
        )

    def _compared(self, endpoint: str, version: str) -> Compared:
        known = [k.compared for k in self._known(endpoint, version)]
        return Compared(
            compared=sum(k.compared for k in known), differed=sum(k.differed for k in known)
        )

    def _known(self, endpoint: str, version: str) -> Sequence[Known]:
        known = self._cloud.known.get(endpoint, {})
        return [k for name, k in known.items() if name.split(" ", 1)[1] == version]

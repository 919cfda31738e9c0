"""The verdict on one window of live traffic. No data never passes."""

from enum import StrEnum, auto
from math import isinf, log
from typing import NamedTuple

from policy.counts import Sample
from policy.evidence.tests import against_limit

SLOW_SHARE = 0.05  # what a limit on the 95th percentile allows to be slower


class Verdict(StrEnum):
    PASS = auto()
    FAIL = auto()
    CONTINUE = auto()  # nothing wrong, not enough proven: the window goes on
    INCONCLUSIVE = auto()  # too little data, or past a limit but not proven
    NO_DATA = auto()


class Fault(StrEnum):
    """The kind of reason for which a version was taken back; its words say the rest."""

    ABORTED = auto()
    REJECTED = auto()
    CANNOT_SERVE = "cannot-serve"
    UNREADY = auto()
    DEADLINE = auto()
    SMOKE = auto()
    LIMIT = auto()
    COMPARISON = auto()
    ANALYSIS = auto()
    INCONCLUSIVE = auto()
    WATCH = auto()


class Ruling(NamedTuple):
    """`anew`: the next window starts without these counts. `final`: a FAIL not tolerated."""

    verdict: Verdict
    reason: str
    anew: bool = False
    final: bool = False
    fault: Fault = Fault.LIMIT  # of a FAIL


class Bounds(NamedTuple):
    """Limits of one window. `labels_min` 0: accuracy is not judged."""

    requests_min: int
    error_rate_max: float
    latency_p95_s_max: float
    labels_min: int
    accuracy_min: float
    alpha: float


class _Metric(NamedTuple):
    """One limit as a share of events: `past` says in words that the limit is exceeded."""

    events: int
    trials: int
    limit: float
    past: str

    @property
    def exceeded(self) -> bool:
        return self.events > self.limit * self.trials

    def proven(self, alpha: float) -> bool:
        evidence = against_limit(self.events, self.trials, self.limit)
        return self.exceeded and bool(evidence >= -log(alpha))


def rule(
    bounds: Bounds,
    canary: Sample | None,
    stable: Sample | None,
    *,
    elapsed_s: float,
    over: bool,
) -> Ruling:
    """Judge what the canary answered since the window began, `elapsed_s` ago.

    A limit that is proven to be exceeded fails at any look; everything else waits until the
    window is `over`. What stable exceeds as well is an incident of both and blames nobody.
    """
    if canary is None or canary.counts.requests == 0:
        what = "the metrics are away" if canary is None else "no request"
        return _when(over, Verdict.NO_DATA, f"{what} in {elapsed_s:.0f} s")
    exceeded = [m for m in _metrics(bounds, canary) if m.exceeded]
    shared = _shared(bounds, exceeded, stable)
    for metric in exceeded:
        if metric.proven(bounds.alpha) and metric not in shared:
            return Ruling(Verdict.FAIL, metric.past)
    if missing := _missing(bounds, canary, elapsed_s):
        return _when(over, Verdict.INCONCLUSIVE, missing)
    if shared:
        return Ruling(Verdict.CONTINUE, f"{shared[0].past}; stable is past it too", anew=over)
    if exceeded:
        return _when(over, Verdict.INCONCLUSIVE, f"{exceeded[0].past}, not proven yet")
    return _when(over, Verdict.PASS, _within(bounds, canary))


def rule_shadow(
    compared: int, differed: int, compared_min: int, limit: float, alpha: float
) -> Ruling:
    """Judge the answers of mirrored requests that differ from stable's."""
    if compared < compared_min:
        more = compared_min - compared
        short = f"compared answers {compared} < {compared_min}; {more} more needed"
        return Ruling(Verdict.INCONCLUSIVE, short)
    rate = differed / max(compared, 1)
    past = f"disagreement {rate:.3f} > {limit:g} at {compared} answers"
    metric = _Metric(differed, compared, limit, past)
    if metric.proven(alpha):
        return Ruling(Verdict.FAIL, past)
    if metric.exceeded:
        return Ruling(Verdict.INCONCLUSIVE, f"{past}, not proven yet")
    return Ruling(Verdict.PASS, f"disagreement {rate:.3f} <= {limit:g} at {compared} answers")


def _when(over: bool, verdict: Verdict, reason: str) -> Ruling:
    return Ruling(verdict if over else Verdict.CONTINUE, reason)


def _metrics(bounds: Bounds, sample: Sample) -> list[_Metric]:
    counts, labelled = sample.counts, sample.labelled
    p95 = sample.latency_p95_s
    shown = "slowest bucket" if isinf(p95) else f"{p95:g}"
    metrics = [
        _Metric(
            counts.errors,
            counts.requests,
            bounds.error_rate_max,
            f"error_rate {sample.error_rate:.3f} > {bounds.error_rate_max:g} "
            f"at {counts.requests} requests",
        ),
        _Metric(
            sample.slower_than(bounds.latency_p95_s_max),
            sum(counts.latency),
            SLOW_SHARE,
            f"latency_p95_s {shown} > {bounds.latency_p95_s_max:g} "
            f"at {counts.requests} requests",
        ),
    ]
    if bounds.labels_min:
        metrics.append(
            _Metric(
                sample.wrong,
                labelled.labels,
                1 - bounds.accuracy_min,
                f"accuracy {sample.accuracy:.3f} < {bounds.accuracy_min:g} "
                f"at {labelled.labels} labels",
            )
        )
    return metrics


def _shared(bounds: Bounds, exceeded: list[_Metric], stable: Sample | None) -> list[_Metric]:
    """Those of `exceeded` that stable exceeds in the same window, on enough requests."""
    if stable is None or stable.counts.requests < bounds.requests_min:
        return []
    names = {m.past.split()[0] for m in _metrics(bounds, stable) if m.exceeded}
    return [m for m in exceeded if m.past.split()[0] in names]


def _missing(bounds: Bounds, canary: Sample, elapsed_s: float) -> str:
    """What is too few and how much more is needed; empty if there is enough."""
    counts = canary.counts
    needs = {
        "requests": (counts.requests, bounds.requests_min),
        "latencies": (
            sum(counts.latency),
            min(bounds.requests_min, counts.requests - counts.errors),
        ),
        "labels": (canary.labelled.labels, bounds.labels_min),
    }
    for name, (seen, least) in needs.items():
        if seen < least:
            wait = f"about {elapsed_s * (least - seen) / seen:.0f} s" if seen else "unknown"
            return f"{name} {seen} < {least}; {least - seen} more needed, {wait} at this rate"
    return ""


def _within(bounds: Bounds, canary: Sample) -> str:
    parts = [
        f"error_rate {canary.error_rate:.3f} <= {bounds.error_rate_max:g}",
        f"latency_p95_s {canary.latency_p95_s:g} <= {bounds.latency_p95_s_max:g}",
    ]
    if bounds.labels_min:
        parts.append(f"accuracy {canary.accuracy:.3f} >= {bounds.accuracy_min:g}")
    return f"{', '.join(parts)} at {canary.counts.requests} requests"

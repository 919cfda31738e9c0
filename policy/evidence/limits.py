"""The verdict on one window of live traffic. No data never passes."""

from enum import StrEnum, auto
from math import isinf, log
from typing import NamedTuple

from policy.counts import LATENCY_EDGES_S, Sample
from policy.evidence.tests import against_limit
from policy.words import duration, percent

SLOW_SHARE = 0.05  # what a limit on the 95th percentile allows to be slower


class Verdict(StrEnum):
    PASS = auto()
    FAIL = auto()
    CONTINUE = auto()  # nothing wrong, not enough proven: the window goes on
    INCONCLUSIVE = auto()  # too little data, or past a limit but not proven
    NO_DATA = auto()


class Fault(StrEnum):
    """The kind of reason for which a version was rolled back; its words say the rest."""

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
    """`anew`: the next window starts without these counts. `final`: a FAIL not tolerated.

    `scarce`: there were too few requests, labels or answers to say more; `shared`: of stable's
    too, so that it is nothing about the version.
    """

    verdict: Verdict
    reason: str
    anew: bool = False
    final: bool = False
    fault: Fault = Fault.LIMIT  # of a FAIL
    scarce: bool = False
    shared: bool = False


class Bounds(NamedTuple):
    """Limits of one window. `labels_min` 0: accuracy is not judged."""

    requests_min: int
    error_rate_max: float
    latency_p95_s_max: float
    labels_min: int
    accuracy_min: float
    alpha: float


class _Metric(NamedTuple):
    """One limit as a share of events; `told` says in words what was found and the limit."""

    name: str
    events: int
    trials: int
    limit: float
    told: str

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
    if canary is None:
        return _when(over, Verdict.NO_DATA, f"no metrics for {duration(elapsed_s)}")
    if canary.counts.requests == 0:
        none = _short(over, Verdict.NO_DATA, f"no request for {duration(elapsed_s)}")
        return none._replace(shared=stable is not None and stable.counts.requests == 0)
    exceeded = [m for m in _metrics(bounds, canary) if m.exceeded]
    shared = _shared(bounds, exceeded, stable)
    for metric in exceeded:
        if metric.proven(bounds.alpha) and metric not in shared:
            return Ruling(Verdict.FAIL, metric.told)
    if missing := _missing(bounds, canary, elapsed_s):
        too_few = _short(over, Verdict.INCONCLUSIVE, missing)
        both = stable is not None and bool(_missing(bounds, stable, elapsed_s))
        return too_few._replace(shared=both)
    if shared:
        return Ruling(Verdict.CONTINUE, f"{shared[0].told}; stable is over it too", anew=over)
    if exceeded:
        unsure = f"{exceeded[0].told}; too few to be sure"
        return _short(over, Verdict.INCONCLUSIVE, unsure)
    return _when(over, Verdict.PASS, _within(bounds, canary))


def rule_shadow(
    compared: int, differed: int, compared_min: int, limit: float, alpha: float
) -> Ruling:
    """Judge the answers of mirrored requests that differ from stable's."""
    if compared < compared_min:
        short = f"{compared} of {compared_min} answers compared so far"
        return Ruling(Verdict.INCONCLUSIVE, short, scarce=True)
    rate = differed / max(compared, 1)
    told = f"{percent(rate)} of the answers differ from stable's, limit {percent(limit)}"
    told += f" ({compared} answers)"
    metric = _Metric("disagreement", differed, compared, limit, told)
    if metric.proven(alpha):
        return Ruling(Verdict.FAIL, told)
    if metric.exceeded:
        return Ruling(Verdict.INCONCLUSIVE, f"{told}; too few to be sure", scarce=True)
    return Ruling(Verdict.PASS, told)


def _when(over: bool, verdict: Verdict, reason: str) -> Ruling:
    return Ruling(verdict if over else Verdict.CONTINUE, reason)


def _short(over: bool, verdict: Verdict, reason: str) -> Ruling:
    return _when(over, verdict, reason)._replace(scarce=True)


def _metrics(bounds: Bounds, sample: Sample) -> list[_Metric]:
    counts, labelled = sample.counts, sample.labelled
    asked = f"({counts.requests} requests)"
    slower, answered = sample.slower_than(bounds.latency_p95_s_max), sum(counts.latency)
    metrics = [
        _Metric(
            "errors",
            counts.errors,
            counts.requests,
            bounds.error_rate_max,
            f"errors {percent(sample.error_rate)}, limit {percent(bounds.error_rate_max)} "
            f"{asked}",
        ),
        _Metric(
            "latency",
            slower,
            answered,
            SLOW_SHARE,
            f"p95 latency {_p95(sample)}, limit {duration(bounds.latency_p95_s_max)} {asked}",
        ),
    ]
    if bounds.labels_min:
        metrics.append(
            _Metric(
                "accuracy",
                sample.wrong,
                labelled.labels,
                1 - bounds.accuracy_min,
                f"accuracy {percent(sample.accuracy)}, at least "
                f"{percent(bounds.accuracy_min)} needed ({labelled.labels} labels)",
            )
        )
    return metrics


def _shared(bounds: Bounds, exceeded: list[_Metric], stable: Sample | None) -> list[_Metric]:
    """Those of `exceeded` that stable exceeds in the same window, on enough requests."""
    if stable is None or stable.counts.requests < bounds.requests_min:
        return []
    names = {m.name for m in _metrics(bounds, stable) if m.exceeded}
    return [m for m in exceeded if m.name in names]


def _missing(bounds: Bounds, canary: Sample, elapsed_s: float) -> str:
    """What is too few and how much more is needed; empty if there is enough."""
    counts = canary.counts
    answered = max(1, min(bounds.requests_min, counts.requests - counts.errors))
    needs = (
        ("requests", counts.requests, bounds.requests_min),
        ("answers", sum(counts.latency), answered),
        ("labels", canary.labelled.labels, bounds.labels_min),
    )
    for name, seen, least in needs:
        if seen < least:
            left = elapsed_s * (least - seen) / max(seen, 1)
            wait = f"about {duration(max(1, round(left)))} more at this rate"
            wait = wait if seen else "none so far"
            return f"{seen} of the {least} {name} needed; {wait}"
    return ""


def _within(bounds: Bounds, canary: Sample) -> str:
    parts = [
        f"errors {percent(canary.error_rate)} (limit {percent(bounds.error_rate_max)})",
        f"p95 latency {_p95(canary)} (limit {duration(bounds.latency_p95_s_max)})",
    ]
    if bounds.labels_min:
        needed = percent(bounds.accuracy_min)
        parts.append(f"accuracy {percent(canary.accuracy)} (at least {needed})")
    return f"{', '.join(parts)}; {canary.counts.requests} requests"


def _p95(sample: Sample) -> str:
    p95 = sample.latency_p95_s
    if p95 is None:
        return "unknown"
    return f"over {duration(LATENCY_EDGES_S[-1])}" if isinf(p95) else duration(p95)

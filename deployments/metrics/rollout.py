"""What the ledger says of the rollouts, as Prometheus metrics.

The present state is of the last rollout of each endpoint; totals are over the whole ledger.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
)

from policy.evidence.comparison import decides_at, proves_at
from policy.evidence.limits import Fault, Verdict
from policy.ledger import Ledger, Totals
from policy.rollout.record import (
    Phase,
    Rollout,
    deadline_s,
    desired_weights,
    finished,
    stayed_s,
)

Values = Iterable[tuple[Sequence[str], float]]  # the labels' values in order, and the figure
_RESULTS = {Phase.DONE: "promoted", Phase.ROLLED_BACK: "rolled-back"}
_WHERE = ("endpoint", "version")


def rollout_metrics(ledger: Ledger, endpoints: Sequence[str], at: datetime) -> Iterator[Metric]:
    """The ledger's own figures, then each endpoint's last rollout, then the totals."""
    yield counter("arr_coc_ledger_records", "Records in the ledger.", (), [((), ledger.number)])
    head = InfoMetricFamily("arr_coc_ledger_head", "SHA-256 of the ledger's last record.")
    head.add_metric([], {"sha256": ledger.head})
    yield head
    last = [r for name in endpoints if (r := ledger.endpoint(name).rollout) is not None]
    yield from _states(last, at)
    yield from _evidence(last)
    yield from _totals({name: ledger.endpoint(name).totals for name in endpoints})


def gauge(name: str, text: str, labels: Sequence[str], values: Values) -> Metric:
    family = GaugeMetricFamily(name, text, labels=labels)
    for of, value in values:
        family.add_metric(of, value)
    return family


def counter(name: str, text: str, labels: Sequence[str], values: Values) -> Metric:
    """`name` without its `_total`."""
    family = CounterMetricFamily(name, text, labels=labels)
    for of, value in values:
        family.add_metric(of, value)
    return family


def _states(last: Sequence[Rollout], at: datetime) -> Iterator[Metric]:
    yield gauge(
        "arr_coc_rollout_phase",
        "1 for the state that the endpoint's last rollout is in, 0 for the others.",
        (*_WHERE, "phase"),
        [((*_of(r), phase), float(phase is r.phase)) for r in last for phase in Phase],
    )
    yield gauge(
        "arr_coc_rollout_step",
        "Index of the plan's weight that the rollout has reached; -1 before the first.",
        _WHERE,
        [(_of(r), r.step) for r in last],
    )
    yield gauge(
        "arr_coc_rollout_paused",
        "1 while a person or an inconclusive analysis holds the rollout.",
        _WHERE,
        [(_of(r), float(r.paused)) for r in last],
    )
    yield gauge(
        "arr_coc_rollout_weight_ratio",
        "Share of the requests that the ledger wants each version to have.",
        _WHERE,
        [((r.endpoint, v), w / 100) for r in last for v, w in desired_weights(r).items()],
    )
    yield gauge(
        "arr_coc_rollout_state_seconds",
        "Time in this state, or paused in it.",
        _WHERE,
        [(_of(r), stayed_s(r, at)) for r in last],
    )
    yield gauge(
        "arr_coc_rollout_state_deadline_seconds",
        "Longest time in this state; longer than that, nobody drives the rollout.",
        _WHERE,
        [
            (_of(r), limit_s)
            for r in last
            if not finished(r) and (limit_s := deadline_s(r)) is not None
        ],
    )


def _evidence(last: Sequence[Rollout]) -> Iterator[Metric]:
    """Natural logarithms: odds of 100 to 1 are 4.6."""
    labels = (*_WHERE, "metric", "decision")
    bets = [
        ((*_of(r), metric, decision), getattr(getattr(r.evidence, metric), field), needed)
        for r in last
        for decision, field, lines in (
            ("rollback", "worse", decides_at(r.plan)),
            ("promotion", "not_worse", proves_at(r.plan)),
        )
        for metric, needed in lines.items()
    ]
    yield gauge(
        "arr_coc_rollout_log_evidence",
        "Natural log of the evidence that the version is worse than stable (rollback), or as "
        "good within the margin (promotion).",
        labels,
        [(of, value) for of, value, _ in bets],
    )
    yield gauge(
        "arr_coc_rollout_log_evidence_threshold",
        "Where that evidence decides.",
        labels,
        [(of, needed) for of, _, needed in bets],
    )


def _totals(of: Mapping[str, Totals]) -> Iterator[Metric]:
    """The ledger keeps them while it is folded: no record is read for a scrape."""
    yield counter(
        "arr_coc_rollout_records",
        "Looks and commands that changed a rollout; a look that changes nothing leaves none.",
        ("endpoint",),
        [((name,), totals.records) for name, totals in of.items()],
    )
    results = [
        ((name, result), totals.results.get(phase, 0))
        for name, totals in of.items()
        for phase, result in _RESULTS.items()
    ]
    yield counter("arr_coc_rollouts", "Rollouts that ended.", ("endpoint", "result"), results)
    faults = [
        ((name, fault), totals.faults.get(fault, 0))
        for name, totals in of.items()
        for fault in (*Fault, "unknown")
    ]
    text = "Versions rolled back, by the kind of reason."
    yield counter("arr_coc_rollout_rollbacks", text, ("endpoint", "fault"), faults)
    verdicts = [
        ((name, verdict), totals.verdicts.get(verdict, 0))
        for name, totals in of.items()
        for verdict in Verdict
    ]
    text = "Windows of live traffic judged."
    yield counter("arr_coc_rollout_verdicts", text, ("endpoint", "verdict"), verdicts)


def _of(rollout: Rollout) -> tuple[str, str]:
    return rollout.endpoint, rollout.version

"""The picture of one rollout: what both versions did over time, the evidence, the decision."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from math import exp
from typing import Any

from policy.counts import LATENCY_EDGES_S
from policy.evidence.comparison import decides_at
from policy.rollout.record import Phase, Rollout, Row, Tally, desired_weights, rows
from tasks.reports.pictures import CANARY, LIMIT, STABLE, figure
from tasks.rollout.telling import Times

METRICS = {
    "error_rate": ("errors", CANARY),
    "slow_rate": ("slow answers", "#e09f3e"),
    "wrong_rate": ("wrong answers", "#5b6cc9"),
}
ENDS = {
    Phase.PROMOTING: ("cleared", STABLE),
    Phase.WATCHING: ("cleared", STABLE),
    Phase.DONE: ("promoted", STABLE),
    Phase.ROLLING_BACK: ("rolled back", CANARY),
}
_SLOWEST_MS = 1000 * LATENCY_EDGES_S[-1]


def rollout_timeline(records: Times) -> str:
    """Six panels over seconds since the start, from the rollout's records in their order.

    Weight, requests, errors, 95th percentile of the latency and right answers of canary and
    stable in each judged window, and the evidence that the canary is worse than stable, with
    the line at which it decides. A vertical line marks each decision.
    """
    since = records[0][0]
    windows = rows(rollout for _, rollout in records)
    with figure(9.6, 4.6, columns=3, rows=2) as (axes, finish):
        _weights(axes[0], records, since)
        panels: tuple[tuple[str, Callable[[Tally], float | None]], ...] = (
            ("requests in each window", _requests),
            ("errors, share of requests", _error_rate),
            ("latency p95, upper bound, ms", _p95_ms),
            ("right answers, share of labels", _accuracy),
        )
        for axis, (title, value) in zip(axes[1:5], panels, strict=True):
            _pair(axis, windows, since, value)
            axis.set_title(title, fontsize=9)
        axes[2].set_ylim(-0.005, max(0.1, 1.1 * axes[2].get_ylim()[1]))
        _buckets(axes[3])
        axes[4].set_ylim(-0.03, 1.03)
        _evidence(axes[5], records, since)
        for axis in axes:
            _decisions(axis, records, since, named=axis is axes[0])
            axis.set_xlim(0, 1.03 * max((records[-1][0] - since).total_seconds(), 0.1))
            axis.set_xlabel("s", fontsize=8)
    return finish[0]


def _weights(axis: Any, records: Times, since: datetime) -> None:
    for name, color in (("canary", CANARY), ("stable", STABLE)):
        shares = [
            (at, desired_weights(rollout).get(_named(rollout, name), 0))
            for at, rollout in records
        ]
        axis.step(*_points(shares, since), where="post", color=color, label=name)
    axis.set_ylim(-3, 108)
    axis.set_title("weight, percent", fontsize=9)
    axis.legend(frameon=False, fontsize=8, loc="center left")


def _named(rollout: Rollout, side: str) -> str:
    return rollout.version if side == "canary" else rollout.stable or ""


def _pair(
    axis: Any, windows: Sequence[Row], since: datetime, value: Callable[[Tally], float | None]
) -> None:
    for side, color in (("stable", STABLE), ("canary", CANARY)):
        values = [
            (row.at, found)
            for row in windows
            if (tally := getattr(row, side)) is not None and (found := value(tally)) is not None
        ]
        axis.plot(*_points(values, since), "o-", color=color, ms=4, linewidth=1.2)


def _buckets(axis: Any) -> None:
    """A logarithmic scale whose ticks are the edges of the latency buckets."""
    axis.set_yscale("log")
    low, high = axis.get_ylim()
    axis.set_ylim(low / 2, high * 2)
    edges_ms = [1000 * edge for edge in LATENCY_EDGES_S if low / 2 <= 1000 * edge <= high * 2]
    axis.set_yticks(edges_ms, [f"{edge:g}" for edge in edges_ms])
    axis.set_yticks([], minor=True)


def _evidence(axis: Any, records: Times, since: datetime) -> None:
    """As a share of what decides, so that one line at 1 serves all metrics."""
    plan = records[0][1].plan
    lines: Mapping[str, float] = decides_at(plan)
    for name, needed in lines.items():
        label, color = METRICS[name]
        values = [(at, getattr(r.evidence, name).worse / needed) for at, r in records]
        shown = f"{label} ({_odds(needed)})"
        axis.step(*_points(values, since), where="post", color=color, label=shown)
    axis.axhline(1, color=LIMIT, linestyle="--", linewidth=1)
    low, high = axis.get_ylim()
    axis.set_ylim(min(max(low, -3), -0.1), min(max(high, 1.15), 5))
    axis.set_title("log evidence, 1 rolls back (odds)", fontsize=9)
    axis.legend(frameon=False, fontsize=7)


def _odds(needed: float) -> str:
    return f"{round(exp(needed)):,} : 1".replace(",", " ")


def _decisions(axis: Any, records: Times, since: datetime, *, named: bool) -> None:
    seen: set[str] = set()
    for at, rollout in records:
        if rollout.phase not in ENDS or ENDS[rollout.phase][0] in seen:
            continue
        name, color = ENDS[rollout.phase]
        seen.add(name)
        second = (at - since).total_seconds()
        axis.axvline(second, color=color, linestyle=":", linewidth=1.2)
        if named:
            axis.annotate(
                name,
                (second, 60),
                rotation=90,
                fontsize=7,
                color=color,
                ha="right",
                va="center",
            )


def _points(
    values: Sequence[tuple[datetime, float]], since: datetime
) -> tuple[list[float], list[float]]:
    return [(at - since).total_seconds() for at, _ in values], [value for _, value in values]


def _requests(tally: Tally) -> float:
    return float(tally.requests)


def _error_rate(tally: Tally) -> float | None:
    return tally.errors / tally.requests if tally.requests else None


def _p95_ms(tally: Tally) -> float | None:
    """Past the last bucket's edge it is drawn there."""
    if not tally.requests or not tally.latency_known:
        return None
    return _SLOWEST_MS if tally.latency_p95_s is None else 1000 * tally.latency_p95_s


def _accuracy(tally: Tally) -> float | None:
    return tally.correct / tally.labels if tally.labels else None

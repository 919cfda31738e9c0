"""The rollout's report in the Prefect UI: its windows as a picture and a table."""

from policy.rollout.record import Phase, Row, Tally, rows
from policy.words import plain
from tasks.reports.timeline import rollout_timeline
from tasks.rollout.telling import Times


def report(records: Times) -> str:
    """The markdown of one report, from the rollout's records with their times, in order."""
    rollout = records[-1][1]
    windows = rows(record for _, record in records)
    ends = {Phase.DONE: "promoted", Phase.ROLLED_BACK: "**rolled back**"}
    lines = "\n".join(_line(number, row) for number, row in enumerate(windows, 1))
    reasons = "\n".join(
        f"{n}. {row.verdict}: {plain(row.reason)}" for n, row in enumerate(windows, 1)
    )
    picture = rollout_timeline(records) if windows else ""
    seconds = (rollout.entered_at - rollout.started_at).total_seconds()
    end = ends.get(rollout.phase, rollout.phase)
    return f"""# {rollout.version} on {rollout.endpoint}: {end}

{plain(rollout.reason)}

Strategy {rollout.plan.strategy} {list(rollout.plan.weights)}. The version before: \
{rollout.stable or "none"}. Asked for by {plain(records[0][1].by)}. Took {seconds:.0f} s.

{picture}

| window | at | weight | verdict | requests | errors | p95 | right answers |
| --- | --- | --- | --- | --- | --- | --- | --- |
{lines}

Each cell: the new version / stable in the same window.

{reasons or "No window of live traffic was judged."}
"""


def _line(number: int, row: Row) -> str:
    pair = (row.canary, row.stable)
    cells = (
        str(number),
        f"{row.at:%H:%M:%S}",
        f"{row.weight} %",
        str(row.verdict),
        _both(pair, lambda tally: str(tally.requests)),
        _both(pair, lambda tally: str(tally.errors)),
        _both(pair, _p95),
        _both(pair, lambda t: f"{t.correct} of {t.labels}" if t.labels else "–"),
    )
    return "| " + " | ".join(cells) + " |"


def _both(pair: tuple[Tally | None, Tally | None], tell) -> str:
    return " / ".join("–" if tally is None else tell(tally) for tally in pair)


def _p95(tally: Tally) -> str:
    if not tally.requests or not tally.latency_known:
        return "–"
    return "> 10 s" if tally.latency_p95_s is None else f"≤ {1000 * tally.latency_p95_s:.0f} ms"

"""The rollout's report in the Prefect UI: its windows as a picture and a table."""

from prefect.artifacts import create_markdown_artifact
from prefect.events import emit_event
from prefect.runtime import flow_run

from deployments import connect, ledger
from policy.config import Config
from policy.rollout.record import Phase, Rollout, Row, Tally, rows
from tasks import remote
from tasks.reports.timeline import Times, rollout_timeline


@remote
def rollout_report(config: Config, rollout: Rollout) -> None:
    """Publish the report and tell others by an event how the rollout ended."""
    records = ledger.read(connect(config).store).of_rollout(rollout.id)
    ours = [(record.at, state) for record, state in records]
    create_markdown_artifact(
        key=f"rollout-{rollout.endpoint}",
        markdown=report(ours),
        description=f"{rollout.version}: {rollout.phase}",
    )
    emit_event(
        f"arr-coc.rollout.{rollout.phase}",
        resource={"prefect.resource.id": f"arr-coc.{rollout.endpoint}"},
        payload={"version": rollout.version, "reason": rollout.reason},
        related=[
            {
                "prefect.resource.id": f"prefect.flow-run.{flow_run.id}",
                "prefect.resource.role": "flow-run",
            }
        ],
    )


def report(records: Times) -> str:
    """The markdown of one report, from the rollout's records with their times, in order."""
    rollout = records[-1][1]
    windows = rows(record for _, record in records)
    ends = {Phase.DONE: "promoted", Phase.ROLLED_BACK: "**taken back**"}
    lines = "\n".join(_line(number, row) for number, row in enumerate(windows, 1))
    reasons = "\n".join(f"{n}. {row.verdict}: {row.reason}" for n, row in enumerate(windows, 1))
    picture = rollout_timeline(records) if windows else ""
    seconds = (rollout.entered_at - rollout.started_at).total_seconds()
    end = ends.get(rollout.phase, rollout.phase)
    return f"""# {rollout.version} on {rollout.endpoint}: {end}

{rollout.reason}

Strategy {rollout.plan.strategy} {list(rollout.plan.weights)}, before: \
{rollout.stable or "nothing"}, by {rollout.by}, {seconds:.0f} s.

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
    if not tally.requests:
        return "–"
    return "> 10 s" if tally.latency_p95_s is None else f"≤ {1000 * tally.latency_p95_s:.0f} ms"

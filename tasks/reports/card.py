"""The release card: one page that tells whether a version may be released, and why."""

import csv

from prefect.artifacts import create_markdown_artifact

from policy.config import Config
from policy.gates.decision import GateReport
from policy.gates.scores import Scores
from policy.words import plain
from tasks.places import place_of
from tasks.release import lineage_of, read_scores
from tasks.reports.pictures import embed, family_bars, learning_curves
from tasks.retries import remote
from tasks.training import Run


@remote
def release_card(
    config: Config, run: Run, trained: str, scores: str, report: GateReport
) -> None:
    """Publish the card of this run in the Prefect UI, whatever the gate decided."""
    store = place_of(config).store
    model, scored = store.download(trained), store.download(scores)
    with (model / "curves.csv").open() as file:
        curves = learning_curves(list(csv.DictReader(file)))
    seen = read_scores(scored)
    bars = family_bars(seen.families, config.gates.family_accuracy_min)
    lineage = lineage_of(config, run, model)
    picture = scored / "attention.png"  # not every model has one
    where = embed(picture.read_bytes()) if picture.is_file() else ""
    create_markdown_artifact(
        key="release-card",
        markdown=card(run, seen, report, lineage, curves, bars, where),
        description=f"run {run.key}: {'passed' if report.passed else 'refused'}",
    )


def card(
    run: Run,
    scores: Scores,
    report: GateReport,
    lineage: dict[str, str],
    curves: str,
    bars: str,
    where: str,
) -> str:
    """The markdown of one card."""
    decision = "may be released" if report.passed else "refused by the gate"
    checks = "\n".join(
        f"- {'passed' if check.passed else '**failed**'}: {plain(check.reason)}"
        for check in report.checks
    )
    shown = (
        "dataset",
        "data_fingerprint",
        "seed",
        "steps_max",
        "commit",
        "dirty",
        "wandb_run_id",
    )
    origin = "\n".join(f"| {name} | `{lineage[name]}` |" for name in shown)
    return f"""# Run {run.key}: {decision}

**{scores.accuracy:.3f}** over {scores.questions} questions that it never saw.
Started {_started(run)}.

## Gate
{checks}

## Accuracy per family
{bars}

## Learning curves
{curves}

{"## Where the tokens went" if where else ""}
{where}

## Lineage
| what | value |
| --- | --- |
{origin}
"""


def _started(run: Run) -> str:
    return {"hand": "by hand", "schedule": "by the schedule", "event": "by an event"}[
        run.cause
    ] + f": {plain(run.why)}"

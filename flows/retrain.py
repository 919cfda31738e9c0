"""Retrain the model and bring it to production, if it deserves that.

    prefect deployment run retrain/on-demand --watch      # on a worker
    python -m flows.retrain                               # the same, in this process

Green: the new version serves. Red: it was refused by a limit or the gate, or rolled back;
production is as it was, and the release card or the rollout report says why.
"""

from pathlib import Path

from prefect import flow

from policy.config import load_config, with_model
from policy.monitoring.governor import Cause
from tasks.release import champion, champion_scores, gate, register, require, signer
from tasks.reports.card import release_card
from tasks.rollout.steps import follow, request_rollout, require_came_true, wait_until_free
from tasks.server import run_in_terminal
from tasks.training import (
    check,
    evaluate,
    fetch,
    plan,
    score_benchmarks,
    train,
    wait_for_turn,
)


@flow(name="retrain", flow_run_name="retrain-{cause}", log_prints=True)
def retrain(
    config: str = "deployments/local.yaml",
    seed: int | None = None,
    steps_max: int | None = None,
    cause: Cause = "hand",
    why: str = "asked for",
) -> str:
    """Fetch, check, train, evaluate, gate, register, stage and roll out; return the version.

    Safe to run again at any time: finished steps are kept, a training goes on from its last
    checkpoint and a rollout from the state in the ledger. The gate compares with what serves
    when it decides, after any rollout under way has ended; if something else serves by the
    time that this version would be rolled out, it is not.

    Args:
        config: the configuration file; it names the data, the gates and the place.
        seed: of the training; empty: the run draws its own and keeps it on a retry.
        steps_max: the number of training steps; empty: as configured.
        cause: hand, schedule or event; the last two are limited by `retraining`.
        why: one sentence for the ledger.

    Raises:
        ConfigError: if nobody could sign the release; nothing was started.
        Refused, DataError, JobFailed, GateFailed, RolledBack: production is as it was.
    """
    settings = with_model(load_config(Path(config)), steps_max=steps_max)
    signer(settings)  # a missing key is told before the training, not after it
    wait_for_turn(settings)
    run = plan(settings, seed, cause, why)
    data = fetch(settings)
    check(settings, run, data)
    trained = train(settings, run, data)
    scores = evaluate(settings, data, trained, run.uri("scores"))
    benchmarks = score_benchmarks(settings, run, trained, scores)
    serving = wait_until_free(settings, settings.production)
    production = champion(settings, serving)
    theirs = champion_scores(settings, data, production) if production else ""
    report = gate(settings, scores, production, theirs, benchmarks)
    release_card(settings, run, trained, scores, report)
    require(report, run)
    version = register(settings, run, trained, scores, benchmarks, report)
    for endpoint in settings.path:
        compared = serving if endpoint == settings.production else ""
        by = f"retrain ({cause})"
        request = request_rollout(settings, endpoint, version, by, why, compared)
        require_came_true(follow(settings, request, config))
    return version


if __name__ == "__main__":
    run_in_terminal(retrain, str(__doc__))

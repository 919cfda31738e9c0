"""Bring the version before back to an endpoint, at once.

    prefect deployment run rollback/production --param why="wrong answers" --watch
    python -m flows.rollback "wrong answers"

A rollout under way is aborted; otherwise the version before is brought back with its own
configuration and preprocessing, for a release is one folder under one digest. Green: that
version serves. Red: it could not serve, and what served before still does.
"""

from pathlib import Path

from prefect import flow

from policy.config import load_config
from tasks.rollout.steps import follow, request_rollback, require_came_true
from tasks.server import run_in_terminal


@flow(name="rollback", flow_run_name="{why}", log_prints=True)
def rollback(
    why: str,
    by: str = "a person",
    endpoint: str = "",
    config: str = "deployments/local.yaml",
) -> str:
    """Returns why it came true.

    Args:
        why: one sentence for the ledger.
        by: who asks, for the ledger.
        endpoint: the endpoint's name; empty: the one with the role production.
        config: the configuration file.

    Raises:
        Refused: if there is no version before.
        RolledBack: if the version before could not serve.
    """
    settings = load_config(Path(config))
    endpoint = endpoint or settings.production
    request = request_rollback(settings, endpoint, by, why)
    return require_came_true(follow(settings, request, config))


if __name__ == "__main__":
    run_in_terminal(rollback, str(__doc__), "why")

"""Take production back to the version before, at once.

    prefect deployment run rollback/production --param why="wrong answers" --watch
    python -m flows.rollback "wrong answers"

A rollout under way is aborted; otherwise the version before is brought back with its own
configuration and preprocessing, for a release is one folder under one digest.
"""

import sys
from pathlib import Path

from prefect import flow

from flows.rollout import drive
from policy.config import load_config
from tasks.rollout.steps import begin_rollback


@flow(name="rollback", flow_run_name="{endpoint}", log_prints=True)
def rollback(
    why: str,
    by: str = "a person",
    endpoint: str = "production",
    config: str = "deployments/local.yaml",
) -> str:
    """Return the version that serves afterwards. Raises Refused if there is none before."""
    state = drive(config, begin_rollback(load_config(Path(config)), endpoint, by, why))
    return state.version if state.phase == "done" else state.stable or "none"


if __name__ == "__main__":
    rollback(why=sys.argv[1])

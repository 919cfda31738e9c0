"""Roll a registered version out to an endpoint.

    prefect deployment run rollout/production --param version=2026.11.22-3fa9c1e --watch
    python -m flows.rollout 2026.11.22-3fa9c1e           # the same, in this process

What happens when is decided in policy/rollout/machine.py; this file gives it a clock and hands.
"""

import sys
from pathlib import Path

from prefect import flow

from policy.config import load_config
from policy.rollout.record import Phase, Rollout, finished
from tasks.reports.rollout import rollout_report
from tasks.rollout.approval import approval
from tasks.rollout.notification import TOLD, notify
from tasks.rollout.steps import begin, latest, require_promoted, settle, step, traffic


@flow(name="rollout", flow_run_name="{endpoint}-{version}", log_prints=True)
def rollout(
    version: str,
    endpoint: str = "production",
    config: str = "deployments/local.yaml",
    by: str = "a person",
) -> str:
    """Walk `version` through the configured weights until it is promoted or taken back.

    Safe to run again at any time: it goes on from the ledger's last record.

    Raises:
        Busy: if another version's rollout holds the endpoint.
        RolledBack: if the version was taken back, so that the run and the CI job turn red.
    """
    settings = load_config(Path(config))
    state = drive(config, begin(settings, endpoint, version, by))
    require_promoted(state)
    return version


def drive(config: str, state: Rollout) -> Rollout:
    """Take every step that is left, then report. Returns the finished rollout."""
    settings = load_config(Path(config))
    if finished(state):
        settle(settings, state)
        return state
    with traffic(settings, state):
        while not finished(state):
            if state.phase in TOLD:
                notify(settings, state, config)
            waits = state.phase is Phase.AWAITING_APPROVAL
            state = approval(settings, state, config) if waits else step(settings, state)
        settle(settings, state)
    rollout_report(settings, state)
    notify(settings, state, config)
    return state


def finish_rollout(config: str, endpoint: str) -> None:
    """Bring what a dead controller left on `endpoint` to its end, either way."""
    settings = load_config(Path(config))
    left = latest(settings, endpoint)
    if left is not None and not finished(left):
        drive(config, left)
    elif left is not None:
        settle(settings, left)


if __name__ == "__main__":
    rollout(sys.argv[1])

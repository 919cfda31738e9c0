"""Roll a registered version out to an endpoint.

    prefect deployment run rollout/production --param version=2026.11.22-3fa9c1e --watch
    python -m flows.rollout 2026.11.22-3fa9c1e           # the same, in this process

Green: the version serves. Red: it was refused or rolled back, stable serves, and the rollout
report says why; nothing needs repair. If this process dies, the reconciler goes on. Cancelling
the run means abort.
"""

from pathlib import Path

from prefect import flow

from policy.config import load_config
from tasks.rollout.steps import follow, request_rollout, require_came_true
from tasks.server import run_in_terminal


@flow(name="rollout", flow_run_name="{version}", log_prints=True)
def rollout(
    version: str,
    endpoint: str = "",
    config: str = "deployments/local.yaml",
    by: str = "a person",
    why: str = "asked for",
) -> str:
    """Walk `version` through the configured weights until it is promoted or rolled back.

    The request carries this run's id: run again, it is the same request. If another rollout
    has the endpoint, this one waits for its end.

    Args:
        version: a registered one, such as 2026.11.22-3fa9c1e; `make history` lists them.
        endpoint: the endpoint's name; empty: the one with the role production.
        config: the configuration file.
        by: who asks, for the ledger.
        why: one sentence for the ledger.

    Raises:
        Refused: if the endpoint cannot do what the plan needs; nothing was started.
        RolledBack: if the version was rolled back, so that the run and the CI job turn red.
    """
    settings = load_config(Path(config))
    endpoint = endpoint or settings.production
    request = request_rollout(settings, endpoint, version, by, why)
    require_came_true(follow(settings, request, config))
    return version


if __name__ == "__main__":
    run_in_terminal(rollout, str(__doc__), "version")

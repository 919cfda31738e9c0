"""Look at what is against what should be, go on with what nobody drives, and tell what is left.

    prefect deployment run reconcile/now --watch
    python -m flows.reconcile                       # the same, in this process

Where a worker is cheap this runs on a schedule; the place `local` keeps tasks/reconciler.py
running instead, which calls the same controller and starts this only to tell people. Green:
every endpoint is what the ledger wants, everything was told, every part of the place is well.
Red: something is not, and the error says what and what to do.
"""

from pathlib import Path

from prefect import flow

from policy.config import load_config
from tasks.reconciliation import (
    go_on,
    require_well,
    stop_what_was_cancelled,
    tell_left,
)
from tasks.server import run_in_terminal


@flow(name="reconcile", log_prints=True)
def reconcile(config: str = "deployments/local.yaml", for_s: float = 50.0) -> None:
    """One round: drive each endpoint for at most `for_s` seconds, tell, and check.

    Safe beside any other controller and at any time.

    Args:
        config: the configuration file.
        for_s: how many seconds each endpoint is driven at most.

    Raises:
        EndpointError: if an endpoint or a part of the place is not what it should be.
    """
    settings = load_config(Path(config))
    stop_what_was_cancelled(settings)
    for endpoint in settings.path:
        go_on(settings, endpoint, for_s)
    tell_left(settings, config)
    require_well(settings)


if __name__ == "__main__":
    run_in_terminal(reconcile, str(__doc__))

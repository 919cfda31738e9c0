"""Repeat the training of a registered version and compare the weights.

    python -m flows.reproduce 2026.11.22-3fa9c1e

The lineage in the ledger holds all that went in. The same seed on the same machine gives the
same weights, bit for bit; another processor or library may differ in the last digits.
"""

from pathlib import Path

from prefect import flow

from policy.config import load_config
from tasks.reproduction import compare_weights, recorded
from tasks.server import run_in_terminal
from tasks.training import fetch, train


@flow(name="reproduce", flow_run_name="{version}", log_prints=True)
def reproduce(version: str, config: str = "deployments/local.yaml") -> str:
    """Train `version` anew; returns its digest of the weights.

    Raises:
        NotFound: if there is no such version, or it was not trained here.
        ReleaseError: if the code differs, or the weights do.
    """
    place = load_config(Path(config))
    settings, run = recorded(place, version)
    trained = train(settings, run, fetch(settings))
    return compare_weights(place, version, trained)


if __name__ == "__main__":
    run_in_terminal(reproduce, str(__doc__), "version")

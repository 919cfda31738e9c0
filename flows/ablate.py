"""Train without each part of the model in turn, side by side; never registers.

python -m flows.ablate                                # five ablations, three seeds
prefect deployment run ablate/on-demand --param steps_max=200
"""

import os
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner

from policy.config import load_config
from tasks.ablation import Measured, ablation_report, ended, measure, on_one_core
from tasks.server import run_in_terminal
from tasks.training import fetch

BASELINE = "none"
ABLATIONS = (
    BASELINE,
    "no-propositional",
    "no-perspectival",
    "no-participatory",
    "uniform-lod",
    "no-opponent-processing",
)

SIDE_BY_SIDE: Any = ThreadPoolTaskRunner(max_workers=os.cpu_count() or 1)


@flow(
    name="ablate",
    log_prints=True,
    task_runner=SIDE_BY_SIDE,
)
def ablate(
    config: str = "deployments/local.yaml",
    ablations: tuple[str, ...] = ABLATIONS,
    seeds: tuple[int, ...] = (1, 2, 3),
    steps_max: int | None = None,
) -> list[Measured]:
    """Train every ablation with every seed on one core each; publish what each part is for.

    One that fails is told in the report and does not stop the others. A repeated run keeps
    what is finished.

    Args:
        config: the configuration file.
        ablations: the parts to leave out in turn; "none" is the whole model.
        seeds: of the trainings; each ablation is trained with each.
        steps_max: the number of training steps; empty: as configured.
    """
    settings = on_one_core(load_config(Path(config)), steps_max)
    data = fetch(settings)
    wanted = [(ablation, seed) for seed in seeds for ablation in ablations]
    running = [measure.submit(settings, ablation, seed, data) for ablation, seed in wanted]
    measured = [ended(future, *one) for future, one in zip(running, wanted, strict=True)]
    ablation_report(measured, BASELINE)
    return measured


if __name__ == "__main__":
    run_in_terminal(ablate, str(__doc__))

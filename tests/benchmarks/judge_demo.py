"""The rollout section of a configuration, played many times against versions good and bad.

    python -m tests.benchmarks.judge_demo deployments/local.yaml --good 4000 --bad 400

Every rollout goes look by look through policy/rollout/machine.py, with as many requests a
second as the configuration replays. Reported: how often each version was rolled back, after
how many seconds of its first weight, and its largest weight.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from policy.config import load_config
from policy.rollout.plans import Plan, plan_of
from policy.rollout.record import Phase, desired_weights
from tests.policy.worlds import Behaviour, begin, run, world

VERSIONS = {
    "good": Behaviour(errors=0.0, wrong=0.05),
    "good, slower by half": Behaviour(errors=0.0, wrong=0.05, latency_s=0.045),
    "shuffled answers": Behaviour(wrong=0.8),
    "half of the requests fail": Behaviour(errors=0.5),
}


def play(plan: Plan, name: str, times: int) -> dict[str, float]:
    """Roll the version out `times` times."""
    back, weights, seconds = 0, [], []
    for seed in range(times):
        a_world = world(VERSIONS[name], per_s=plan.replays_per_s, seed=seed)
        records = run(a_world, begin(plan), look_s=plan.look_s)
        first = next(record for record in records if record.phase is Phase.STEP)
        back += records[-1].phase is Phase.ROLLED_BACK
        weights.append(max(desired_weights(record).get("v2", 0) for record in records))
        seconds.append((records[-1].entered_at - first.entered_at).total_seconds())
    return {
        "times": times,
        "rolled_back": back / times,
        "largest_weight": max(weights),
        "seconds_median": float(np.median(seconds)),
        "seconds_95_percent": float(np.percentile(seconds, 95)),
    }


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    shipped = Path("deployments/local.yaml")
    arguments.add_argument("config", type=Path, nargs="?", default=shipped)
    arguments.add_argument("--good", type=int, default=4000)
    arguments.add_argument("--bad", type=int, default=400)
    chosen = arguments.parse_args()
    found = {
        name: play(
            plan_of(load_config(chosen.config).rollout),
            name,
            chosen.good if name.startswith("good") else chosen.bad,
        )
        for name in VERSIONS
    }
    json.dump(found, sys.stdout, indent=2)

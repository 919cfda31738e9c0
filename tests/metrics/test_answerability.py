"""VizWiz answerability equals the official values; its intervals hold what they promise."""

import json
from pathlib import Path

import numpy as np
import pytest

from model.metrics.answerability import answerability

FROZEN = json.loads((Path(__file__).parent / "data/agreement.json").read_text())


@pytest.mark.parametrize("case", FROZEN["answerability"])
def test_average_precision_and_f1_agree(case):
    found = answerability(np.array(case["answerable"]), np.array(case["predicted"]))
    for name in ("average_precision", "f1_score"):
        assert found[name].value == pytest.approx(case[name], abs=1e-12)
        assert found[name].low <= found[name].value <= found[name].high
        assert found[name].questions == len(case["answerable"])


def test_the_interval_of_average_precision_covers_the_truth():
    random = np.random.default_rng(7)

    def sample(number):
        answerable_N = (random.random(number) < 0.7).astype(int)
        return answerable_N, random.normal(size=number) + answerable_N

    truth = answerability(*sample(200_000 // 10))["average_precision"].value
    covered = 0
    for _ in range(60):
        found = answerability(*sample(300))["average_precision"]
        covered += found.low <= truth <= found.high
    assert covered >= 52  # 95 % of 60 is 57; fewer than 52 by chance once in 140 times

"""The profiles that ship as files for the programs."""

import json
from pathlib import Path

import pytest
import yaml

from model.program import settings

FULL = Path(__file__).parents[2] / "model/profiles/full"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("data", settings.DataSettings),
        ("train", settings.TrainSettings),
        ("evaluate", settings.EvaluateSettings),
    ],
)
def test_a_profile_s_files_are_what_the_programs_read(name, kind):
    settings.load(kind, FULL / f"{name}.json")


def test_the_whole_loop_s_file_has_the_same_data_set_and_model():
    whole = yaml.safe_load((FULL.parents[2] / "deployments/full.yaml").read_text())
    assert {"dataset": whole["dataset"]} == json.loads((FULL / "data.json").read_text())
    assert whole["model"] == json.loads((FULL / "train.json").read_text())["model"]


@pytest.mark.slow
def test_full_s_data_set_has_the_fingerprint_that_its_file_pins(programs, tmp_path):
    config = json.loads((FULL / "data.json").read_text())
    program = programs.run("data", config, output=tmp_path / "data")
    assert program.end(300) == 0, program.text

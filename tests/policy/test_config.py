"""The configuration is complete, typed, and refuses what it does not know."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from policy.config import load_config, parse_config, with_model
from policy.errors import ConfigError
from policy.rollout.plans import plan_for

REPOSITORY = Path(__file__).parents[2]
LOCAL = REPOSITORY / "deployments/local.yaml"
BENCHMARK = {
    "name": "gqa",
    "dataset": yaml.safe_load(LOCAL.read_text())["dataset"],
    "accuracy_above": "reported",
}


def changed(path, value):
    """local.yaml with one setting replaced; a value of None takes it out."""
    record = yaml.safe_load(LOCAL.read_text())
    *sections, last = path.split(".")
    place = record
    for name in sections:
        place = place[name]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return yaml.safe_dump(record)


@pytest.mark.parametrize("path", sorted(LOCAL.parent.glob("*.yaml")), ids=lambda p: p.stem)
def test_the_files_that_ship_are_valid(path):
    assert load_config(path).name == path.stem


def test_the_profile_for_real_data_has_the_gates_of_the_mission():
    gates = load_config(LOCAL.parent / "vqa.yaml").gates
    assert {one.name: one.accuracy_above for one in gates.benchmarks} == {
        "vqav2": 0.70,
        "gqa": 0.65,
        "textvqa": "reported",
        "vizwiz": "reported",
    }


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("rollout.wieghts", [100], "rollout.wieghts (=[100])"),  # an unknown key
        ("rollout.weights", [10, 50], "weights (=[10, 50]) must rise and end at 100"),
        ("rollout.weights", [50, 30, 100], "must rise and end at 100"),
        ("rollout.weights", [10, 110], "rollout.weights.1 (=110)"),
        ("rollout.weights", [], "must rise and end at 100"),
        ("rollout.strategy", "blue-green", "must be [0, 100] for blue-green"),
        ("gates.accuracy_min", 1.2, "gates.accuracy_min (=1.2)"),
        ("gates.accuracy_min", None, "gates.accuracy_min"),  # no hidden default
        ("gates.accuracy_min", float("nan"), "gates.accuracy_min"),
        (
            "gates.benchmarks",
            [dict(BENCHMARK)] * 2,
            "must have different names (=['gqa', 'gqa'])",
        ),
        ("gates.benchmarks", [BENCHMARK | {"accuracy_above": "none"}], "accuracy_above"),
        ("dataset.version", "latest", "dataset.version (='latest')"),
        ("compute.processes", 0, "compute.processes (=0)"),
        ("model.strategy", "fsdp", "model.strategy (=fsdp) needs compute.accelerators"),
        ("model.precision", "16-mixed", "(=16-mixed) needs compute.accelerators"),
        ("local.production_port", 80, "local.production_port (=80)"),
        ("local.production_port", 4200, "ports must differ"),
        ("local.production_port", 8150, "lies inside model_ports"),
        ("local.model_ports", [8199, 8100], "model_ports (=[8199, 8100]) must rise"),
        ("local", None, "needs the section 'local'"),
        ("compute.spot", True, "(=True) must be 'local' and false"),
        ("place", "moon", "place (='moon')"),
        ("signing", None, "signing"),
        ("signing.private_key", "key.pem", "signing.private_key (='key.pem')"),
        ("signing.private_key", "environment", "needs its public key there"),
        ("signing.trusted", ["ssh-ed25519 AAAA"], "signing.trusted.0 (='ssh-ed25519 AAAA')"),
    ],
)
def test_a_wrong_setting_is_named_with_its_path_and_value(path, value, told):
    with pytest.raises(ConfigError) as raised:
        parse_config(changed(path, value), "local.yaml")
    assert told in str(raised.value)
    assert "nothing was started" in str(raised.value)


@pytest.mark.parametrize("setting", ["signing.private_key", "signing.trusted"])
def test_a_private_key_in_the_wrong_place_is_not_told(setting):
    pasted = "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMG\n-----END PRIVATE KEY-----\n"
    value = pasted if setting.endswith("private_key") else [pasted]
    with pytest.raises(ConfigError, match="a private key, not shown here") as raised:
        parse_config(changed(setting, value), "local.yaml")
    assert "MIGHAgEAMBMG" not in str(raised.value)


def test_all_wrong_settings_are_told_at_once():
    text = changed("seed", 3).replace("place: local", "place: moon")
    with pytest.raises(ConfigError, match="2 wrong setting"):
        parse_config(text, "local.yaml")


@pytest.mark.parametrize("text", ["a: [", "", "- 1"])
def test_what_is_no_configuration_is_an_error(text):
    with pytest.raises(ConfigError, match=r"local\.yaml"):
        parse_config(text, "local.yaml")


def test_a_missing_file_is_an_error():
    with pytest.raises(ConfigError, match=r"no configuration at nowhere\.yaml"):
        load_config(Path("nowhere.yaml"))


def test_the_schema_for_editors_is_up_to_date():
    command = [sys.executable, "-m", "policy.config", "--schema"]
    fresh = subprocess.run(command, cwd=REPOSITORY, capture_output=True, check=True).stdout
    assert json.loads(fresh) == json.loads((REPOSITORY / "deployments/schema.json").read_text())


def test_prefects_own_commands_find_the_server_of_the_shipped_configuration():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    port = load_config(LOCAL).local.prefect_port
    assert project["tool"]["prefect"]["api"]["url"] == f"http://127.0.0.1:{port}/api"


def test_other_model_settings_are_checked_like_a_file():
    config = load_config(LOCAL)
    assert with_model(config, steps_max=5).model.steps_max == 5
    assert with_model(config, steps_max=None) == config
    with pytest.raises(ConfigError, match=r"model\.steps_max"):
        with_model(config, steps_max=0)


def test_staging_takes_all_at_once_and_production_as_configured():
    config = load_config(LOCAL)
    staging = plan_for(config, "staging")
    assert (staging.weights, staging.watch.s, staging.approval) == ((100,), 0, False)
    assert staging.limits == config.rollout.limits
    assert plan_for(config, "production") == config.rollout

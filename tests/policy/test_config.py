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
from tests.policy.configurations import LOCAL, REPOSITORY, changed, changed_one

BENCHMARK = {
    "name": "gqa",
    "dataset": yaml.safe_load(LOCAL.read_text())["dataset"],
    "accuracy_above": "reported",
}


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
        ("rollout.weights", [10, 110], "rollout.weights.1 (=110)"),
        ("gates.accuracy_min", 1.2, "gates.accuracy_min (=1.2)"),
        ("gates.accuracy_min", None, "gates.accuracy_min: Field required"),  # no hidden default
        ("gates.accuracy_min", float("nan"), "gates.accuracy_min"),
        ("gates.alpha", 1e-17, "gates.alpha (=1e-17)"),  # its interval would be infinite
        ("gates.benchmarks", [BENCHMARK] * 2, "must have different names (=['gqa', 'gqa'])"),
        (
            "gates.benchmarks",
            [BENCHMARK | {"accuracy_above": "none"}],
            "gates.benchmarks.0.accuracy_above (='none'): Input should be a valid number or",
        ),
        ("gates.benchmarks", [BENCHMARK | {"accuracy_above": 1.0}], "accuracy_above (=1.0)"),
        ("dataset.version", "latest", "dataset.version (='latest')"),
        ("compute.processes", 0, "compute.processes (=0)"),
        ("compute.spot", True, "(=True) must be 'local' and false"),
        ("model.strategy", "fsdp", "model.strategy (=fsdp) needs compute.accelerators"),
        ("model.precision", "16-mixed", "(=16-mixed) needs compute.accelerators"),
        ("checkpointing.every_s", 1800, "a training that is killed would begin anew"),
        ("serving.tokens", ".arr-coc/scratch/t.json", "which may vanish at any time"),
        ("serving.tokens", "s3://bucket/tokens", "must be a file on this machine"),
        ("serving.unfinished_bytes_max", 9_000_000, "a largest request would never get in"),
        ("serving.picture_pixels_max", 4_000_001, "the largest picture would never get in"),
        ("serving.request_pixels_max", 50_000_001, "serving.request_pixels_max (=50000001)"),
        ("serving.connections_max", 0, "serving.connections_max (=0)"),
        ("serving.request_s_max", 0, "serving.request_s_max (=0"),
        ("place", "moon", "place (='moon')"),
        ("signing", None, "signing"),
        ("signing.private_key", "key.pem", "signing.private_key (='key.pem')"),
        ("signing.private_key", "environment", "signing.trusted is empty"),
        ("signing.trusted", ["ssh-ed25519 AAAA"], "signing.trusted.0 (='ssh-ed25519 AAAA')"),
    ],
)
def test_a_wrong_setting_is_named_with_its_path_and_value(path, value, told):
    with pytest.raises(ConfigError) as raised:
        parse_config(changed_one(path, value), "local.yaml")
    assert told in str(raised.value)
    assert "nothing was started" in str(raised.value)


@pytest.mark.parametrize("setting", ["signing.private_key", "signing.trusted"])
def test_a_private_key_in_the_wrong_place_is_not_told(setting):
    pasted = "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMG\n-----END PRIVATE KEY-----\n"
    value = pasted if setting.endswith("private_key") else [pasted]
    with pytest.raises(ConfigError, match="a private key, not shown here") as raised:
        parse_config(changed_one(setting, value), "local.yaml")
    assert "MIGHAgEAMBMG" not in str(raised.value)


@pytest.mark.parametrize(
    ("path", "secret"),
    [("tracking.api_key", "0123abc"), ("signing.private_key", "MIGHAgEA" * 9)],
)
def test_what_may_be_a_secret_is_not_told(path, secret):
    with pytest.raises(ConfigError, match="may be a secret") as raised:
        parse_config(changed_one(path, secret), "local.yaml")
    assert secret[:4] not in str(raised.value)


def test_all_wrong_settings_are_told_at_once():
    with pytest.raises(ConfigError, match="2 wrong setting") as raised:
        parse_config(changed(seed=3, place="moon"), "local.yaml")
    assert "place (='moon')" in str(raised.value)
    assert "seed (=3)" in str(raised.value)
    both = changed(rollout__little_traffic="wait", rollout__weights=[10])
    with pytest.raises(ConfigError, match="2 wrong setting") as raised:
        parse_config(both, "local.yaml")
    assert "rollout.replay_per_s (=20" in str(raised.value)
    assert "rollout.weights (=[10])" in str(raised.value)


def test_other_model_settings_are_checked_like_a_file():
    config = load_config(LOCAL)
    assert with_model(config, steps_max=5).model.steps_max == 5
    assert with_model(config, steps_max=None) == config
    assert with_model(config, steps_max=5).path == config.path
    for wrong in (0, "5", True):
        with pytest.raises(ConfigError, match=r"model\.steps_max"):
            with_model(config, steps_max=wrong)


def test_a_missing_file_is_an_error():
    with pytest.raises(ConfigError, match=r"no configuration at nowhere\.yaml"):
        load_config(Path("nowhere.yaml"))


def test_the_schema_for_editors_is_up_to_date():
    command = [sys.executable, "-m", "policy.config", "--schema"]
    fresh = subprocess.run(command, cwd=REPOSITORY, capture_output=True, check=True).stdout
    assert json.loads(fresh) == json.loads((REPOSITORY / "deployments/schema.json").read_text())


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([str(LOCAL)], 0, ""),
        ([], 2, "name files to validate, or --schema"),
        (["nowhere.yaml"], 1, "error: no configuration at nowhere.yaml"),
    ],
)
def test_files_are_validated_on_the_command_line(arguments, code, said):
    command = [sys.executable, "-m", "policy.config", *arguments]
    ran = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert ran.returncode == code
    assert said in ran.stderr


def test_prefects_own_commands_find_the_server_of_the_shipped_configuration():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    port = load_config(LOCAL).local.prefect_port
    assert project["tool"]["prefect"]["api"]["url"] == f"http://127.0.0.1:{port}/api"

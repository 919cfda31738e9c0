"""A file is read as it looks, or refused: keys twice, other kinds, bombs, half characters."""

import copy
import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from policy.config import Config, load_config, parse_config
from policy.errors import ConfigError
from tests.policy.configurations import changed_one

LOCAL = (Path(__file__).parents[2] / "deployments/local.yaml").read_text()
TREE = yaml.safe_load(LOCAL)
ANY_SCALAR = "model.hyperparameters."  # whose values are the model's own business


def replaced(old, new):
    assert old in LOCAL
    return LOCAL.replace(old, new, 1)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            replaced("  look_s: 0.5\n", "  look_s: 0.5\n  look_s: 9\n"),
            "rollout.look_s is there twice, in line",
        ),
        (LOCAL + "\nname: other\n", "name is there twice, in line 3 and in line"),
        (
            replaced("port: 8081", "port: 8081, port: 8082"),
            "local.endpoints.staging.port is there twice",
        ),
        (
            replaced("dry_run: true", "dry_run: true\n      dry_run: false"),
            "rollout.analyses.0.dry_run is there twice",
        ),
        (replaced("look_s: 0.5", "look_s: 010"), "rollout.look_s (=010) would not be read as"),
        (replaced("look_s: 0.5", "look_s: 1:30"), "rollout.look_s (=1:30) would not be read"),
        (replaced("steps_max: 500", "steps_max: 5_00"), "model.steps_max (=5_00)"),
        (replaced("steps_max: 500", "steps_max: !!int five"), "model.steps_max (=five)"),
        (replaced("spot: false", "spot: !!bool maybe"), "neither true nor false"),
        (replaced("name: local", "name: 2026-13-45"), "YAML's kind 'timestamp'"),
        (replaced('entity: ""', "entity: !!binary aGk="), "YAML's kind 'binary'"),
        (replaced('entity: ""', "entity: !!python/object:os.system x"), "YAML's kind 'python/"),
        (replaced('entity: ""', "<<: {entity: a}"), "the key << is not a text"),
        (replaced('entity: ""', "on: 1"), "the key on is not a text"),
        (replaced('entity: ""', "[a]: 1"), "a key is not a text"),
        (
            replaced('entity: ""', r'entity: "\ud83d"'),
            "tracking.entity has half of a surrogate",
        ),
        (replaced('entity: ""', r'"\ud83d": 1'), "half of a surrogate pair"),
        ("a: &a [1, 1]\nb: &b [*a, *a]\nc: [*b, *b]\n", "line 2: *a is an alias"),
        ("a: &a [*a]\n", "*a is an alias"),
        ("[" * 30_000, "nested more than 20 deep"),
        ("a: " * 30, "it is not YAML"),
        (LOCAL + "#" * 70_000, "longer than 65,536 bytes"),
        (LOCAL + "---\na: 1\n", "expected a single document"),
        ("a: [", "it is not YAML: line 1"),
        ("a: \0", "it is not YAML"),
        ("a: \ud83d", "it is not YAML"),
        ("", "(the whole file) (=None)"),
        ("- 1", "(the whole file) (=[1])"),
    ],
)
def test_what_would_be_read_otherwise_than_it_looks_is_refused(text, told):
    with pytest.raises(ConfigError) as raised:
        parse_config(text, "local.yaml")
    assert told in str(raised.value)
    assert str(raised.value).startswith("local.yaml ")
    assert "nothing was started" in str(raised.value)
    str(raised.value).encode()  # can be printed


def test_a_broken_file_does_not_tell_the_private_key_beside_the_break():
    pasted = "private_key: |\n -----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMG: [\n"
    with pytest.raises(ConfigError, match="it is not YAML") as raised:
        parse_config(replaced("private_key: made-here\n", pasted), "local.yaml")
    assert "MIGH" not in str(raised.value)


def test_a_small_number_needs_no_point():
    assert parse_config(replaced("alpha: 0.01", "alpha: 1e-3"), "x").gates.alpha == 0.001


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"name: \xff\n", "byte 6 is not UTF-8"),
        (b"# \xc3\xa9\n" * 20_000, "longer than 65,536"),
    ],
)
def test_a_file_of_other_bytes_or_of_too_many_is_refused(tmp_path, content, told):
    path = tmp_path / "local.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=told):
        load_config(path)


def test_a_text_with_any_sign_of_the_world_is_read():
    config = parse_config(replaced('entity: ""', "entity: Ünïcødé 🎉"), "local.yaml")
    assert config.tracking.entity == "Ünïcødé 🎉"
    escaped = json.dumps(config.model_dump(mode="json"))  # as a pair of halves
    assert parse_config(escaped, "again") == config


# --- any field of another kind -----------------------------------------------------------


def leaves(tree, path=()):
    """The path of every setting, and of every section but the whole."""
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from leaves(value, (*path, key))


def at(tree, path):
    for key in path:
        tree = tree[key]
    return tree


def other_kinds(value, path):
    """Values that are never right in the place of `value`."""
    nested = [[["x"]], {"x": {}}]
    if ".".join(map(str, path)).startswith(ANY_SCALAR):
        return nested
    if isinstance(value, bool):
        return [0, 1, 1.0, "true", "yes", None, *nested]
    if isinstance(value, int | float):
        return [True, False, str(value), "many", None, *nested]
    if isinstance(value, str):
        return [True, 5, 0.5, None, *nested]
    return [True, 5, "x", 0.5]  # a section or a list


PATHS = sorted(leaves(TREE), key=str)


@settings(max_examples=150, deadline=None)
@given(data=st.data(), path=st.sampled_from(PATHS))
def test_any_one_setting_of_another_kind_is_refused_with_its_path(data, path):
    tree = copy.deepcopy(TREE)
    *above, last = path
    wrong = data.draw(st.sampled_from(other_kinds(at(TREE, path), path)))
    at(tree, above)[last] = wrong
    with pytest.raises(ConfigError) as raised:
        parse_config(json.dumps(tree), "local.yaml")
    assert "  " + ".".join(map(str, path)) in str(raised.value)


SECTIONS = [
    path
    for path in [(), *PATHS]
    if isinstance(at(TREE, path), dict) and path != ("model", "hyperparameters")
]


@settings(max_examples=40, deadline=None)
@given(data=st.data(), path=st.sampled_from(SECTIONS))
def test_any_setting_left_out_and_any_unknown_one_is_refused(data, path):
    tree = copy.deepcopy(TREE)
    section = at(tree, path)
    del section[data.draw(st.sampled_from(sorted(section)))]
    with pytest.raises(ConfigError, match="Field required|endpoints|needs the section"):
        parse_config(json.dumps(tree), "local.yaml")
    tree = copy.deepcopy(TREE)
    at(tree, path)["unknown"] = 1
    with pytest.raises(ConfigError, match=r"\.".join([*map(str, path), "unknown"])):
        parse_config(json.dumps(tree), "local.yaml")


@settings(max_examples=100, deadline=None)
@given(st.text() | st.text("{}[]:,-&*!|>'\"%@` \n\tab01.\\x"))
def test_any_text_is_a_configuration_or_a_clear_error(text):
    with pytest.raises(ConfigError, match=r"^local\.yaml "):
        parse_config(text, "local.yaml")


def test_what_was_read_is_read_again_from_what_is_written():
    config = parse_config(LOCAL, "local.yaml")
    assert parse_config(config.model_dump_json(), "again") == config
    assert Config.model_validate(config.model_dump()) == config


@pytest.mark.parametrize(
    "path", ["rollout.bake_s", "rollout.watch.s", "rollout.deadlines.step_s", "rollout.look_s"]
)
def test_a_time_beyond_all_calendars_is_refused(path):
    """It would be added to a date, and nobody could look at the canary any more."""
    with pytest.raises(ConfigError, match=f"{path} .*less than or equal to"):
        parse_config(changed_one(path, 1e12), "a file")

"""Whatever a configuration file holds: a configuration that works, or one clear error, soon.

The tests marked slow do the same for minutes; what they have found stands in FOUND.
"""

import copy
import json
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from policy.config import parse_config
from policy.errors import ConfigError
from policy.rollout.plans import plan_for

LOCAL = (Path(__file__).parents[2] / "deployments/local.yaml").read_text()
TREE = yaml.safe_load(LOCAL)
LINES = LOCAL.splitlines()
PROCESSOR_S_MAX = (
    10.0  # for one file; of this thread alone, so that a busy machine is not a fault
)
SAID_MAX = 60_000  # characters

HOSTILE = [
    None, True, False, 0, -1, 2**31, 2**63, 2**64, -(2**63) - 1, 10**400,
    0.0, -0.0, 5e-324, 1e308, float("inf"), float("-inf"), float("nan"),
    "", " ", ".", "..", "/", "~", "a/../../b", "-", "none", "NaN", "1e309", "0x10", "1_000",
    "\0", "\n", "\x1b[2J", "\u202e", "\ufeff", "Ünïcødé 🎉", "\ud800", "%", "%(x)s", "{port}",
    "'\"", "x" * 5_000, "s3://", "gs://\0", "file:///etc", "http://[", "generate://?images=x",
    "generate://detail?images=9999999999999999&questions=1&seed=1", "sha256:", "-----BEGIN",
    [], {}, [[]], [{}], {"": None}, {"a": {"b": {}}}, [None] * 50, ["x"] * 50,
]  # fmt: skip

scalars = (
    st.sampled_from(HOSTILE[:-8])
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.booleans()
)
trees = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from([*TREE, *TREE["rollout"]]) | st.text(max_size=8), inner, max_size=5
        )
    ),
    max_leaves=30,
)


def fast(examples):
    return settings(
        max_examples=examples, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )


def require_a_clear_end(text):
    """Whether it was accepted; raises AssertionError, or what should be a ConfigError."""
    start = time.thread_time()
    try:
        config = parse_config(text, "local.yaml")
    except ConfigError as error:
        said = str(error)
        assert said.startswith("local.yaml ")
        assert "nothing was started" in said
        assert len(said) < SAID_MAX
        said.encode()  # can be printed
        return False
    finally:
        assert time.thread_time() - start < PROCESSOR_S_MAX
    assert parse_config(config.model_dump_json(), "again") == config
    for endpoint in config.path:
        plan_for(config, endpoint)
    return True


def written(tree, how):
    if how == "json":
        return json.dumps(tree)
    flow = {"block": False, "flow": True}[how]
    return yaml.safe_dump(tree, default_flow_style=flow, allow_unicode=True, sort_keys=False)


def paths(tree, path=()):
    """The path of every value in the tree."""
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from paths(value, (*path, key))


def at(tree, path):
    for key in path:
        tree = tree[key]
    return tree


PATHS = sorted(paths(TREE), key=str)


def mutate(tree, path, kind, value):
    """Change one thing; a path that an earlier change took away changes nothing."""
    *above, last = path
    try:
        holder = at(tree, above)
        found = holder[last]
    except (KeyError, IndexError, TypeError):
        return
    if kind == "replace":
        holder[last] = value
    elif kind == "delete":
        del holder[last]
    elif kind == "wrap":
        holder[last] = [found]
    elif kind == "grow" and isinstance(found, int | float) and not isinstance(found, bool):
        holder[last] = found * 10 ** (hash(path) % 30)
    elif kind == "swap" and isinstance(holder, dict):
        other = sorted(holder, key=str)[hash(path) % len(holder)]
        holder[last], holder[other] = holder[other], found
    elif kind == "rename" and isinstance(holder, dict):
        holder[str(value)] = holder.pop(last)


mutations = st.lists(
    st.tuples(
        st.sampled_from(PATHS),
        st.sampled_from(["replace", "replace", "delete", "wrap", "grow", "swap", "rename"]),
        st.sampled_from(HOSTILE),
    ),
    min_size=1,
    max_size=4,
)
line_changes = st.lists(
    st.tuples(
        st.integers(0, len(LINES) - 1),
        st.sampled_from(["double", "drop", "indent", "cut", "insert", "join"]),
        st.text(" \t:-#&*!|>{}[]'\"%@`,?~ab01.\0\x85\u2028\ufeff\ud800", max_size=6),
        st.integers(0, 80),
    ),
    min_size=1,
    max_size=4,
)


def with_changed_lines(changes):
    lines = [*LINES]
    for number, kind, text, column in changes:
        line = lines[number % len(lines)]
        changed = {
            "double": [line, line],
            "drop": [],
            "indent": [text + line],
            "cut": [line[:column]],
            "insert": [line[:column] + text + line[column:]],
            "join": [line + lines[(number + 1) % len(lines)]],
        }[kind]
        lines[number % len(lines) : number % len(lines) + 1] = changed or [""]
    return "\n".join(lines) + "\n"


@fast(150)
@given(trees, st.sampled_from(["json", "flow", "block"]))
def test_any_tree_is_refused_with_a_clear_error(tree, how):
    try:
        text = written(tree, how)
    except (yaml.YAMLError, UnicodeEncodeError):
        return  # not even PyYAML writes it
    assert not require_a_clear_end(text)


@fast(150)
@given(mutations, st.sampled_from(["json", "flow", "block"]))
def test_any_change_of_settings_ends_clearly(changes, how):
    require_changed_settings_end_clearly(changes, how)


def require_changed_settings_end_clearly(changes, how):
    tree = copy.deepcopy(TREE)
    for path, kind, value in changes:
        mutate(tree, path, kind, copy.deepcopy(value))
    try:
        text = written(tree, how)
    except (yaml.YAMLError, UnicodeEncodeError):
        return
    require_a_clear_end(text)


@fast(150)
@given(line_changes)
def test_any_change_of_lines_ends_clearly(changes):
    require_a_clear_end(with_changed_lines(changes))


@pytest.mark.slow
@pytest.mark.parametrize("path", PATHS, ids=lambda path: ".".join(map(str, path)))
def test_each_setting_meets_each_hostile_value(path):
    for value in HOSTILE:
        tree = copy.deepcopy(TREE)
        at(tree, path[:-1])[path[-1]] = value
        require_a_clear_end(json.dumps(tree))


FOUND = {
    "a time of nothing": ("rollout.analyses.0.interval_s", 5e-324),
    "thousands of unknown settings": ("model", {f"k{n}": n for n in range(5_000)}),
    "a name as long as the file": ("rollout", {"k" * 60_000: 1}),
}


@pytest.mark.parametrize("name", FOUND)
def test_what_was_found_once_stays_found(name):
    path, value = FOUND[name]
    *above, last = (int(part) if part.isdecimal() else part for part in path.split("."))
    tree = copy.deepcopy(TREE)
    at(tree, above)[last] = value
    assert not require_a_clear_end(json.dumps(tree))


def laughs(levels, width):
    """Aliases that would expand to width ** levels values."""
    lines = ["a0: &a0 [x]"]
    for n in range(1, levels):
        lines.append(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * width)}]")
    return "\n".join(lines) + "\n"


def endpoints(count):
    found = TREE["endpoints"]
    more = {f"e{n}": found["staging"] for n in range(count)}
    made = {"staging": found["staging"], **more, "production": found["production"]}
    return json.dumps(TREE | {"endpoints": made})


def with_section(name, **changes):
    return json.dumps(TREE | {name: TREE[name] | changes})


BOMBS = {
    "a billion laughs": laughs(10, 10),
    "laughs in a merge": "a: &a {x: 1}\n" + "b: {<<: [" + "*a, " * 5_000 + "*a]}\n",
    "an anchor of itself": "a: &a {b: *a}\n",
    "many anchors": "".join(f"k{n}: &a{n} 1\n" for n in range(4_000)),
    "many documents": "---\na: 1\n" * 6_000,
    "brackets": "[" * 65_000,
    "braces": "{a: " * 16_000,
    "dashes": "- " * 32_000,
    "questions": "? " * 32_000,
    "deep by indent": "".join(" " * n + f"k{n}:\n" for n in range(300)),
    "one long key": "k" * 65_000 + ": 1\n",
    "a key without end": "? " + "k" * 65_000,
    "many keys": "".join(f"k{n}: 1\n" for n in range(7_000)),
    "one key many times": "name: local\n" * 5_000,
    "a long number": "name: " + "9" * 65_000 + "\n",
    "a long fraction": "name: 0." + "9" * 65_000 + "\n",
    "a long exponent": "name: 1e" + "9" * 65_000 + "\n",
    "a long hexadecimal": "name: 0x" + "f" * 65_000 + "\n",
    "long quotes": 'name: "' + "\\x41" * 16_000 + '"\n',
    "quotes without end": 'name: "' + "\\" * 65_000,
    "folded lines": "name: >\n" + "  a\n\n" * 12_000,
    "comments": "#" * 32_000 + "\n" + "#\n" * 16_000,
    "tags": "name: " + "!!str " * 10_000 + "x\n",
    "directives": "%YAML 1.1\n" * 6_000 + "---\na: 1\n",
    "tag directives": "".join(f"%TAG !e{n}! tag:x,2000:\n" for n in range(2_000)) + "---\na\n",
    "wide list": "rollout: {weights: [" + "1, " * 20_000 + "100]}\n",
    "many endpoints": endpoints(900),
    "many weights": with_section("rollout", weights=[*range(1, 9_000)]),
    "many benchmarks": with_section("gates", benchmarks=[{}] * 15_000),
    "many hyperparameters": with_section(
        "model", hyperparameters={f"k{n}": n for n in range(4_000)}
    ),
    "nul": "\0" * 65_000,
    "byte order marks": "\ufeff" * 20_000,
    "carriage returns": "a: 1\r" * 13_000,
    "line separators": "a: 1\u2028" * 8_000,
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_goes_off_nowhere(name):
    require_a_clear_end(BOMBS[name])


@pytest.mark.slow
@pytest.mark.timeout(1200)
@fast(3_000)
@given(mutations | line_changes, st.sampled_from(["json", "flow", "block"]))
def test_thousands_of_changes_end_clearly(changes, how):
    if isinstance(changes[0][0], int):
        require_a_clear_end(with_changed_lines(changes))
    else:
        require_changed_settings_end_clearly(changes, how)

"""How two versions differ: scores, settings, data, code, packages."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from deployments import connect, ledger
from deployments.console import say
from flows.terminal.show import json_in, short
from policy.config import Config
from policy.records import Registered
from policy.words import one_line, percent

_NONE = "not recorded"
_CODE = ("model_code", "commit", "dirty")
_DATA = ("dataset", "data_fingerprint")
_TRAINING = ("seed", "steps_max")


def show(config: Config, before: str, after: str) -> int:
    """Print what differs from `before` to `after`. Raises NotFound naming a missing one."""
    store = connect(config).store
    state = ledger.read(store)
    events = [ledger.registered(store, state, version) for version in (before, after)]
    say(f"{before} -> {after}")
    for line in differences(*events):
        say(f"  {one_line(line)}")
    return 0


def differences(before: Registered, after: Registered) -> Iterator[str]:
    """One line for each score and for each thing that differs."""
    yield _score("accuracy", before.accuracy, after.accuracy)
    for family in dict.fromkeys((*before.families, *after.families)):
        one, other = before.families.get(family), after.families.get(family)
        yield _score(f"accuracy of {family}", one, other)
    differ = [
        *_changed("data", _part(before, _DATA), _part(after, _DATA)),
        *_changed("code", _part(before, _CODE), _part(after, _CODE)),
        *_changed("training", _part(before, _TRAINING), _part(after, _TRAINING)),
        *_changed("setting", _settings(before), _settings(after)),
        *_changed("package", *(json_in(of.lineage, "packages") for of in (before, after))),
    ]
    yield from differ or ["data, code, settings and packages are the same"]


def _score(name: str, before: float | None, after: float | None) -> str:
    if before is None or after is None:
        known = [_NONE if value is None else percent(value) for value in (before, after)]
        return f"{name}: {known[0]} -> {known[1]}"
    change = f"{100 * (after - before):+.2f} points"
    return f"{name}: {percent(before)} -> {percent(after)} ({change})"


def _changed(what: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    for name in dict.fromkeys((*before, *after)):
        one, other = (side.get(name, _NONE) for side in (before, after))
        if one != other:
            yield f"{what} {name}: {_told(one)} -> {_told(other)}"


def _part(event: Registered, names: tuple[str, ...]) -> Mapping[str, str]:
    return {name: event.lineage[name] for name in names if name in event.lineage}


def _settings(event: Registered) -> Mapping[str, Any]:
    """Each setting by its dotted path."""
    return dict(_flat(json_in(event.lineage, "config"), ""))


def _flat(tree: Any, path: str) -> Iterator[tuple[str, Any]]:
    if not isinstance(tree, dict) or not tree:
        yield path, tree
        return
    for name, value in tree.items():
        yield from _flat(value, f"{path}.{name}".lstrip("."))


def _told(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return short(text) if len(text) in (40, 64, 71) else text

"""Whoever writes the store can forge a last record; every reader tells it or reads past it."""

import hashlib
import json

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deployments import ledger
from deployments.metrics.exporter import Metrics
from flows.terminal import history, status
from flows.terminal.diff import differences
from flows.terminal.problem import Commands
from flows.terminal.show import lineage, rollouts
from flows.terminal.walks import walks
from policy.errors import ArrCocError
from policy.ledger import key

ODD = (
    None, True, 0, -1, 7, 10**30, 1e308, -1e308, 0.5, "", "v1", "\n\x1b[2J", "NaN",
    "9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z", "rolling-back", "[" * 2000, [], {}, [[]],
    {"a": {}},
)  # fmt: skip


def paths(tree, above=()):
    """Every place in a record's event, by the keys that lead there."""
    yield above
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for name, value in inner:
        if isinstance(value, dict | list):
            yield from paths(value, (*above, name))
        else:
            yield (*above, name)


def changed(raw, path, value):
    """A deep copy with another value in one place."""
    tree = place = json.loads(json.dumps(raw))
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    return tree


def readers(world):
    """Everything that people and programs read of a ledger."""
    store = world.place.store
    state = ledger.read(store)
    yield lambda: status.table(status.collect(world.config, world.place, Commands()))
    yield lambda: history.tell(ledger.records(store))
    yield lambda: [*rollouts(walks(ledger.records(store)), "v2")]
    yield lambda: [*Metrics(world.place).collect()]
    events = [ledger.registered(store, state, version) for version in state.versions]
    yield lambda: [line for event in events for line in lineage(event.lineage)]
    yield lambda: [line for event in events for line in differences(events[0], event)]


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_no_forged_record_is_more_than_one_clear_error(walking, data):
    objects = dict(walking.cloud.objects)
    last = walking.state.number
    number = data.draw(st.sampled_from([last, 3, last // 2 + 1]), label="record")
    raw = json.loads(objects[key(number)])
    places = [path for path in paths(raw["event"], ("event",)) if len(path) > 1]
    path = data.draw(st.sampled_from(places), label="path")
    forged = changed(raw, path, data.draw(st.sampled_from(ODD), label="value"))
    for behind in range(number, last + 1):
        walking.cloud.objects.pop(key(behind))
    before = hashlib.sha256(walking.cloud.objects[key(number - 1)]).hexdigest()
    text = json.dumps({**forged, "previous": before}, indent=1).encode() + b"\n"
    walking.cloud.objects[key(number)] = text
    try:
        for read in readers(walking):
            read()
    except ArrCocError:
        pass  # one clear error
    finally:
        walking.cloud.objects = objects

"""What happens when: drawn from the seed alone, so that the same seed is the same night."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

GAP_S = 9.0  # between two actions, on average
QUIET_S = 20.0  # at the start

WEIGHTS = {
    "kill anything": 10,
    "kill Envoy": 5,
    "kill a model server": 8,
    "kill the reconciler": 6,
    "kill the worker": 2,
    "kill Prefect's server": 2,
    "kill supervisord, then up": 5,
    "up": 4,
    "two ups at once": 2,
    "abort": 4,
    "roll back": 3,
    "pause and resume": 3,
    "promote at once": 1,
    "a second controller": 5,
    "a flow run that is cancelled": 3,
    "stop the reconciler for a while": 4,
    "fill the disk": 4,
    "set the clock": 4,
}

# All take as long: much slower than stable is not good.
GOOD = {
    "plain": {"delay_s": 0.02},
    "plain again": {"delay_s": 0.021},
    "wrong once in twenty": {"delay_s": 0.02, "wrong_every": 20},
    "starts slowly": {"delay_s": 0.02, "ready_after_s": 3},
}
BAD = {
    "errors under traffic": {"after": 20, "late_fails_every": 3},
    "wrong answers": {"answer": "nonsense"},
    "wrong answers under traffic": {"after": 20, "wrong_every": 2},
    "never ready": {"ready_after_s": 1e6},
    "crashes at its start": {"exit": 3},
    "crashes under traffic": {"after": 20, "dies_every": 5},
    "another input schema": {"schema": "image_id"},
    "a damaged release": {"damaged": True},
}


@dataclass(frozen=True)
class Action:
    """`number` in [0, 1) is what the action draws from: a victim, a duration."""

    at_s: float
    name: str
    number: float


def actions(seed: int, seconds: float) -> list[Action]:
    """What is done to the stack, in order."""
    drawn, at_s, found = random.Random(f"actions {seed}"), QUIET_S, list[Action]()  # noqa: S311
    while at_s < seconds:
        [name] = drawn.choices([*WEIGHTS], [*WEIGHTS.values()])
        found.append(Action(round(at_s, 1), name, drawn.random()))
        at_s += drawn.expovariate(1 / GAP_S) + 1
    return found


def versions(seed: int) -> Iterator[tuple[str, bool]]:
    """The kind of each version that is rolled out, and whether it is good; without end."""
    drawn = random.Random(f"versions {seed}")  # noqa: S311
    while True:
        good = drawn.random() < 0.6
        yield drawn.choice([*(GOOD if good else BAD)]), good

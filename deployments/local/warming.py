"""Questions that a version answers before its answers count.

A server is slow at its first requests: what it loads late, its first connection, its caches.
The judge would take that for a slow version.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from deployments import Json
from deployments.questions import read_requests
from policy.errors import DataError

LIMIT_S = 1.0
QUESTIONS = 20  # for each server of a version; 1 or 2 are enough for the slowness seen


def warm(ask: Callable[[Json, float], object], release: Path, servers: int) -> None:
    """Put the release's own held-out questions to it, whatever it answers.

    `ask` gets an instance and the seconds left. At most LIMIT_S in all, so that a version which
    answers badly or not at all is delayed no longer than that. A release without questions is
    not warmed.
    """
    deadline, instances = time.monotonic() + LIMIT_S, _instances(release)
    for turn in range(QUESTIONS * servers if instances else 0):
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            return
        ask(instances[turn % len(instances)], left_s)


def _instances(release: Path) -> Sequence[Json]:
    try:
        questions = read_requests((release / "requests.jsonl").read_bytes())
    except (OSError, DataError):
        return ()  # it is the contract's, but no reason not to serve
    return [question.instance for question in questions[:QUESTIONS]]

"""The smoke test: what a version answers is its own, that nothing answers is nobody's."""

import json

import pytest

from deployments import Reply
from policy.errors import EndpointSilent
from tasks.rollout.looking import smoke_test

LINES = (
    json.dumps({"instance": {"question": "q"}, "answer": "yes", "family": "f"}).encode() + b"\n"
)


class Answering:
    """An endpoint with these answers, one after another."""

    name, can = "production", frozenset({"pin"})

    def __init__(self, *statuses):
        self._statuses = iter(statuses)

    def ask(self, version, instances, timeout_s=10.0):
        status = next(self._statuses)
        given = ({"answer": "yes", "confidence": 1.0},) if status == 200 else ()
        return Reply(status, version, given, 0.0, "no answer" if status == 0 else "")


def test_what_a_version_fails_is_counted():
    seen = smoke_test(Answering(200, 503, 500, 200), "v2", LINES, 4)
    assert (seen.requests, seen.wrong, seen.correct) == (4, 2, 2)


@pytest.mark.parametrize("before", [[], [200, 200], [500]])
def test_an_endpoint_that_gives_no_answer_ends_no_smoke_test(before):
    with pytest.raises(EndpointSilent, match="production gave no answer"):
        smoke_test(Answering(*before, 0), "v2", LINES, 5)

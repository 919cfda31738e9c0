"""What the contract tests need of a place beside its protocols: releases, time and requests."""

from collections.abc import Callable
from typing import Any, Protocol

from deployments import Desired, Endpoint, Observed, Place, Release, Reply, Server

QUESTION = {"question": "what colour?"}


class Harness(Protocol):
    """One implementation of the protocols under test.

    `name` is the endpoint that the tests may do with as they like; `idle` is one that nothing
    was ever deployed to.
    """

    place: Place
    name: str
    idle: str

    def make_release(self, version: str, **behaviour: Any) -> Release:
        """A release in the store whose server behaves as told, made once for each version.

        {"fails_every": n-th request, "ready_after_s", "exit": at its start, "answer"}
        """
        ...

    def damage(self, release: Release) -> None:
        """Change one byte of its behaviour.json in the store."""
        ...

    def wait(self, true: Callable[[], bool], limit_s: float = 30) -> None:
        """Let the place's time pass until it is true. Raises AssertionError after `limit_s`."""
        ...

    def counted(self) -> None:
        """Let so much time pass that all that was answered is in the telemetry."""
        ...


def endpoint_of(harness: Harness) -> Endpoint:
    return harness.place.endpoint(harness.name)


def traffic(harness: Harness, requests: int) -> list[Reply]:
    """Ask whichever the weights choose."""
    endpoint = endpoint_of(harness)
    return [endpoint.ask(None, [QUESTION]) for _ in range(requests)]


def bring(harness: Harness, desired: Desired, limit_s: float = 30) -> Observed:
    """Order it again and again, as a controller does, until the endpoint is so."""
    endpoint, seen = endpoint_of(harness), []

    def is_so() -> bool:
        endpoint.apply(desired)
        seen.append(endpoint.observe())
        return is_as(seen[-1], desired)

    harness.wait(is_so, limit_s)
    return seen[-1]


def is_as(seen: Observed, desired: Desired) -> bool:
    """Whether everything desired is there, ready and with its weight, and nothing else."""
    ready = {r.version: Server("ready", r.digest) for r in desired.releases}
    weights = {version: share for version, share in desired.weights.items() if share}
    return (dict(seen.servers), dict(seen.weights), dict(seen.mirror)) == (
        ready, weights, dict(desired.mirror)
    )  # fmt: skip

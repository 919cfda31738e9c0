"""Held-out questions for a rollout whose plan replays them, while somebody drives it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from deployments import Place, ledger
from deployments.questions import read_requests
from deployments.releases.folder import read_file
from deployments.replay import replaying
from policy.config import Config
from policy.errors import ArrCocError
from policy.rollout.record import Rollout
from tasks.rollout.driver import Replay


def replay_of(config: Config, place: Place, say: Callable[[str], object]) -> Replay:
    """A context in which the questions of a rollout's version are sent to its endpoint.

    It yields a function that says whether they still are: the process that sends them may be
    killed, and the disk may have been full when it should have begun. That they cannot be
    sent is said and no more: the controller finds the same, and without questions nobody
    passes.
    """

    @contextmanager
    def replay(rollout: Rollout) -> Iterator[Callable[[], bool]]:
        try:
            requests = _requests_of(place, rollout.version)
        except (ArrCocError, OSError) as error:
            say(f"no questions are replayed: {error}")
            yield lambda: False
            return
        per_s = rollout.plan.replays_per_s
        try:
            with replaying(config, rollout.endpoint, requests, per_s) as sent:
                yield sent.runs
        except ArrCocError as error:
            say(f"the replay ended badly: {error}")

    return replay


def _requests_of(place: Place, version: str) -> Path:
    """The version's held-out questions as a file below scratch."""
    digest = ledger.read(place.store).version(version).digest
    path = place.scratch / "replays" / f"{digest}.jsonl"
    if not path.is_file():
        data = read_file(place.store, digest, "requests.jsonl")
        read_requests(data)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{uuid4().hex}")
        part.write_bytes(data)
        part.replace(path)
    return path

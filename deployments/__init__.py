"""What the project needs from the place it runs in: small protocols, one folder per place.

`local` runs everything on one laptop; `gcp` and `kubernetes` run the same calls elsewhere.
Nothing above a place sees a path, a port or a process. One read and one write on each data
plane: `observe` tells what is, `apply` orders what should be, and nobody waits inside either.
Every place passes the same contract tests (tests/contract/).

URIs name artifacts: `<root>/runs/4f2a/train`, where `root` is the store's own.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Protocol

from policy.config import Config
from policy.counts import Compared, Labelled, Sample
from policy.errors import Unsupported

Json = Any  # a JSON value; instances and predictions are the model's own business
Capability = Literal["pin", "mirror", "fallback", "empty"]
"""What an endpoint may be able to do: be asked for one version by name whatever its weight;
copy requests to a version that nobody hears; let one version answer what another fails to;
serve nothing at all."""


class Clock(Protocol):
    """Time as a place knows it; tests have one that does not wait."""

    def now(self) -> datetime:
        """The present in UTC. It may be set, forward or back, at any moment."""
        ...

    def monotonic(self) -> float:
        """Seconds that pass whatever is done to the clock; only differences mean anything."""
        ...

    def sleep(self, seconds: float) -> None: ...


class SystemClock:
    """The clock of this machine."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


class Store(Protocol):
    """Objects that are created once and never changed, below one root.

    `root` is the URI below which everything lies: an absolute folder, gs://… or s3://….
    """

    root: str

    def create(self, key: str, data: bytes) -> None:
        """Write a new object, whole or not at all. Raises AlreadyExists, StoreError."""
        ...

    def read(self, key: str) -> bytes:
        """Return the object. Raises NotFound, StoreError."""
        ...

    def list(self, prefix: str, after: str = "") -> Sequence[str]:
        """Keys under the folder `prefix` that come after the key `after`, in order.

        Raises StoreError.
        """
        ...

    def upload(self, folder: Path, uri: str) -> None:
        """Store the files of `folder` under `uri`, their checksums last. Safe to repeat.

        A folder that already lies there is its own upload. Raises StoreError.
        """
        ...

    def download(self, uri: str) -> Path:
        """A folder on this machine with the files under `uri`, checked by their SHA-256.

        A folder on this disk is its own download. Read it, never write into it. Raises
        NotFound if it was not uploaded to its end, StoreError.
        """
        ...


@dataclass(frozen=True)
class Job:
    """One run of `python -m PROGRAM --config FILE --NAME FOLDER … --output FOLDER`.

    `key` stands for all that goes in: two jobs of one key are one job. `inputs` and `output`
    are URIs, except that an input without a `/` is passed on as it is.
    """

    key: str
    program: str
    config: Mapping[str, Json]
    inputs: Mapping[str, str]
    output: str


class Jobs(Protocol):
    def run(self, job: Job, on_progress: Callable[[Mapping[str, Json]], None]) -> None:
        """Bring `job` to its end: start it, or attach to the one of its key that runs already.

        One that ended well before does not start again. Calls `on_progress` with each
        progress record that the program prints. Raises JobFailed with the exit code and the
        log's tail; `JobFailed.exit_code` is -15 for one that was cancelled or took too long.
        """
        ...

    def cancel(self, key: str) -> None:
        """Stop the job of this key, whoever runs it; its checkpoint stays. Nothing if none."""
        ...


@dataclass(frozen=True)
class Release:
    """A release in the store: `digest` is the SHA-256 of its manifest."""

    version: str
    digest: str


@dataclass(frozen=True)
class Server:
    """One version at an endpoint. `reason` says why it failed; "" otherwise."""

    state: Literal["starting", "ready", "failed"]
    digest: str
    reason: str = ""


@dataclass(frozen=True)
class Observed:
    """What an endpoint is now.

    `weights` is the real split in percent, without zeros; {} serves nobody. `mirror` says
    which version gets copies of how many percent of the requests. `fallback` answers what
    another version fails to answer; "" if none does.
    """

    servers: Mapping[str, Server]
    weights: Mapping[str, int]
    mirror: Mapping[str, int] = field(default_factory=dict)
    fallback: str = ""


@dataclass(frozen=True)
class Desired:
    """What an endpoint should be. Releases that are not named are drained and removed.

    `fallback` is a version that answers what another one fails to answer.
    """

    releases: tuple[Release, ...]
    weights: Mapping[str, int]
    fallback: str | None = None
    mirror: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Reply:
    """One answer of a served version. `status` is the HTTP status; 0: no answer came."""

    status: int
    version: str
    predictions: tuple[Json, ...]
    latency_s: float
    error: str = ""


class Endpoint(Protocol):
    name: str
    can: frozenset[Capability]

    def observe(self) -> Observed:
        """Look once. Raises EndpointSilent if the place does not answer: nobody's fault.

        A version that cannot serve is a value: a server that `failed`, with the reason. That
        includes a release that could not be verified.
        """
        ...

    def apply(self, desired: Desired) -> None:
        """Order it, and return once the order is taken. The same order twice is one order.

        Asked again and again, it brings the endpoint nearer each time: servers first, then
        weights, then the removal of what is not desired. No weight goes to a server that is
        not ready (the split stays as it is until it is), and none with weight is removed.

        Raises:
            EndpointSilent: if the place did not answer; the order may or may not be taken.
            EndpointError: if the order can never be taken (weights that do not add up to 100,
                or of a release that is not desired); nothing was changed.
        """
        ...

    def ask(
        self, version: str | None, instances: Sequence[Json], timeout_s: float = 10
    ) -> Reply:
        """Ask `version`, whatever its weight, or with None whichever the weights choose.

        Asking for a version by name is not traffic: telemetry does not count it. Raises
        Unsupported for a name where the endpoint cannot pin.
        """
        ...


@dataclass(frozen=True)
class Reading:
    """What versions answered since each was deployed; nothing after `complete_until` counts.

    Each request counts once, for the version that the split first chose, by its first
    attempt: what a retry or a fallback repaired stays an error of that version. `samples` has
    every version that was asked for; `compared` only those with mirrored requests.
    """

    samples: Mapping[str, Sample]
    complete_until: datetime
    compared: Mapping[str, Compared] = field(default_factory=dict)


class Telemetry(Protocol):
    def read(self, endpoint: str, versions: Sequence[str]) -> Reading:
        """Cumulative counts. Raises EndpointSilent if they cannot be read.

        `Sample.epoch` differs from that of an earlier reading if a counter began anew.
        """
        ...

    def record(
        self,
        endpoint: str,
        source: str,
        labels: Mapping[str, Labelled],
        compared: Mapping[str, Compared],
    ) -> None:
        """What `source` (a replay, people's feedback) knows of the answers by now, cumulative.

        The latest record of a source replaces its earlier ones. Raises StoreError.
        """
        ...


Endangered = Literal["clients", "rollbacks", "nobody yet"]


@dataclass(frozen=True)
class Part:
    """One part of a place. `problem` says what is wrong and what to do; "" if it is well.

    `endangers`: whom a problem harms first: today's clients, the next rollback, or nobody yet.
    """

    name: str
    state: str
    problem: str = ""
    endangers: Endangered = "nobody yet"


@dataclass(frozen=True)
class Health:
    """`well`: every part of the place runs and answers."""

    parts: tuple[Part, ...]

    @property
    def well(self) -> bool:
        return not any(part.problem for part in self.parts)


@dataclass(frozen=True)
class Place:
    """Where everything runs. `scratch` is a folder on this machine that may vanish."""

    jobs: Jobs
    store: Store
    telemetry: Telemetry
    endpoints: Mapping[str, Endpoint]
    scratch: Path
    health: Callable[[], Health]
    clock: Clock = field(default_factory=SystemClock)

    def endpoint(self, name: str) -> Endpoint:
        if name not in self.endpoints:
            raise Unsupported(
                f"there is no endpoint {name!r}",
                expected=f"one of {list(self.endpoints)}",
                holds="nothing was changed",
                do="name one of these, or add it to `endpoints` in the configuration",
            )
        return self.endpoints[name]


def connect(config: Config) -> Place:
    """Build the place named by `config.place`. Imports only that one. Starts nothing."""
    if config.place == "local":
        from deployments import local

        return local.connect(config)
    raise Unsupported(f"place {config.place!r} is not built yet", expected="place: local")

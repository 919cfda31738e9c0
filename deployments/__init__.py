"""What the project needs from the place it runs in: small protocols, one folder per place.

`local` runs everything on one laptop; `gcp` and `kubernetes` run the same calls elsewhere.
Flows and tasks see only these protocols, so they cannot tell the places apart. Every place
passes the same contract tests (tests/contract/).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from policy.config import Config
from policy.counts import Counts, Labelled
from policy.errors import Unsupported
from policy.rollout.record import Compared

Json = Any  # a JSON value; instances and predictions are the model's own business


@dataclass(frozen=True)
class Release:
    """A release in the store: `digest` is the SHA-256 of its manifest."""

    version: str
    digest: str


@dataclass(frozen=True)
class Reply:
    """One answer of a served version. `status` is the HTTP status; 0: no answer came."""

    status: int
    version: str
    predictions: tuple[Json, ...]
    latency_s: float
    error: str = ""


class Jobs(Protocol):
    def run(
        self,
        program: str,
        config: Mapping[str, Json],
        inputs: Mapping[str, str],
        output: Path,
        *,
        on_progress: Callable[[Mapping[str, Json]], None] = ...,
    ) -> None:
        """Run `python -m program --config FILE --NAME INPUT … --output OUTPUT` to the end.

        How many processes that takes is the program's own business: its configuration says.
        Calls `on_progress` with each progress record that the program prints. A run that
        dies with its caller leaves no process behind. Raises JobFailed with the exit code
        and the log's tail.
        """
        ...


class Store(Protocol):
    def create(self, key: str, data: bytes) -> None:
        """Write a new object, whole or not at all. Raises AlreadyExists, StoreError."""
        ...

    def read(self, key: str) -> bytes:
        """Return the object. Raises NotFound."""
        ...

    def list(self, prefix: str) -> Sequence[str]:
        """Keys under `prefix`, in order."""
        ...


class Endpoint(Protocol):
    name: str

    def deploy(self, release: Release) -> None:
        """Start serving `release` at weight 0. Does nothing if it is already deployed.

        The release is verified before anything starts. Raises ReleaseError, EndpointError.
        """
        ...

    def deployed(self) -> Sequence[str]:
        """Versions that have a server here, ready or not, in order."""
        ...

    def ready(self, version: str) -> bool:
        """Whether `version` answers its health check through the endpoint.

        Raises EndpointError if it never will (its server gave up), with the log's tail.
        """
        ...

    def weights(self) -> Mapping[str, int]:
        """The real split in percent, as the data plane confirms it; empty before the first."""
        ...

    def set_weights(self, percent: Mapping[str, int], fallback: str | None = None) -> None:
        """Split the requests over deployed versions; must add up to 100. Idempotent.

        Without any weight nothing serves: requests are answered with 503.

        `fallback`, a deployed version, answers what another one fails to answer; by default
        the heaviest, the first named of equals. The failed attempts still count.
        Returns once the data plane confirms the split. Raises EndpointError and leaves the
        split as it was.
        """
        ...

    def mirror(self, version: str, percent: int) -> None:
        """Send `version` copies of `percent` of the requests; 0 ends it. Idempotent.

        Nobody sees its answers, but they count. Raises EndpointError if `version` has weight.
        """
        ...

    def mirrored(self) -> Mapping[str, int]:
        """Which version gets copies of how many percent of the requests; empty for none."""
        ...

    def send(
        self, version: str | None, instances: Sequence[Json], timeout_s: float = 10
    ) -> Reply:
        """Ask `version`, whatever its weight, or with None whichever the weights choose."""
        ...

    def undeploy(self, version: str) -> None:
        """Stop `version` once its last request is answered. Does nothing if it is gone.

        Raises EndpointError while it still has weight.
        """
        ...

    def capabilities(self, *needed: str) -> None:
        """Raises Unsupported naming what this place cannot do."""
        ...


class Telemetry(Protocol):
    def counts(self, endpoint: str, version: str) -> Counts:
        """What `version` answered since it was deployed, per attempt (cumulative).

        Counters may restart at zero with the data plane; policy.rollout.machine.between sees it.
        """
        ...

    def labels(self, endpoint: str, version: str) -> Labelled:
        """Live answers with a known truth, cumulative."""
        ...

    def compared(self, endpoint: str, version: str) -> Compared:
        """Requests that were answered by the split and by its shadow `version`, cumulative."""
        ...


@dataclass(frozen=True)
class Place:
    jobs: Jobs
    store: Store
    telemetry: Telemetry
    endpoints: Mapping[str, Endpoint]

    def endpoint(self, name: str) -> Endpoint:
        if name not in self.endpoints:
            raise Unsupported(
                f"no endpoint {name!r}", expected=f"one of {list(self.endpoints)}"
            )
        return self.endpoints[name]


def connect(config: Config) -> Place:
    """Build the place named by `config.place`. Imports only that one."""
    if config.place == "local":
        from deployments import local

        return local.connect(config)
    raise Unsupported(f"place {config.place!r} is not built yet", expected="place: local")

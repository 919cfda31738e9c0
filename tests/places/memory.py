"""The place `memory`: a slow, lying, forgetful cloud with a clock that nobody waits for.

    cloud = MemoryCloud(Settings(deploy_s=600))
    place = cloud.place(tmp_path)       # what one process holds; another process connects anew
    cloud.lie("apply", "after")         # the next order is taken, and its answer lost
    cloud.hook = lambda call, when: …   # raise there, and the caller is dead

All that lasts stands in the cloud. A deploy takes ten minutes, an order some seconds before
anything comes of it, counters are two minutes late, a job outlives its caller, and an endpoint
can do none of the optional things unless `can` says so. Every call of the place passes one
hook, right before and right after its effect. This is also the shortest complete place: read
it before you write one.
"""

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from deployments import Capability, Health, Job, Json, Part, Place, Release
from policy.errors import ArrCocError, EndpointSilent, StoreError
from tests.places.memory_endpoint import EndpointState, MemoryEndpoint
from tests.places.memory_jobs import JobState, MemoryJobs
from tests.places.memory_store import MemoryStore
from tests.places.memory_telemetry import Known, MemoryTelemetry
from tests.policy.worlds import Behaviour

When = Literal["before", "after"]
Hook = Callable[[str, When], None]
START = datetime(2026, 11, 22, 12, tzinfo=UTC)
US = 1_000_000  # microseconds in a second: times are whole numbers of them
_STORE_CALLS = frozenset({"create", "read", "list", "upload", "put", "download"})


@dataclass(frozen=True)
class Settings:
    """How slow the cloud is, in virtual seconds, and what its endpoints can do."""

    deploy_s: float = 600
    order_s: float = 40
    metrics_late_s: float = 120
    job_s: float = 1800
    per_s: float = 10
    endpoints: tuple[str, ...] = ("staging", "production")
    can: frozenset[Capability] = frozenset()


def nothing(_call: str, _when: When) -> None:
    """The hook that does nothing."""


def _no_files(_job: Job) -> Mapping[str, bytes]:
    return {"done": b""}


def _believe(_release: Release) -> str:
    return ""


def _red(_version: str, instances: tuple[Json, ...]) -> tuple[Json, ...]:
    return ({"answer": "red"},) * len(instances)


@dataclass
class MemoryCloud:
    """Everything that is left when all processes are dead.

    `clock_s`: every clock was set so far forward (back, if negative), while `time` goes on.

    Args:
        behaviours: how each version answers; a `Behaviour()` if it is not named.
        breaks_at: the weight from which on a version fails every second request.
        verify: why a release may not serve, "" if it may.
        answer: what a version predicts for instances.
        programs: the files that each program leaves; one may raise JobFailed.
    """

    settings: Settings = Settings()
    behaviours: dict[str, Behaviour] = field(default_factory=dict)
    breaks_at: dict[str, int] = field(default_factory=dict)
    verify: Callable[[Release], str] = _believe
    answer: Callable[[str, tuple[Json, ...]], tuple[Json, ...]] = _red
    programs: dict[str, Callable[[Job], Mapping[str, bytes]]] = field(default_factory=dict)
    hook: Hook = nothing

    time: int = 0
    clock_s: float = 0.0
    objects: dict[str, bytes] = field(default_factory=dict)
    endpoints: dict[str, EndpointState] = field(default_factory=dict)
    known: dict[str, dict[str, Known]] = field(default_factory=dict)
    jobs: dict[str, JobState] = field(default_factory=dict)
    lies: list[tuple[str, When, str]] = field(default_factory=list)
    failing: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.settings.endpoints:
            self.endpoints.setdefault(name, EndpointState())

    def place(self, scratch: Path, ahead_s: float = 0.0) -> Place:
        """Connect, as another process would; nothing in it outlives that process.

        Args:
            ahead_s: of the clock of the machine on which it runs.
        """
        return Place(
            jobs=MemoryJobs(self),
            store=MemoryStore(self, scratch),
            telemetry=MemoryTelemetry(self),
            endpoints={name: MemoryEndpoint(self, name) for name in self.endpoints},
            scratch=scratch,
            health=lambda: Health((Part("cloud", "answers"),)),
            clock=MemoryClock(self, ahead_s),
        )

    def lie(self, call: str, when: When, why: str = "no answer came", times: int = 1) -> None:
        """Let the next calls of this name fail, before their effect or after it."""
        self.lies.extend((call, when, why) for _ in range(times))

    def fail_deploy(self, version: str, reason: str) -> None:
        """Let the next deploy of `version` end, after its whole time, in a failure."""
        self.failing.setdefault(version, []).append(reason)

    @contextmanager
    def call(self, name: str) -> Iterator[None]:
        """One call of the place: the hook, a lie if there is one, and the effect between."""
        self._pass(name, "before")
        yield
        self._pass(name, "after")

    def now(self) -> datetime:
        return START + timedelta(microseconds=self.time, seconds=self.clock_s)

    def pass_time(self, seconds: float) -> None:
        """Let time pass: orders take effect, deploys and jobs end."""
        until = self.time + round(seconds * US)
        while (event := min(self._events(), default=until + 1)) <= until:
            self.time = max(self.time, event)
            for name, endpoint in self.endpoints.items():
                endpoint.settle(self, name)
            for job in self.jobs.values():
                job.settle(self)
        self.time = until

    def lost(self, endpoint: str) -> int:
        """Requests that met a server that was not ready, or none where one had served."""
        return self.endpoints[endpoint].traffic.counts(self.time).get(("", "lost"), 0)

    def copy(self) -> "MemoryCloud":
        """The same cloud a second time: what happens to one does not touch the other."""
        twin = copy.copy(self)
        for part in fields(self):
            value = getattr(self, part.name)
            if isinstance(value, dict | list):
                plain = part.name in ("objects", "behaviours", "breaks_at", "programs")
                setattr(twin, part.name, copy.copy(value) if plain else copy.deepcopy(value))
        twin.hook = nothing
        return twin

    def fingerprint(self) -> str:
        """Equal for two clouds in which the same things will happen."""
        objects = hash(frozenset(self.objects.items()))
        parts = (
            self.time,
            self.clock_s,
            objects,
            self.endpoints,
            self.known,
            self.jobs,
            self.lies,
        )
        return repr((*parts, self.failing))

    def files_of(self, job: Job) -> Mapping[str, bytes]:
        return self.programs.get(job.program, _no_files)(job)

    def behaviour(self, version: str, weight: int = 0) -> Behaviour:
        behaviour = self.behaviours.get(version, Behaviour())
        broken = weight >= self.breaks_at.get(version, 101)
        return replace(behaviour, errors=0.5) if broken else behaviour

    def _events(self) -> Iterator[int]:
        for endpoint in self.endpoints.values():
            yield from endpoint.events(self.time)
        yield from (job.ends for job in self.jobs.values() if not job.ended)

    def _pass(self, name: str, when: When) -> None:
        self.hook(name, when)
        for lie in self.lies:
            if lie[:2] == (name, when):
                self.lies.remove(lie)
                raise silence(name, lie[2])


class MemoryClock:
    """`deployments.Clock` of the cloud."""

    def __init__(self, cloud: MemoryCloud, ahead_s: float = 0.0) -> None:
        self._cloud, self._ahead = cloud, timedelta(seconds=ahead_s)

    def now(self) -> datetime:
        return self._cloud.now() + self._ahead

    def monotonic(self) -> float:
        return self._cloud.time / US

    def sleep(self, seconds: float) -> None:
        with self._cloud.call("sleep"):
            self._cloud.pass_time(seconds)


def silence(call: str, why: str) -> ArrCocError:
    """What the protocols say of a call that was not answered."""
    kind = EndpointSilent if call in ("observe", "apply", "read_counts", "ask") else StoreError
    return kind(f"{call}: {why}", do="call again")

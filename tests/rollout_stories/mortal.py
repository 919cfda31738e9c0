"""Kills a process at every point, by the states that it leaves behind.

What a killed process leaves is what stands in the cloud and in its scratch folder at that
moment, so one undisturbed run shows what each kill leaves: a copy taken before and after every
call. Two kills that leave the same state are one. A run that comes, between two looks, to a
state from which a run before it ended well goes the same way from there: a controller holds
nothing between two looks. `test_killed.py` holds that as well.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count, groupby
from pathlib import Path

from policy.errors import StoreError
from tests.places.memory import Hook, MemoryCloud, When, nothing

Process = Callable[[MemoryCloud, Path], None]
_LOCK = "driving/production.lock"
_FAILURES_MAX = 100
READS = frozenset({"observe", "read_counts", "read", "list"})
_LOOKS_MAX = 3000


class Killed(BaseException):
    """No code catches it."""


class _Merged(BaseException):
    """From here on everything is known."""


@dataclass(frozen=True)
class Point:
    """What is left of a process that died `when` a call was made."""

    call: str
    when: When
    cloud: MemoryCloud
    lock: str

    @property
    def stands(self) -> object:
        """All that is left, but the time and what was counted."""
        endpoints = self.cloud.endpoints.values()
        left = [(e.servers, e.weights, e.orders, e.mirror) for e in endpoints]
        return len(self.cloud.objects), repr(left)

    def __str__(self) -> str:
        return f"{self.when} {self.call} at {self.cloud.time / 1e6:g} s"


@dataclass
class Mortal:
    """Runs processes that die.

    Args:
        process: goes on from whatever it finds, to the end.
        check: what must hold at the end.
        merge: stop where the rest is known.
        restart_s: from the death of a process to the next one.
    """

    folder: Path
    process: Process
    check: Process
    merge: bool = True
    restart_s: float = 0.0
    _known: set[object] = field(default_factory=set)
    _scratches: Iterator[int] = field(default_factory=count)

    def undisturbed(self, cloud: MemoryCloud) -> Sequence[Point]:
        """Run to the end; what is left by a kill at each of its points, each state once."""
        points: dict[object, Point] = {}
        scratch = self.scratch()

        def keep(call: str, when: When) -> None:
            lock = _lock(scratch)
            key = (cloud.fingerprint(), lock)
            if key not in points:
                points[key] = Point(call, when, cloud.copy(), lock)

        self._to_the_end(cloud, scratch, keep)
        return list(points.values())

    def go_on(
        self,
        point: Point,
        after_s: float = 0.0,
        hook: Callable[[MemoryCloud], Hook] = lambda _cloud: nothing,
    ) -> None:
        """A new process finds what is left, `after_s` later, and must bring it to its end."""
        cloud = point.cloud.copy()
        cloud.pass_time(after_s)
        try:
            self._to_the_end(cloud, self.scratch(point.lock), hook(cloud))
        except Exception as error:
            error.add_note(str(point))
            raise

    def calls_of_look(self, point: Point) -> Sequence[str]:
        """The calls that a new process makes from its first look on, until it sleeps.

        What it reads before that changes nothing: to fail there is to be killed there.
        """
        cloud, calls = point.cloud.copy(), list[str]()

        def note(call: str, when: When) -> None:
            if (call, when) == ("sleep", "before"):
                raise Killed
            if when == "before" and (calls or call not in ("read", "list")):
                calls.append(call)

        cloud.hook = note
        with suppress(Killed):
            self.process(cloud, self.scratch(point.lock))
        return calls

    def _to_the_end(self, cloud: MemoryCloud, scratch: Path, hook: Hook) -> None:
        path: set[object] = set()

        def watch(call: str, when: When) -> None:
            hook(call, when)
            if (call, when) == ("sleep", "before"):
                key = (cloud.fingerprint(), _lock(scratch))
                if self.merge and key in self._known:
                    raise _Merged
                path.add(key)
                assert len(path) < _LOOKS_MAX, "no end in sight"

        cloud.hook = watch
        with suppress(_Merged):
            self._process_again_if_it_fails(cloud, scratch)
            cloud.hook = nothing
            self.check(cloud, scratch)
        self._known |= path

    def _process_again_if_it_fails(self, cloud: MemoryCloud, scratch: Path) -> None:
        """A store that does not answer ends a process; somebody starts another one."""
        for _ in range(_FAILURES_MAX):
            with suppress(StoreError, Killed):
                return self.process(cloud, scratch)
            cloud.pass_time(self.restart_s)
        raise AssertionError(f"it failed {_FAILURES_MAX} times")

    def scratch(self, lock: str = "") -> Path:
        folder = self.folder / str(next(self._scratches))
        if lock:
            path = folder / _LOCK
            path.parent.mkdir(parents=True)
            path.write_text(lock)
        return folder


def apart(points: Sequence[Point]) -> Sequence[Point]:
    """The first and the last of those between which nothing but time passed."""
    stretches = [[*group] for _, group in groupby(points, key=lambda point: point.stands)]
    return [
        point
        for stretch in stretches
        for point in {id(p): p for p in (stretch[0], stretch[-1])}.values()
    ]


@dataclass
class At:
    """Does something at the `index`th call from a process's first look on, once."""

    index: int
    when: When
    act: Callable[[str], None]
    _seen: int = -1

    def __call__(self, call: str, when: When) -> None:
        if self._seen < 0 and call in ("read", "list"):
            return
        if when == "before":
            self._seen += 1
        if (self._seen, when) == (self.index, self.when):
            self._seen = 1 << 60
            self.act(call)


def _lock(scratch: Path) -> str:
    """What the lock file of `tasks.rollout.lead` says."""
    path = scratch / _LOCK
    return path.read_text() if path.exists() else ""

"""A thread that does one thing after another for requests, and not for clients that left.

Requests wait in lanes so that nothing but HTTP happens on the event loop. A short hand-over
(one queue, one wake-up) is all that a small request pays for that.

A lane takes what it can be expected to do in time, not a number alone: a proxy in front gives
up on what waits too long, and charges that to the version. What a request will cost is known
once it is done, so the average of the last ones stands for all that wait. Where it was too
low, what has waited too long is refused after all.
"""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, MutableMapping
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Outcome = TypeVar("Outcome")

NEWEST = 0.1  # weight of the newest request in the average
clock = time.perf_counter


class Overloaded(Exception):
    """More wait than a lane takes, or one has waited too long. Nothing was begun."""


class Gone(Exception):
    """The client left before it was answered."""


class Job(Generic[Outcome]):
    """Something to do. `wanted` turns false if the client leaves: stop at the next step."""

    def __init__(self, work: Callable[["Job[Outcome]"], Outcome]) -> None:
        self.wanted, self.begun = True, False
        self._work: Callable[[Job[Outcome]], Outcome] | None = work
        self._loop = asyncio.get_running_loop()
        self.outcome: asyncio.Future[Outcome] = self._loop.create_future()

    def check_wanted(self) -> None:
        """Raises Gone."""
        if not self.wanted:
            raise Gone

    def abandon(self) -> None:
        """Nobody waits any more; what it holds is dropped, and an error of it too."""
        self.wanted, self._work = False, None
        if not self.outcome.cancel() and not self.outcome.cancelled():
            self.outcome.exception()  # else asyncio logs that nobody asked for it

    def run(self) -> bool:
        """Whether it was still wanted."""
        work = self._work
        if not self.wanted or work is None:
            return False
        self.begun = True
        try:
            outcome = work(self)
        except BaseException as error:  # whatever it is belongs to who asked
            self._tell(self._fail, error)
        else:
            self._tell(self._succeed, outcome)
        return True

    def _tell(self, settle: Callable[..., None], value: object) -> None:
        if self.wanted:
            self._loop.call_soon_threadsafe(settle, value)

    def _succeed(self, value: Outcome) -> None:
        if not self.outcome.done():
            self.outcome.set_result(value)

    def _fail(self, error: BaseException) -> None:
        if not self.outcome.done():
            self.outcome.set_exception(error)


class Lane:
    """One thread. `waiting_max` requests may wait for it, and as many as are expected to be
    begun within `waiting_s`; `watched`: all clients are watched, not only those who wait, for
    what they ask takes long."""

    def __init__(self, name: str, waiting_max: int, waiting_s: float, *, watched: bool) -> None:
        self._waiting_max, self._waiting_s, self._watched = waiting_max, waiting_s, watched
        self._seconds = 0.0  # of the average request; the thread writes it, the loop reads it
        self._inside = 0  # requests that wait or are worked on; the event loop's alone
        self._jobs: SimpleQueue[Job[Any]] = SimpleQueue()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    async def do(
        self, work: Callable[[Job[Outcome]], Outcome], receive: Receive, until: float
    ) -> Outcome:
        """Have it done. Raises Overloaded, Gone, and whatever the work raises.

        Args:
            until: time of the event loop; what has not been begun then is refused.
        """
        inside = self._inside
        if inside > self._waiting_max or inside * self._seconds > self._waiting_s:
            raise Overloaded
        self._inside += 1
        job = Job(work)
        self._jobs.put(job)
        try:
            if self._watched or self._inside > 1:
                await _settled_or_gone(job, receive, until)
            return await job.outcome
        finally:
            self._inside -= 1
            job.abandon()
            del job  # else an error, which holds this frame, holds itself and the body

    def _run(self) -> None:
        while True:
            self._measure(self._jobs.get())

    def _measure(self, job: Job[Any]) -> None:
        before = clock()
        if job.run():
            self._seconds += NEWEST * (clock() - before - self._seconds)


async def _settled_or_gone(job: Job[Any], receive: Receive, until: float) -> None:
    gone = asyncio.ensure_future(_until_gone(receive))
    either, first = (job.outcome, gone), asyncio.FIRST_COMPLETED
    left_s = until - asyncio.get_running_loop().time()
    try:
        done, _ = await asyncio.wait(either, timeout=left_s, return_when=first)
        if not done:
            if not job.begun:
                raise Overloaded
            await asyncio.wait(either, return_when=first)
        if not job.outcome.done():
            raise Gone
    finally:
        gone.cancel()


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass

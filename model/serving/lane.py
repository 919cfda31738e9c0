"""A thread that does one thing after another for requests, and not for clients that left.

Requests wait in lanes so that nothing but HTTP happens on the event loop. A short hand-over
(one queue, one wake-up) is all that a small request pays for that.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Outcome = TypeVar("Outcome")


class Overloaded(Exception):
    """More wait than a lane takes. Nothing was begun."""


class Gone(Exception):
    """The client left before it was answered."""


class Job(Generic[Outcome]):
    """Something to do. `wanted` turns false if the client leaves: stop at the next step."""

    def __init__(self, work: Callable[["Job[Outcome]"], Outcome]) -> None:
        self.wanted = True
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

    def run(self) -> None:
        work = self._work
        if not self.wanted or work is None:
            return
        try:
            outcome = work(self)
        except BaseException as error:  # whatever it is belongs to who asked
            self._tell(self._fail, error)
        else:
            self._tell(self._succeed, outcome)

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
    """One thread. `waiting_max` requests may wait for it; `watched`: all clients are watched,
    not only those who wait, for what they ask takes long."""

    def __init__(self, name: str, waiting_max: int, *, watched: bool) -> None:
        self._waiting_max, self._watched = waiting_max, watched
        self._inside = 0  # requests that wait or are worked on; the event loop's alone
        self._jobs: SimpleQueue[Job[Any]] = SimpleQueue()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    async def do(self, work: Callable[[Job[Outcome]], Outcome], receive: Receive) -> Outcome:
        """Have it done. Raises Overloaded, Gone, and whatever the work raises."""
        if self._inside > self._waiting_max:
            raise Overloaded
        self._inside += 1
        job = Job(work)
        self._jobs.put(job)
        try:
            if self._watched or self._inside > 1:
                await _settled_or_gone(job, receive)
            return await job.outcome
        finally:
            self._inside -= 1
            job.abandon()
            del job  # else an error, which holds this frame, holds itself and the body

    def _run(self) -> None:
        while True:
            self._jobs.get().run()


async def _settled_or_gone(job: Job[Any], receive: Receive) -> None:
    gone = asyncio.ensure_future(_until_gone(receive))
    try:
        await asyncio.wait((job.outcome, gone), return_when=asyncio.FIRST_COMPLETED)
        if not job.outcome.done():
            raise Gone
    finally:
        gone.cancel()


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass

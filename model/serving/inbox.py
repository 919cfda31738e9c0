"""Bodies of requests as they come in: bounded each, in all, and in time."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from model.program.errors import BadInput
from model.serving.lane import Gone, Overloaded, Receive

BODY_BYTES_MAX = 32_000_000
HELD_BYTES_MAX = 128_000_000  # of all bodies that are not answered yet
BODY_S = 60  # a proxy in front sends a body at once


class TooSlow(Exception):
    """A body that was not complete in time."""


class Held:
    """Bytes of one body, given back to the inbox when it is answered."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.size = 0


class Inbox:
    """Where bodies wait until they are answered."""

    def __init__(self) -> None:
        self._size = 0

    @contextmanager
    def one(self) -> Iterator[Held]:
        held = Held()
        try:
            yield held
        finally:
            self._size -= held.size

    async def read(self, held: Held, receive: Receive) -> None:
        """The whole body. Raises BadInput for one too large, Gone, TooSlow and Overloaded."""
        if await self._part(held, receive):
            try:
                async with asyncio.timeout(BODY_S):
                    while await self._part(held, receive):
                        pass
            except TimeoutError as error:
                raise TooSlow from error

    async def _part(self, held: Held, receive: Receive) -> bool:
        """Take one part; whether more follow."""
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Gone
        part = message.get("body", b"")
        held.parts.append(part)
        held.size += len(part)
        self._size += len(part)
        if held.size > BODY_BYTES_MAX:
            raise BadInput(f"the body is larger than {BODY_BYTES_MAX} bytes")
        if self._size > HELD_BYTES_MAX:
            raise Overloaded
        return message.get("more_body", False)

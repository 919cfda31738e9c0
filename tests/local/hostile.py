"""Clients that are slow, greedy or talk nonsense, by the hundred, in a process of their own.

    python -m tests.local.hostile PORT CLIENTS SECONDS BYTES_MAX

prints how often each kind was ended in which way. Each comes again when it is closed.
"""

import asyncio
import json
import sys
from collections import Counter
from collections.abc import Awaitable, Callable

Client = Callable[["Peer"], Awaitable[None]]
_AGAIN_S = 0.2


class Peer:
    """One connection, and how large a request may be."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, most: int):
        self.reader, self.writer, self.most = reader, writer, most
        self._first = b""

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def wait(self) -> None:
        """Until the other side says something or has had enough."""
        self._first = await self.reader.read(1)

    async def drip(self, piece: Callable[[int], bytes], pause_s: float) -> None:
        """A piece now and then until the other side has had enough."""
        number = 0
        while not self.reader.at_eof() and not self.answered:
            await self.send(piece(number))
            await asyncio.sleep(pause_s)
            number += 1

    @property
    def answered(self) -> bytes:
        return self._first + bytes(self.reader._buffer[:12])  # looked at, and left there

    def head(self, length: int | None = None, *more: str) -> bytes:
        body = "transfer-encoding: chunked" if length is None else f"content-length: {length}"
        lines = ("POST /predict HTTP/1.1", "host: localhost", body, *more, "", "")
        return "\r\n".join(lines).encode()


async def silent(peer: Peer) -> None:
    await peer.wait()


async def endless_headers(peer: Peer) -> None:
    await peer.send(b"POST /predict HTTP/1.1\r\nhost: localhost\r\n")
    await peer.drip(lambda number: b"x-%d: y\r\n" % number, 1)


async def drop_by_drop(peer: Peer) -> None:
    await peer.send(peer.head(30_000))
    await peer.drip(lambda _: b"x", 0.5)


async def all_but_one_byte(peer: Peer) -> None:
    await peer.send(peer.head(peer.most) + b"x" * (peer.most - 1))
    await peer.wait()


async def chunks_without_end(peer: Peer) -> None:
    await peer.send(peer.head(None))
    await peer.drip(lambda _: b"10000\r\n" + b"x" * 0x10000 + b"\r\n", 0.05)


async def never_reads(peer: Peer) -> None:
    """Asks again and again and takes no answer."""
    peer.writer.transport.pause_reading()
    await peer.send(500 * b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n")
    await asyncio.sleep(60)


async def leaves_halfway(peer: Peer) -> None:
    await peer.send(peer.head(peer.most) + b"x" * 1000)


async def talks_nonsense(peer: Peer) -> None:
    bomb = "x-envoy-max-retries: 1000000"
    for words in (
        b"\0" * 5000,
        b"GET / HTTP/9.9\r\n\r\n",
        peer.head(2, "origin: https://elsewhere.example", bomb) + b"{}",
        peer.head(2, "authorization: Bearer none", "x-arr-version: 1.0.0") + b"{}",
        peer.head(2, "x-long: " + "x" * 60_000) + b"{}",
    ):
        await peer.send(words)
        await asyncio.sleep(0.1)
    await peer.wait()


KINDS: tuple[Client, ...] = (
    silent,
    endless_headers,
    drop_by_drop,
    all_but_one_byte,
    chunks_without_end,
    never_reads,
    leaves_halfway,
    talks_nonsense,
)


async def attack(port: int, clients: int, seconds: float, most: int) -> Counter[str]:
    """Keep that many of them at it for so long, the kinds in equal parts."""
    ends = Counter[str]()
    waves = [again_and_again(KINDS[n % len(KINDS)], port, most, ends) for n in range(clients)]
    tasks = [asyncio.create_task(wave) for wave in waves]
    await asyncio.sleep(seconds)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return ends


async def again_and_again(client: Client, port: int, most: int, ends: Counter[str]) -> None:
    while True:
        end = "closed"
        try:
            streams = await asyncio.open_connection("127.0.0.1", port)
        except OSError as error:
            ends[f"no connection: {error.strerror}"] += 1
            await asyncio.sleep(_AGAIN_S)
            continue
        peer = Peer(*streams, most)
        try:
            await client(peer)
            end = peer.answered.decode(errors="replace") or end
        except OSError as error:
            end = type(error).__name__
        finally:
            peer.writer.transport.abort()
        ends[f"{client.__name__}: {end}"] += 1
        await asyncio.sleep(_AGAIN_S)


if __name__ == "__main__":
    port, clients, seconds, most = map(int, sys.argv[1:])
    print(json.dumps(asyncio.run(attack(port, clients, seconds, most)), indent=1))

"""The HTTP side of a model server: who waits for whom, who is refused, what is left undone."""

import asyncio
import base64
import io
import json
import threading

import pytest
from PIL import Image

from model.dataset.images import open_file
from model.program.errors import BadInput
from model.serving import inbox, lane
from model.serving.app import (
    LARGE_WAITING_MAX,
    SMALL_BYTES,
    SMALL_PIXELS,
    SMALL_WAITING_MAX,
    WAITED_MAX_S,
    application,
)
from model.serving.predictor import Asked, Prediction


def picture(edge):
    file = io.BytesIO()
    Image.new("1", (edge, edge)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def body_of(edge, count=1):
    one = {"image": picture(edge), "question": "x"}
    return json.dumps({"instances": [one] * count}).encode()


SMALL, TWO, LARGE = body_of(8), body_of(8, 2), body_of(int(SMALL_PIXELS**0.5) + 1)
LONG = SMALL.replace(b'"x"', b'"x"' + b" " * 500_000) + b" " * (SMALL_BYTES - 500_000)


class Told:
    """Answers what it is told, requests of the lane `held` once `may_answer` is set.

    `takes_s`: what each takes by the clock of the lanes, if the test has it in hand.
    """

    instances_max = 64

    def __init__(self, seconds=0.001, fault=None, held="large", takes_s=0.0):
        self.seconds, self.fault, self.held = seconds, fault, held
        self.takes_s, self.now = takes_s, 0.0
        self.threads, self.begun, self.left = [], threading.Semaphore(0), []
        self.may_answer = threading.Event()
        self.may_answer.set()

    def open(self, instances):
        return [Asked(open_file(one.image, "it"), one.question) for one in instances]

    def answer(self, asked, check_wanted):
        self.threads.append(threading.current_thread().name)
        self.begun.release()
        if self.fault:
            raise self.fault
        if threading.current_thread().name == self.held:
            assert self.may_answer.wait(60)
        self.now += self.takes_s
        try:
            check_wanted()
        except BaseException as error:
            self.left.append(error)
            raise
        return [Prediction("red", 0.5)] * len(asked)


class Client:
    """One request as uvicorn would hand it over; `stalls`: its body never ends."""

    def __init__(self, app, parts, method="POST", path="/predict", *, stalls=False):
        self.parts, self.sent, self.stalls = list(parts), [], stalls
        self.leaves, self.stalled = asyncio.Event(), asyncio.Event()
        scope = {"type": "http", "method": method, "path": path}
        self.task = asyncio.ensure_future(app(scope, self.receive, self.send))

    async def receive(self):
        if not self.parts:
            self.stalled.set()
            await self.leaves.wait()
            return {"type": "http.disconnect"}
        part = self.parts.pop(0)
        return {
            "type": "http.request", "body": part, "more_body": self.stalls or bool(self.parts)
        }  # fmt: skip

    async def send(self, message):
        self.sent.append(message)

    async def status(self):
        await asyncio.wait_for(self.task, 60)
        return self.sent[0]["status"] if self.sent else None

    @property
    def headers(self):
        return dict(self.sent[0]["headers"])

    @property
    def told(self):
        return json.loads(self.sent[1]["body"])


def serving(told):
    return application(told, "v7", "/health", "/predict")


async def until_begun(told):
    assert await asyncio.to_thread(told.begun.acquire, timeout=60)


@pytest.mark.parametrize(
    ("body", "seconds", "lane"),
    [
        (SMALL, 0.001, "small"),
        (SMALL, 5.0, "small"),  # one question of a slow network is as small as any
        (TWO, 0.001, "small"),
        (TWO, 5.0, "large"),
        (LARGE, 0.001, "large"),
        (LONG, 0.001, "large"),
    ],
)
def test_nothing_is_answered_on_the_event_loop(body, seconds, lane):
    async def one():
        told = Told(seconds)
        assert await Client(serving(told), [body]).status() == 200
        assert told.threads == [lane]

    asyncio.run(one())


@pytest.mark.parametrize("body", [LARGE, LONG])
def test_health_and_small_questions_wait_for_no_large_request(body):
    async def all_three():
        told = Told()
        told.may_answer.clear()
        app = serving(told)
        large = Client(app, [body])
        await until_begun(told)
        assert await Client(app, [b""], "GET", "/health").status() == 200
        assert await Client(app, [SMALL]).status() == 200
        assert not large.task.done()
        told.may_answer.set()
        assert await large.status() == 200

    asyncio.run(all_three())


def test_more_large_requests_than_may_wait_are_told_to_come_back():
    """With 429: it is not the fault of the version, and another server has as much to do."""

    async def many():
        told = Told()
        told.may_answer.clear()
        app = serving(told)
        waiting = [Client(app, [LONG]) for _ in range(LARGE_WAITING_MAX + 1)]
        await until_begun(told)
        refused = Client(app, [LONG])
        assert await refused.status() == 429
        assert refused.headers[b"retry-after"] == b"1"
        assert refused.headers[b"x-arr-version"] == b"v7"
        assert await Client(app, [SMALL]).status() == 200
        told.may_answer.set()
        assert [await one.status() for one in waiting] == [200] * len(waiting)
        assert await Client(app, [LONG]).status() == 200, "there is room again"

    asyncio.run(many())


@pytest.mark.parametrize(
    ("name", "body", "takes_s", "admitted"),
    [
        ("small", SMALL, 0.03, 51),  # with the one under way: 1.5 s
        ("large", LONG, 0.5, 4),  # the same
        ("small", SMALL, 0.001, SMALL_WAITING_MAX + 1),
        ("large", LONG, 0.1, LARGE_WAITING_MAX + 1),
    ],
)
def test_a_flood_is_refused_at_once_when_it_would_wait_too_long(
    monkeypatch, name, body, takes_s, admitted
):
    """At the pace of the requests before it; what a proxy gave up on would be a 504."""
    told = Told(held=name, takes_s=takes_s)
    monkeypatch.setattr(lane, "clock", lambda: told.now)

    async def flood():
        app = serving(told)
        for _ in range(100):
            assert await Client(app, [body]).status() == 200
            await until_begun(told)
        told.may_answer.clear()
        waiting = [Client(app, [body])]
        await until_begun(told)
        waiting += [Client(app, [body]) for _ in range(admitted - 1)]
        refused = [Client(app, [body]) for _ in range(50)]
        assert [await one.status() for one in refused] == [429] * 50
        assert refused[0].headers[b"retry-after"] == b"1"
        assert not any(one.task.done() for one in waiting)
        told.may_answer.set()
        assert [await one.status() for one in waiting] == [200] * admitted

    asyncio.run(flood())


def test_one_that_took_far_too_long_closes_no_lane(monkeypatch):
    told = Told(takes_s=1000.0)
    monkeypatch.setattr(lane, "clock", lambda: told.now)

    async def three():
        app = serving(told)
        for _ in range(3):
            assert await Client(app, [SMALL]).status() == 200
            assert await Client(app, [LONG]).status() == 200

    asyncio.run(three())


@pytest.mark.parametrize(("name", "body"), [("small", SMALL), ("large", LONG)])
def test_what_has_waited_too_long_is_refused_and_never_begun(name, body):
    """What is under way by then is finished."""

    async def two():
        told, loop, skipped = Told(held=name), asyncio.get_running_loop(), [0.0]
        passes = loop.time
        loop.time = lambda: passes() + skipped[0]
        told.may_answer.clear()
        app = serving(told)
        first = Client(app, [body])
        await until_begun(told)
        second = Client(app, [body])
        await second.stalled.wait()  # it is watched, so it waits
        skipped[0] = WAITED_MAX_S
        assert await second.status() == 429
        assert second.headers[b"retry-after"] == b"1"
        assert not first.task.done()
        told.may_answer.set()
        assert await first.status() == 200
        assert await Client(app, [body]).status() == 200
        assert len(told.threads) == 2

    asyncio.run(two())


def test_the_wait_in_both_lanes_counts_together():
    async def two():
        told, loop, skipped = Told(), asyncio.get_running_loop(), [0.0]
        passes, opening = loop.time, told.open

        def open_late(instances):
            skipped[0] = WAITED_MAX_S
            return opening(instances)

        loop.time = lambda: passes() + skipped[0]
        told.may_answer.clear()
        app = serving(told)
        first = Client(app, [LONG])
        await until_begun(told)
        told.open = open_late
        second = Client(app, [LARGE])  # looks small
        assert await second.status() == 429
        told.may_answer.set()
        assert await first.status() == 200
        assert len(told.threads) == 1

    asyncio.run(two())


def test_a_request_whose_client_left_while_it_waited_is_never_begun():
    async def two():
        told = Told()
        told.may_answer.clear()
        app = serving(told)
        first, second = Client(app, [LONG]), Client(app, [LONG])
        await until_begun(told)
        second.leaves.set()
        assert await second.status() is None
        told.may_answer.set()
        assert await first.status() == 200
        assert await Client(app, [LONG]).status() == 200
        assert len(told.threads) == 2

    asyncio.run(two())


def test_a_request_under_way_is_stopped_when_its_client_leaves():
    async def one():
        told = Told()
        told.may_answer.clear()
        app = serving(told)
        client = Client(app, [LONG])
        await until_begun(told)
        client.leaves.set()
        assert await client.status() is None
        told.may_answer.set()
        assert await Client(app, [LONG]).status() == 200
        assert len(told.left) == 1

    asyncio.run(one())


def test_a_client_that_leaves_in_the_middle_of_its_body_is_not_answered():
    async def one():
        told = Told()
        client = Client(serving(told), [SMALL[:9]], stalls=True)
        await client.stalled.wait()
        client.leaves.set()
        assert await client.status() is None
        assert not told.threads

    asyncio.run(one())


def test_a_body_without_end_is_refused_before_it_ends():
    async def one():
        client = Client(serving(Told()), [b" " * 1_000_000] * 40)
        assert await client.status() == 400
        assert "larger than 32000000 bytes" in client.told["error"]
        assert client.parts

    asyncio.run(one())


def test_all_unfinished_bodies_together_are_bounded():
    async def many():
        app = serving(Told())
        slow = [Client(app, [b" " * 30_000_000], stalls=True) for _ in range(4)]
        for client in slow:
            await client.stalled.wait()
        assert await Client(app, [b" " * 9_000_000], stalls=True).status() == 429
        assert await Client(app, [SMALL]).status() == 200
        slow[0].leaves.set()
        assert await slow[0].status() is None
        assert await Client(app, [b" " * 9_000_000]).status() == 400, "there is room again"
        for client in slow:
            client.leaves.set()
            await client.status()

    asyncio.run(many())


def test_a_body_that_is_not_complete_in_time_is_a_408(monkeypatch):
    monkeypatch.setattr(inbox, "BODY_S", 0.05)

    async def one():
        client = Client(serving(Told()), [b"{"], stalls=True)
        assert await client.status() == 408
        assert client.headers[b"connection"] == b"close"

    asyncio.run(one())


def test_a_fault_of_ours_is_a_500_that_tells_no_secret_and_is_logged():
    async def one():
        client = Client(serving(Told(fault=ZeroDivisionError("secret"))), [SMALL])
        with pytest.raises(ZeroDivisionError):  # uvicorn logs what it catches
            await client.status()
        assert client.sent[0]["status"] == 500
        assert client.headers[b"x-arr-version"] == b"v7"
        assert client.told == {"error": "fault: ZeroDivisionError"}

    asyncio.run(one())


def test_a_lane_goes_on_after_a_fault():
    async def two():
        told = Told(fault=BadInput("bad"))
        app = serving(told)
        assert await Client(app, [SMALL]).status() == 400
        told.fault = None
        assert await Client(app, [SMALL]).status() == 200

    asyncio.run(two())

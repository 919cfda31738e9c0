"""Held-out questions: read, sent by several threads when they are due, held to the truth."""

import json
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count

from deployments import Endpoint, Json, Reply
from policy.counts import Compared, Labelled
from policy.errors import DataError, EndpointError, EndpointSilent

THREADS = 8
_LATE_S = 0.5
_STOP_S = 12.0  # an answer takes 10 s at most


@dataclass(frozen=True)
class Question:
    """One line of requests.jsonl, see model/README.md."""

    instance: Json
    answer: str
    family: str

    def is_right(self, prediction: Json) -> bool:
        """Whether a prediction gives the known answer."""
        return isinstance(prediction, dict) and prediction.get("answer") == self.answer


def read_requests(data: bytes) -> Sequence[Question]:
    """Parse requests.jsonl. Raises DataError naming the line."""
    questions = []
    for number, line in enumerate(data.splitlines(), 1):
        try:
            questions.append(Question(**json.loads(line)))
        except (ValueError, TypeError, RecursionError) as error:
            raise DataError(
                f"line {number} of the held-out requests: {error}",
                expected='{"instance": …, "answer": …, "family": …}',
            ) from error
    if not questions:
        raise DataError("there are no held-out requests", expected="at least one line")
    return questions


@dataclass
class Outcomes:
    """What came of the questions so far; several threads may add to it."""

    _total: Counter[str] = field(default_factory=Counter)
    _answers: dict[str, Counter[str]] = field(default_factory=dict)  # by version
    _pairs: dict[str, Counter[str]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, question: Question, reply: Reply, late_s: float) -> None:
        good = _answered(reply)
        with self._lock:
            self._total.update(sent=1, failed=int(not good), late=int(late_s > _LATE_S))
            if good:
                right = int(question.is_right(reply.predictions[0]))
                counts = self._answers.setdefault(reply.version, Counter())
                counts.update(labels=1, correct=right)

    def compare(self, version: str, reply: Reply, other: Reply) -> None:
        """Count a question that was also put to `version`, if both answered."""
        if _answered(reply) and _answered(other):
            differed = int(_answer(reply) != _answer(other))
            with self._lock:
                counts = self._pairs.setdefault(version, Counter())
                counts.update(compared=1, differed=differed)

    def known(self) -> tuple[Mapping[str, Labelled], Mapping[str, Compared], Mapping[str, int]]:
        """By version, what telemetry records; and the total sent, failed, late."""
        with self._lock:
            return (
                {version: Labelled(**counts) for version, counts in self._answers.items()},
                {version: Compared(**counts) for version, counts in self._pairs.items()},
                Counter(self._total),
            )


class Sender:
    """Sends question i at i / per_s seconds from its start, by several threads."""

    def __init__(
        self,
        endpoint: Endpoint,
        questions: Sequence[Question],
        per_s: float,
        outcomes: Outcomes,
    ) -> None:
        self._endpoint, self._questions, self._outcomes = endpoint, questions, outcomes
        self._per_s, self._start = per_s, time.monotonic()
        self._turns, self._lock, self._stop = count(), threading.Lock(), threading.Event()
        self._mirrors: Mapping[str, int] = {}
        self._threads = [
            threading.Thread(target=self._work, daemon=True) for _ in range(THREADS)
        ]
        for thread in self._threads:
            thread.start()

    def look_for_mirrors(self) -> None:
        """Ask the endpoint which versions get copies now; without an answer, none does."""
        if not self._endpoint.can >= {"mirror", "pin"}:
            return
        try:
            self._mirrors = self._endpoint.observe().mirror
        except EndpointSilent:
            self._mirrors = {}  # the questions go on and are counted as failed

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=_STOP_S)

    def _work(self) -> None:
        while True:
            with self._lock:
                turn = next(self._turns)
            due = self._start + turn / self._per_s
            if self._stop.wait(max(0, due - time.monotonic())):
                return
            self._send(turn, time.monotonic() - due)

    def _send(self, turn: int, late_s: float) -> None:
        question = self._questions[turn % len(self._questions)]
        reply = self._ask(None, question)
        self._outcomes.add(question, reply, late_s)
        for version, percent in self._mirrors.items():
            if (turn + 1) * percent // 100 > turn * percent // 100:  # an even share of turns
                self._outcomes.compare(version, reply, self._ask(version, question))

    def _ask(self, version: str | None, question: Question) -> Reply:
        try:
            return self._endpoint.ask(version, [question.instance])
        except (EndpointSilent, EndpointError) as error:
            return Reply(0, "", (), 0.0, str(error))  # one failed question, not the last one


def _answered(reply: Reply) -> bool:
    return reply.status == 200 and len(reply.predictions) == 1


def _answer(reply: Reply) -> Json:
    prediction = reply.predictions[0]
    return prediction.get("answer") if isinstance(prediction, dict) else prediction

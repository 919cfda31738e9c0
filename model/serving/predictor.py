"""Answer questions: the part of serving that knows the network."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import torch

from model.dataset.images import Opened, open_file
from model.network import saved_model
from model.program.errors import BadInput
from model.serving.body import Instance, parse

WARM_UP = 3  # answers


@dataclass(frozen=True)
class Asked:
    """A question about a picture of which only the header was read."""

    opened: Opened
    question: str


@dataclass(frozen=True)
class Prediction:
    answer: str
    confidence: float


@dataclass(frozen=True)
class PixelLimits:
    """What is decoded: of one picture, and of all pictures of a request together."""

    picture: int
    request: int


class Predictor:
    """A verified release in memory. `seconds` is the processor time of one answer."""

    def __init__(self, release: Path, threads: int, limits: PixelLimits) -> None:
        torch.set_num_threads(threads)
        self._limits = limits
        self._subject = saved_model.load(release)
        record = json.loads((release / "architecture.json").read_text())
        self.instances_max = int(record["serving"]["instances_max"])
        self.seconds = self._warm_up()
        self._answer_own_questions(release / "requests.jsonl")

    def _answer_own_questions(self, path: Path) -> None:
        """Decode and answer a few held-out questions: a restarted server is warm too."""
        if not path.is_file():
            return
        with path.open() as lines:
            for line in islice(lines, WARM_UP):
                body = json.dumps({"instances": [json.loads(line)["instance"]]}).encode()
                self.answer(self.open(parse(body, self.instances_max)))

    def _warm_up(self) -> float:
        """Answer, so that the first request finds everything loaded; processor seconds each.

        The clock is the thread's own: a busy machine does not make the network look slow.
        """
        pixels = self._subject.preprocessor.pixels
        blank = np.zeros((1, pixels, pixels, 3), np.uint8)
        times = [time.thread_time()]
        for _ in range(WARM_UP):
            self._ask(blank, ["is it ready"])
            times.append(time.thread_time())
        return min(after - before for before, after in pairwise(times))

    def open(self, instances: Sequence[Instance]) -> list[Asked]:
        """Read the headers of all pictures. Raises BadInput; nothing was decoded then."""
        asked, pixels = [], 0
        for n, one in enumerate(instances):
            opened = open_file(one.image, f"instances[{n}].image", self._limits.picture)
            asked.append(Asked(opened, one.question))
            pixels += opened.pixels
            if pixels > self._limits.request:
                raise BadInput(
                    f"the pictures of instances[0] to [{n}] have {pixels} pixels together",
                    expected=f"at most {self._limits.request} in a request",
                    do="send them smaller, or in several requests",
                )
        return asked

    def answer(
        self, asked: Sequence[Asked], check_wanted: Callable[[], None] = lambda: None
    ) -> list[Prediction]:
        """Raises BadInput for an image that cannot be decoded.

        Args:
            check_wanted: called between pictures; raises if nobody waits for the answer.
        """
        pictures = []
        for one in asked:
            check_wanted()
            pictures.append(self._subject.preprocessor.load_opened(one.opened)[0])
        check_wanted()
        return self._ask(np.stack(pictures), [one.question for one in asked])

    def _ask(self, pixels_NPP3: np.ndarray, questions: Sequence[str]) -> list[Prediction]:
        words_NL = self._subject.preprocessor.tokenize(questions)
        with torch.inference_mode():
            reply = self._subject.network(
                torch.from_numpy(pixels_NPP3), torch.from_numpy(words_NL)[:, None]
            )
            confidence_N, best_N = reply.answer_BQA[:, 0].softmax(dim=-1).max(dim=-1)
        return [
            Prediction(self._subject.answers[number], sure)
            for number, sure in zip(best_N.tolist(), confidence_N.tolist(), strict=True)
        ]

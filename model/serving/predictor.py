"""Parse requests and answer them: the part of serving that knows the network."""

import base64
import binascii
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import torch

from model.network import saved_model
from model.program.errors import BadInput

IMAGE_BYTES_MAX = 10_000_000
QUESTION_CHARACTERS_MAX = 1000
WARM_UP = 3  # answers


@dataclass(frozen=True)
class Instance:
    """One image with one question, as received."""

    image: bytes
    question: str


@dataclass(frozen=True)
class Prediction:
    answer: str
    confidence: float


class Predictor:
    """A verified release in memory. `seconds` is the processor time of one answer."""

    def __init__(self, release: Path, threads: int) -> None:
        torch.set_num_threads(threads)
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
                self.answer(parse(body, self.instances_max))

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

    def answer(self, instances: Sequence[Instance]) -> list[Prediction]:
        """Raises BadInput for an image that cannot be decoded."""
        pictures = [
            self._subject.preprocessor.load_image(one.image, f"instances[{n}].image")
            for n, one in enumerate(instances)
        ]
        pixels_NPP3 = np.stack([pixels for pixels, _ in pictures])
        return self._ask(pixels_NPP3, [one.question for one in instances])

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


def parse(body: bytes, instances_max: int) -> list[Instance]:
    """The instances of a request's body. Raises BadInput naming what is wrong, and where."""
    try:
        request = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadInput("the body is not JSON", expected='{"instances": [...]}') from error
    if not isinstance(request, dict) or not isinstance(request.get("instances"), list):
        raise BadInput("the body has no list 'instances'", expected='{"instances": [...]}')
    instances = request["instances"]
    if not 1 <= len(instances) <= instances_max:
        raise BadInput(f"{len(instances)} instances", expected=f"1 to {instances_max}")
    return [_instance(one, f"instances[{n}]") for n, one in enumerate(instances)]


def _instance(value: object, name: str) -> Instance:
    if not isinstance(value, dict) or value.keys() != {"image", "question"}:
        raise BadInput(f"{name} has the wrong keys", expected="image and question")
    image, question = value["image"], value["question"]
    if not isinstance(question, str) or not 1 <= len(question) <= QUESTION_CHARACTERS_MAX:
        raise BadInput(
            f"{name}.question",
            expected=f"a string of 1 to {QUESTION_CHARACTERS_MAX} characters",
        )
    if not isinstance(image, str) or len(image) > IMAGE_BYTES_MAX * 4 // 3:
        raise BadInput(f"{name}.image", expected=f"base64 of at most {IMAGE_BYTES_MAX} bytes")
    try:
        return Instance(base64.b64decode(image, validate=True), question)
    except (binascii.Error, ValueError) as error:
        raise BadInput(f"{name}.image is not base64 ({error})") from error

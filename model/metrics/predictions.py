"""Results files in each benchmark's own format, read strictly and written.

vqav2, textvqa    [{"question_id": 1, "answer": "yes"}]
gqa               [{"questionId": "201", "prediction": "yes"}]
vizwiz            [{"image": "VizWiz_val_00000000.jpg", "answer": "yes", "answerable": 0.9}]
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from model.formats.json_stream import Json, elements
from model.formats.question import identity, text
from model.program.errors import BadInput
from model.program.files import write_whole

_KEYS = {
    "vqav2": ("question_id", "answer"),
    "textvqa": ("question_id", "answer"),
    "gqa": ("questionId", "prediction"),
    "vizwiz": ("image", "answer"),
}


@dataclass(frozen=True)
class Predictions:
    """Answers by question id; for VizWiz also how sure it is that there is an answer."""

    answers: dict[str, str]
    answerable: dict[str, float]


def read(benchmark: str, path: Path) -> Predictions:
    """Read a results file.

    Raises:
        BadInput: not the format above, a question answered twice, or `answerable` given
            for some questions only.
    """
    key, value = _KEYS[benchmark]
    answers: dict[str, str] = {}
    answerable: dict[str, float] = {}
    for record in elements(path):
        name = identity(record, key, f"{path.name}: prediction {len(answers) + 1}")
        where = f"{path.name}: question {name}"
        if name in answers:
            raise BadInput(f"{where} is answered twice", expected="one prediction a question")
        answers[name] = text(record, value, where)
        if benchmark == "vizwiz" and "answerable" in record:
            answerable[name] = _number(record, where)
    if answerable and len(answerable) < len(answers):
        raise BadInput(
            f"{path.name} gives `answerable` for {len(answerable)} of {len(answers)} questions",
            expected="all or none",
        )
    return Predictions(answers, answerable)


def align(predictions: Predictions, ids: Sequence[str], needed: Sequence[bool]) -> pa.Array:
    """The answers in the order of `ids`; null where one is missing and not needed.

    Raises:
        BadInput: a prediction for an unknown question, or a needed one is missing.
    """
    unknown = predictions.answers.keys() - set(ids)
    if unknown:
        raise BadInput(
            f"{len(unknown)} prediction(s) for unknown questions, one is {min(unknown)!r}",
            expected="questions of the truth only",
            do="check that predictions and truth are of the same split",
        )
    found = [predictions.answers.get(name) for name in ids]
    missing = [n for n, a, must in zip(ids, found, needed, strict=True) if must and a is None]
    if missing:
        raise BadInput(
            f"{len(missing)} question(s) without a prediction, the first is {missing[0]!r}",
            expected="a prediction for every question",
        )
    try:
        return pa.array(found, pa.string())
    except UnicodeEncodeError as error:
        raise BadInput(
            f"a prediction contains an unpaired surrogate ({error.reason})"
        ) from error


def write(
    benchmark: str,
    path: Path,
    ids: Sequence[str],
    answers: Sequence[str],
    answerable: Sequence[float] | None = None,
) -> None:
    """Write a results file that the official evaluator takes."""
    key, value = _KEYS[benchmark]
    number = benchmark in ("vqav2", "textvqa")  # their ids are integers, GQA's are strings
    records: list[dict[str, object]] = [
        {key: int(name) if number and name.isdecimal() else name, value: answer}
        for name, answer in zip(ids, answers, strict=True)
    ]
    if answerable is not None:
        for record, sure in zip(records, answerable, strict=True):
            record["answerable"] = sure
    write_whole(path, json.dumps(records).encode())


def _number(record: Json, where: str) -> float:
    found = record["answerable"]
    good = isinstance(found, int | float) and math.isfinite(found)
    if not good:
        raise BadInput(f"{where}: answerable is {found!r:.60}", expected="a finite number")
    return float(found)

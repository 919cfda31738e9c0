"""TextVQA 0.5.1: one file a split; the images of both lie in train_images.

TextVQA_0.5.1_{train,val}.json                         here or one folder down
train_images/                                          {image_id}.jpg
"""

from collections.abc import Iterator
from pathlib import Path

from model.formats.json_stream import Json, elements
from model.formats.question import Question, identity, listed, most_common, text
from model.program.errors import BadInput


def questions(path: Path) -> Iterator[Question]:
    """The questions of one split. Raises BadInput."""
    for record in elements(path, "data"):
        name = identity(record, "question_id", f"{path.name}: a question")
        where = f"{path.name}: question {name}"
        answers = _ten(listed(record, "answers", where), where)
        yield Question(
            question_id=name,
            image=identity(record, "image_id", where),
            question=text(record, "question", where),
            answer=most_common(answers),
            family="textvqa",
            answers=answers,
        )


def _ten(answers: list[Json], where: str) -> tuple[str, ...]:
    """TextVQA's evaluator stops at any other number than ten; so do we."""
    if len(answers) != 10 or not all(isinstance(answer, str) for answer in answers):
        raise BadInput(f"{where} has the answers {answers!r:.80}", expected="ten strings")
    return tuple(answers)

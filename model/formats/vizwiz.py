"""VizWiz VQA: one question an image, so that the image's name is the question's id.

{train,val}.json                                       here or in Annotations/
train/, val/                                           VizWiz_{split}_{number:08d}.jpg
"""

from collections.abc import Iterator
from pathlib import Path

from model.formats.json_stream import Json, elements
from model.formats.question import Question, human_answers, most_common, text
from model.program.errors import BadInput


def questions(path: Path) -> Iterator[Question]:
    """The questions of one split. Raises BadInput."""
    for record in elements(path):
        name = text(record, "image", f"{path.name}: a question")
        where = f"{path.name}: question {name}"
        answers = human_answers(record, where)
        yield Question(
            question_id=name,
            image=name,
            question=text(record, "question", where),
            answer=most_common(answers),
            family=text(record, "answer_type", where),
            answers=answers,
            answerable=_answerable(record, where),
        )


def _answerable(record: Json, where: str) -> int:
    found = record.get("answerable")
    if found not in (0, 1):
        raise BadInput(f"{where}: answerable is {found!r}", expected="0 or 1")
    return int(found)

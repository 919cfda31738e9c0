"""VQAv2 as its zips unpack: questions, annotations, images of COCO 2014.

v2_OpenEnded_mscoco_{train,val}2014_questions.json     here or one folder down
v2_mscoco_{train,val}2014_annotations.json
train2014/, val2014/                                   COCO_{split}2014_{id:012d}.jpg
"""

from collections.abc import Iterator
from pathlib import Path

from model.formats.json_stream import elements
from model.formats.question import Question, human_answers, identity, text, twins
from model.program.errors import BadInput


def annotations(path: Path) -> Iterator[Question]:
    """The questions of an annotation file; it has no question texts. Raises BadInput."""
    for record in elements(path, "annotations"):
        name = identity(record, "question_id", f"{path.name}: an annotation")
        where = f"{path.name}: question {name}"
        answers = human_answers(record, where)
        yield Question(
            question_id=name,
            image=identity(record, "image_id", where),
            question="",
            answer=text(record, "multiple_choice_answer", where),
            family=text(record, "answer_type", where),
            answers=answers,
            twins=twins(record["answers"]),
            question_type=text(record, "question_type", where),
        )


def texts(path: Path) -> Iterator[tuple[str, str, str]]:
    """Question id, image id and text of each question of a questions file."""
    for record in elements(path, "questions"):
        name = identity(record, "question_id", f"{path.name}: a question")
        where = f"{path.name}: question {name}"
        yield name, identity(record, "image_id", where), text(record, "question", where)


def image_name(split: str, image_id: str) -> str:
    """The file name in COCO 2014; `split` is train or val. Raises BadInput."""
    if not image_id.isdecimal():
        raise BadInput(f"image_id is {image_id!r}", expected="a number, as in COCO")
    return f"COCO_{split}2014_{int(image_id):012d}.jpg"

"""GQA: questions with their programs, choices, and scene graphs for the boxes.

{train,val,testdev}_balanced_questions.json            here or one folder down; without it
{split}_all_questions.json, or a folder of its chunks {split}_all_questions/…_0.json
{train,val}_sceneGraphs.json                           optional: boxes
images/                                                {imageId}.jpg
"""

import re
from collections.abc import Iterator
from pathlib import Path

from model.formats.json_stream import Json, entries
from model.formats.question import GqaFacts, Question, identity, listed, section, text
from model.program.errors import BadInput

_POINTER = re.compile(r"\((\d+)\)$")  # "cup (123)": the object of the scene graph
_FREE_STEPS = ("exist", "query: name", "choose name")  # official: they add no reasoning


def files(path: Path) -> list[Path]:
    """The file itself, or the chunks of a folder in order. Raises BadInput."""
    if not path.is_dir():
        return [path]
    chunks = sorted(path.glob(f"{path.name}_*.json"))
    if not chunks:
        raise BadInput(f"{path} holds no chunks", expected=f"{path.name}_0.json and so on")
    return chunks


def questions(path: Path) -> Iterator[tuple[Question, str | None]]:
    """Each question and the id of the object that it asks about, if it points at one.

    Raises:
        BadInput: a field is missing or of another kind.
    """
    for file in files(path):
        for name, record in entries(file):
            where = f"{file.name}: question {name}"
            types = section(record, "types", where)
            program = listed(record, "semantic", where)
            answer = text(record, "answer", where)
            question = Question(
                question_id=name,
                image=identity(record, "imageId", where),
                question=text(record, "question", where),
                answer=answer,
                family=text(types, "structural", where),
                answers=(answer,),
                gqa=_facts(record, types, program, where),
            )
            yield question, _asked_about(program)


def choices(path: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """Question id, valid and plausible answers. Raises BadInput."""
    for file in files(path):
        for name, record in entries(file):
            where = f"{file.name}: choices of {name}"
            yield name, listed(record, "valid", where), listed(record, "plausible", where)


def boxes(path: Path) -> Iterator[tuple[str, str, tuple[float, float, float, float]]]:
    """Image id, object id and box (x0, y0, x1, y1 in pixels) of each object in the scenes."""
    for file in files(path):
        for image, scene in entries(file):
            where = f"{file.name}: scene {image}"
            for name, item in section(scene, "objects", where).items():
                try:
                    x, y, width, height = (float(item[key]) for key in "xywh")
                except (KeyError, TypeError, ValueError) as error:
                    raise BadInput(f"{where}: object {name} has no box ({error})") from error
                yield image, name, (x, y, x + width, y + height)


def _facts(record: Json, types: dict[str, Json], program: list[Json], where: str) -> GqaFacts:
    group = section(record, "groups", where).get("global")
    if not isinstance(group, str | None):
        raise BadInput(f"{where}: groups.global is {group!r:.60}", expected="a string or null")
    balanced = record.get("isBalanced")
    if not isinstance(balanced, bool):
        raise BadInput(f"{where}: isBalanced is {balanced!r}", expected="true or false")
    return GqaFacts(
        balanced=balanced,
        semantic_type=text(types, "semantic", where),
        detailed_type=text(types, "detailed", where),
        group=group,
        steps=sum(_counts(step, where) for step in program),
        entailed=tuple(map(str, listed(record, "entailed", where))),
    )


def _counts(step: Json, where: str) -> bool:
    shown = f"{text(step, 'operation', where)}: {text(step, 'argument', where)}"
    return not any(free in shown for free in _FREE_STEPS)


def _asked_about(program: list[Json]) -> str | None:
    """Follow the program back from its last step to the first object that it names."""
    at = len(program) - 1
    for _ in program:
        pointer = _POINTER.search(str(program[at].get("argument", "")))
        if pointer:
            return pointer[1]
        before = program[at].get("dependencies") or []
        if not before or not isinstance(before[0], int) or not 0 <= before[0] < len(program):
            return None
        at = before[0]
    return None

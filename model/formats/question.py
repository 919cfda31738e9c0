"""One question of a benchmark, whatever file it came from, and its columns in a table."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from model.formats.json_stream import Json
from model.program.errors import BadInput

if TYPE_CHECKING:
    import pyarrow as pa

Box = tuple[float, float, float, float]
NO_BOX: Box = (-1.0, -1.0, -1.0, -1.0)
_ROWS = 8192  # questions converted to columns at once


@dataclass(frozen=True, slots=True)
class GqaFacts:
    """What GQA's metrics need of a question besides its answer."""

    balanced: bool
    semantic_type: str
    detailed_type: str
    group: str | None  # the group whose answer distribution it belongs to
    steps: int  # reasoning steps that count
    entailed: tuple[str, ...]  # ids of questions that its answer answers too


@dataclass(frozen=True, slots=True)
class Question:
    """A question with its truth. Fields that a benchmark lacks hold their default."""

    question_id: str
    image: str  # file name, or the id that the file name is made of
    question: str
    answer: str  # the one label to train on
    family: str  # the split of scores that the benchmark reports first
    answers: tuple[str, ...]  # what each person said; all of them, in the file's order
    twins: tuple[int, ...] | None = None  # see `twins`; None: no two are twins
    question_type: str = ""
    answerable: int = -1  # VizWiz: 1, 0; -1 unknown
    box: Box = NO_BOX  # pixels; the object asked about
    gqa: GqaFacts | None = None


def truth_schema(benchmark: str) -> "pa.Schema":
    """The columns that the metrics of `benchmark` need; a converted manifest has them too."""
    import pyarrow as pa

    strings = pa.list_(pa.string())
    common = {"question_id": pa.string(), "image": pa.string(), "question": pa.string()}
    common |= {"answer": pa.string(), "family": pa.string(), "answers": strings}
    own = {
        "vqav2": {"twins": pa.list_(pa.int16()), "question_type": pa.string()},
        "textvqa": {},
        "vizwiz": {"answerable": pa.int8()},
        "gqa": {
            "balanced": pa.bool_(),
            "semantic_type": pa.string(),
            "detailed_type": pa.string(),
            "group": pa.string(),
            "steps": pa.int16(),
            "entailed": strings,
        },
    }
    return pa.schema(list((common | own[benchmark]).items()))


def table(questions: Iterable[Question], benchmark: str) -> "pa.Table":
    """The questions as columns, a batch at a time, never all of them as objects."""
    import pyarrow as pa

    schema = truth_schema(benchmark)
    return pa.Table.from_batches(_batches(iter(questions), schema), schema)


def _batches(questions: Iterator[Question], schema: "pa.Schema") -> Iterator["pa.RecordBatch"]:
    import pyarrow as pa

    while rows := list(islice(questions, _ROWS)):
        columns = [[column(row, name) for row in rows] for name in schema.names]
        arrays = [pa.array(c, t) for c, t in zip(columns, schema.types, strict=True)]
        yield pa.record_batch(arrays, schema=schema)


def column(question: Question, name: str) -> object:
    """One cell: an attribute of the question or of its GQA facts."""
    return getattr(question if hasattr(question, name) else question.gqa, name)


def twins(records: list[Json]) -> tuple[int, ...] | None:
    """For each answer the position of the first one whose other fields are equal.

    VQAv2 leaves one answer out by comparing whole records, so that records that are equal
    but for their place (no `answer_id`, or one given twice) are left out together. None if
    all differ, as in the published files.
    """
    ids = [record.get("answer_id") for record in records]
    if all(type(number) is int for number in ids) and len(set(ids)) == len(ids):
        return None  # the short way
    rests = [{k: v for k, v in record.items() if k != "answer"} for record in records]
    first = tuple(rests.index(rest) for rest in rests)
    return None if first == tuple(range(len(rests))) else first


def most_common(answers: tuple[str, ...]) -> str:
    """The answer given most often; of several the one given first."""
    return max(answers, key=answers.count)


def text(record: Json, key: str, where: str) -> str:
    """The string under `key`. Raises BadInput."""
    return _checked(record, key, where, str, "a string")


def listed(record: Json, key: str, where: str) -> list[Json]:
    """The array under `key`. Raises BadInput."""
    return _checked(record, key, where, list, "an array")


def section(record: Json, key: str, where: str) -> dict[str, Json]:
    """The object under `key`. Raises BadInput."""
    return _checked(record, key, where, dict, "an object")


def identity(record: Json, key: str, where: str) -> str:
    """The id under `key`, an integer or a string, as a string. Raises BadInput."""
    value = _checked(record, key, where, (int, str), "an integer or a string")
    if isinstance(value, bool) or value == "":
        raise BadInput(f"{where}: {key} is {value!r}", expected="an integer or a string")
    return str(value)


def human_answers(record: Json, where: str) -> tuple[str, ...]:
    """What people answered: `answers: [{"answer": …}, …]`, at least one. Raises BadInput."""
    given = tuple(text(item, "answer", where) for item in listed(record, "answers", where))
    if not given:
        raise BadInput(f"{where} has no answers", expected="at least one human answer")
    return given


def _checked(record: Json, key: str, where: str, kind: type | tuple, expected: str) -> Json:
    if not isinstance(record, dict):
        raise BadInput(f"{where}: found {str(record)[:60]!r}", expected="an object")
    if key not in record:
        raise BadInput(f"{where} has no {key!r} but {sorted(record)}", expected=expected)
    if not isinstance(record[key], kind):
        raise BadInput(f"{where}: {key} is {record[key]!r:.60}", expected=expected)
    return record[key]

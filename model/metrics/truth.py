"""What is right, as columns: from the official file or from a converted data set."""

import json
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from model.dataset import manifest
from model.formats import gqa, textvqa, vizwiz, vqav2
from model.formats.question import Question, table, truth_schema
from model.program.errors import BadInput
from model.program.files import file_sha256, sha256_hex

_READERS: dict[str, Callable[[Path], Iterable[Question]]] = {
    "vqav2": vqav2.annotations,
    "textvqa": textvqa.questions,
    "vizwiz": vizwiz.questions,
    "gqa": lambda path: (question for question, _ in gqa.questions(path)),
}
BENCHMARKS = tuple(_READERS)


def read(benchmark: str, path: Path) -> pa.Table:
    """The questions of `path` with the columns of model.formats.question.truth_schema.

    Args:
        path: VQAv2's annotations, GQA's questions (a file or a folder of chunks), TextVQA's
            or VizWiz's file; or a data set that model.formats.convert made: its split test.

    Raises:
        BadInput: an unknown benchmark, a missing, damaged or empty file, an id given twice.
    """
    if benchmark not in _READERS:
        raise BadInput(f"benchmark {benchmark!r}", expected=f"one of {BENCHMARKS}")
    if (path / "dataset.json").is_file():
        questions = converted(benchmark, path)
    else:
        try:
            questions = table(_READERS[benchmark](path), benchmark)
        except UnicodeEncodeError as error:
            raise BadInput(f"{path} contains an unpaired surrogate ({error.reason})") from error
    ids = questions["question_id"]
    if not len(ids):
        raise BadInput(f"{path} holds no questions", expected="at least one")
    if len(ids.unique()) < len(ids):
        ((twice, times),) = Counter(ids.to_pylist()).most_common(1)
        raise BadInput(f"question {twice!r} is in {path} {times} times", expected="each once")
    return questions.combine_chunks()


def fingerprint(path: Path) -> str:
    """What was scored against: the data set's fingerprint, or the hash of the official file.

    Of a folder of chunks it is the hash of their `sha256sum` lines, in the order of names.
    """
    if (path / "dataset.json").is_file():
        return manifest.read(path).fingerprint
    if path.is_file():
        return f"sha256:{file_sha256(path)}"
    lines = [f"{file_sha256(chunk)}  {chunk.name}\n" for chunk in sorted(gqa.files(path))]
    return f"sha256:{sha256_hex(''.join(lines).encode())}"


def benchmark_of(folder: Path) -> str:
    """The format that a data set was converted from; "" if it was not converted."""
    path = folder / "conversion.json"
    try:
        return str(json.loads(path.read_text())["format"]) if path.exists() else ""
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{path} is damaged ({error})", do="convert again") from error


def converted(benchmark: str, folder: Path, split: str = "test") -> pa.Table:
    """One split of a converted data set, held against its manifest. Raises BadInput."""
    data = manifest.read(folder)
    path = folder / "truth.parquet"
    try:
        sealed = json.loads((folder / "conversion.json").read_text())
        whole = sealed["truth_sha256"] == file_sha256(path)
        questions = pq.read_table(path, filters=[("split", "=", split)]).drop_columns("split")
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise BadInput(f"{path} is missing or damaged ({error})", do="convert again") from error
    if sealed["format"] != benchmark or questions.schema != truth_schema(benchmark):
        raise BadInput(
            f"{folder} is a data set of the format {sealed['format']}",
            expected=f"a data set of the format {benchmark}",
        )
    if not whole or questions.num_rows != data.splits[split]:
        raise BadInput(
            f"{path} is not what was converted",
            expected=f"the {data.splits[split]} questions of the manifest's split {split}",
            do="convert again",
        )
    return questions

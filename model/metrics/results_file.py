"""Score a results file in a benchmark's official format, alone.

    python -m model.evaluate --benchmark vqav2 --predictions FILE --truth PATH --output DIR

`--truth` is the official file (VQAv2: annotations; GQA: questions, or a folder of chunks;
TextVQA, VizWiz: the split's file) or a data set that model.data converted. GQA also takes
`--choices FILE` and `--consistency`.
"""

from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from model.metrics.interval import Score
from model.metrics.score import Scores, score
from model.metrics.truth import BENCHMARKS, fingerprint
from model.program import console
from model.program.files import write_json

if TYPE_CHECKING:
    import pyarrow as pa


def program(arguments: Sequence[str] | None = None) -> int:
    """Score, write predictions.parquet and scores.json, and return the exit code."""
    chosen = vars(_parser().parse_args(arguments))
    return console.guarded(lambda: run(**chosen))


def run(
    benchmark: str,
    predictions: Path,
    truth: Path,
    output: Path,
    *,
    choices: Path | None = None,
    consistency: bool = False,
    confidence: Mapping[str, float] | None = None,
) -> Scores:
    """Score `predictions` and write predictions.parquet and scores.json into `output`.

    Args:
        confidence: how sure the model was, by question id; a column of predictions.parquet.

    Raises:
        BadInput: as model.metrics.score.score.
    """
    scores = score(benchmark, predictions, truth, choices=choices, consistency=consistency)
    questions = scores.questions
    if confidence is not None:
        sure = [confidence[name] for name in questions["question_id"].to_pylist()]
        questions = questions.append_column("confidence", [sure])
    _write(questions, record(scores, fingerprint(truth)), output)
    return scores


def _write(questions: "pa.Table", scores: Mapping[str, object], output: Path) -> None:
    """One row a question, then the done file scores.json."""
    import pyarrow.parquet as pq

    output.mkdir(parents=True, exist_ok=True)
    part = output / ".predictions.parquet.part"
    pq.write_table(questions, part)
    part.replace(output / "predictions.parquet")
    write_json(output / "scores.json", scores)


def record(scores: Scores, data_fingerprint: str) -> dict[str, object]:
    """The scores as model/README.md wants them, with intervals and all that was measured."""
    return {
        "data_fingerprint": data_fingerprint,
        "benchmark": scores.benchmark,
        **_accuracy(scores.accuracy),
        "families": {name: _accuracy(found) for name, found in scores.families.items()},
        "by": {
            split: {name: _accuracy(found) for name, found in part.items()}
            for split, part in scores.by.items()
        },
        "metrics": {name: asdict(found) for name, found in scores.metrics.items()},
        "left_out": dict(scores.left_out),
    }


def _accuracy(found: Score) -> dict[str, object]:
    return {
        "questions": found.questions,
        "accuracy": found.value,
        "low": found.low,
        "high": found.high,
    }


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="python -m model.evaluate", description=program.__doc__)
    parser.add_argument("--benchmark", choices=BENCHMARKS, required=True)
    for name in ("predictions", "truth", "output"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--choices", type=Path, help="GQA: for validity and plausibility")
    parser.add_argument(
        "--consistency", action="store_true", help="GQA: needs answers to all questions"
    )
    return parser

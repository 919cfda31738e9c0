"""Score a trained model on the test split, or score a results file alone.

    python -m model.evaluate --config FILE --data DIR --model DIR --output DIR
    python -m model.evaluate --benchmark vqav2 --predictions FILE --truth PATH --output DIR

The second form is model/metrics/results_file.py. A data set that was converted from a benchmark
is scored by the benchmark's own rule in the first form too, and leaves the results file for it.
"""

import base64
import itertools
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from model.program import console, settings
from model.program.console import Progress
from model.program.files import write_json, write_whole
from model.program.paths import inside

if TYPE_CHECKING:
    import torch

    from model.dataset.batches import SplitReader
    from model.network.saved_model import TrainedModel

AT_ONCE = 50
REQUESTS = 200
UNANSWERABLE = "unanswerable"  # what VizWiz calls a question without an answer


@dataclass(frozen=True)
class Answered:
    """One question of split test and what the model said."""

    question_id: str
    image: str
    question: str
    family: str
    answer: str
    predicted: str
    confidence: float
    answerable: float = 1.0  # VizWiz: how sure it is that there is an answer

    @property
    def correct(self) -> float:
        return float(self.answer == self.predicted)


def main(config: Path, data: Path, model: Path, output: Path) -> None:
    """Answer every question of split test; write predictions, sample requests and scores."""
    chosen = settings.load(settings.EvaluateSettings, config)
    if (output / "scores.json").is_file():
        console.log(f"{output} already holds scores; nothing to do")
        return
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ["OMP_NUM_THREADS"] = str(chosen.compute.threads)
    import torch

    from model.dataset import manifest
    from model.dataset.batches import split_reader
    from model.metrics import truth
    from model.network import saved_model

    torch.set_num_threads(chosen.compute.threads)
    device = torch.device("cuda" if chosen.compute.accelerators else "cpu")
    subject = saved_model.load(model)
    subject.network.to(device)
    whole = manifest.read(data)
    source = split_reader(
        data, manifest.read_split(whole, "test"), subject.preprocessor, subject.answers
    )
    answered = list(_answers(subject, source, device))
    from model.metrics.attention_picture import draw  # brings matplotlib

    output.mkdir(parents=True, exist_ok=True)
    draw(subject.network.cpu(), source, subject.answers, output / "attention.png")
    write_whole(output / "requests.jsonl", _requests(data, answered).encode())
    if benchmark := truth.benchmark_of(data):
        _score_officially(benchmark, data, output, answered)
    else:
        _write_predictions(output, answered)
        write_json(output / "scores.json", scores(answered, whole.fingerprint))


def _score_officially(
    benchmark: str, data: Path, output: Path, answered: Sequence[Answered]
) -> None:
    """By the benchmark's own rule; the results file is the one its own program takes."""
    from model.metrics import predictions, results_file

    ids, words = [one.question_id for one in answered], [one.predicted for one in answered]
    sure = [one.answerable for one in answered] if benchmark == "vizwiz" else None
    predictions.write(benchmark, output / "results.json", ids, words, sure)
    confidence = {one.question_id: one.confidence for one in answered}
    results_file.run(benchmark, output / "results.json", data, output, confidence=confidence)


def scores(answered: Sequence[Answered], fingerprint: str) -> dict[str, object]:
    """The accuracy over all and by family, each with its number of questions."""
    families = sorted({one.family for one in answered})
    by_family = {f: [one for one in answered if one.family == f] for f in families}
    return {
        "data_fingerprint": fingerprint,
        **_score(answered),
        "families": {family: _score(those) for family, those in by_family.items()},
    }


def _score(answered: Sequence[Answered]) -> dict[str, float]:
    right = sum(one.correct for one in answered)
    return {"questions": len(answered), "accuracy": round(right / len(answered), 6)}


def _answers(
    subject: "TrainedModel", source: "SplitReader", device: "torch.device"
) -> Iterator[Answered]:
    import torch

    answers = subject.answers
    nothing = answers.index(UNANSWERABLE) if UNANSWERABLE in answers else None
    with Progress("evaluate", source.images) as progress:
        for start in range(0, source.images, AT_ONCE):
            images = range(start, min(start + AT_ONCE, source.images))
            batch = source.read(images, 0).to(device)
            with torch.inference_mode():
                reply = subject.network(batch.image_BPP3, batch.word_BQL)
            share_BQA = reply.answer_BQA.float().softmax(dim=-1)
            confidence_BQ, best_BQ = share_BQA.max(dim=-1)
            nothing_BQ = share_BQA[..., nothing] if nothing is not None else 0 * confidence_BQ
            row_BQ = torch.from_numpy(source.rows(images, best_BQ.shape[1]))
            found = (row_BQ, best_BQ, confidence_BQ, 1 - nothing_BQ)
            columns = (x.cpu()[batch.asked_BQ.cpu()].tolist() for x in found)
            for row, number, sure, answerable in zip(*columns, strict=True):
                yield _one(source, row, answers[number], sure, answerable)
            progress.update(images[-1] + 1)


def _one(
    source: "SplitReader", row: int, predicted: str, confidence: float, answerable: float
) -> Answered:
    split = source.split
    return Answered(
        question_id=split.ids[row],
        image=split.images[split.image_of(row)],
        question=split.questions[int(split.question_N[row])],
        family=split.families[int(split.family_N[row])],
        answer=split.answers[int(split.answer_N[row])],
        predicted=predicted,
        confidence=round(confidence, 4),
        answerable=round(answerable, 4),
    )


def _write_predictions(output: Path, answered: Sequence[Answered]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = ("question_id", "family", "answer", "predicted", "correct", "confidence")
    table = pa.table({name: [getattr(one, name) for one in answered] for name in names})
    part = output / ".predictions.parquet.part"
    pq.write_table(table, part)
    part.replace(output / "predictions.parquet")


def _requests(data: Path, answered: Sequence[Answered]) -> str:
    """Up to `REQUESTS` questions, one family after the other, spread over the images.

    The families take turns, so that any few questions in a row ask about all of them.
    """
    families = sorted({one.family for one in answered})
    each = max(1, REQUESTS // len(families))
    chosen = []
    for family in families:
        those = [one for one in answered if one.family == family]
        chosen.append(those[:: max(1, len(those) // each)][:each])
    turns = itertools.chain.from_iterable(itertools.zip_longest(*chosen))
    return "".join(json.dumps(_request(data, one)) + "\n" for one in turns if one)


def _request(data: Path, one: Answered) -> dict[str, object]:
    image = base64.b64encode(inside(data, one.image, "an image").read_bytes()).decode()
    instance = {"image": image, "question": one.question}
    return {"instance": instance, "answer": one.answer, "family": one.family}


def program(arguments: Sequence[str]) -> int:
    """The program in either form; returns its exit code."""
    if any(argument.startswith("--benchmark") for argument in arguments):
        from model.metrics import results_file

        return results_file.program(arguments)
    return console.run(main, ["config", "data", "model", "output"], arguments=arguments)


if __name__ == "__main__":
    sys.exit(program(sys.argv[1:]))

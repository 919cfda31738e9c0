"""`model.evaluate --benchmark` writes scores as the contract says, or one last line."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from model.program.files import file_sha256

GQA = json.loads((Path(__file__).parent / "data/gqa.json").read_text())
ROOT = Path(__file__).parents[2]


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "model.evaluate", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def files(tmp_path):
    for name in ("questions", "choices", "predictions"):
        (tmp_path / f"{name}.json").write_text(json.dumps(GQA[name]))
    return tmp_path


def arguments(files):
    return (
        *("--benchmark", "gqa", "--predictions", files / "predictions.json"),
        *("--truth", files / "questions.json", "--output", files / "out"),
    )


def test_writes_scores_with_counts_intervals_and_families(files):
    done = run(*arguments(files), "--choices", files / "choices.json", "--consistency")
    assert done.returncode == 0, done.stderr
    scores = json.loads((files / "out/scores.json").read_text())
    assert scores["accuracy"] == pytest.approx(GQA["expected"]["accuracy"] / 100)
    assert scores["low"] < scores["accuracy"] < scores["high"]
    assert scores["questions"] == sum(part["questions"] for part in scores["families"].values())
    assert set(scores["metrics"]) == {
        "binary", "open", "consistency", "validity", "plausibility", "distribution",
    }  # fmt: skip
    assert scores["data_fingerprint"] == f"sha256:{file_sha256(files / 'questions.json')}"
    rows = pq.read_table(files / "out/predictions.parquet")
    assert rows.schema.names == ["question_id", "family", "answer", "predicted", "correct"]
    assert rows.num_rows == scores["questions"]


def test_bad_input_ends_with_one_line_and_code_2(files):
    (files / "predictions.json").write_text("[]")
    done = run(*arguments(files))
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert "without a prediction" in done.stderr
    assert not (files / "out").exists()

"""Scores are what the predictions say, on questions of split test only."""

import base64
import json

import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from model.dataset import manifest, vocabulary
from model.network import saved_model
from model.network.network import Network, Sizes
from model.program.files import sha256_hex

CONFIG_KEYS = ("compute",)


@pytest.fixture(scope="module")
def untrained(small_data, tmp_path_factory):
    torch.manual_seed(0)
    data = manifest.read(small_data)
    words = vocabulary.build(manifest.read_split(data, "train").questions)
    sizes = Sizes(16, len(words) + 1, len(data.answers), "none")
    folder = tmp_path_factory.mktemp("untrained")
    weights = Network(sizes).state_dict()
    saved_model.save_plain(folder, sizes, weights, words, data.answers, data.fingerprint)
    return folder


@pytest.fixture
def config(train_config):
    return {key: train_config()[key] for key in CONFIG_KEYS}


def test_scores_are_the_means_of_the_predictions(
    programs, config, small_data, untrained, tmp_path
):
    output = tmp_path / "scores"
    program = programs.run("evaluate", config, data=small_data, model=untrained, output=output)
    assert program.end() == 0, program.text
    rows = pq.read_table(output / "predictions.parquet").to_pylist()
    scores = json.loads((output / "scores.json").read_text())
    truth = {
        r["question_id"]: r for r in pq.read_table(small_data / "manifest.parquet").to_pylist()
    }
    assert {r["question_id"] for r in rows} == {
        i for i, r in truth.items() if r["split"] == "test"
    }
    for row in rows:
        assert row["answer"] == truth[row["question_id"]]["answer"]
        assert row["correct"] == (row["answer"] == row["predicted"])
    assert scores["questions"] == len(rows) == 36
    assert scores["accuracy"] == pytest.approx(sum(r["correct"] for r in rows) / 36, abs=1e-6)
    assert scores["data_fingerprint"] == manifest.read(small_data).fingerprint
    for name, score in scores["families"].items():
        own = [r["correct"] for r in rows if r["family"] == name]
        assert score == {"questions": len(own), "accuracy": pytest.approx(sum(own) / len(own))}
    with Image.open(output / "attention.png") as picture:
        picture.load()
        assert picture.width > 600
    requests = [json.loads(x) for x in (output / "requests.jsonl").read_text().splitlines()]
    assert {r["family"] for r in requests} == set(scores["families"])
    hashes = {r["image_sha256"] for r in truth.values() if r["split"] == "test"}
    assert all(sha256_hex(base64.b64decode(r["instance"]["image"])) in hashes for r in requests)


@pytest.mark.parametrize("broken", ["weights.safetensors", "architecture.json"])
def test_a_damaged_model_is_one_clear_error(
    programs, config, small_data, untrained, tmp_path, broken
):
    model = tmp_path / "model"
    model.mkdir()
    for path in untrained.iterdir():
        data = path.read_bytes()
        (model / path.name).write_bytes(data[: len(data) // 2] if path.name == broken else data)
    output = tmp_path / "scores"
    program = programs.run("evaluate", config, data=small_data, model=model, output=output)
    assert program.end() == 2, program.text
    assert program.last_line.startswith("error: no complete model in")
    assert not output.exists()

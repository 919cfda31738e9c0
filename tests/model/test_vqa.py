"""The profile vqa from a benchmark's official files to answers over HTTP.

The encoder is tiny and written by the tests; nothing here ran on real CLIP weights.
"""

import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import httpx
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from model import evaluate
from model.dataset import manifest
from model.formats.convert import convert
from model.metrics.score import score
from model.network import saved_model
from model.pretrained import encoder_files
from model.pretrained.network import PretrainedNetwork
from model.program import settings
from model.program.errors import BadInput
from model.program.files import sha256_hex
from tests.formats.conftest import WRITERS
from tests.model.runner import Runner

ROUTES = {
    "AIP_HEALTH_ROUTE": "/health",
    "AIP_PREDICT_ROUTE": "/predict",
    "ARR_COC_PICTURE_PIXELS_MAX": "4000000",
    "ARR_COC_REQUEST_PIXELS_MAX": "4000000",
}


@pytest.fixture(scope="module")
def vqa_config(train_config, encoders):
    def config(**changes):
        parameters = {
            "width": 16, "ablation": "none", "workers": 0, "profile": "vqa",
            "encoder": str(encoders["clip"]),
            "encoder_version": encoder_files.version_of(encoders["clip"]), "answers_max": 4,
        }  # fmt: skip
        return train_config(
            model__hyperparameters=parameters, model__learning_rate=0.01, **changes
        )

    return config


@pytest.fixture(scope="module")
def through(cars, vqa_config, tmp_path_factory):
    """A training that nobody disturbed, and its scores."""
    runner = Runner(tmp_path_factory.mktemp("through"))
    output, scores = runner.folder / "trained", runner.folder / "scores"
    program = runner.run("train", vqa_config(), data=cars, output=output)
    assert program.end() == 0, program.text
    compute = {"compute": vqa_config()["compute"]}
    program = runner.run("evaluate", compute, data=cars, model=output, output=scores)
    assert program.end() == 0, program.text
    return output, scores


def test_it_learns_what_the_frozen_encoder_shows(through, cars):
    scores = json.loads((through[1] / "scores.json").read_text())
    assert scores["accuracy"] > 0.9, scores
    assert {name: part["questions"] for name, part in scores["families"].items()} == {
        "other": 16,
        "yes/no": 16,
    }
    assert scores["data_fingerprint"] == manifest.read(cars).fingerprint
    with Image.open(through[1] / "attention.png") as shown:
        shown.load()


def test_it_trains_in_bf16_as_the_shipped_profile_does(programs, cars, vqa_config, tmp_path):
    config = vqa_config(model__precision="bf16-mixed", model__steps_max=4)
    program = programs.run("train", config, data=cars, output=tmp_path / "trained")
    assert program.end() == 0, program.text
    assert (tmp_path / "trained" / "training.json").is_file()


def test_only_arr_coc_is_trained_and_saved_and_the_encoder_comes_along(through, encoders):
    output, _ = through
    model = saved_model.load(output)
    assert isinstance(model.network, PretrainedNetwork)
    record = json.loads((output / "training.json").read_text())
    assert record["parameters"] == sum(p.numel() for p in model.network.parameters())
    ours = {f"network.{name}" for name in model.network.state_dict()}
    for path in (output / "checkpoints").glob("*.ckpt"):
        assert set(torch.load(path, weights_only=True)["state_dict"]) == ours
    for name in encoder_files.FILES:
        assert (output / "encoder" / name).read_bytes() == (
            encoders["clip"] / name
        ).read_bytes()


def test_results_are_in_the_official_format_and_score_the_same_alone(through, cars, tmp_path):
    results = through[1] / "results.json"
    scores = json.loads((through[1] / "scores.json").read_text())
    alone = score("vqav2", results, cars)
    assert alone.accuracy.value == scores["accuracy"]
    assert {type(one["question_id"]) for one in json.loads(results.read_text())} == {int}
    rows = pq.read_table(through[1] / "predictions.parquet").to_pylist()
    assert sum(row["correct"] for row in rows) / len(rows) == pytest.approx(scores["accuracy"])
    assert all(0 <= row["confidence"] <= 1 for row in rows)


@pytest.mark.parametrize("name", sorted(WRITERS))
def test_every_benchmark_is_read_and_scored_by_its_own_rule(
    name, encoders, train_config, tmp_path
):
    official = tmp_path / "official"
    WRITERS[name](official)
    data = convert(name, official, tmp_path / "data", lambda *_: None)
    whole = manifest.read(data)
    path = encoders["siglip"]
    chosen = settings.Hyperparameters(
        width=16, ablation="none", workers=0, profile="vqa", encoder=str(path),
        encoder_version=encoder_files.version_of(path), answers_max=3,
    )  # fmt: skip
    subject = saved_model.untrained(chosen, whole, manifest.read_split(whole, "train"))
    model, output = tmp_path / "model", tmp_path / "scores"
    saved_model.save(model, subject, subject.network.state_dict())
    compute = written(tmp_path, {"compute": train_config()["compute"]})
    evaluate.main(compute, data, model, output)
    scores = json.loads((output / "scores.json").read_text())
    alone = score(name, output / "results.json", data)
    assert scores["accuracy"] == alone.accuracy.value
    assert (scores["benchmark"], scores["data_fingerprint"]) == (name, whole.fingerprint)
    assert ("average_precision" in scores["metrics"]) == (name == "vizwiz")


def test_killed_with_9_it_reaches_the_same_end(through, programs, cars, vqa_config, tmp_path):
    output = tmp_path / "trained"
    programs.end_midway(
        lambda: any(3 <= step < 25 for step in checkpoints(output)),
        "train", vqa_config(), data=cars, output=output,
    )  # fmt: skip
    again = programs.run("train", vqa_config(), data=cars, output=output)
    assert again.end() == 0, again.text
    assert json.loads((output / "training.json").read_text())["resumed_from_steps"]
    name = "weights.safetensors"
    assert sha256_hex((output / name).read_bytes()) == sha256_hex(
        (through[0] / name).read_bytes()
    )


def checkpoints(output):
    names = sorted((output / "checkpoints").glob("step-*.ckpt"))
    return [int(path.name.split("-")[1]) for path in names]


@pytest.mark.slow
def test_two_processes_train_over_one_encoder(programs, cars, vqa_config, tmp_path):
    output = tmp_path / "trained"
    config = vqa_config(compute__processes=2, model__steps_max=6)
    program = subprocess.run(
        [
            sys.executable, "-m", "model.train", f"--data={cars}", f"--output={output}",
            f"--config={written(tmp_path, config)}",
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert program.returncode == 0, program.stderr
    assert isinstance(saved_model.load(output).network, PretrainedNetwork)


def written(place, config):
    (place / "config.json").write_text(json.dumps(config))
    return place / "config.json"


def test_another_encoder_than_the_pinned_one_ends_training_before_it_begins(
    programs, cars, vqa_config, encoders, tmp_path
):
    config = vqa_config()
    config["model"]["hyperparameters"]["encoder"] = str(encoders["siglip"])
    program = programs.run("train", config, data=cars, output=tmp_path / "trained")
    assert program.end() == 2
    assert "has the digest sha256:" in program.last_line
    assert not (tmp_path / "trained" / "training.json").exists()


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"encoder": ""}, "needs encoder and encoder_version"),
        ({"encoder_version": "latest"}, "encoder_version"),
        ({"glance": True}, "and no glance"),
        ({"profile": "plain"}, "need profile: vqa"),
        ({"answers_max": 1}, "answers_max"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(vqa_config, tmp_path, changed, told):
    config = vqa_config()
    config["model"]["hyperparameters"] |= changed
    with pytest.raises(BadInput, match=told):
        settings.load(settings.TrainSettings, written(tmp_path, config))


@pytest.fixture(scope="module")
def release(through, tmp_path_factory):
    """The trained model, sealed as a release."""
    place = tmp_path_factory.mktemp("release") / "v9"
    shutil.copytree(through[0], place, ignore=shutil.ignore_patterns("checkpoints", ".*"))
    names = sorted(p.relative_to(place).as_posix() for p in place.rglob("*") if p.is_file())
    lines = [f"{sha256_hex((place / name).read_bytes())}  {name}\n" for name in names]
    (place / "MANIFEST").write_text("".join(lines))
    return place


def serve(release, port):
    environment = {"AIP_HTTP_PORT": str(port), "ARR_COC_VERSION": "v9", **ROUTES}
    return subprocess.Popen(
        [sys.executable, "-m", "model.serve", f"--release={release}"],
        env=os.environ | environment, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip


def test_the_release_answers_over_http_as_it_did_when_it_was_scored(release, through):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = serve(release, port)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10) as client:
            wait_until_ready(client, process)
            rows = [json.loads(x) for x in (through[1] / "requests.jsonl").open()]
            instances = [row["instance"] for row in rows[:12]]
            reply = client.post("/predict", json={"instances": instances})
            assert reply.status_code == 200, reply.text
            said = [one["answer"] for one in reply.json()["predictions"]]
            assert said == [row["answer"] for row in rows[:12]]
            bad = {"image": base64.b64encode(b"no image").decode(), "question": "is it red"}
            assert client.post("/predict", json={"instances": [bad]}).status_code == 400
            many = client.post("/predict", json={"instances": [instances[0]] * 17})
            assert (many.status_code, many.json()["error"]) == (
                400,
                "17 instances; expected 1 to 16",
            )
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)


def wait_until_ready(client, process):
    deadline = time.monotonic() + 60
    while True:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        try:
            if client.get("/health").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.05)


def test_a_release_whose_encoder_has_one_changed_byte_never_listens(release, tmp_path):
    place = tmp_path / "v9"
    shutil.copytree(release, place)
    path = place / "encoder" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-9] ^= 1
    path.write_bytes(data)
    process = serve(place, 1)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "encoder/model.safetensors has SHA-256" in said.splitlines()[-1]
    with pytest.raises(BadInput, match="which is pinned"):
        saved_model.load(place)  # evaluation has no MANIFEST to hold it against

"""Serving: a release is verified, good requests are answered, bad ones get a 400."""

import base64
import json
import shutil
import signal
import socket
import subprocess
import sys

import httpx
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model import evaluate
from model.dataset import manifest, vocabulary
from model.network import saved_model
from model.network.network import Network, Sizes
from model.program.errors import BadInput
from model.program.files import sha256_hex
from model.serving.body import Instance, parse
from model.serving.predictor import PixelLimits, Predictor
from model.serving.release import verify
from tests.model.served import QUESTION, seal, sealed_release, serve, wait_until_ready


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    return sealed_release(tmp_path_factory.mktemp("releases") / "v7")


@pytest.fixture(scope="module")
def server(release):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = serve(release, AIP_HTTP_PORT=str(port))
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
        wait_until_ready(client, process)
        yield client
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)


@pytest.fixture(scope="module")
def instance(small_data):
    image = (small_data / "images/000000.bmp").read_bytes()
    return {"image": base64.b64encode(image).decode(), "question": QUESTION}


def test_a_question_is_answered_in_vertex_s_shape(server, instance):
    reply = server.post("/predict", json={"instances": [instance, instance]})
    assert reply.status_code == 200
    assert reply.headers["x-arr-version"] == reply.json()["deployedModelId"] == "v7"
    first, second = reply.json()["predictions"]
    assert first["confidence"] == pytest.approx(second["confidence"], rel=1e-5)
    assert first["answer"] == second["answer"]
    assert first["answer"] in ("rows", "columns", "checks")
    assert 0 <= first["confidence"] <= 1


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("GET", "/predict", 405, "POST"),
        ("POST", "/health", 405, "GET, HEAD"),
        ("GET", "/nothing", 404, None),
    ],
)
def test_even_a_wrong_route_names_the_version(server, method, path, status, allow):
    reply = server.request(method, path)
    assert (reply.status_code, reply.headers.get("allow")) == (status, allow)
    assert reply.headers["x-arr-version"] == "v7"
    assert reply.json()["error"]


def test_health_may_be_asked_without_a_body(server):
    reply = server.head("/health")
    assert (reply.status_code, reply.content) == (200, b"")


def test_a_client_that_goes_away_in_its_request_harms_nobody(server, instance):
    with socket.create_connection((server.base_url.host, server.base_url.port)) as one:
        one.sendall(b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 900\r\n\r\n{")
    assert server.post("/predict", json={"instances": [instance]}).status_code == 200


def test_a_request_of_several_gives_each_its_own_answer(server, small_data):
    paths = sorted((small_data / "images").iterdir())[:20]
    images = [base64.b64encode(path.read_bytes()).decode() for path in paths]
    several = [{"image": image, "question": QUESTION} for image in images]
    together = server.post("/predict", json={"instances": several}).json()["predictions"]
    for one, found in zip(several, together, strict=True):
        [alone] = server.post("/predict", json={"instances": [one]}).json()["predictions"]
        assert alone["answer"] == found["answer"]
        assert alone["confidence"] == pytest.approx(found["confidence"], rel=1e-5)


BAD = {
    "no JSON": b"{",
    "no text": b"\xff\xfe",
    "deep": b"[" * 100_000,
    "a list": b"[]",
    "a number": b"7",
    "NaN": b'{"instances": NaN}',
    "no instances": b'{"instances": []}',
    "instances no list": b'{"instances": {"image": "", "question": ""}}',
    "too many": json.dumps({"instances": [{"image": "", "question": "x"}] * 65}).encode(),
    "instance no object": b'{"instances": ["x"]}',
    "no question": b'{"instances": [{"image": "aGk="}]}',
    "another key": b'{"instances": [{"image": "aGk=", "question": "x", "colour": "red"}]}',
    "question no text": b'{"instances": [{"image": "aGk=", "question": 7}]}',
    "question empty": b'{"instances": [{"image": "aGk=", "question": ""}]}',
    "question too long": json.dumps(
        {"instances": [{"image": "aGk=", "question": "x" * 1001}]}
    ).encode(),
    "half a letter": b'{"instances": [{"image": "aGk=", "question": "\\ud800"}]}',
    "image no base64": b'{"instances": [{"image": "!", "question": "x"}]}',
    "image not ASCII": '{"instances": [{"image": "é", "question": "x"}]}'.encode(),
    "image null": b'{"instances": [{"image": null, "question": "x"}]}',
    "no image": b'{"instances": [{"image": "aGk=", "question": "x"}]}',
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_body_is_a_400_with_a_reason(server, name):
    reply = server.post("/predict", content=BAD[name])
    assert reply.status_code == 400, reply.text
    assert len(reply.json()["error"]) > 10
    assert "0x" not in reply.json()["error"]
    assert reply.headers["x-arr-version"] == "v7"


def test_a_truncated_image_is_a_400_and_the_next_request_is_answered(server, instance):
    half = instance | {"image": instance["image"][: len(instance["image"]) // 8 * 4]}
    assert server.post("/predict", json={"instances": [half]}).status_code == 400
    assert server.post("/predict", json={"instances": [instance]}).status_code == 200


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.sampled_from(["image", "question"]), inner)
    ),
    max_leaves=6,
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.binary() | json_values.map(lambda v: json.dumps({"instances": v}).encode()))
def test_whatever_the_body_is_reading_it_ends_well_or_in_bad_input(body):
    try:
        instances = parse(body, 64)
    except BadInput:
        return
    assert all(one.question for one in instances)


def test_what_serves_answers_as_it_was_scored(small_data, train_config, tmp_path):
    """Scores are of many questions of many images at once; a server is asked one by one."""
    torch.manual_seed(0)
    data = manifest.read(small_data)
    words = vocabulary.build(manifest.read_split(data, "train").questions)
    sizes = Sizes(32, len(words) + 1, len(data.answers), "none")
    model, scores = tmp_path / "model", tmp_path / "scores"
    weights = Network(sizes).state_dict()
    saved_model.save_plain(model, sizes, weights, words, data.answers, data.fingerprint)
    config = tmp_path / "evaluate.json"
    config.write_text(json.dumps({"compute": train_config()["compute"]}))
    evaluate.main(config, small_data, model, scores)
    rows = {
        row["question_id"]: row
        for row in pq.read_table(small_data / "manifest.parquet").to_pylist()
    }
    predictor = Predictor(model, 1, PixelLimits(100_000, 100_000))
    predictions = pq.read_table(scores / "predictions.parquet").to_pylist()
    assert len({one["predicted"] for one in predictions}) > 1
    for one in predictions:
        row = rows[one["question_id"]]
        image = (small_data / row["image"]).read_bytes()
        [found] = predictor.answer(predictor.open([Instance(image, row["question"])]))
        assert found.answer == one["predicted"]
        assert found.confidence == pytest.approx(one["confidence"], abs=1e-4)


def test_a_server_loads_no_more_than_answering_needs():
    """Each library costs every start of every server its share of a second."""
    modules = "model.serve, model.serving.predictor, model.serving.app"
    code = f"import {modules}, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert "torch" in loaded
    assert not loaded & {
        "lightning", "matplotlib", "pandas", "pyarrow", "transformers",
    }  # fmt: skip


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


DAMAGES = {
    "one byte changed": lambda f: flip(f / "weights.safetensors"),
    "file missing": lambda f: (f / "weights.safetensors").unlink(),
    "file too many": lambda f: (f / "more.txt").write_text("x"),
    "hidden file": lambda f: (f / ".more").write_text("x"),
    "file in a folder": lambda f: ((f / "a").mkdir(), (f / "a" / "b").write_text("x")),
    "no MANIFEST": lambda f: (f / "MANIFEST").unlink(),
    "empty MANIFEST": lambda f: (f / "MANIFEST").write_text(""),
    "line of MANIFEST torn": lambda f: flip(f / "MANIFEST"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_release_is_refused(release, tmp_path, damage):
    folder = tmp_path / "v7"
    shutil.copytree(release, folder)
    verify(folder)
    DAMAGES[damage](folder)
    with pytest.raises(BadInput, match="release v7 is refused"):
        verify(folder)


def test_a_signature_beside_manifest_is_no_file_too_many(release, tmp_path):
    folder = tmp_path / "v7"
    shutil.copytree(release, folder)
    (folder / "SIGNATURE.json").write_text("{}")
    verify(folder)


def test_a_server_started_for_one_release_refuses_another(release, tmp_path):
    """Whoever starts it has checked the signature of that digest, and of no other."""
    digest = sha256_hex((release / "MANIFEST").read_bytes())
    verify(release, digest)
    folder = tmp_path / "v7"
    shutil.copytree(release, folder)
    flip(folder / "weights.safetensors")
    seal(folder)
    verify(folder)
    with pytest.raises(BadInput, match=f"ARR_COC_DIGEST is {digest}"):
        verify(folder, digest)


def test_a_damaged_release_never_listens(release, tmp_path):
    folder = tmp_path / "v7"
    shutil.copytree(release, folder)
    flip(folder / "weights.safetensors")
    process = serve(folder, AIP_HTTP_PORT="1")
    _, said = process.communicate(timeout=30)
    assert process.returncode == 2
    assert said.splitlines()[-1].startswith("error: release v7 is refused: weights.safetensors")

"""The profile vqa: a frozen encoder from a folder, ARR-COC on top, and answers of many people.

The encoders are tiny and written by the tests; nothing here ran on real CLIP weights.
"""

import base64
import io
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from model import evaluate, manifest, settings, trained
from model.agreed import Agreement
from model.batches import Batches, pool
from model.errors import BadInput
from model.files import sha256_hex
from model.formats.convert import convert
from model.learner import count_right, loss_sum
from model.metrics.score import score
from model.network.allocator import bought
from model.network.levels import offer_of_token, places
from model.pretrained import folder, saved, truth
from model.pretrained.levels import pooled
from model.pretrained.network import PretrainedNetwork, Sizes
from tests.formats.conftest import WRITERS
from tests.model.cars import write_cars
from tests.model.encoders import picture, preprocessing, write_encoder
from tests.model.runner import Runner

REFERENCE = json.loads((Path(__file__).parent / "data/encoders.json").read_text())
KINDS = ("clip", "siglip")
QUESTIONS = ["What color is the car", "how many people are there", "is it red", "a " * 30]
ABLATIONS = (
    "none",
    "no-propositional",
    "no-perspectival",
    "no-participatory",
    "uniform-lod",
    "no-opponent-processing",
)
TOKENS_BY_OFFER = offer_of_token().sum(dim=1)
INSTANCES = {"AIP_HEALTH_ROUTE": "/health", "AIP_PREDICT_ROUTE": "/predict"}


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def seen_by(senses, *sizes):
    """Pictures of these sizes as the network takes them, (B, P, P, 3)."""
    found = [senses.see(png(picture(*size)), "a picture")[0] for size in sizes]
    return torch.from_numpy(np.stack(found))


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    place = tmp_path_factory.mktemp("encoders")
    return {kind: write_encoder(place / kind, kind) for kind in KINDS}


@pytest.fixture(scope="module")
def opened(encoders):
    return {
        kind: saved.open_encoder(path, folder.version_of(path))
        for kind, path in encoders.items()
    }


@pytest.fixture
def network(opened):
    def make(ablation="none", kind="clip", seed=0):
        torch.manual_seed(seed)
        return PretrainedNetwork(Sizes(16, 5, ablation), *opened[kind])

    return make


@pytest.fixture(scope="module")
def cars(tmp_path_factory):
    place = tmp_path_factory.mktemp("cars")
    return convert("vqav2", write_cars(place / "official"), place / "data", lambda *_: None)


# ---- the encoder ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_tokens_and_features_are_those_that_transformers_gave(opened, kind):
    encoder, senses = opened[kind]
    expected = REFERENCE[kind]
    tokens = torch.from_numpy(senses.read(QUESTIONS))
    assert tokens.tolist() == expected["tokens"]
    pixels = seen_by(senses, (50, 37), (33, 90), (32, 32)).permute(0, 3, 1, 2).float()
    made = senses.preprocessing
    mean, std = (torch.tensor(x)[:, None, None] for x in (made.mean, made.std))
    normal = (pixels * made.factor - mean) / std
    patches = encoder.see(normal).flatten(1, 2)
    found = {
        "pixels": normal[:, :, ::5, ::7],
        "patches": patches[:, ::37, ::5],
        "texts": encoder.read(tokens)[:, ::3, ::3],
    }
    for name, values in found.items():
        assert torch.allclose(
            values.flatten(1), torch.tensor(expected[name]), rtol=1e-4, atol=2e-5
        ), name


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_published_file_leaves_out_is_the_default_of_its_kind(tmp_path, kind):
    path = write_encoder(tmp_path / kind, kind)
    edit(path / "config.json", lambda config: config.pop("vision_config"))
    edit(path / "config.json", lambda config: config["text_config"].pop("hidden_size"))
    plan = saved.encoder.read_plan(path)
    assert (plan.image.width, plan.image.layers, plan.pixels) == (768, 12, 224)
    assert plan.patch == {"clip": 32, "siglip": 16}[kind]
    assert plan.text.width == {"clip": 512, "siglip": 768}[kind]


def edit(path, change):
    """Load a JSON file, change it in place, save it."""
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def weights_without(path, name):
    from safetensors.numpy import load_file, save_file

    kept = {k: v for k, v in load_file(path / "model.safetensors").items() if k != name}
    save_file(kept, path / "model.safetensors")


def weights_with(path, name):
    from safetensors.numpy import load_file, save_file

    more = {name: np.zeros(3, np.float32)}
    save_file(load_file(path / "model.safetensors") | more, path / "model.safetensors")


def halved(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


UNUSABLE = {
    "no weights": (lambda p: (p / "model.safetensors").unlink(), "no model.safetensors in"),
    "a pickle only": (
        lambda p: (p / "model.safetensors").rename(p / "pytorch_model.bin"),
        r"no model.safetensors in .* 'pytorch_model.bin'",
    ),
    "another kind": (
        lambda p: edit(p / "config.json", lambda c: c.update(model_type="dinov2")),
        "model_type 'dinov2'; expected a dual encoder of the model_type clip or siglip",
    ),
    "no kind": (lambda p: edit(p / "config.json", lambda c: c.clear()), "model_type 'None'"),
    "sizes that do not fit": (
        lambda p: edit(p / "config.json", lambda c: c["vision_config"].update(hidden_size=48)),
        "does not hold the encoder of its config.json .*size mismatch",
    ),
    "no size": (
        lambda p: edit(p / "config.json", lambda c: c["text_config"].update(vocab_size="9")),
        r"text_config.vocab_size is '9'; expected a whole number",
    ),
    "heads that do not divide": (
        lambda p: edit(
            p / "config.json", lambda c: c["text_config"].update(num_attention_heads=3)
        ),
        "text_config.hidden_size is 16; expected a multiple of 3",
    ),
    "another activation": (
        lambda p: edit(p / "config.json", lambda c: c["vision_config"].update(hidden_act="x")),
        "vision_config has hidden_act 'x'",
    ),
    "a missing weight": (
        lambda p: weights_without(p, "text_model.final_layer_norm.bias"),
        "Missing key.*final_layer_norm.bias",
    ),
    "a weight too many": (
        lambda p: weights_with(p, "vision_model.encoder.layers.0.lora"),
        "Unexpected key.*layers.0.lora",
    ),
    "another part": (lambda p: weights_with(p, "decoder.bias"), "hold 'decoder.bias'"),
    "half of the weights": (lambda p: halved(p / "model.safetensors"), "does not hold"),
    "half of config.json": (lambda p: halved(p / "config.json"), "cannot be read"),
    "half of the tokenizer": (lambda p: halved(p / "tokenizer.json"), "is no tokenizer"),
    "a tokenizer without ends": (
        lambda p: edit(p / "tokenizer.json", lambda t: t.update(post_processor=None)),
        "ends different texts in different ways",
    ),
    "too many words": (
        lambda p: edit(
            p / "tokenizer.json", lambda t: t["model"]["vocab"].update({"more": 99, "x": 98})
        ),
        r"knows 2\d tokens; expected at most",
    ),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_an_encoder_that_cannot_be_used_is_one_clear_error(tmp_path, case):
    change, told = UNUSABLE[case]
    path = write_encoder(tmp_path / "encoder")
    change(path)
    with pytest.raises(BadInput, match=told):
        saved.open_encoder(path, folder.version_of(path))


@pytest.mark.parametrize("name", folder.FILES)
def test_one_changed_byte_is_another_encoder(encoders, tmp_path, name):
    path = tmp_path / "encoder"
    shutil.copytree(encoders["clip"], path)
    pinned = folder.version_of(path)
    data = bytearray((path / name).read_bytes())
    data[-9] ^= 1
    (path / name).write_bytes(data)
    with pytest.raises(BadInput, match=f"expected {pinned}, which is pinned"):
        saved.open_encoder(path, pinned)


def test_the_digest_is_what_sha256sum_says(encoders):
    command = "cd {} && sha256sum {} | sha256sum".format(
        encoders["clip"], " ".join(folder.FILES)
    )
    told = subprocess.run(
        [shutil.which("bash"), "-c", command], capture_output=True, text=True, check=True
    )
    assert folder.version_of(encoders["clip"]) == f"sha256:{told.stdout.split()[0]}"


# ---- pictures ---------------------------------------------------------------------------

SETTINGS = [
    ({"do_resize": False}, "do_resize is False"),
    ({"do_pad": True}, "do_resize"),
    ({"size": {"longest_edge": 32}}, "size is {'longest_edge': 32}"),
    ({"size": 0}, "size is 0"),
    ({"do_center_crop": False}, "do_center_crop is False"),
    ({"crop_size": {"height": 24, "width": 24}}, r"size is \[24, 24, 32\]"),
    ({"size": {"shortest_edge": 30}}, r"size is \[32, 32, 30\]"),
    ({"size": {"height": 32, "width": 32}}, "do_center_crop is True"),
    ({"image_mean": [0.5, 0.5]}, r"image_mean is \[0.5, 0.5\]"),
    ({"image_std": [0.5, 0.0, 0.5]}, "image_std is"),
    ({"resample": 17}, "resample is 17"),
    ({"rescale_factor": "1/255"}, "rescale_factor is '1/255'"),
]


@pytest.mark.parametrize(("changed", "told"), SETTINGS)
def test_a_preprocessing_that_is_not_ours_is_refused(encoders, tmp_path, changed, told):
    path = tmp_path / "encoder"
    shutil.copytree(encoders["clip"], path)
    (path / "preprocessor_config.json").write_text(
        json.dumps(preprocessing("clip", 32) | changed)
    )
    with pytest.raises(BadInput, match=told):
        saved.open_encoder(path, folder.version_of(path))


def test_sizes_may_be_plain_numbers_as_in_older_files(encoders, tmp_path):
    path = tmp_path / "encoder"
    shutil.copytree(encoders["clip"], path)
    (path / "preprocessor_config.json").write_text(
        json.dumps(preprocessing("clip", 32) | {"size": 32, "crop_size": 32})
    )
    _, senses = saved.open_encoder(path, folder.version_of(path))
    assert senses.preprocessing.shortest == senses.pixels == 32


def test_a_picture_too_elongated_is_refused_and_not_blown_up(opened):
    thin = png(np.zeros((1, 60_000, 3), np.uint8))
    with pytest.raises(BadInput, match="60000 × 1 pixels; expected a picture less elongated"):
        opened["clip"][1].see(thin, "image x")
    assert opened["siglip"][1].see(thin, "image x")[0].shape == (32, 32, 3)


@pytest.mark.parametrize(
    ("kind", "size", "view"),
    [
        ("clip", (64, 32), (16, 0, 48, 32)),
        ("clip", (32, 128), (0, 48, 32, 80)),
        ("clip", (90, 60), (15, 0, 75, 60)),
        ("siglip", (90, 60), (0, 0, 90, 60)),
    ],
)
def test_it_is_known_what_part_of_a_picture_is_seen(opened, kind, size, view):
    _, found = opened[kind][1].see(png(picture(*size)), "x")
    assert found == pytest.approx(view)


def test_boxes_are_told_within_what_is_seen(opened):
    """Of a picture of 64 × 32 the columns 16 to 48 are seen, in regions of 8 pixels."""
    network_sees = opened["clip"][1]
    boxes = np.array([[16, 0, 24, 8], [40, 24, 60, 32], [0, 0, 10, 32], [-1, -1, -1, -1]])
    split = split_of("a.png", boxes)
    place = Pathless({"a.png": png(picture(64, 32))})
    batch = pool(place, split, network_sees, ("yes", "no")).read([0], 0)
    assert batch.region_BQ.tolist() == [[0, -1, -1, -1]]  # the middle of the second is outside
    shown = batch.box_BQ4[0]
    assert shown[0].tolist() == [-1, -1, -0.5, -0.5]
    assert shown[1].tolist() == [0.5, 0.5, 1, 1]  # cut off at the edge
    assert shown[2, 0] == shown[2, 2] == -1  # nothing of it is seen
    assert shown[3].tolist() == [0, 0, 0, 0]


class Pathless:
    """A folder whose files are in memory."""

    def __init__(self, files):
        self._files = files

    def __truediv__(self, name):
        return self

    def read_bytes(self):
        (data,) = self._files.values()
        return data


def split_of(name, boxes):
    """One image with a question for each box."""
    n = len(boxes)
    zeros, unknown = np.zeros(n, np.int64), np.full_like(boxes, -1)
    return manifest.Split(
        images=(name,), hashes=(sha256_hex(png(picture(64, 32))),),
        first_I=np.array([0, n]), ids=tuple(map(str, range(n))), question_N=zeros,
        questions=("is it red",), answer_N=zeros, answers=("yes", "no"), family_N=zeros,
        families=("x",), box_N4=boxes, answer_box_N4=unknown, counted_NK4=unknown[:, None],
    )  # fmt: skip


# ---- the network ------------------------------------------------------------------------


@pytest.mark.parametrize(("ablation", "kind"), [*itertools.product(ABLATIONS, KINDS)])
def test_the_budget_is_exact(network, opened, ablation, kind):
    _, senses = opened[kind]
    pixels = seen_by(senses, (50, 37), (32, 32))
    tokens = torch.from_numpy(senses.read(QUESTIONS)).expand(2, -1, -1)
    level_BQR = network(ablation, kind)(pixels, tokens).level_BQR
    assert (bought(level_BQR).float() @ TOKENS_BY_OFFER).unique().tolist() == [64]


@pytest.mark.parametrize("ablation", ABLATIONS)
def test_the_answer_s_gradient_reaches_all_that_is_ours_and_nothing_of_the_encoder(
    network, opened, ablation
):
    net, (encoder, senses) = network(ablation), opened["clip"]
    tokens = torch.from_numpy(senses.read(QUESTIONS[:2]))[None]
    thrown = net.explore(1, 2, torch.Generator().manual_seed(0))
    reply = net(seen_by(senses, (50, 37)), tokens, thrown)
    torch.nn.functional.cross_entropy(reply.answer_BQA[0], torch.tensor([1, 3])).backward()
    unmoved = [n for n, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    assert unmoved == []
    frozen = [*encoder._image.parameters(), *encoder._text.parameters()]
    assert frozen
    assert not any(p.requires_grad or p.grad is not None for p in frozen)


@pytest.mark.parametrize(
    ("ablation", "part"),
    [
        ("no-propositional", "propositional"),
        ("no-perspectival", "perspectival"),
        ("no-participatory", "participatory"),
        ("no-participatory", "gist"),
        ("no-opponent-processing", "balancer"),
    ],
)
def test_an_ablation_removes_the_parameters(network, ablation, part):
    def names(net):
        return [name for name, _ in net.named_parameters() if part in name]

    assert names(network())
    assert not names(network(ablation))


def test_uniform_detail_does_not_follow_relevance(network, opened):
    tokens = torch.from_numpy(opened["clip"][1].read(QUESTIONS))[None]
    pixels = seen_by(opened["clip"][1], (50, 37))
    assert network("uniform-lod")(pixels, tokens).level_BQR.unique().tolist() == [1]
    assert network()(pixels, tokens).level_BQR.unique().tolist() == [0, 1, 2]


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_does_not_depend_on_what_is_asked_beside_it(network, opened, kind):
    net, (_, senses) = network(kind=kind).eval(), opened[kind]
    pixels = seen_by(senses, (50, 37))
    alone = net(pixels, torch.from_numpy(senses.read(QUESTIONS[2:3]))[None])
    beside = net(pixels, torch.from_numpy(senses.read(QUESTIONS))[None])
    assert torch.allclose(alone.answer_BQA[0, 0], beside.answer_BQA[0, 2], atol=1e-5)


def test_tokens_are_averages_of_the_patches_below_them():
    """Patches that hold their own place; 16 along an edge, so that fine tokens are patches."""
    line = (2 * torch.arange(16) + 1) / 16 - 1
    y, x = torch.meshgrid(line, line, indexing="ij")
    assert torch.allclose(pooled(torch.stack([x, y], dim=-1)[None])[0], places(), atol=1e-6)


@pytest.mark.parametrize("patches", [1, 7, 14, 24, 27])
def test_any_number_of_patches_gives_the_same_tokens_on_offer(patches):
    assert pooled(torch.rand(2, patches, patches, 3)).shape == (2, 336, 3)
    flat = pooled(torch.full((1, patches, patches, 3), 0.25))
    assert torch.allclose(flat, torch.full_like(flat, 0.25))


# ---- answers of many people -------------------------------------------------------------


def test_the_answers_are_the_most_frequent_ones(cars):
    split = manifest.read_split(manifest.read(cars), "train")
    assert truth.most_frequent(split, 99) == ("green", "no", "red", "yes")
    often = truth.most_frequent(split, 2)
    assert len(often) == 2
    assert set(often) < {"green", "no", "red", "yes"}


def test_every_answer_is_worth_what_the_benchmark_gives_for_it(cars, tmp_path):
    """Score each answer as if it were the prediction, by the evaluator of results files."""
    data = manifest.read(cars)
    split = manifest.read_split(data, "test")
    answers = ("dark red", "green", "no", "red", "yes")
    agreed = truth.agreement(cars, "test", split.ids, answers)
    for number, answer in enumerate(answers):
        path = tmp_path / f"{number}.json"
        said = [{"question_id": int(name), "answer": answer} for name in split.ids]
        path.write_text(json.dumps(said))
        rows = score("vqav2", path, cars).questions.to_pylist()
        worth = {row["question_id"]: row["correct"] for row in rows}
        found = (agreed.score_NJ * (agreed.candidate_NJ == number)).sum(axis=1)
        assert found.tolist() == pytest.approx([worth[name] for name in split.ids])
    assert 0 < agreed.score_NJ[agreed.candidate_NJ == 0].max() < 1  # two of ten said it


def test_a_data_set_of_one_answer_a_question_has_no_agreement(small_data):
    split = manifest.read_split(manifest.read(small_data), "train")
    assert truth.agreement(small_data, "train", split.ids, ("rows",)) is None


def test_the_loss_is_least_where_likelihoods_are_the_scores(network, opened, cars):
    split = manifest.read_split(manifest.read(cars), "train")
    net, (_, senses) = network(), opened["clip"]
    agreed = Agreement(
        np.tile([0, 3], (len(split.ids), 1)), np.tile([0.9, 0.3], (len(split.ids), 1))
    )
    batch = pool(cars, split, senses, ("red", "no", "yes", "dark red", "x"), agreed).read(
        [0], 0
    )
    reply = net(batch.image_BPP3, batch.word_BQL)
    losses = {}
    for share in (0.65, 0.75, 0.85):
        logit_A = torch.tensor([share, 1e-9, 1e-9, 1 - share, 1e-9]).log()
        said = logit_A.expand_as(reply.answer_BQA)
        losses[share] = loss_sum(replace(reply, said), batch).item()
    assert min(losses, key=lambda share: losses[share]) == 0.75  # 0.9 / (0.9 + 0.3)
    right, asked = count_right(replace(reply, said), batch)
    assert (right.item(), asked.item()) == (pytest.approx(0.9 * 2), 2)


def replace(reply, answer_BQA):
    from dataclasses import replace as changed

    return changed(reply, answer_BQA=answer_BQA)


# ---- from data to answers over HTTP -----------------------------------------------------


@pytest.fixture(scope="module")
def vqa_config(train_config, encoders):
    def config(**changes):
        parameters = {
            "width": 16, "ablation": "none", "workers": 0, "profile": "vqa",
            "encoder": str(encoders["clip"]),
            "encoder_version": folder.version_of(encoders["clip"]), "answers_max": 4,
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


def test_only_arr_coc_is_trained_and_saved_and_the_encoder_comes_along(through, encoders):
    output, _ = through
    model = trained.load(output)
    assert isinstance(model.network, PretrainedNetwork)
    record = json.loads((output / "training.json").read_text())
    assert record["parameters"] == sum(p.numel() for p in model.network.parameters())
    ours = {f"network.{name}" for name in model.network.state_dict()}
    for path in (output / "checkpoints").glob("*.ckpt"):
        assert set(torch.load(path, weights_only=True)["state_dict"]) == ours
    for name in folder.FILES:
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
        encoder_version=folder.version_of(path), answers_max=3,
    )  # fmt: skip
    subject = trained.begin(chosen, whole, manifest.read_split(whole, "train"))
    model, output = tmp_path / "model", tmp_path / "scores"
    trained.keep(model, subject, subject.network.state_dict())
    compute = written(tmp_path, {"compute": train_config()["compute"]})
    evaluate.main(compute, data, model, output)
    scores = json.loads((output / "scores.json").read_text())
    alone = score(name, output / "results.json", data)
    assert scores["accuracy"] == alone.accuracy.value
    assert (scores["benchmark"], scores["data_fingerprint"]) == (name, whole.fingerprint)
    assert ("average_precision" in scores["metrics"]) == (name == "vizwiz")


def test_killed_with_9_it_reaches_the_same_end(through, programs, cars, vqa_config, tmp_path):
    output = tmp_path / "trained"
    program = programs.start("train", vqa_config(), data=cars, output=output)
    program.wait_for(lambda: any(3 <= step < 25 for step in checkpoints(output)))
    program.kill()
    assert program.end() == -signal.SIGKILL
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
    assert isinstance(trained.load(output).network, PretrainedNetwork)


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
    environment = {"AIP_HTTP_PORT": str(port), "ARR_COC_VERSION": "v9", **INSTANCES}
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
        trained.load(place)  # evaluation has no MANIFEST to hold it against


def test_batches_of_the_profile_can_be_read_by_forked_workers(opened, cars):
    split = manifest.read_split(manifest.read(cars), "train")
    source = pool(cars, split, opened["clip"][1], ("red", "green"))
    loader = torch.utils.data.DataLoader(
        Batches(source, 1, 4, 0, 0, 1), batch_size=None, num_workers=1
    )
    assert next(iter(loader)).image_BPP3.shape == (4, 32, 32, 3)

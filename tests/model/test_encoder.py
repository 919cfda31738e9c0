"""The frozen encoder: what transformers made of the same files, and what is refused.

The encoders are tiny and written by the tests; nothing here ran on real CLIP weights.
"""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from model.dataset import manifest
from model.dataset.batches import split_reader
from model.pretrained import encoder_files, saved_model
from model.program.errors import BadInput
from model.program.files import sha256_hex
from tests.model.encoders import (
    QUESTIONS,
    picture,
    png,
    preprocessing,
    seen_by,
    write_encoder,
)

REFERENCE = json.loads((Path(__file__).parent / "data/encoders.json").read_text())
KINDS = ("clip", "siglip")


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_tokens_and_features_are_those_that_transformers_gave(opened, kind):
    encoder, preprocessor = opened[kind]
    expected = REFERENCE[kind]
    tokens = torch.from_numpy(preprocessor.tokenize(QUESTIONS))
    assert tokens.tolist() == expected["tokens"]
    pixels = seen_by(preprocessor, (50, 37), (33, 90), (32, 32)).permute(0, 3, 1, 2).float()
    made = preprocessor.image_transform
    mean, std = (torch.tensor(x)[:, None, None] for x in (made.mean, made.std))
    normal = (pixels * made.factor - mean) / std
    patches = encoder.encode_image(normal).flatten(1, 2)
    found = {
        "pixels": normal[:, :, ::5, ::7],
        "patches": patches[:, ::37, ::5],
        "texts": encoder.encode_text(tokens)[:, ::3, ::3],
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
    config = saved_model.encoder.read_config(path)
    assert (config.image.width, config.image.layers, config.pixels) == (768, 12, 224)
    assert config.patch == {"clip": 32, "siglip": 16}[kind]
    assert config.text.width == {"clip": 512, "siglip": 768}[kind]


def edit(path, change):
    """Load a JSON file, change it in place, save it."""
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def weights_without(path, name):
    kept = {k: v for k, v in load_file(path / "model.safetensors").items() if k != name}
    save_file(kept, path / "model.safetensors")


def weights_with(path, name):
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
    "half of the tokenizer": (lambda p: halved(p / "tokenizer.json"), "is not a tokenizer"),
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
        saved_model.open_encoder(path, encoder_files.version_of(path))


@pytest.mark.parametrize("name", encoder_files.FILES)
def test_one_changed_byte_is_another_encoder(encoders, tmp_path, name):
    path = tmp_path / "encoder"
    shutil.copytree(encoders["clip"], path)
    pinned = encoder_files.version_of(path)
    data = bytearray((path / name).read_bytes())
    data[-9] ^= 1
    (path / name).write_bytes(data)
    with pytest.raises(BadInput, match=f"expected {pinned}, which is pinned"):
        saved_model.open_encoder(path, pinned)


def test_the_digest_is_what_sha256sum_says(encoders):
    command = "cd {} && sha256sum {} | sha256sum".format(
        encoders["clip"], " ".join(encoder_files.FILES)
    )
    told = subprocess.run(
        [shutil.which("bash"), "-c", command], capture_output=True, text=True, check=True
    )
    assert encoder_files.version_of(encoders["clip"]) == f"sha256:{told.stdout.split()[0]}"


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
        saved_model.open_encoder(path, encoder_files.version_of(path))


def test_sizes_may_be_plain_numbers_as_in_older_files(encoders, tmp_path):
    path = tmp_path / "encoder"
    shutil.copytree(encoders["clip"], path)
    (path / "preprocessor_config.json").write_text(
        json.dumps(preprocessing("clip", 32) | {"size": 32, "crop_size": 32})
    )
    _, preprocessor = saved_model.open_encoder(path, encoder_files.version_of(path))
    assert preprocessor.image_transform.shortest == preprocessor.pixels == 32


def test_a_picture_too_elongated_is_refused_and_not_blown_up(opened):
    thin = png(np.zeros((1, 60_000, 3), np.uint8))
    with pytest.raises(BadInput, match="60000 × 1 pixels; expected a less elongated image"):
        opened["clip"][1].load_image(thin, "image x")
    assert opened["siglip"][1].load_image(thin, "image x")[0].shape == (32, 32, 3)


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
    _, found = opened[kind][1].load_image(png(picture(*size)), "x")
    assert found == pytest.approx(view)


def test_boxes_are_told_within_what_is_seen(opened, tmp_path):
    """Of a picture of 64 × 32 the columns 16 to 48 are seen, in regions of 8 pixels."""
    network_sees = opened["clip"][1]
    boxes = np.array([[16, 0, 24, 8], [40, 24, 60, 32], [0, 0, 10, 32], [-1, -1, -1, -1]])
    split = split_of("a.png", boxes)
    (tmp_path / "a.png").write_bytes(png(picture(64, 32)))
    batch = split_reader(tmp_path, split, network_sees, ("yes", "no")).read([0], 0)
    assert batch.region_BQ.tolist() == [[0, -1, -1, -1]]  # the middle of the second is outside
    shown = batch.box_BQ4[0]
    assert shown[0].tolist() == [-1, -1, -0.5, -0.5]
    assert shown[1].tolist() == [0.5, 0.5, 1, 1]  # cut off at the edge
    assert shown[2, 0] == shown[2, 2] == -1  # nothing of it is seen
    assert shown[3].tolist() == [0, 0, 0, 0]


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

"""What config.json says of an encoder: which kind it is and how large its parts are.

Published files leave out what equals the default of their kind, so the defaults of CLIP
(openai/clip-vit-base-patch32) and SigLIP (google/siglip-base-patch16-224) are part of the
format; they are listed here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.pretrained.encoder_files import read_json
from model.program.errors import BadInput

ACTIVATIONS = ("quick_gelu", "gelu", "gelu_pytorch_tanh")
_CLIP = {"num_hidden_layers": 12, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}
_SIGLIP = {"num_hidden_layers": 12, "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6}
_WIDE = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
_IMAGE = {**_WIDE, "image_size": 224, "num_channels": 3}
DEFAULTS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "clip": {
        "vision_config": {**_CLIP, **_IMAGE, "patch_size": 32},
        "text_config": {
            **_CLIP,
            "hidden_size": 512,
            "intermediate_size": 2048,
            "num_attention_heads": 8,
            "max_position_embeddings": 77,
            "vocab_size": 49408,
        },
    },
    "siglip": {
        "vision_config": {**_SIGLIP, **_IMAGE, "patch_size": 16},
        "text_config": {
            **_SIGLIP,
            **_WIDE,
            "max_position_embeddings": 64,
            "vocab_size": 32000,
        },
    },
}


@dataclass(frozen=True)
class Tower:
    """One transformer: of the pictures, or of the texts."""

    width: int
    inner: int
    layers: int
    heads: int
    activation: str
    eps: float


@dataclass(frozen=True)
class EncoderConfig:
    """`kind` is clip or siglip; `pixels` along the edge of a picture, `patch` of a patch."""

    kind: str
    image: Tower
    text: Tower
    pixels: int
    patch: int
    tokens_max: int
    vocabulary: int

    @property
    def patches(self) -> int:
        """Along an edge; what is left of the picture at its right and lower end is unseen."""
        return self.pixels // self.patch


def read_config(folder: Path) -> EncoderConfig:
    """Read config.json. Raises BadInput naming what is found and what can be used."""
    record = read_json(folder, "config.json")
    kind = str(record.get("model_type"))
    if kind not in DEFAULTS:
        raise BadInput(
            f"{folder / 'config.json'} describes the model_type {kind!r}",
            expected=f"a dual encoder of the model_type {' or '.join(DEFAULTS)}",
        )
    image, text = (_part(record, kind, name) for name in ("vision_config", "text_config"))
    return EncoderConfig(
        kind=kind,
        image=_tower(image, "vision_config"),
        text=_tower(text, "text_config"),
        pixels=_size(image, "image_size", "vision_config"),
        patch=_size(image, "patch_size", "vision_config"),
        tokens_max=_size(text, "max_position_embeddings", "text_config"),
        vocabulary=_size(text, "vocab_size", "text_config"),
    )


def _part(record: Mapping[str, Any], kind: str, name: str) -> dict[str, Any]:
    """A part of the configuration over its defaults; CLIP's old `…_dict` form goes first."""
    given = record.get(f"{name}_dict") or record.get(name) or {}
    if not isinstance(given, dict):
        raise BadInput(f"config.json: {name} is {given!r:.60}", expected="an object")
    return {**DEFAULTS[kind][name], **given}


def _tower(part: Mapping[str, Any], name: str) -> Tower:
    width, heads = _size(part, "hidden_size", name), _size(part, "num_attention_heads", name)
    if width % heads:
        raise BadInput(
            f"config.json: {name}.hidden_size is {width}", expected=f"a multiple of {heads}"
        )
    if part["hidden_act"] not in ACTIVATIONS or part.get("num_channels", 3) != 3:
        raise BadInput(
            f"config.json: {name} has hidden_act {part['hidden_act']!r} and "
            f"{part.get('num_channels', 3)} channels",
            expected=f"one of {ACTIVATIONS}, and 3 channels",
        )
    if not isinstance(part["layer_norm_eps"], float) or not 0 < part["layer_norm_eps"] < 1:
        raise BadInput(
            f"config.json: {name}.layer_norm_eps is {part['layer_norm_eps']!r}",
            expected="a small number above 0",
        )
    return Tower(
        width=width,
        inner=_size(part, "intermediate_size", name),
        layers=_size(part, "num_hidden_layers", name),
        heads=heads,
        activation=part["hidden_act"],
        eps=part["layer_norm_eps"],
    )


def _size(part: Mapping[str, Any], key: str, name: str) -> int:
    value = part[key]
    if type(value) is not int or value < 1:
        raise BadInput(
            f"config.json: {name}.{key} is {value!r:.60}", expected="a whole number above 0"
        )
    return value

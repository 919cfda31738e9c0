"""Tiny encoders in the layout of Hugging Face, written to the disk by the tests themselves.

Their weights are sines, so that everybody has the same ones: tests/model/data/encoders.json
holds what transformers 5.23.0 makes of exactly these folders.
"""

import io
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.numpy import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing

from model.pretrained.preprocessing import PretrainedPreprocessor

WORDS = "what color is the red green car a of how many people yes no are there it does say"
VISION = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2}
TEXT = {"hidden_size": 16, "intermediate_size": 28, "num_hidden_layers": 2}
START, END = "<start>", "<end>"
LENGTH = 12
QUESTIONS = ["What color is the car", "how many people are there", "is it red", "a " * 30]


def write_encoder(folder: Path, kind: str = "clip", pixels: int = 32, patch: int = 2) -> Path:
    """All four files; clip cuts the middle out of a picture, siglip squeezes it."""
    folder.mkdir(parents=True)
    vocabulary = {word: n for n, word in enumerate([START, "<unknown>", *WORDS.split(), END])}
    config = {
        "model_type": kind,
        "architectures": ["CLIPModel" if kind == "clip" else "SiglipModel"],
        "projection_dim": 8,
        "vision_config": {
            **VISION, "num_attention_heads": 2, "image_size": pixels, "patch_size": patch,
            "projection_dim": 8,
        },
        "text_config": {
            **TEXT, "num_attention_heads": 4, "max_position_embeddings": LENGTH,
            "vocab_size": len(vocabulary), "eos_token_id": vocabulary[END],
            "projection_dim": 8, "projection_size": TEXT["hidden_size"],
        },
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessing(kind, pixels)))
    (folder / "tokenizer.json").write_text(tokenizer(vocabulary, kind).to_str())
    shapes = weight_shapes(kind, pixels, patch, len(vocabulary))
    weights = {name: waves(name, shape) for name, shape in shapes.items()}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


def preprocessing(kind: str, pixels: int) -> dict[str, object]:
    clip = kind == "clip"
    return {
        "do_resize": True,
        "size": {"shortest_edge": pixels} if clip else {"height": pixels, "width": pixels},
        "resample": 3,
        **({"do_center_crop": True, "crop_size": pixels} if clip else {}),
        "do_normalize": True,
        "image_mean": [0.48, 0.45, 0.4],
        "image_std": [0.27, 0.26, 0.28],
        "image_processor_type": "CLIPImageProcessor" if clip else "SiglipImageProcessor",
    }


def tokenizer(vocabulary: dict[str, int], kind: str) -> Tokenizer:
    made = Tokenizer(WordLevel(vocabulary, "<unknown>"))
    made.normalizer, made.pre_tokenizer = Lowercase(), Whitespace()
    clip = kind == "clip"
    made.post_processor = TemplateProcessing(
        single=f"{START} $A {END}" if clip else f"$A {END}",
        special_tokens=[(name, vocabulary[name]) for name in (START, END)],
    )
    return made


def weight_shapes(kind: str, pixels: int, patch: int, words: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes as transformers 5 writes them for a whole model."""
    clip = kind == "clip"
    wide, narrow = VISION["hidden_size"], TEXT["hidden_size"]
    patches = (pixels // patch) ** 2
    seen, read = "vision_model.embeddings.", "text_model.embeddings."
    shapes: dict[str, tuple[int, ...]] = {
        f"{seen}patch_embedding.weight": (wide, 3, patch, patch),
        f"{seen}position_embedding.weight": (patches + clip, wide),
        f"{read}token_embedding.weight": (words, narrow),
        f"{read}position_embedding.weight": (LENGTH, narrow),
        "logit_scale": () if clip else (1,),
    }
    norms = {"vision_model.post_layernorm": wide, "text_model.final_layer_norm": narrow}
    linear = {}
    if clip:
        shapes |= {
            f"{seen}class_embedding": (wide,),
            "visual_projection.weight": (8, wide),
            "text_projection.weight": (8, narrow),
        }
        norms["vision_model.pre_layrnorm"] = wide
    else:
        shapes |= {
            f"{seen}patch_embedding.bias": (wide,),
            "logit_bias": (1,),
            "vision_model.head.probe": (1, 1, wide),
            "vision_model.head.attention.in_proj_weight": (3 * wide, wide),
            "vision_model.head.attention.in_proj_bias": (3 * wide,),
        }
        inner = VISION["intermediate_size"]
        norms["vision_model.head.layernorm"] = wide
        linear = {
            "vision_model.head.attention.out_proj": (wide, wide),
            "vision_model.head.mlp.fc1": (inner, wide),
            "vision_model.head.mlp.fc2": (wide, inner),
            "text_model.head": (narrow, narrow),
        }
    for tower, sizes in (("vision_model", VISION), ("text_model", TEXT)):
        width, inner = sizes["hidden_size"], sizes["intermediate_size"]
        for n in range(sizes["num_hidden_layers"]):
            layer = f"{tower}.encoder.layers.{n}"
            norms |= {f"{layer}.layer_norm1": width, f"{layer}.layer_norm2": width}
            linear |= {f"{layer}.self_attn.{x}_proj": (width, width) for x in "qkv"}
            linear |= {
                f"{layer}.self_attn.out_proj": (width, width),
                f"{layer}.mlp.fc1": (inner, width),
                f"{layer}.mlp.fc2": (width, inner),
            }
    for name, shape in linear.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    for name, width in norms.items():
        shapes |= {f"{name}.weight": (width,), f"{name}.bias": (width,)}
    return shapes


def waves(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A sine of squares, whose pitch depends on the name; around 1 for the weights of norms.

    Of squares, since matrices of a plain sine have the rank 2.
    """
    pitch = 1 + sum(name.encode()) % 101 / 37
    wave = 0.3 * np.sin(pitch * np.arange(1.0, np.prod(shape) + 1) ** 2).reshape(shape)
    middle = float("norm" in name and name.endswith("weight"))
    return np.asarray(middle + wave, np.float32)


def picture(width: int, height: int) -> np.ndarray:
    """Pixels uint8 (height, width, 3) of rings and a slope."""
    y, x = np.mgrid[:height, :width]
    rings = np.hypot(x - width / 3, y - height / 2)[..., None] * [0.7, 0.4, 1.1]
    return (127.5 + 127 * np.sin(rings + x[..., None] / width)).astype(np.uint8)


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def seen_by(preprocessor: PretrainedPreprocessor, *sizes: tuple[int, int]) -> torch.Tensor:
    """Pictures of these sizes as the network takes them, (B, P, P, 3)."""
    found = [preprocessor.load_image(png(picture(*size)), "a picture")[0] for size in sizes]
    return torch.from_numpy(np.stack(found))

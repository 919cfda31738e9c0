"""Save and build a trained model over an encoder; the encoder's files are part of it.

    weights.safetensors   ARR-COC's own parameters
    architecture.json     sizes, answers, and the encoder's digest
    encoder/              the encoder's four files, copied

A release is rolled back as one, perhaps when the folder it was trained from is long gone or
holds another encoder; so it has its own copy, sealed by its MANIFEST. That costs the encoder's
size (0.6 to 1.7 GB for CLIP) in each release.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from model.pretrained import encoder, encoder_files, preprocessing
from model.pretrained.network import PretrainedNetwork, Sizes
from model.program.files import write_json, write_whole

NAME = "arr-coc-vqa"
ENCODER = "encoder"
INSTANCES_MAX = 16  # an encoder costs a hundred times what a plain network does


def open_encoder(
    path: Path, version: str
) -> tuple[encoder.Encoder, preprocessing.PretrainedPreprocessor]:
    """The encoder `version` and its preprocessor. Raises BadInput."""
    found = encoder.load(path, version)
    return found, preprocessing.load(path, found.config)


def save(
    output: Path,
    network: PretrainedNetwork,
    weights: Mapping[str, Tensor],
    answers: Sequence[str],
    data_fingerprint: str,
) -> None:
    """Write a complete model, and verify the encoder's copy against its digest."""
    frozen = network.encoder
    encoder_files.copy(frozen.folder, output / ENCODER, frozen.version)
    solid = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    write_whole(output / "weights.safetensors", safetensors.torch.save(solid))
    write_json(
        output / "architecture.json",
        {
            "name": NAME,
            "sizes": asdict(network.sizes),
            "encoder": {"kind": frozen.config.kind, "version": frozen.version},
            "answers": list(answers),
            "data_fingerprint": data_fingerprint,
            "serving": {"instances_max": INSTANCES_MAX},
        },
    )


def build(
    model: Path, record: Mapping[str, Any]
) -> tuple[PretrainedNetwork, preprocessing.PretrainedPreprocessor]:
    """The network of a saved model before its weights are loaded. Raises BadInput."""
    frozen, own = open_encoder(model / ENCODER, record["encoder"]["version"])
    return PretrainedNetwork(Sizes(**record["sizes"]), frozen, own), own

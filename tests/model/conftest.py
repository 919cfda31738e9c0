"""A small data set and small settings for the programs of model/."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from model.dataset import manifest
from model.formats.convert import convert
from model.generated import generator
from model.pretrained import saved_model
from model.pretrained.encoder import Encoder
from model.pretrained.encoder_files import version_of
from model.pretrained.preprocessing import PretrainedPreprocessor
from tests.model.cars import write_cars
from tests.model.encoders import write_encoder
from tests.model.runner import Runner

SMALL = "generate://detail?images=60&questions=6&seed=3"
torch.set_num_threads(1)  # the machine is shared, and waiting threads spin


@pytest.fixture
def programs(tmp_path):
    runner = Runner(tmp_path)
    yield runner
    runner.clear()


@pytest.fixture(scope="session")
def small_data(tmp_path_factory) -> Path:
    """60 images with 6 questions each."""
    folder = tmp_path_factory.mktemp("small")
    generator.generate(SMALL, folder)
    return folder


@pytest.fixture(scope="session")
def dataset_config(small_data) -> Callable[..., dict[str, Any]]:
    fingerprint = manifest.read(small_data).fingerprint

    def config(**changes: Any) -> dict[str, Any]:
        section = {"uri": SMALL, "format": "generated", "version": fingerprint}
        return {"dataset": section | {"questions_min": 10} | changes}

    return config


@pytest.fixture(scope="session")
def train_config() -> Callable[..., dict[str, Any]]:
    """A training of a second; changes go by dotted path with `__` for the dot."""

    def config(**changes: Any) -> dict[str, Any]:
        chosen = json.loads(json.dumps(TINY))
        for path, value in changes.items():
            *sections, last = path.split("__")
            place = chosen
            for section in sections:
                place = place[section]
            place[last] = value
        return chosen

    return config


@pytest.fixture(scope="session")
def encoders(tmp_path_factory) -> dict[str, Path]:
    """A tiny encoder of each kind, in the layout of Hugging Face."""
    place = tmp_path_factory.mktemp("encoders")
    return {kind: write_encoder(place / kind, kind) for kind in ("clip", "siglip")}


@pytest.fixture(scope="session")
def opened(encoders) -> dict[str, tuple[Encoder, PretrainedPreprocessor]]:
    return {
        kind: saved_model.open_encoder(path, version_of(path))
        for kind, path in encoders.items()
    }


@pytest.fixture(scope="session")
def cars(tmp_path_factory) -> Path:
    """A converted benchmark of 60 and 16 pictures, two questions each."""
    place = tmp_path_factory.mktemp("cars")
    return convert("vqav2", write_cars(place / "official"), place / "data", lambda *_: None)


TINY = {
    "model": {
        "name": "arr-coc",
        "hyperparameters": {"width": 16, "ablation": "none", "workers": 0},
        "steps_max": 30,
        "batch_images": 6,
        "learning_rate": 0.004,
        "gradient_clip": 1.0,
        "accumulate": 1,
        "precision": "32",
        "strategy": "ddp",
        "early_stopping": {"every_steps": 7, "patience": 100, "min_delta": 0.001},
    },
    "seed": 1,
    "compute": {
        "processes": 1,
        "threads": 1,
        "machine": "local",
        "accelerators": 0,
        "accelerator": "none",
        "spot": False,
        "restarts_max": 2,
        "timeout_s": 600,
    },
    "checkpointing": {"every_s": 0.05, "keep": 2, "uri": "run"},
    "tracking": {"project": "arr-coc", "entity": "", "mode": "disabled"},
}

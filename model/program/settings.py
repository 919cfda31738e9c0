"""The configuration files of the programs: strict, typed, without defaults."""

import json
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from model.program.errors import BadInput

Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
Above0 = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]

Ablation = Literal[
    "none",
    "no-propositional",
    "no-perspectival",
    "no-participatory",
    "uniform-lod",
    "no-opponent-processing",
]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Dataset(_Section):
    uri: str
    format: Literal["generated", "arr-coc", "vqav2", "gqa", "textvqa", "vizwiz"]
    version: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
    questions_min: Positive


class EarlyStopping(_Section):
    every_steps: Positive
    patience: Positive
    min_delta: Fraction


class Hyperparameters(_Section):
    """`workers` are processes that read images ahead; 0 reads in the training process.

    What has a default came later; without it a configuration means what it always did.
    `encoder` is the folder of the profile vqa's frozen encoder, `encoder_version` its digest
    (model/pretrained/encoder_files.py), `answers_max` how many of the most frequent answers
    it can give.
    """

    width: Annotated[int, Field(ge=8, le=1024, multiple_of=8)]
    ablation: Ablation
    workers: Count
    glance: bool = False
    profile: Literal["plain", "vqa"] = "plain"
    encoder: str = ""
    encoder_version: Annotated[str, Field(pattern=r"^(sha256:[0-9a-f]{64})?$")] = ""
    answers_max: Annotated[int, Field(ge=2)] = 3129

    @model_validator(mode="after")
    def _encoder_of_its_profile(self) -> Self:
        named = bool(self.encoder), bool(self.encoder_version)
        if self.profile == "vqa" and (not all(named) or self.glance):
            raise ValueError("profile (=vqa) needs encoder and encoder_version, and no glance")
        if self.profile == "plain" and any(named):
            raise ValueError("encoder and encoder_version need profile: vqa")
        return self


class Model(_Section):
    name: Literal["arr-coc"]
    hyperparameters: Hyperparameters
    steps_max: Positive
    batch_images: Positive
    learning_rate: Above0
    gradient_clip: Above0
    accumulate: Positive
    precision: Literal["32", "bf16-mixed", "16-mixed"]
    strategy: Literal["ddp", "fsdp"]
    early_stopping: EarlyStopping


class Compute(_Section):
    processes: Positive
    threads: Positive
    machine: str
    accelerators: Count
    accelerator: str
    spot: bool
    restarts_max: Count
    timeout_s: Above0


class Checkpointing(_Section):
    every_s: Above0
    keep: Positive
    uri: str


class Tracking(_Section):
    project: str
    entity: str
    mode: Literal["offline", "online", "disabled"]


class DataSettings(_Section):
    """What `model.data` reads."""

    dataset: Dataset


class TrainSettings(_Section):
    """What `model.train` reads."""

    model: Model
    seed: Annotated[int, Field(ge=0, lt=2**31)]
    compute: Compute
    checkpointing: Checkpointing
    tracking: Tracking

    @model_validator(mode="after")
    def _possible_on_the_cpu(self) -> Self:
        """Lightning would take bf16 for 16-mixed there, and say so in a log only."""
        if self.compute.accelerators:
            return self
        if self.model.strategy == "fsdp":
            raise ValueError("model.strategy (=fsdp) needs compute.accelerators; ddp does not")
        if self.model.precision == "16-mixed":
            raise ValueError(
                "model.precision (=16-mixed) needs compute.accelerators; bf16-mixed does not"
            )
        return self


class EvaluateSettings(_Section):
    """What `model.evaluate` reads."""

    compute: Compute


Settings = TypeVar("Settings", bound=BaseModel)


def load(kind: type[Settings], path: Path) -> Settings:
    """Read and validate one JSON file. Raises BadInput naming each wrong setting."""
    try:
        return kind.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise BadInput(f"no configuration at {path}", expected="a JSON file") from error
    except ValidationError as error:
        wrong = ", ".join(_one(e) for e in error.errors(include_url=False))
        raise BadInput(
            f"{path.name} has {error.error_count()} wrong setting(s): {wrong}",
            do="correct them; model/README.md lists the sections",
        ) from error


def _one(detail: ErrorDetails) -> str:
    where = ".".join(map(str, detail["loc"])) or "the file"
    value = json.dumps(detail["input"], default=str)
    return f"{where} (={value[:80]}): {detail['msg']}"

"""Sections about data, training and what a version must reach."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from policy.config.section import (
    Count,
    Duration,
    Fraction,
    Name,
    Positive,
    Scalar,
    Seconds,
    Section,
)


class Dataset(Section):
    """What to train on. The version is the data set's fingerprint: other bytes are refused."""

    uri: str = Field(
        description="generate://NAME?images=N&questions=N&seed=N, a folder, or gs://bucket/prefix"
    )
    format: Literal["generated", "arr-coc", "vqav2", "gqa", "textvqa", "vizwiz"]
    version: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
    questions_min: Positive = Field(description="fewest questions accepted in each split")


class EarlyStopping(Section):
    """Stop when the validation accuracy has not grown by `min_delta` for `patience` checks."""

    every_steps: Positive
    patience: Positive
    min_delta: Fraction


class Model(Section):
    """The network and how it is trained; model/README.md lists what each program reads."""

    name: str
    hyperparameters: dict[str, Scalar] = Field(
        description="checked by the model's own programs"
    )
    steps_max: Positive
    batch_images: Positive
    learning_rate: Annotated[float, Field(gt=0)]
    gradient_clip: Annotated[float, Field(gt=0)]
    accumulate: Positive
    precision: Literal["32", "bf16-mixed", "16-mixed"]
    strategy: Literal["ddp", "fsdp"]
    early_stopping: EarlyStopping


class Compute(Section):
    """Where and on how much a training runs."""

    processes: Positive = Field(description="processes under torchrun; 1 runs without it")
    threads: Positive = Field(description="CPU threads of each process")
    machine: str = Field(description="machine type; 'local' on this machine")
    accelerators: Count = Field(description="per machine; 0 trains on the CPU")
    accelerator: str = Field(description="accelerator type, or 'none'")
    spot: bool
    restarts_max: Count = Field(description="restarts after a crash or a spot warning")
    timeout_s: Duration


class Checkpointing(Section):
    every_s: Duration
    keep: Positive
    uri: str = Field(description="'run' for the run's own folder, a folder, gs:// or s3://")


class Tracking(Section):
    """Weights & Biases; a mirror for people, never the source of truth."""

    project: str
    entity: str
    mode: Literal["offline", "online", "disabled"]


class Benchmark(Section):
    """Another data set that a version is scored on before it may be registered.

    A score that is missing, or of other data, never passes.
    """

    name: Name
    dataset: Dataset
    accuracy_above: Fraction | Literal["reported"] = Field(
        description="passed by more than this; reported: any score, it is told and no more"
    )


class Gates(Section):
    """What a trained version must reach before it may be registered."""

    accuracy_min: Fraction
    family_accuracy_min: Fraction
    questions_min: Positive
    non_inferiority_margin: Fraction = Field(
        description="how much worse than production a new version may at most be"
    )
    alpha: Annotated[float, Field(gt=0, lt=0.5)]
    benchmarks: tuple[Benchmark, ...] = Field(
        description="data sets beside the one trained on; the same one is scored once"
    )

    @model_validator(mode="after")
    def _different_names(self) -> Self:
        names = [benchmark.name for benchmark in self.benchmarks]
        if len(set(names)) < len(names):
            raise ValueError(f"benchmarks must have different names (={names})")
        return self


class Retraining(Section):
    """Limits of automatic retraining (schedule, event, drift); a person is never limited."""

    cooldown_s: Seconds
    per_day_max: Positive

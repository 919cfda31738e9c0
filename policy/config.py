"""The one configuration file, typed: `deployments/<environment>.yaml` is the GitOps truth.

Every field has its unit in its name (`_s` seconds, `_min`/`_max` limits) or is a fraction
in [0, 1]; weights are percent. Unknown keys are errors, so that a typo cannot silently do
nothing. Files are complete: no inheritance, no merging, no defaults hidden in code.

    python -m policy.config deployments/local.yaml     # validate one file
    python -m policy.config --schema                   # print the JSON schema for editors
"""

import json
import sys
from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from policy.errors import ConfigError

Fraction = Annotated[float, Field(ge=0, le=1)]
Percent = Annotated[int, Field(ge=0, le=100)]
Port = Annotated[int, Field(ge=1024, le=65535)]
Seconds = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Scalar = bool | int | float | str


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Dataset(_Section):
    """What to train on. The version is the data set's fingerprint: other bytes are refused."""

    uri: str = Field(
        description="generate://NAME?images=N&questions=N&seed=N, a folder, or gs://bucket/prefix"
    )
    format: Literal["generated", "arr-coc", "vqav2", "gqa", "textvqa", "vizwiz"]
    version: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
    questions_min: Positive = Field(description="fewest questions accepted in each split")


class EarlyStopping(_Section):
    """Stop when the validation accuracy has not grown by `min_delta` for `patience` checks."""

    every_steps: Positive
    patience: Positive
    min_delta: Fraction


class Model(_Section):
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


class Compute(_Section):
    """Where and on how much a training runs."""

    processes: Positive = Field(description="processes under torchrun; 1 runs without it")
    threads: Positive = Field(description="CPU threads of each process")
    machine: str = Field(description="machine type; 'local' on this machine")
    accelerators: Count = Field(description="per machine; 0 trains on the CPU")
    accelerator: str = Field(description="accelerator type, or 'none'")
    spot: bool
    restarts_max: Count = Field(description="restarts after a crash or a spot warning")
    timeout_s: Annotated[float, Field(gt=0)]


class Checkpointing(_Section):
    every_s: Annotated[float, Field(gt=0)]
    keep: Positive
    uri: str = Field(description="'run' for the run's own folder, a folder, gs:// or s3://")


class Tracking(_Section):
    """Weights & Biases; a mirror for people, never the source of truth."""

    project: str
    entity: str
    mode: Literal["offline", "online", "disabled"]


class Gates(_Section):
    """What a trained version must reach before it may be registered."""

    accuracy_min: Fraction
    family_accuracy_min: Fraction
    questions_min: Positive
    non_inferiority_margin: Fraction = Field(
        description="how much worse than production a new version may at most be"
    )
    alpha: Annotated[float, Field(gt=0, lt=0.5)]


class Limits(_Section):
    """Absolute limits of one window of live traffic; missing data never passes."""

    requests_min: Positive
    error_rate_max: Fraction
    latency_p95_s_max: Annotated[float, Field(gt=0)]
    labels_min: Count = Field(description="0: accuracy is not judged live")
    accuracy_min: Fraction
    failure_limit: Count = Field(description="failed windows tolerated at one weight")
    inconclusive_limit: Count = Field(description="windows with too little data tolerated")


class Deadlines(_Section):
    """How long a rollout may stay in one state before it is taken back."""

    deploying_s: Annotated[float, Field(gt=0)]
    smoke_s: Annotated[float, Field(gt=0)]
    step_s: Annotated[float, Field(gt=0)]
    approval_s: Annotated[float, Field(gt=0)]
    promoting_s: Annotated[float, Field(gt=0)]


class Rollout(_Section):
    """Canary: weights [10, 30, 50, 100]. Blue-green: [0, 100]. Immediate: [100]."""

    strategy: Literal["canary", "blue-green", "immediate"]
    weights: tuple[Percent, ...]
    bake_s: Seconds = Field(description="length of one window of live traffic")
    approval: bool
    smoke_requests: Positive
    replay_per_s: Seconds = Field(description="held-out questions replayed a second; 0: none")
    limits: Limits
    deadlines: Deadlines

    @model_validator(mode="after")
    def _rising_to_100(self) -> Self:
        weights = list(self.weights)
        if weights != sorted(set(weights)) or weights[-1:] != [100]:
            raise ValueError(f"weights (={weights}) must rise and end at 100")
        fixed = {"blue-green": [0, 100], "immediate": [100]}.get(self.strategy, weights)
        if weights != fixed:
            raise ValueError(f"weights (={weights}) must be {fixed} for {self.strategy}")
        return self


class Retraining(_Section):
    """Limits of automatic retraining (schedule, event, drift); a person is never limited."""

    cooldown_s: Seconds
    per_day_max: Positive


class Local(_Section):
    """The servers of the place `local`. All listen on 127.0.0.1."""

    prefect_port: Port
    staging_port: Port
    staging_admin_port: Port
    production_port: Port
    production_admin_port: Port
    model_ports: tuple[Port, Port] = Field(description="first and last port of model servers")
    threads: Positive = Field(description="CPU threads of each model server")

    @model_validator(mode="after")
    def _no_port_twice(self) -> Self:
        first, last = self.model_ports
        if first + 3 > last:
            raise ValueError(
                f"model_ports (={[first, last]}) must rise and hold at least 4 ports"
            )
        single = {name: port for name, port in self if name.endswith("_port")}
        for name, port in single.items():
            if first <= port <= last:
                raise ValueError(f"{name} (={port}) lies inside model_ports (={[first, last]})")
        if len(set(single.values())) < len(single):
            raise ValueError(f"ports must differ (={single})")
        return self


class Config(_Section):
    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$")]
    place: Literal["local", "gcp", "kubernetes"]
    root: str = Field(
        description="where everything is kept: a directory, or gs://bucket/prefix"
    )
    dataset: Dataset
    model: Model
    compute: Compute
    checkpointing: Checkpointing
    tracking: Tracking
    gates: Gates
    rollout: Rollout
    retraining: Retraining
    local: Local | None = None

    @model_validator(mode="after")
    def _has_its_place(self) -> Self:
        if self.place == "local" and self.local is None:
            raise ValueError("place (=local) needs the section 'local'")
        return self


def parse_config(text: str, name: str) -> Config:
    """Validate one YAML text; `name` stands in errors.

    Raises:
        ConfigError: naming each wrong field by its dotted path, with the value found.
    """
    try:
        return Config.model_validate(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise ConfigError(f"{name} is not YAML: {error}", do="correct the file") from error
    except ValidationError as error:
        wrong = "\n".join(
            f"  {_dotted(e['loc'])} (={e['input']!r}): {e['msg']}"
            for e in error.errors(include_url=False)
        )
        raise ConfigError(
            f"{name} has {error.error_count()} wrong setting(s):\n{wrong}\n",
            holds="nothing was started",
            do=f"correct {name}; deployments/schema.json lists every setting",
        ) from error


def load_config(path: Path) -> Config:
    """Read and validate one file. Raises ConfigError."""
    if not path.is_file():
        raise ConfigError(
            f"no configuration at {path}", expected="a file such as deployments/local.yaml"
        )
    return parse_config(path.read_text(), str(path))


def _dotted(location: tuple[int | str, ...]) -> str:
    return ".".join(map(str, location)) or "(the whole file)"


if __name__ == "__main__":
    if sys.argv[1:] == ["--schema"]:
        print(json.dumps(Config.model_json_schema(), indent=2))
    else:
        try:
            load_config(Path(sys.argv[1]))
        except ConfigError as error:
            sys.exit(f"error: {error}")

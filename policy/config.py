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
from typing import Annotated, Literal, Self, TypeVar

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from policy.condition import check
from policy.counts import LATENCY_EDGES_S
from policy.errors import ConfigError

Fraction = Annotated[float, Field(ge=0, le=1)]
Percent = Annotated[int, Field(ge=0, le=100)]
Port = Annotated[int, Field(ge=1024, le=65535)]
Seconds = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Scalar = bool | int | float | str
_KEY_SOURCE = r"^(made-here|environment|secret/[a-z0-9-]+)$"
_PUBLIC_KEY = r"^-----BEGIN PUBLIC KEY-----\n"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


_S = TypeVar("_S", bound=_Section)


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


class Benchmark(_Section):
    """Another data set that a version is scored on before it may be registered.

    A score that is missing, or of other data, never passes.
    """

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$")]
    dataset: Dataset
    accuracy_above: Fraction | Literal["reported"] = Field(
        description="passed by more than this; reported: any score, it is told and no more"
    )


class Gates(_Section):
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


class Limits(_Section):
    """Absolute limits of one window of live traffic; missing data never passes.

    A window fails as soon as a value is *proven* to be past its limit (judge.alpha), so that
    few requests do not condemn a good version; past the limit but not proven asks for more.
    """

    requests_min: Positive
    error_rate_max: Fraction
    latency_p95_s_max: float = Field(description="an edge of policy.counts.LATENCY_EDGES_S")
    labels_min: Count = Field(description="0: accuracy is not judged live")
    accuracy_min: Fraction
    failure_limit: Count = Field(description="failed windows tolerated at one weight")
    inconclusive_limit: Count = Field(description="windows with too little data tolerated")

    @model_validator(mode="after")
    def _on_an_edge(self) -> Self:
        return _latency_on_an_edge(self, self.latency_p95_s_max)


class Judge(_Section):
    """Sequential comparison of the canary with stable (policy/evidence.py)."""

    alpha: Annotated[float, Field(gt=0, lt=0.5)] = Field(
        description="chance that a version as good as stable is taken back by comparison, "
        "however often one looks; shared by errors, latency and accuracy"
    )
    error_rate_margin: Fraction = Field(description="so much worse than stable is tolerated")
    slow_margin: Fraction = Field(
        description="the same for the share of answers slower than stable's p95"
    )
    accuracy_margin: Fraction
    non_inferiority_margin: Annotated[float, Field(gt=0, lt=1)] = Field(
        description="within so much of stable each rate is proven to be before 100 %, "
        "where promotion asks for proof"
    )
    block_requests: Positive = Field(description="canary requests in the first block")
    block_s: Annotated[float, Field(gt=0)] = Field(
        description="evidence is weighed and written to the ledger at least this often"
    )
    promotion: Literal["within-limits", "non-inferior"] = Field(
        description="non-inferior: 100 % needs proof of being within the margins of stable"
    )


class Shadow(_Section):
    """Mirrored traffic at weight 0, whose answers nobody gets."""

    percent: Percent = Field(description="share of the traffic mirrored; 0: no shadow")
    bake_s: Seconds
    disagreement_max: Fraction = Field(description="answers that differ from stable's")
    compared_min: Count = Field(description="0: disagreement is not judged")


class Watch(_Section):
    """After the rollout: stable is kept as a backup and takes over past these limits."""

    s: Seconds = Field(description="how long; 0: no watch, the old version goes at once")
    requests_min: Count = Field(description="with fewer the version is taken back")
    error_rate_max: Fraction
    latency_p95_s_max: float = Field(description="an edge of policy.counts.LATENCY_EDGES_S")
    availability_min: Fraction = Field(description="share of the watch the version is ready")

    @model_validator(mode="after")
    def _on_an_edge(self) -> Self:
        return _latency_on_an_edge(self, self.latency_p95_s_max)


class Analysis(_Section):
    """A condition of its own on the window so far, in the words of Argo Rollouts.

    Conditions are comparisons of `result.*` (policy/analysis.py lists the fields), such as
    `result.error_rate < 0.02 and result.accuracy >= 0.9`; "" for none.
    """

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$")]
    success_condition: str
    failure_condition: str
    failure_limit: Count
    inconclusive_limit: Count
    consecutive_error_limit: Count
    interval_s: Annotated[float, Field(gt=0)]
    count: Count = Field(description="measurements; 0: until the window ends")
    dry_run: bool = Field(description="measured and shown, but decides nothing")

    @field_validator("success_condition", "failure_condition")
    @classmethod
    def _can_be_evaluated(cls, condition: str) -> str:
        if condition:
            check(condition)
        return condition


class Deadlines(_Section):
    """How long a rollout may stay in one state before it is taken back."""

    deploying_s: Annotated[float, Field(gt=0)]
    smoke_s: Annotated[float, Field(gt=0)]
    shadow_s: Annotated[float, Field(gt=0)]
    step_s: Annotated[float, Field(gt=0)]
    approval_s: Annotated[float, Field(gt=0)]
    promoting_s: Annotated[float, Field(gt=0)]
    paused_s: Annotated[float, Field(gt=0)]
    unready_s: Annotated[float, Field(gt=0)] = Field(
        description="how long a version may be unready after it was ready"
    )


class Rollout(_Section):
    """Canary: weights [10, 30, 50, 100]. Blue-green: [0, 100]. Immediate: [100]."""

    strategy: Literal["canary", "blue-green", "immediate"]
    weights: tuple[Percent, ...] = Field(
        description="rising to 100; at 0 smoke requests and the shadow are the test"
    )
    bake_s: Seconds = Field(description="length of one window of live traffic")
    look_s: Annotated[float, Field(gt=0)] = Field(description="seconds between two looks")
    approval: bool = Field(description="a person says yes before the step to 100 %")
    smoke_requests: Positive
    replay_per_s: Seconds = Field(description="held-out questions replayed a second; 0: none")
    limits: Limits
    judge: Judge
    analyses: tuple[Analysis, ...]
    shadow: Shadow
    watch: Watch
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

    @model_validator(mode="after")
    def _can_be_met(self) -> Self:
        if self.deadlines.step_s < self.bake_s + self.look_s:
            raise ValueError(
                f"deadlines.step_s (={self.deadlines.step_s}) leaves no time for a window of "
                f"bake_s (={self.bake_s}) and a look of look_s (={self.look_s})"
            )
        if self.shadow.percent and self.deadlines.shadow_s < self.shadow.bake_s + self.look_s:
            raise ValueError(
                f"deadlines.shadow_s (={self.deadlines.shadow_s}) is shorter than "
                f"shadow.bake_s (={self.shadow.bake_s}) and a look"
            )
        compared = any(0 < weight < 100 for weight in self.weights)
        if self.judge.promotion == "non-inferior" and not compared:
            raise ValueError(
                f"judge.promotion (=non-inferior) needs a weight between 0 and 100 at which "
                f"the canary is compared with stable; weights are {list(self.weights)}"
            )
        names = [analysis.name for analysis in self.analyses]
        if len(set(names)) < len(names):
            raise ValueError(f"analyses must have different names (={names})")
        return self


class Retraining(_Section):
    """Limits of automatic retraining (schedule, event, drift); a person is never limited."""

    cooldown_s: Seconds
    per_day_max: Positive


class Serving(_Section):
    """What every endpoint has, and what it asks of its clients."""

    replicas: Positive = Field(
        description="servers of each version in production; one of two may die unnoticed"
    )
    tokens_required: bool = Field(
        description="/predict asks for one of the bearer tokens in ARR_COC_TOKENS"
    )
    rate_per_s: Count = Field(description="requests a second; more get 429; 0: no limit")
    request_bytes_max: Positive
    sticky_header: str = Field(
        description="equal values of this header keep their version as weights grow; '': none"
    )


class Notifications(_Section):
    """Who is told of a rollout that starts, waits for approval, is promoted or taken back."""

    blocks: tuple[Annotated[str, Field(pattern=r"^[a-z0-9-]+/[a-z0-9-]+$")], ...] = Field(
        description="Prefect notification blocks, as slack-webhook/ops; none: nobody"
    )


class Signing(_Section):
    """Whose releases serve here: only those that one of the trusted keys signed."""

    private_key: Annotated[str, Field(pattern=_KEY_SOURCE)] = Field(
        description="what signs new releases; made-here: made at first use below root; "
        "environment: PEM in ARR_COC_SIGNING_KEY; secret/NAME: PEM in a Prefect secret block"
    )
    trusted: tuple[Annotated[str, Field(pattern=_PUBLIC_KEY)], ...] = Field(
        description="public keys in PEM, of today's signer and of those whose releases may "
        "still serve; a key made here is trusted without standing here"
    )


class Local(_Section):
    """The servers of the place `local`. All listen on 127.0.0.1."""

    prefect_port: Port
    staging_port: Port
    staging_admin_port: Port
    production_port: Port
    production_admin_port: Port
    metrics_port: Port = Field(description="Prometheus metrics of rollouts and endpoints")
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
    serving: Serving
    retraining: Retraining
    notifications: Notifications
    signing: Signing
    local: Local | None = None

    @model_validator(mode="after")
    def _has_its_place(self) -> Self:
        if self.place == "local" and self.local is None:
            raise ValueError("place (=local) needs the section 'local'")
        if self.place == "local" and (self.compute.machine != "local" or self.compute.spot):
            raise ValueError(
                f"compute.machine (={self.compute.machine}) and compute.spot "
                f"(={self.compute.spot}) must be 'local' and false for place: local"
            )
        return self

    @model_validator(mode="after")
    def _has_a_signer(self) -> Self:
        here = self.signing.private_key == "made-here"
        if here and self.place != "local":
            raise ValueError("signing.private_key (=made-here) is for place: local only")
        if not here and not self.signing.trusted:
            raise ValueError(
                f"signing.trusted is empty, but signing.private_key "
                f"(={self.signing.private_key}) needs its public key there"
            )
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
            f"  {_dotted(e['loc'])} (={_shown(e['input'])}): {e['msg']}"
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


def _latency_on_an_edge(section: _S, limit_s: float) -> _S:
    if limit_s not in LATENCY_EDGES_S:
        raise ValueError(
            f"latency_p95_s_max (={limit_s}) must be an edge of the latency buckets, "
            f"one of {list(LATENCY_EDGES_S)}"
        )
    return section


def with_model(config: Config, **changes: object) -> Config:
    """The configuration with other values in `model`, validated; None leaves one as it is.

    Raises:
        ConfigError: as for a file.
    """
    wanted = {name: value for name, value in changes.items() if value is not None}
    record = config.model_dump(mode="json")
    text = yaml.safe_dump({**record, "model": {**record["model"], **wanted}})
    return parse_config(text, "the configuration with other model settings")


def _shown(value: object) -> str:
    """The value as it was written; a private key that stands in the wrong place is not told."""
    text = repr(value)
    return "a private key, not shown here" if "PRIVATE KEY" in text else text


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

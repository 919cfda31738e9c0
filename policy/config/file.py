"""The whole file: its sections together, how it is read and what is said of a wrong one."""

from pathlib import Path
from typing import Literal, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from policy.config.rollout import Rollout
from policy.config.section import Name, Section
from policy.config.serving import Local, Notifications, Serving, Signing
from policy.config.training import (
    Checkpointing,
    Compute,
    Dataset,
    Gates,
    Model,
    Retraining,
    Tracking,
)
from policy.errors import ConfigError


class Config(Section):
    name: Name
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
    def _can_train_there(self) -> Self:
        if self.compute.accelerators:
            return self
        for name, value in (("strategy", "fsdp"), ("precision", "16-mixed")):
            if getattr(self.model, name) == value:
                raise ValueError(f"model.{name} (={value}) needs compute.accelerators")
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

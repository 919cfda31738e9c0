"""The section `model`: the network and how it is trained."""

from typing import Annotated, Literal

from pydantic import Field

from policy.config.section import Fraction, Positive, Scalar, Section


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

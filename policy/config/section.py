"""What every section of the configuration is made of."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0, le=1)]
Percent = Annotated[int, Field(ge=0, le=100)]
Port = Annotated[int, Field(ge=1024, le=65535)]
Seconds = Annotated[float, Field(ge=0)]
Duration = Annotated[float, Field(gt=0)]  # seconds
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$")]
Scalar = bool | int | float | str


class Section(BaseModel):
    """Unknown keys are refused; what was read does not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

"""What every section of the configuration is made of."""

from collections.abc import Iterator
from typing import Annotated, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

Fraction = Annotated[float, Field(ge=0, le=1)]
Alpha = Annotated[float, Field(ge=1e-9, lt=0.5)]  # smaller ones ask for proof beyond counting
Percent = Annotated[int, Field(ge=0, le=100)]
Port = Annotated[int, Field(ge=1024, le=65535)]
# A date in ten thousand years is none, a number of ten digits is a slip, and what is divided by
# a time shorter than any is infinite: all three are bounded.
_YEAR_S, _MOST, _SHORTEST_S = 366 * 86400, 10**9, 0.001
Seconds = Annotated[float, Field(ge=0, le=_YEAR_S)]
Duration = Annotated[float, Field(ge=_SHORTEST_S, le=_YEAR_S)]  # seconds
Count = Annotated[int, Field(ge=0, le=_MOST)]
Positive = Annotated[int, Field(ge=1, le=_MOST)]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$")]
Scalar = bool | int | float | str

_T = TypeVar("_T")
# YAML knows lists, not tuples: these take either.
Items = Annotated[tuple[_T, ...], Field(strict=False)]
Pair = Annotated[tuple[_T, _T], Field(strict=False)]


class Section(BaseModel):
    """Unknown keys are refused, kinds are never converted, and what was read stays as it is.

    A whole number stands for the fraction of the same value; nothing else stands for another
    kind: `yes` is not a number, "5" is none, and 1 is not true.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    def problems(self) -> Iterator[str]:
        """What cannot work: the path of a setting in this section, and what would happen."""
        yield from ()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if found := list(self.problems()):
            raise ValueError("\n".join(found))
        return self

"""The section `gates`: what a trained version must reach before it may be registered."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from policy.config.dataset import Dataset
from policy.config.section import Alpha, Fraction, Items, Name, Positive, Section


class Benchmark(Section):
    """Another data set that a version is scored on before it may be registered.

    A score that is missing, or of other data, never passes.
    """

    name: Name
    dataset: Dataset
    accuracy_above: Annotated[float, Field(ge=0, lt=1)] | Literal["reported"] = Field(
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
    alpha: Alpha
    benchmarks: Items[Benchmark] = Field(
        description="data sets beside the one trained on; the same one is scored once"
    )

    def problems(self) -> Iterator[str]:
        names = [benchmark.name for benchmark in self.benchmarks]
        if len(set(names)) < len(names):
            yield f"benchmarks must have different names (={names})"

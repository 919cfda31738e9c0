"""The section `dataset`: what to train on."""

from typing import Annotated, Literal

from pydantic import Field

from policy.config.section import Positive, Section


class Dataset(Section):
    """What to train on. The version is the data set's fingerprint: other bytes are refused."""

    uri: str = Field(
        description="generate://NAME?images=N&questions=N&seed=N, a folder, or gs://bucket/prefix"
    )
    format: Literal["generated", "arr-coc", "vqav2", "gqa", "textvqa", "vizwiz"]
    version: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
    questions_min: Positive = Field(description="fewest questions accepted in each split")

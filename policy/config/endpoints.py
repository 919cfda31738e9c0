"""The section `endpoints`: where releases are served, in the order in which they walk."""

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from policy.config.section import Name, Positive, Section


class EndpointSettings(Section):
    """One endpoint: what it is for, how a version gets there, and how much serves it."""

    role: Literal["staging", "production"] = Field(
        description="production: serves people, the last on the way; staging: tries it before"
    )
    plan: Literal["rollout", "at-once"] = Field(
        description="rollout: step by step, as the section rollout says; at-once: the same "
        "limits, all traffic in one step"
    )
    replicas: Positive = Field(description="servers of each version; one of two may die unseen")


Endpoints = dict[Name, EndpointSettings]
"""By name, in the order in which a release walks them."""


def problems(endpoints: Endpoints) -> Iterator[str]:
    """What is wrong with the way that a release walks."""
    names = [name for name, one in endpoints.items() if one.role == "production"]
    if len(names) != 1:
        yield (
            f"endpoints (={list(endpoints)}) must have exactly one with the role production, "
            f"found {names}: one endpoint serves people"
        )
    elif names[0] != list(endpoints)[-1]:
        yield (
            f"endpoints.{names[0]} has the role production and must be the last of "
            f"{list(endpoints)}: a release would serve people before it was tried"
        )

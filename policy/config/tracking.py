"""The section `tracking`: Weights & Biases."""

from typing import Literal

from policy.config.section import Section


class Tracking(Section):
    """Weights & Biases; a mirror for people, never the source of truth."""

    project: str
    entity: str
    mode: Literal["offline", "online", "disabled"]

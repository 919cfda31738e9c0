"""The whole file: its sections, and the names that the rest of the project asks it for."""

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from policy.config import together
from policy.config.compute import Checkpointing, Compute
from policy.config.dataset import Dataset
from policy.config.endpoints import Endpoints, EndpointSettings
from policy.config.gates import Gates
from policy.config.model import Model
from policy.config.notifications import Notifications
from policy.config.places import Gcp, Kubernetes, Local
from policy.config.retraining import Retraining
from policy.config.rollout import Rollout
from policy.config.section import Name, Section
from policy.config.serving import Serving
from policy.config.signing import Signing
from policy.config.tracking import Tracking
from policy.errors import ConfigError


class Config(Section):
    """One environment. Exactly one of the last three sections is there: that of `place`."""

    name: Name
    place: Literal["local", "gcp", "kubernetes"]
    root: str = Field(
        description="URI below which everything is kept: a folder, gs://… or s3://…"
    )
    scratch: str = Field(description="a folder on this machine that may vanish at any time")
    dataset: Dataset
    model: Model
    compute: Compute
    checkpointing: Checkpointing
    tracking: Tracking
    gates: Gates
    rollout: Rollout
    endpoints: Endpoints = Field(
        description="by name, in the order in which a release walks them; production is last"
    )
    serving: Serving
    retraining: Retraining
    notifications: Notifications
    signing: Signing
    local: Local | None = None
    gcp: Gcp | None = None
    kubernetes: Kubernetes | None = None

    @property
    def path(self) -> tuple[str, ...]:
        """The endpoints' names in the order in which a release walks them."""
        return tuple(self.endpoints)

    @property
    def production(self) -> str:
        """The name of the endpoint that serves people: the last on the path."""
        return self.path[-1]

    def endpoint(self, name: str) -> EndpointSettings:
        """The settings of one endpoint. Raises ConfigError if there is none of this name."""
        if name not in self.endpoints:
            raise ConfigError(
                f"there is no endpoint {name!r}",
                expected=f"one of {list(self.path)}",
                holds="nothing was changed",
                do="name one of these, or add it to `endpoints` in the configuration",
            )
        return self.endpoints[name]

    def problems(self) -> Iterator[str]:
        yield from together.problems(self)

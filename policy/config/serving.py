"""Sections about serving, the people to tell, signatures and local servers."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from policy.config.section import Count, Port, Positive, Section

_KEY_SOURCE = r"^(made-here|environment|secret/[a-z0-9-]+)$"
_PUBLIC_KEY = r"^-----BEGIN PUBLIC KEY-----\n"


class Serving(Section):
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


class Notifications(Section):
    """Who is told of a rollout that starts, waits for approval, is promoted or taken back."""

    blocks: tuple[Annotated[str, Field(pattern=r"^[a-z0-9-]+/[a-z0-9-]+$")], ...] = Field(
        description="Prefect notification blocks, as slack-webhook/ops; none: nobody"
    )


class Signing(Section):
    """Whose releases serve here: only those that one of the trusted keys signed."""

    private_key: Annotated[str, Field(pattern=_KEY_SOURCE)] = Field(
        description="what signs new releases; made-here: made at first use below root; "
        "environment: PEM in ARR_COC_SIGNING_KEY; secret/NAME: PEM in a Prefect secret block"
    )
    trusted: tuple[Annotated[str, Field(pattern=_PUBLIC_KEY)], ...] = Field(
        description="public keys in PEM, of today's signer and of those whose releases may "
        "still serve; a key made here is trusted without standing here"
    )


class Local(Section):
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

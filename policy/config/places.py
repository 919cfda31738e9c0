"""The sections `local`, `gcp` and `kubernetes`: exactly one is there, of the place named."""

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from policy.config.section import Name, Port, Positive, Section

_GOOGLE_PROJECT = r"^[a-z][a-z0-9-]{4,28}[a-z0-9]$"
_REGION = r"^[a-z]+(-[a-z]+)+-?[0-9]$"
_ACCOUNT = r"^[a-z0-9-]+@[a-z0-9-]+\.iam\.gserviceaccount\.com$"
_IMAGE = r"^[a-z0-9./:_-]+@sha256:[0-9a-f]{64}$"

Image = Annotated[str, Field(pattern=_IMAGE)]


class LocalEndpoint(Section):
    """Where one endpoint listens for its clients; its operators have a unix socket."""

    port: Port = Field(description="requests of clients")


class Local(Section):
    """The servers of the place `local`. All listen on 127.0.0.1, model servers on no port."""

    prefect_port: Port
    metrics_port: Port = Field(description="Prometheus metrics of rollouts and endpoints")
    endpoints: dict[Name, LocalEndpoint] = Field(
        description="the same names as in the section endpoints"
    )
    threads: Positive = Field(description="CPU threads of each model server")

    @property
    def ports(self) -> dict[str, int]:
        """Every port, by the dotted path of its setting."""
        single = {
            "local.prefect_port": self.prefect_port,
            "local.metrics_port": self.metrics_port,
        }
        for name, one in self.endpoints.items():
            single[f"local.endpoints.{name}.port"] = one.port
        return single

    def problems(self) -> Iterator[str]:
        known: dict[int, str] = {}
        for path, port in self.ports.items():
            name = path.removeprefix("local.")
            if port in known:
                yield f"{name} (={port}) must differ from {known[port]}: only one could listen"
            known[port] = name


class Gcp(Section):
    """Google Cloud: jobs and endpoints on Vertex AI, `root` in a bucket of the same project."""

    project: Annotated[str, Field(pattern=_GOOGLE_PROJECT)]
    region: Annotated[str, Field(pattern=_REGION)]
    service_account: Annotated[str, Field(pattern=_ACCOUNT)] = Field(
        description="what jobs and servers act as"
    )
    image: Image = Field(description="with the programs of model/, pinned by its digest")


class Kubernetes(Section):
    """A cluster with the Gateway API, `root` in a bucket of S3."""

    context: str = Field(description="of the kubeconfig; '' for the cluster this runs in")
    namespace: Name
    service_account: Name = Field(description="what jobs and servers act as")
    image: Image = Field(description="with the programs of model/, pinned by its digest")
    gateway: Name = Field(description="the Gateway that an endpoint's HTTPRoute belongs to")
    region: Annotated[str, Field(pattern=_REGION)] = Field(description="of the bucket")

"""The place `local`: everything on this machine, all servers on 127.0.0.1.

python -m deployments.local up CONFIG      start or repair the stack
python -m deployments.local status CONFIG  what runs and what serves
python -m deployments.local env CONFIG     variables for a shell that talks to Prefect
python -m deployments.local tokens add NAME CONFIG  let somebody ask (remove, list)
python -m deployments.local down CONFIG    stop all of it; the data stays
"""

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from deployments import Place
from policy.config import Config

if TYPE_CHECKING:
    from deployments.local.endpoint import EnvoyEndpoint
    from deployments.local.envoy.configuration import Guard


def connect(config: Config, server: str = "model.serve", guard: "Guard | None" = None) -> Place:
    """Build the place from the section `local`. Starts nothing. Raises ConfigError.

    Args:
        server: the module that serves a release by the contract of model/README.md.
        guard: what stands before the endpoints, if not what the configuration says.
    """
    from deployments.local.envoy.admin import Admin
    from deployments.local.jobs import LocalJobs
    from deployments.local.layout import layout_of
    from deployments.local.stack.health import health
    from deployments.local.telemetry import EnvoyTelemetry
    from deployments.store import open_store

    layout = layout_of(config)
    store = open_store(config.root, layout.scratch)
    admins = {name: Admin(name, layout.admin_socket(name)) for name in config.endpoints}
    return Place(
        jobs=LocalJobs(config.compute, store, layout.scratch),
        store=store,
        telemetry=EnvoyTelemetry(layout, admins),
        endpoints=endpoints_of(config, server, guard),
        scratch=layout.scratch,
        health=partial(health, config),
    )


def endpoints_of(
    config: Config, server: str = "model.serve", guard: "Guard | None" = None
) -> "Mapping[str, EnvoyEndpoint]":
    """The endpoints alone, by name; see `connect`."""
    from deployments.local.endpoint import EnvoyEndpoint
    from deployments.local.layout import layout_of
    from deployments.store import open_store

    store = open_store(config.root, layout_of(config).scratch)
    return {
        name: EnvoyEndpoint(config, name, store, server, guard) for name in config.endpoints
    }

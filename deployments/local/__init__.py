"""The place `local`: everything on this machine, all servers on 127.0.0.1.

python -m deployments.local up CONFIG      start or repair the stack
python -m deployments.local status CONFIG  what runs and what serves
python -m deployments.local env CONFIG     variables for a shell that talks to Prefect
python -m deployments.local down CONFIG    stop all of it; the data stays
"""

from deployments import Place
from policy.config import Config

# One server process of a version may die without a request lost where two answer.
REPLICAS = {"staging": 1, "production": 2}


def connect(config: Config, server: str = "model.serve") -> Place:
    """Build the place from the section `local`. Starts nothing. Raises ConfigError.

    `server` is the module that serves a release by the contract of model/README.md.
    """
    from deployments.local.admin import Admin
    from deployments.local.endpoint import EnvoyEndpoint, admin_port
    from deployments.local.jobs import LocalJobs
    from deployments.local.layout import layout_of
    from deployments.local.stack import local_of
    from deployments.local.telemetry import EnvoyTelemetry
    from deployments.store import open_store

    local, layout = local_of(config), layout_of(config.root)
    store = open_store(config.root)
    return Place(
        jobs=LocalJobs(config.compute),
        store=store,
        telemetry=EnvoyTelemetry(
            layout, {name: Admin(name, admin_port(local, name)) for name in REPLICAS}
        ),
        endpoints={
            name: EnvoyEndpoint(layout, name, local, store, server=server, replicas=replicas)
            for name, replicas in REPLICAS.items()
        },
    )

